package webhook

import (
	"log/slog"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apiversion "k8s.io/apimachinery/pkg/version"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/randfill"
)

func TestConfigIsChecked(t *testing.T) {
	good := Config{Image: "proxy:1", Namespace: "detour-system", Listen: ":9443", Cluster: &rest.Config{}}
	got, err := good.complete()
	if err != nil {
		t.Fatal(err)
	}
	if want := "https://detour-router.detour-system.svc:8443"; got.Router != want {
		t.Errorf("the router is %s, want %s", got.Router, want)
	}
	if diff := cmp.Diff([]string{"detour-webhook.detour-system.svc"}, serverNames(got.Namespace)[secretWebhook]); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	for name, spoil := range map[string]func(*Config){
		"image":     func(c *Config) { c.Image = "" },
		"namespace": func(c *Config) { c.Namespace = "" },
		"cluster":   func(c *Config) { c.Cluster = nil },
		"listen":    func(c *Config) { c.Listen = "9443" },
		"0":         func(c *Config) { c.Listen = ":0" },
	} {
		bad := good
		spoil(&bad)
		if err := Run(t.Context(), bad); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("without %s: error %v does not say so", name, err)
		}
	}
}

type serverVersion string

func (v serverVersion) ServerVersion() (*apiversion.Info, error) {
	return &apiversion.Info{GitVersion: string(v)}, nil
}

func TestServerCheck(t *testing.T) {
	s := &serverCheck{log: slog.New(slog.DiscardHandler)}
	for _, c := range []struct {
		version serverVersion
		old     bool
		bad     bool
	}{
		{"v1.32.9", true, false}, {"nonsense", true, true}, {"v1.33.0", false, false}, {"nonsense", false, true},
		{"v1.31.0-eks-1", true, false}, {"v1.33.0-alpha.1+gke", false, false}, {"v1.40.1+k3s1", false, false},
	} {
		s.server = c.version
		if err := s.check(); (err != nil) != c.bad || s.tooOld() != c.old {
			t.Errorf("%s: too old %v with error %v, want %v", c.version, s.tooOld(), err, c.old)
		}
	}
}

// What the cache keeps is all that decisions are made from.
func TestStrippedObjectsDecideAlike(t *testing.T) {
	cases := injectCases(t)
	for _, c := range cases { // and with the Pods as they become
		c.pod = inject(c.pod, c.around, testSidecar).pod
		cases = append(cases, c)
	}
	for _, c := range cases {
		c.pod.Namespace, c.pod.UID = "shop", "uid"
		c.around.namespace = testNamespace("shop", true)
		pods, around := []corev1.Pod{*c.pod}, c.around.stripped(t)
		slim := strippedAll(t, pods, stripPod)
		for i := range around.services {
			want := planService(&c.around.services[i], admitted(pods, c.around.policies))
			got := planService(&around.services[i], admitted(slim, around.policies))
			if !asPlanned(got, want) {
				t.Errorf("%s: service %s is planned differently", c.name, got.Name)
			}
		}
		private := cmp.AllowUnexported(injection{}, leftPort{}, notice{})
		want, got := inject(c.pod, c.around, testSidecar), inject(c.pod, around, testSidecar)
		if diff := cmp.Diff(want, got, private); diff != "" {
			t.Errorf("%s: injected differently (-whole +stripped)\n%s", c.name, diff)
		}
		if diff := cmp.Diff(noticesOf(c.around, pods, injectionState{}), noticesOf(around, slim, injectionState{}), private); diff != "" {
			t.Errorf("%s: told differently (-whole +stripped)\n%s", c.name, diff)
		}
	}
}

// stripped is what the cache has of everything.
func (s surroundings) stripped(t *testing.T) surroundings {
	return surroundings{
		namespace: s.namespace,
		services:  strippedAll(t, s.services, stripService),
		policies:  strippedAll(t, s.policies, stripPolicy),
		ranges:    strippedAll(t, s.ranges, stripLimitRange),
		quotas:    strippedAll(t, s.quotas, stripQuota),

		autoscalers: strippedAll(t, s.autoscalers, stripAutoscaler),
	}
}

func strippedAll[T any](t *testing.T, list []T, strip func(any) (any, error)) []T {
	t.Helper()
	var all []T
	for i := range list {
		stripped, err := strip(&list[i])
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, *stripped.(*T))
	}
	return all
}

// Any Pod and any Service, sensible or not: nothing panics, and a second application changes nothing.
func TestRandomObjects(t *testing.T) {
	for seed := range int64(300) {
		random := randfill.NewWithSeed(seed).NilChance(0.3).NumElements(0, 4).MaxDepth(12)
		var pod corev1.Pod
		var service corev1.Service
		random.Fill(&pod)
		random.Fill(&service)
		pod.Spec.HostNetwork = false
		if len(service.Spec.Selector) > 0 {
			pod.Labels = service.Spec.Selector
		}
		around := surroundings{
			namespace: testNamespace("shop", true), services: []corev1.Service{service},
			policies: make([]networkingv1.NetworkPolicy, 2), ranges: make([]corev1.LimitRange, 1), quotas: make([]corev1.ResourceQuota, 1),
			autoscalers: make([]autoscalingv2.HorizontalPodAutoscaler, 1),
		}
		random.Fill(&around.policies[0])
		random.Fill(&around.policies[1].Spec.Ingress)
		random.Fill(&around.ranges[0])
		random.Fill(&around.quotas[0])
		random.Fill(&around.autoscalers[0].Spec)
		once := inject(&pod, around, testSidecar)
		if diff := cmp.Diff(once.pod, inject(once.pod, around, testSidecar).pod); diff != "" {
			t.Fatalf("seed %d: (-once +twice)\n%s", seed, diff)
		}
		plan := planService(&service, []corev1.Pod{*once.pod})
		if !asPlanned(plan, planService(plan, []corev1.Pod{*once.pod})) {
			t.Fatalf("seed %d: the plan of the plan differs", seed)
		}
		noticesOf(around, []corev1.Pod{*once.pod}, injectionState{})
	}
}
