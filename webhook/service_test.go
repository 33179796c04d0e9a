package webhook

import (
	"fmt"
	"math/rand"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/detour-dev/detour/api"
)

// target reads "8080" and "http" as a manifest does.
func target(s string) intstr.IntOrString {
	return intstr.Parse(s)
}

// testService selects app=api and has one TCP port for each target, numbered from 80.
func testService(name string, targets ...string) corev1.Service {
	service := corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name},
		Spec:       corev1.ServiceSpec{Selector: map[string]string{"app": "api"}},
	}
	for i, t := range targets {
		service.Spec.Ports = append(service.Spec.Ports, corev1.ServicePort{Port: int32(80 + i), TargetPort: target(t)})
	}
	return service
}

// testPod is labelled app=api and has a proxy with ports of these names, or none.
func testPod(name string, ports ...string) corev1.Pod {
	pod := corev1.Pod{ObjectMeta: metav1.ObjectMeta{
		Namespace: "shop", Name: name, UID: uid(name), Labels: map[string]string{"app": "api"},
	}, Spec: corev1.PodSpec{ServiceAccountName: "default"}}
	if len(ports) > 0 {
		proxy := corev1.Container{Name: api.ContainerProxy}
		for i, name := range ports {
			proxy.Ports = append(proxy.Ports, corev1.ContainerPort{Name: name, ContainerPort: int32(15400 + i)})
		}
		pod.Spec.InitContainers = []corev1.Container{proxy}
	}
	return pod
}

func targets(service *corev1.Service) []string {
	var got []string
	for _, p := range service.Spec.Ports {
		got = append(got, p.TargetPort.String())
	}
	return got
}

func TestPlanService(t *testing.T) {
	covered, bare := testPod("covered", "detour-8080", "detour-9000", "http"), testPod("bare")
	half := testPod("half", "detour-8080")
	elsewhere := testPod("elsewhere")
	elsewhere.Labels["app"] = "web"
	failed, succeeded, deleted := testPod("failed"), testPod("succeeded"), testPod("deleted")
	failed.Status.Phase, succeeded.Status.Phase = corev1.PodFailed, corev1.PodSucceeded
	deleted.DeletionTimestamp = &metav1.Time{}
	udp := testService("udp", "8080")
	udp.Spec.Ports[0].Protocol = corev1.ProtocolUDP
	headless := testService("headless", "8080")
	headless.Spec.ClusterIP = corev1.ClusterIPNone
	external := testService("external", "8080")
	external.Spec.Type = corev1.ServiceTypeExternalName
	manual := testService("manual", "8080")
	manual.Spec.Selector = nil

	for _, c := range []struct {
		name    string
		service corev1.Service
		pods    []corev1.Pod
		want    []string
		note    string
	}{
		{"every pod has the name", testService("s", "8080"), []corev1.Pod{covered, half}, []string{"detour-8080"}, "80:8080"},
		{"there is no pod", testService("s", "8080"), nil, []string{"8080"}, ""},
		{"a pod has no proxy", testService("s", "8080"), []corev1.Pod{covered, bare}, []string{"8080"}, ""},
		{"a proxy lacks one name", testService("s", "8080", "9000"), []corev1.Pod{covered, half}, []string{"detour-8080", "9000"}, "80:8080"},
		{"two ports, one number", testService("s", "8080", "8080"), []corev1.Pod{covered}, []string{"detour-8080", "detour-8080"}, "80:8080,81:8080"},
		{"a bare pod is another service's", testService("s", "8080"), []corev1.Pod{covered, elsewhere}, []string{"detour-8080"}, "80:8080"},
		{"bare pods have ended", testService("s", "8080"), []corev1.Pod{covered, failed, succeeded}, []string{"detour-8080"}, "80:8080"},
		{"only ended pods", testService("s", "8080"), []corev1.Pod{failed}, []string{"8080"}, ""},
		{"a bare pod is going", testService("s", "8080"), []corev1.Pod{covered, deleted}, []string{"8080"}, ""},
		{"back", testService("s", "detour-8080"), []corev1.Pod{covered, bare}, []string{"8080"}, ""},
		{"stays", testService("s", "detour-8080"), []corev1.Pod{covered}, []string{"detour-8080"}, "80:8080"},
		{"the user's own name", testService("s", "http"), []corev1.Pod{covered}, []string{"http"}, ""},
		{"a name that only looks like ours", testService("s", "detour-metrics", "detour-0"), []corev1.Pod{covered}, []string{"detour-metrics", "detour-0"}, ""},
		{"UDP", udp, []corev1.Pod{covered}, []string{"8080"}, ""},
		{"headless", headless, []corev1.Pod{covered}, []string{"8080"}, ""},
		{"ExternalName", external, []corev1.Pod{covered}, []string{"8080"}, ""},
		{"no selector", manual, []corev1.Pod{covered}, []string{"8080"}, ""},
		{"a number that is none", testService("s", "70000"), []corev1.Pod{covered}, []string{"70000"}, ""},
	} {
		plan := planService(&c.service, c.pods)
		if diff := cmp.Diff(c.want, targets(plan)); diff != "" {
			t.Errorf("%s: (-want +got)\n%s", c.name, diff)
		}
		if got := plan.Annotations[api.AnnotationTargetPorts]; got != c.note {
			t.Errorf("%s: annotated %q, want %q", c.name, got, c.note)
		}
	}
}

// A targetPort that was left out is the port itself; going back writes it as the API server would have.
func TestPlanServiceWithoutTargetPort(t *testing.T) {
	service := testService("s", "0")
	service.Spec.Ports[0].TargetPort = intstr.IntOrString{}
	plan := planService(&service, []corev1.Pod{testPod("p", "detour-80")})
	if got := targets(plan)[0]; got != "detour-80" {
		t.Errorf("switched to %s, want detour-80", got)
	}
	if got := targets(planService(plan, nil))[0]; got != "80" {
		t.Errorf("went back to %s, want 80", got)
	}
}

// Whatever the Services and Pods are: the order of Pods decides nothing, a plan is its own plan, it is undone without
// a trace, and it leads nowhere that some Pod does not have.
func TestPlanServiceProperties(t *testing.T) {
	for seed := range int64(2000) {
		random := rand.New(rand.NewSource(seed))
		service, pods := randomService(random), randomPods(random)
		plan := planService(&service, pods)

		shuffled := append([]corev1.Pod(nil), pods...)
		random.Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
		if diff := cmp.Diff(plan, planService(&service, shuffled)); diff != "" {
			t.Fatalf("seed %d: the order of Pods changed the plan\n%s", seed, diff)
		}
		if diff := cmp.Diff(plan, planService(plan, pods)); diff != "" {
			t.Fatalf("seed %d: the plan of the plan differs\n%s", seed, diff)
		}
		if plans := planServices([]corev1.Service{*plan}, pods); len(plans) > 0 {
			t.Fatalf("seed %d: there is something left to do: %v", seed, targets(plans[0]))
		}
		if diff := cmp.Diff(targets(&service), targets(planService(plan, nil))); diff != "" {
			t.Fatalf("seed %d: not undone (-original +undone)\n%s", seed, diff)
		}
		for _, port := range plan.Spec.Ports {
			if _, ours := api.OriginalPort(port.TargetPort.StrVal); ours && !everyPodHas(pods, port.TargetPort.StrVal) {
				t.Fatalf("seed %d: %s is not in every Pod", seed, port.TargetPort.StrVal)
			}
		}
	}
}

func everyPodHas(pods []corev1.Pod, name string) bool {
	for i := range pods {
		if !ended(&pods[i]) && !proxyNames(&pods[i])[name] {
			return false
		}
	}
	return true
}

func randomService(r *rand.Rand) corev1.Service {
	choices := []string{"8080", "9000", "http", "70000"}
	var picked []string
	for range r.Intn(4) {
		picked = append(picked, choices[r.Intn(len(choices))])
	}
	return testService("s", picked...)
}

func randomPods(r *rand.Rand) []corev1.Pod {
	var pods []corev1.Pod
	for i := range r.Intn(4) {
		names := [][]string{nil, {"detour-8080"}, {"detour-8080", "detour-9000"}, {"detour-9000", "http"}}
		pod := testPod(fmt.Sprint("pod-", i), names[r.Intn(len(names))]...)
		pod.Status.Phase = []corev1.PodPhase{corev1.PodRunning, corev1.PodPending, corev1.PodFailed}[r.Intn(3)]
		pods = append(pods, pod)
	}
	return pods
}
