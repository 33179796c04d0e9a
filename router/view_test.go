package router

import (
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/detour-dev/detour/api"
)

// TestRoutes says what people do to the shop, and then: the states of its previews and the routes of Pod api-a, once
// every proxy has acknowledged.
func TestRoutes(t *testing.T) {
	const good = "deployment/api-pr-42 pr-42 routed 2/2"
	const route = "8080 pr-42 deployment/api-pr-42 10.0.0.5:8080"
	for name, test := range map[string]struct {
		edit   func(*objects)
		states []string
		routes []string // of api-a
	}{
		"all is well": {
			edit:   func(*objects) {},
			states: []string{good},
			routes: []string{route},
		},
		"no preview": {
			edit:   func(o *objects) { o.deployments = o.deployments[:2] },
			states: nil,
			routes: nil,
		},

		// How previews are labelled.
		"labels in the Pod template as well": {
			edit: func(o *objects) {
				labelTemplate(o, "api-pr-42", "api", "pr-42")
			},
			states: []string{good},
			routes: []string{route},
		},
		"labels in the Pod template only": {
			edit: func(o *objects) {
				o.deployment("api-pr-42").Labels = nil
				labelTemplate(o, "api-pr-42", "api", "pr-42")
			},
			states: []string{good},
			routes: []string{route},
		},
		"a ReplicaSet kept for a rollback says nothing": {
			edit: func(o *objects) {
				old := o.addReplicaSet("api-pr-42-0", o.deployment("api-pr-42"), previewLabels("api", "pr-41"))
				old.Spec.Replicas, old.Status.Replicas = new(int32), 0
			},
			states: []string{good},
			routes: []string{route},
		},
		"the newest ReplicaSet counts when it is scaled to nothing": {
			edit: func(o *objects) {
				o.deployment("api-pr-42").Labels = nil
				labelTemplate(o, "api-pr-42", "api", "pr-42")
				newest := o.replicaSet("api-pr-42-1")
				newest.Spec.Replicas, newest.Status.Replicas = new(int32), 0
				o.pods = o.pods[:4]
			},
			states: []string{"deployment/api-pr-42 pr-42 not-ready NotReady 2/2"},
			routes: []string{"8080 pr-42 deployment/api-pr-42"},
		},
		"a bare Pod": {
			edit: func(o *objects) {
				o.addPod("mine", "", containerPort("http", 8000), labelled(previewLabels("api", "me")))
			},
			states: []string{"pod/mine me routed 2/2", good},
			routes: []string{"8080 me pod/mine 10.0.0.6:8000", route},
		},
		"a StatefulSet": {
			edit: func(o *objects) {
				set := appsv1.StatefulSet{ObjectMeta: o.meta("statefulset", "set", previewLabels("api", "s"))}
				o.statefulSets = append(o.statefulSets, set)
				o.addPod("set-0", "", containerPort("http", 8000)).OwnerReferences = ownedBy("StatefulSet", "set", set.UID)
			},
			states: []string{good, "statefulset/set s routed 2/2"},
			routes: []string{route, "8080 s statefulset/set 10.0.0.6:8000"},
		},
		"an Argo Rollout, known by its ReplicaSet only": {
			edit: func(o *objects) {
				rs := o.addReplicaSet("canary-1", nil, previewLabels("api", "canary"))
				rs.OwnerReferences = ownedBy("Rollout", "canary", "rollout-canary")
				rs.OwnerReferences[0].APIVersion = "argoproj.io/v1alpha1"
				o.addPod("canary-x", "canary-1", containerPort("http", 8000))
			},
			states: []string{"rollout/canary canary routed 2/2", good},
			routes: []string{"8080 canary rollout/canary 10.0.0.6:8000", route},
		},
		"a Deployment that is being deleted": {
			edit: func(o *objects) {
				labelTemplate(o, "api-pr-42", "api", "pr-42")
				o.deployment("api-pr-42").DeletionTimestamp = &metav1.Time{}
			},
			states: nil,
			routes: nil,
		},
		"a Deployment that is gone before its ReplicaSet and Pods": {
			edit: func(o *objects) {
				labelTemplate(o, "api-pr-42", "api", "pr-42")
				o.deployments = o.deployments[:2]
			},
			states: nil,
			routes: nil,
		},
		"owners in a circle": {
			edit: func(o *objects) {
				rs := o.replicaSet("api-pr-42-1")
				rs.OwnerReferences = ownedBy("ReplicaSet", rs.Name, rs.UID)
				o.addPod("stray", "api-pr-42-1")
			},
			states: []string{"deployment/api-pr-42 pr-42 not-ready NotReady 2/2"},
			routes: []string{"8080 pr-42 deployment/api-pr-42"},
		},

		// What is wrong with previews.
		"an unknown target": {
			edit:   func(o *objects) { o.addPreview("bad", "apii", "pr-1") },
			states: []string{good, "deployment/bad pr-1 invalid UnknownTarget 0/0"},
			routes: []string{route},
		},
		"a target label without a key": {
			edit: func(o *objects) {
				o.addPreview("bad", "api", "")
				delete(o.deployment("bad").Labels, api.LabelKey)
			},
			states: []string{"deployment/bad  invalid InvalidKey 0/0", good},
			routes: []string{route},
		},
		"a key label without a target": {
			edit: func(o *objects) {
				o.addPreview("bad", "", "pr-1")
				delete(o.deployment("bad").Labels, api.LabelTarget)
			},
			states: []string{"deployment/bad pr-1 invalid UnknownTarget 0/0", good},
			routes: []string{route},
		},
		"a headless target": {
			edit: func(o *objects) {
				o.addService("db", map[string]string{"app": "db"}, servicePort("", 5432, intstr.FromInt32(5432))).Spec.ClusterIP = "None"
				o.addPreview("bad", "db", "pr-1")
			},
			states: []string{good, "deployment/bad pr-1 invalid UnsupportedTarget 0/0"},
			routes: []string{route},
		},
		"an ExternalName target": {
			edit: func(o *objects) {
				o.addService("ext", nil).Spec.Type = corev1.ServiceTypeExternalName
				o.addPreview("bad", "ext", "pr-1")
			},
			states: []string{good, "deployment/bad pr-1 invalid UnsupportedTarget 0/0"},
			routes: []string{route},
		},
		"a target without a selector": {
			edit: func(o *objects) {
				o.addService("manual", nil, servicePort("", 80, intstr.FromInt32(80)))
				o.addPreview("bad", "manual", "pr-1")
			},
			states: []string{good, "deployment/bad pr-1 invalid UnsupportedTarget 0/0"},
			routes: []string{route},
		},
		"a target without TCP": {
			edit: func(o *objects) {
				s := o.addService("dns", map[string]string{"app": "dns"}, servicePort("", 53, intstr.FromInt32(53)))
				s.Spec.Ports[0].Protocol = corev1.ProtocolUDP
				o.addPreview("bad", "dns", "pr-1")
			},
			states: []string{good, "deployment/bad pr-1 invalid UnsupportedTarget 0/0"},
			routes: []string{route},
		},
		"a target that does not speak HTTP": {
			edit: func(o *objects) {
				s := o.addService("db", map[string]string{"app": "db"}, servicePort("", 6379, intstr.FromInt32(6379)))
				s.Spec.Ports[0].AppProtocol = new("redis")
				o.addPreview("bad", "db", "pr-1")
			},
			states: []string{good, "deployment/bad pr-1 invalid NotHTTP 0/0"},
			routes: []string{route},
		},
		"a fallback that there is not": {
			edit: func(o *objects) {
				o.addPreview("bad", "api", "pr-1")
				o.deployment("bad").Annotations[api.AnnotationFallback] = "prod"
			},
			states: []string{"deployment/bad pr-1 invalid InvalidFallback 0/0", good},
			routes: []string{route},
		},
		"a preview whose template its target selects": {
			edit: func(o *objects) {
				o.addDeployment("bad", map[string]string{"app": "api"}, previewLabels("api", "pr-1"))
			},
			states: []string{"deployment/bad pr-1 invalid Pollutes 0/0", good},
			routes: []string{route},
		},
		"a preview whose Pod its target selects": {
			edit: func(o *objects) {
				o.addPreview("bad", "api", "pr-1")
				o.pod("bad-x").Labels = map[string]string{"app": "api"}
			},
			// It is a Pod behind the Service, and has no proxy: that is missing, as of any other.
			states: []string{"deployment/bad pr-1 invalid Pollutes 0/0", "deployment/api-pr-42 pr-42 pending 2/3"},
			routes: []string{route},
		},
		"a preview without the named port": {
			edit: func(o *objects) {
				o.addPreview("bad", "api", "pr-1")
				o.pod("bad-x").Spec.Containers[0].Ports[0].Name = "web"
			},
			states: []string{"deployment/bad pr-1 invalid NoPort 0/0", good},
			routes: []string{route},
		},
		"a key that is too long for a host name": {
			edit: func(o *objects) {
				o.deployment("api-pr-42").Labels[api.LabelKey] = strings.Repeat("x", 60)
			},
			states: []string{"deployment/api-pr-42 " + strings.Repeat("x", 60) + " routed (NoHostName) 2/2"},
			routes: []string{"8080 " + strings.Repeat("x", 60) + " deployment/api-pr-42 10.0.0.5:8080"},
		},
		"the same target and key twice: the older wins": {
			edit:   func(o *objects) { o.addPreview("late", "api", "pr-42") },
			states: []string{good, "deployment/late pr-42 conflict Conflict 0/0"},
			routes: []string{route},
		},
		"an invalid older one takes nothing away": {
			edit: func(o *objects) {
				o.addPreview("late", "api", "pr-42")
				o.deployment("api-pr-42").Annotations[api.AnnotationFallback] = "prod"
			},
			states: []string{"deployment/api-pr-42 pr-42 invalid InvalidFallback 0/0", "deployment/late pr-42 routed 2/2"},
			routes: []string{"8080 pr-42 deployment/late 10.0.0.6:8080"},
		},

		// Endpoints.
		"an image that cannot be had": {
			edit:   func(o *objects) { waiting("ImagePullBackOff")(o.pod("api-pr-42-x")) },
			states: []string{"deployment/api-pr-42 pr-42 not-ready NotReady 2/2"},
			routes: []string{"8080 pr-42 deployment/api-pr-42"},
		},
		"fallback to the baseline": {
			edit: func(o *objects) {
				waiting("ImagePullBackOff")(o.pod("api-pr-42-x"))
				o.deployment("api-pr-42").Annotations[api.AnnotationFallback] = api.FallbackBaseline
			},
			states: []string{"deployment/api-pr-42 pr-42 not-ready NotReady 2/2"},
			routes: []string{"8080 pr-42 deployment/api-pr-42 fallback"},
		},
		"several Pods, one of them terminating": {
			edit: func(o *objects) {
				o.addPod("api-pr-42-b", "api-pr-42-1", containerPort("http", 8081))
				o.addPod("api-pr-42-a", "api-pr-42-1", containerPort("http", 8080)).DeletionTimestamp = &metav1.Time{}
			},
			states: []string{good},
			routes: []string{"8080 pr-42 deployment/api-pr-42 10.0.0.6:8081 10.0.0.5:8080"},
		},
		"an injected preview is addressed on the app's own port": {
			edit: func(o *objects) {
				o.pod("api-pr-42-x").Spec.Containers[0].Ports = nil
				injected("http:15401:8088")(o.pod("api-pr-42-x"))
			},
			states: []string{good},
			routes: []string{"8080 pr-42 deployment/api-pr-42 10.0.0.5:8088"},
		},
		"a port that a native sidecar declares": {
			edit: func(o *objects) {
				p := o.pod("api-pr-42-x")
				p.Spec.InitContainers = p.Spec.Containers
				p.Spec.InitContainers[0].RestartPolicy = new(corev1.ContainerRestartPolicyAlways)
				p.Spec.Containers = nil
			},
			states: []string{good},
			routes: []string{route},
		},

		// The baseline.
		"a baseline Pod without a proxy": {
			edit:   func(o *objects) { o.pod("api-b").Spec.InitContainers = nil },
			states: []string{"deployment/api-pr-42 pr-42 pending 1/2"},
			routes: []string{route},
		},
		"a baseline Pod that is not ready does not count": {
			edit: func(o *objects) {
				o.pod("api-b").Spec.InitContainers = nil
				waiting("CrashLoopBackOff")(o.pod("api-b"))
			},
			states: []string{"deployment/api-pr-42 pr-42 routed 1/1"},
			routes: []string{route},
		},
		"no baseline": {
			edit: func(o *objects) {
				waiting("CrashLoopBackOff")(o.pod("api-a"))
				waiting("CrashLoopBackOff")(o.pod("api-b"))
			},
			states: []string{"deployment/api-pr-42 pr-42 pending NoBaseline 0/0"},
			routes: []string{route},
		},
		"a sidecar whose ports cannot be read": {
			edit:   func(o *objects) { o.pod("api-a").Spec.InitContainers[0].Env[0].Value = "nonsense" },
			states: []string{"deployment/api-pr-42 pr-42 pending 1/2"},
			routes: []string{"no table"},
		},
		"a port that the proxies left to the app": {
			edit: func(o *objects) {
				s := o.service("api")
				s.Spec.Ports = append(s.Spec.Ports, servicePort("metrics", 9100, intstr.FromInt32(9100)))
			},
			states: []string{"deployment/api-pr-42 pr-42 routed (PortNotTaken) 2/2"},
			routes: []string{route},
		},

		// Services.
		"appProtocol": {
			edit:   func(o *objects) { o.service("api").Spec.Ports[0].AppProtocol = new("kubernetes.io/h2c") },
			states: []string{good},
			routes: []string{"8080/h2c pr-42 deployment/api-pr-42 10.0.0.5:8080"},
		},
		"Services that disagree on it": {
			edit: func(o *objects) {
				o.service("api").Spec.Ports[0].AppProtocol = new("grpc")
				o.addService("again", map[string]string{"app": "api"}, servicePort("http", 80, intstr.FromString("http"))).
					Spec.Ports[0].AppProtocol = new("http")
			},
			states: []string{good},
			routes: []string{route},
		},
		"two Services before the same Pods, the same key: the older preview gets the port": {
			edit: func(o *objects) {
				o.addService("aaa", map[string]string{"app": "api"}, servicePort("http", 80, intstr.FromString("http")))
				o.addPreview("late", "aaa", "pr-42")
			},
			states: []string{"deployment/late pr-42 pending 0/2", good},
			routes: []string{route},
		},
	} {
		t.Run(name, func(t *testing.T) {
			o := shop()
			test.edit(o)
			v := acknowledged(o)
			if diff := cmp.Diff(test.states, statesOf(v)); diff != "" {
				t.Errorf("states: -want +got\n%s", diff)
			}
			if diff := cmp.Diff(test.routes, routesOf(v, "api-a")); diff != "" {
				t.Errorf("routes: -want +got\n%s", diff)
			}
			for _, table := range v.tables {
				if err := table.Check(); err != nil {
					t.Errorf("a proxy would refuse the table: %v", err)
				}
			}
		})
	}
}

func previewLabels(target, key string) map[string]string {
	return map[string]string{api.LabelTarget: target, api.LabelKey: key}
}

// labelTemplate labels a Deployment's Pod template, and with it the ReplicaSet and the Pod below.
func labelTemplate(o *objects, name, target, key string) {
	for _, labels := range []map[string]string{
		o.deployment(name).Spec.Template.Labels, o.replicaSet(name + "-1").Labels, o.pod(name + "-x").Labels,
	} {
		labels[api.LabelTarget], labels[api.LabelKey] = target, key
	}
}

// TestMessages holds what people read to naming the object, the value and the next step.
func TestMessages(t *testing.T) {
	o := shop()
	o.addPreview("typo", "apii", "pr-1")
	o.addPreview("late", "api", "pr-42")
	o.addPreview("pull", "identity", "pr-2")
	waiting("ImagePullBackOff")(o.pod("pull-x"))
	o.addDeployment("bad", map[string]string{"app": "api"}, previewLabels("api", "pr-3"))
	got := map[string]string{}
	for _, p := range acknowledged(o).status.Previews {
		if p.Problem != nil {
			got[p.Preview] = p.Problem.Message
		}
	}
	want := map[string]string{
		"deployment/typo": `deployment/typo: label detour.dev/target="apii" names no Service of namespace shop: use the name of the Service that it is a preview of`,
		"deployment/late": `deployment/late has the same target "api" and key "pr-42" as deployment/api-pr-42, which is older and gets the requests: change the label detour.dev/key of one of them`,
		"deployment/pull": `deployment/pull has no ready Pod, requests with key "pr-2" are answered 503 until it has (pull-x: ImagePullBackOff)`,
		"deployment/bad":  `deployment/bad: its Pods match the selector of Service api (app=api) and so receive ordinary traffic: give its Pod template another value of one of these labels`,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}

func TestMissing(t *testing.T) {
	for name, test := range map[string]struct {
		edit func(*objects)
		ack  func(api.Acks)
		want string
	}{
		"not injected": {
			edit: func(o *objects) { o.pod("api-b").Spec.InitContainers = nil },
			want: "not injected: restart it",
		},
		"not injected for a reason": {
			edit: func(o *objects) {
				o.pod("api-b").Spec.InitContainers = nil
				o.pod("api-b").Annotations = map[string]string{api.AnnotationNotInjected: "host-network"}
			},
			want: "not injected: host-network",
		},
		"silent": {
			ack:  func(acks api.Acks) { delete(acks, "pod-api-b") },
			want: "has not acknowledged the routes yet",
		},
		"behind": {
			ack:  func(acks api.Acks) { acks["pod-api-b"] = api.PodAck{Ack: api.Ack{Version: "old"}} },
			want: "has not acknowledged the routes yet",
		},
		"not switched": {
			edit: func(o *objects) { o.service("api").Spec.Ports[0].TargetPort = intstr.FromInt32(8080) },
			want: "the Service still leads past its proxy",
		},
		"port not taken": {
			edit: func(o *objects) {
				o.pod("api-b").Spec.Containers[0].Ports = nil
				injected("grpc:15401:7070")(o.pod("api-b"))
				containerPort("http", 8080)(o.pod("api-b"))
				o.pod("api-b").Annotations = map[string]string{api.AnnotationPortsNotTaken: "8080/TCP:host-port"}
			},
			want: "its proxy serves no port of Service api: 8080/TCP:host-port",
		},
	} {
		t.Run(name, func(t *testing.T) {
			o := shop()
			if test.edit != nil {
				test.edit(o)
			}
			o.resolveSlices()
			acks := ackAll(newView("shop", *o, nil))
			if test.ack != nil {
				test.ack(acks)
			}
			p := newView("shop", *o, acks).status.Previews[0]
			if p.State != api.StatePending || p.Of != 2 {
				t.Errorf("%s %d of %d, want it pending of 2", p.State, p.Routed, p.Of)
			}
			missing := p.Missing[len(p.Missing)-1]
			if diff := cmp.Diff(api.Missing{Pod: "api-b", Reason: test.want}, missing); diff != "" {
				t.Errorf("-want +got\n%s", diff)
			}
		})
	}
}

func TestServiceStatus(t *testing.T) {
	o := shop()
	o.addService("headless", map[string]string{"app": "api"}, servicePort("", 80, intstr.FromInt32(8080))).Spec.ClusterIP = "None"
	o.addService("idle", map[string]string{"app": "idle"}, servicePort("", 80, intstr.FromInt32(8080)))
	o.addService("past", map[string]string{"app": "api"}, servicePort("", 80, intstr.FromInt32(8080)))
	o.pod("identity-b").Spec.InitContainers = nil
	want := []api.ServiceStatus{
		{Name: "api", Intercepted: true, Covered: 2, Pods: 2},
		{Name: "headless", Problem: &api.Problem{Reason: "Headless", Message: "Service headless is headless (clusterIP: None): its clients address Pods themselves"}},
		{Name: "identity", Covered: 1, Pods: 2, Problem: &api.Problem{Reason: "NotInjected", Message: "1 of 2 Pods behind Service identity are not reached through their proxy on every port (identity-b: not injected: restart it)"}},
		{Name: "idle", Problem: &api.Problem{Reason: "NoBaseline", Message: "Service idle has no ready Pod"}},
		{Name: "past", Pods: 2, Problem: &api.Problem{Reason: "NotSwitched", Message: "2 of 2 Pods behind Service past are not reached through their proxy on every port (api-a: port 80 still leads past its proxy; api-b: port 80 still leads past its proxy)"}},
	}
	if diff := cmp.Diff(want, acknowledged(o).status.Services); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}

// TestOrderDoesNotMatter is what lets replicas agree without talking.
func TestOrderDoesNotMatter(t *testing.T) {
	o := shop()
	labelTemplate(o, "api-pr-42", "api", "pr-42")
	o.addPreview("late", "api", "pr-42")
	o.addPreview("other", "identity", "pr-42")
	o.addPreview("twin", "api", "pr-43")
	o.deployment("twin").CreationTimestamp = o.deployment("late").CreationTimestamp
	o.addService("again", map[string]string{"app": "api"}, servicePort("http", 81, intstr.FromString("http")))
	o.addPreview("third", "again", "pr-42")
	o.resolveSlices()
	want := newView("shop", *o, nil)
	for range 50 {
		shuffle(o.services)
		shuffle(o.slices)
		shuffle(o.deployments)
		shuffle(o.replicaSets)
		shuffle(o.pods)
		got := newView("shop", *o, nil)
		if diff := cmp.Diff(want, got, cmp.AllowUnexported(view{}), cmp.Comparer(sameAddress)); diff != "" {
			t.Fatalf("the order of the input matters: -want +got\n%s", diff)
		}
	}
}

func shuffle[T any](list []T) {
	rand.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
}

// TestStripKeepsWhatIsRead compares what newView makes of whole objects and of stripped ones.
func TestStripKeepsWhatIsRead(t *testing.T) {
	o := shop()
	o.addPreview("pull", "identity", "pr-2")
	waiting("ImagePullBackOff")(o.pod("pull-x"))
	o.deployment("pull").Annotations[api.AnnotationFallback] = api.FallbackBaseline
	o.addPreview("unscheduled", "identity", "pr-3")
	o.pod("unscheduled-x").Status.Conditions = []corev1.PodCondition{{Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Reason: "Unschedulable"}}
	o.pod("api-b").Annotations = map[string]string{api.AnnotationPortsNotTaken: "9100/TCP:host-port", "secret": "x"}
	o.pod("api-b").Spec.Containers[0].Env = []corev1.EnvVar{{Name: "PASSWORD", Value: "secret"}}
	o.resolveSlices()
	stripped := objects{
		services: stripAll(t, o.services), slices: stripAll(t, o.slices), deployments: stripAll(t, o.deployments),
		replicaSets: stripAll(t, o.replicaSets), pods: stripAll(t, o.pods),
	}
	acks := ackAll(newView("shop", *o, nil))
	if diff := cmp.Diff(newView("shop", *o, acks), newView("shop", stripped, acks), cmp.AllowUnexported(view{}), cmp.Comparer(sameAddress)); diff != "" {
		t.Errorf("-whole +stripped\n%s", diff)
	}
	p := stripped.pod("api-b")
	if p.Annotations["secret"] != "" || len(p.Spec.Containers[0].Env) > 0 {
		t.Errorf("the cache keeps annotations %v and environment %v", p.Annotations, p.Spec.Containers[0].Env)
	}
}

func stripAll[T any](t *testing.T, list []T) []T {
	var stripped []T
	for i := range list {
		s, err := strip(&list[i])
		if err != nil {
			t.Fatal(err)
		}
		stripped = append(stripped, *s.(*T))
	}
	return stripped
}
