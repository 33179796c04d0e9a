package view_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/detour-dev/detour/api"
	"github.com/detour-dev/detour/router/view"
	"github.com/detour-dev/detour/router/view/viewtest"
)

// TestRoutes says what people do to the shop, and then: the states of its previews and the routes of Pod api-a, once
// every proxy has acknowledged.
func TestRoutes(t *testing.T) {
	const good = "deployment/api-pr-42 pr-42 routed 2/2"
	const route = "8080 pr-42 deployment/api-pr-42 10.0.0.5:8080"
	for name, test := range map[string]struct {
		edit   func(*viewtest.Namespace)
		states []string
		routes []string // of api-a
	}{
		"all is well": {
			edit:   func(*viewtest.Namespace) {},
			states: []string{good},
			routes: []string{route},
		},
		"no preview": {
			edit:   func(o *viewtest.Namespace) { o.Deployments = o.Deployments[:2] },
			states: nil,
			routes: nil,
		},

		// How previews are labelled.
		"labels in the Pod template as well": {
			edit: func(o *viewtest.Namespace) {
				labelTemplate(o, "api-pr-42", "api", "pr-42")
			},
			states: []string{good},
			routes: []string{route},
		},
		"labels in the Pod template only": {
			edit: func(o *viewtest.Namespace) {
				deployment(o, "api-pr-42").Labels = nil
				labelTemplate(o, "api-pr-42", "api", "pr-42")
			},
			states: []string{good},
			routes: []string{route},
		},
		"a ReplicaSet kept for a rollback says nothing": {
			edit: func(o *viewtest.Namespace) {
				old := o.AddReplicaSet("api-pr-42-0", deployment(o, "api-pr-42"), previewLabels("api", "pr-41"))
				old.Spec.Replicas, old.Status.Replicas = new(int32), 0
			},
			states: []string{good},
			routes: []string{route},
		},
		"the newest ReplicaSet counts when it is scaled to nothing": {
			edit: func(o *viewtest.Namespace) {
				deployment(o, "api-pr-42").Labels = nil
				labelTemplate(o, "api-pr-42", "api", "pr-42")
				newest := replicaSet(o, "api-pr-42-1")
				newest.Spec.Replicas, newest.Status.Replicas = new(int32), 0
				o.Pods = o.Pods[:4]
			},
			states: []string{"deployment/api-pr-42 pr-42 not-ready NotReady 2/2"},
			routes: []string{"8080 pr-42 deployment/api-pr-42"},
		},
		"a bare Pod": {
			edit: func(o *viewtest.Namespace) {
				o.AddPod("mine", "", viewtest.ContainerPort("http", 8000), labelled(previewLabels("api", "me")))
			},
			states: []string{"pod/mine me routed 2/2", good},
			routes: []string{"8080 me pod/mine 10.0.0.6:8000", route},
		},
		"a StatefulSet": {
			edit: func(o *viewtest.Namespace) {
				set := o.AddStatefulSet("set", previewLabels("api", "s"))
				o.AddPod("set-0", "", viewtest.ContainerPort("http", 8000)).OwnerReferences = viewtest.OwnedBy("StatefulSet", "set", set.UID)
			},
			states: []string{good, "statefulset/set s routed 2/2"},
			routes: []string{route, "8080 s statefulset/set 10.0.0.6:8000"},
		},
		"an Argo Rollout, known by its ReplicaSet only": {
			edit: func(o *viewtest.Namespace) {
				rs := o.AddReplicaSet("canary-1", nil, previewLabels("api", "canary"))
				rs.OwnerReferences = viewtest.OwnedBy("Rollout", "canary", "rollout-canary")
				rs.OwnerReferences[0].APIVersion = "argoproj.io/v1alpha1"
				o.AddPod("canary-x", "canary-1", viewtest.ContainerPort("http", 8000))
			},
			states: []string{"rollout/canary canary routed 2/2", good},
			routes: []string{"8080 canary rollout/canary 10.0.0.6:8000", route},
		},
		"a Deployment that is being deleted": {
			edit: func(o *viewtest.Namespace) {
				labelTemplate(o, "api-pr-42", "api", "pr-42")
				deployment(o, "api-pr-42").DeletionTimestamp = &metav1.Time{}
			},
			states: nil,
			routes: nil,
		},
		"a Deployment that is gone before its ReplicaSet and Pods": {
			edit: func(o *viewtest.Namespace) {
				labelTemplate(o, "api-pr-42", "api", "pr-42")
				o.Deployments = o.Deployments[:2]
			},
			states: nil,
			routes: nil,
		},
		"owners in a circle": {
			edit: func(o *viewtest.Namespace) {
				rs := replicaSet(o, "api-pr-42-1")
				rs.OwnerReferences = viewtest.OwnedBy("ReplicaSet", rs.Name, rs.UID)
				o.AddPod("stray", "api-pr-42-1")
			},
			states: []string{"deployment/api-pr-42 pr-42 not-ready NotReady 2/2"},
			routes: []string{"8080 pr-42 deployment/api-pr-42"},
		},

		// What is wrong with previews.
		"an unknown target": {
			edit:   func(o *viewtest.Namespace) { o.AddPreview("bad", "apii", "pr-1") },
			states: []string{good, "deployment/bad pr-1 invalid UnknownTarget 0/0"},
			routes: []string{route},
		},
		"a target label without a key": {
			edit: func(o *viewtest.Namespace) {
				o.AddPreview("bad", "api", "")
				delete(deployment(o, "bad").Labels, api.LabelKey)
			},
			states: []string{"deployment/bad  invalid InvalidKey 0/0", good},
			routes: []string{route},
		},
		"a key label without a target": {
			edit: func(o *viewtest.Namespace) {
				o.AddPreview("bad", "", "pr-1")
				delete(deployment(o, "bad").Labels, api.LabelTarget)
			},
			states: []string{"deployment/bad pr-1 invalid UnknownTarget 0/0", good},
			routes: []string{route},
		},
		"a headless target": {
			edit: func(o *viewtest.Namespace) {
				o.AddService("db", map[string]string{"app": "db"}, viewtest.ServicePort("", 5432, intstr.FromInt32(5432))).Spec.ClusterIP = "None"
				o.AddPreview("bad", "db", "pr-1")
			},
			states: []string{good, "deployment/bad pr-1 invalid UnsupportedTarget 0/0"},
			routes: []string{route},
		},
		"an ExternalName target": {
			edit: func(o *viewtest.Namespace) {
				o.AddService("ext", nil).Spec.Type = corev1.ServiceTypeExternalName
				o.AddPreview("bad", "ext", "pr-1")
			},
			states: []string{good, "deployment/bad pr-1 invalid UnsupportedTarget 0/0"},
			routes: []string{route},
		},
		"a target without a selector": {
			edit: func(o *viewtest.Namespace) {
				o.AddService("manual", nil, viewtest.ServicePort("", 80, intstr.FromInt32(80)))
				o.AddPreview("bad", "manual", "pr-1")
			},
			states: []string{good, "deployment/bad pr-1 invalid UnsupportedTarget 0/0"},
			routes: []string{route},
		},
		"a target without TCP": {
			edit: func(o *viewtest.Namespace) {
				s := o.AddService("dns", map[string]string{"app": "dns"}, viewtest.ServicePort("", 53, intstr.FromInt32(53)))
				s.Spec.Ports[0].Protocol = corev1.ProtocolUDP
				o.AddPreview("bad", "dns", "pr-1")
			},
			states: []string{good, "deployment/bad pr-1 invalid UnsupportedTarget 0/0"},
			routes: []string{route},
		},
		"a target that does not speak HTTP": {
			edit: func(o *viewtest.Namespace) {
				s := o.AddService("db", map[string]string{"app": "db"}, viewtest.ServicePort("", 6379, intstr.FromInt32(6379)))
				s.Spec.Ports[0].AppProtocol = new("redis")
				o.AddPreview("bad", "db", "pr-1")
			},
			states: []string{good, "deployment/bad pr-1 invalid NotHTTP 0/0"},
			routes: []string{route},
		},
		"a fallback that there is not": {
			edit: func(o *viewtest.Namespace) {
				o.AddPreview("bad", "api", "pr-1")
				deployment(o, "bad").Annotations[api.AnnotationFallback] = "prod"
			},
			states: []string{"deployment/bad pr-1 invalid InvalidFallback 0/0", good},
			routes: []string{route},
		},
		"a ttl that is no duration": {
			edit: func(o *viewtest.Namespace) {
				o.AddPreview("bad", "api", "pr-1")
				deployment(o, "bad").Annotations[api.AnnotationTTL] = "3 days"
				o.AddPreview("worse", "api", "pr-2")
				deployment(o, "worse").Annotations[api.AnnotationTTL] = "-1h"
			},
			states: []string{"deployment/bad pr-1 invalid InvalidTTL 0/0", "deployment/worse pr-2 invalid InvalidTTL 0/0", good},
			routes: []string{route},
		},
		"an update that is no time": {
			edit: func(o *viewtest.Namespace) {
				o.AddPreview("bad", "api", "pr-1")
				deployment(o, "bad").Annotations[api.AnnotationUpdated] = "yesterday"
			},
			states: []string{"deployment/bad pr-1 invalid InvalidUpdated 0/0", good},
			routes: []string{route},
		},
		"an expired one frees its key": {
			edit: func(o *viewtest.Namespace) {
				deployment(o, "api-pr-42").Annotations[api.AnnotationTTL] = "1s"
				o.AddPreview("late", "api", "pr-42")
			},
			states: []string{"deployment/api-pr-42 pr-42 expired Expired 0/0", "deployment/late pr-42 routed 2/2"},
			routes: []string{"8080 pr-42 deployment/late 10.0.0.6:8080"},
		},
		"a preview whose template its target selects": {
			edit: func(o *viewtest.Namespace) {
				o.AddDeployment("bad", map[string]string{"app": "api"}, previewLabels("api", "pr-1"))
			},
			states: []string{"deployment/bad pr-1 invalid Pollutes 0/0", good},
			routes: []string{route},
		},
		"a preview whose Pod its target selects": {
			edit: func(o *viewtest.Namespace) {
				o.AddPreview("bad", "api", "pr-1")
				o.Pod("bad-x").Labels = map[string]string{"app": "api"}
			},
			// It is a Pod behind the Service, and has no proxy: that is missing, as of any other.
			states: []string{"deployment/bad pr-1 invalid Pollutes 0/0", "deployment/api-pr-42 pr-42 pending 2/3"},
			routes: []string{route},
		},
		"a preview whose port is another": {
			edit: func(o *viewtest.Namespace) {
				o.Pod("api-pr-42-x").Spec.Containers[0].Ports[0].Name = "web"
				deployment(o, "api-pr-42").Annotations[api.AnnotationPorts] = "http:web"
			},
			states: []string{good},
			routes: []string{route},
		},
		"a preview whose port is another, by number": {
			edit: func(o *viewtest.Namespace) {
				o.Pod("api-pr-42-x").Spec.Containers[0].Ports = nil
				deployment(o, "api-pr-42").Annotations[api.AnnotationPorts] = "8080:9090"
			},
			states: []string{good},
			routes: []string{"8080 pr-42 deployment/api-pr-42 10.0.0.5:9090"},
		},
		"the same of a Service with a numeric port that has been switched": {
			edit: func(o *viewtest.Namespace) {
				o.AddPreview("other", "identity", "pr-1")
				deployment(o, "other").Annotations[api.AnnotationPorts] = "9090:http"
				service(o, "api").Spec.Selector = nil
				service(o, "identity").Spec.Selector = map[string]string{"app": "api"}
				viewtest.Injected("detour-9090:15401:9090")(o.Pod("api-a"))
				viewtest.Injected("detour-9090:15401:9090")(o.Pod("api-b"))
			},
			states: []string{"deployment/api-pr-42 pr-42 invalid UnsupportedTarget 0/0", "deployment/other pr-1 routed 2/2"},
			routes: []string{"9090 pr-1 deployment/other 10.0.0.6:8080"},
		},
		"a port of one that is injected": {
			edit: func(o *viewtest.Namespace) {
				o.Pod("api-pr-42-x").Spec.Containers[0].Ports = nil
				viewtest.Injected("web:15401:8088")(o.Pod("api-pr-42-x"))
				deployment(o, "api-pr-42").Annotations[api.AnnotationPorts] = "http:web"
			},
			states: []string{good},
			routes: []string{"8080 pr-42 deployment/api-pr-42 10.0.0.5:8088"},
		},
		"ports that the preview does not have": {
			edit: func(o *viewtest.Namespace) {
				deployment(o, "api-pr-42").Annotations[api.AnnotationPorts] = "http:web"
			},
			states: []string{"deployment/api-pr-42 pr-42 invalid NoPort 0/0"},
			routes: nil,
		},
		"ports that the target does not have": {
			edit: func(o *viewtest.Namespace) {
				deployment(o, "api-pr-42").Annotations[api.AnnotationPorts] = "80:9090"
			},
			states: []string{"deployment/api-pr-42 pr-42 invalid InvalidPorts 0/0"},
			routes: nil,
		},
		"ports that nobody can know yet": {
			edit: func(o *viewtest.Namespace) {
				deployment(o, "api-pr-42").Annotations[api.AnnotationPorts] = "80:9090"
				o.Pods = o.Pods[4:]
			},
			states: []string{"deployment/api-pr-42 pr-42 pending NoBaseline 0/0"},
			routes: []string{"no table"},
		},
		"a port that is meant twice": {
			edit: func(o *viewtest.Namespace) {
				deployment(o, "api-pr-42").Annotations[api.AnnotationPorts] = "http:9090,8080:9091"
			},
			states: []string{"deployment/api-pr-42 pr-42 invalid InvalidPorts 0/0"},
			routes: nil,
		},
		"ports that are none": {
			edit: func(o *viewtest.Namespace) {
				deployment(o, "api-pr-42").Annotations[api.AnnotationPorts] = "http=web"
			},
			states: []string{"deployment/api-pr-42 pr-42 invalid InvalidPorts 0/0"},
			routes: nil,
		},
		"a preview without the named port": {
			edit: func(o *viewtest.Namespace) {
				o.AddPreview("bad", "api", "pr-1")
				o.Pod("bad-x").Spec.Containers[0].Ports[0].Name = "web"
			},
			states: []string{"deployment/bad pr-1 invalid NoPort 0/0", good},
			routes: []string{route},
		},
		"a key that is too long for a plain host name": {
			edit: func(o *viewtest.Namespace) {
				deployment(o, "api-pr-42").Labels[api.LabelKey] = strings.Repeat("x", 60)
			},
			states: []string{"deployment/api-pr-42 " + strings.Repeat("x", 60) + " routed 2/2"},
			routes: []string{"8080 " + strings.Repeat("x", 60) + " deployment/api-pr-42 10.0.0.5:8080"},
		},
		"the same target and key twice: the older wins": {
			edit:   func(o *viewtest.Namespace) { o.AddPreview("late", "api", "pr-42") },
			states: []string{good, "deployment/late pr-42 conflict Conflict 0/0"},
			routes: []string{route},
		},
		"an invalid older one takes nothing away": {
			edit: func(o *viewtest.Namespace) {
				o.AddPreview("late", "api", "pr-42")
				deployment(o, "api-pr-42").Annotations[api.AnnotationFallback] = "prod"
			},
			states: []string{"deployment/api-pr-42 pr-42 invalid InvalidFallback 0/0", "deployment/late pr-42 routed 2/2"},
			routes: []string{"8080 pr-42 deployment/late 10.0.0.6:8080"},
		},

		// Requests without the key.
		"a match, and consent": {
			edit:   func(o *viewtest.Namespace) { match(o, "api-pr-42", matchAlice+"\npath prefix /v2/", "match") },
			states: []string{good},
			routes: []string{route, "8080 match pr-42 [{header x-user exact alice} {path  prefix /v2/}]"},
		},
		"no consent": {
			edit: func(o *viewtest.Namespace) {
				o.AddPreview("late", "api", "pr-1")
				match(o, "late", matchAlice, "match")
				delete(service(o, "api").Annotations, api.AnnotationAllow)
			},
			states: []string{"deployment/late pr-1 invalid NotAllowed 0/0", good},
			routes: []string{route},
		},
		"consent to something else": {
			edit: func(o *viewtest.Namespace) {
				o.AddPreview("late", "api", "pr-1")
				match(o, "late", matchAlice, "matches, everything")
			},
			states: []string{"deployment/late pr-1 invalid NotAllowed 0/0", "deployment/api-pr-42 pr-42 routed (UnknownConsent) 2/2"},
			routes: []string{route},
		},
		"consent and more words": {
			edit:   func(o *viewtest.Namespace) { match(o, "api-pr-42", matchAlice, "everything,match") },
			states: []string{"deployment/api-pr-42 pr-42 routed (UnknownConsent) 2/2"},
			routes: []string{route, "8080 match pr-42 [{header x-user exact alice}]"},
		},
		"another Service before the same port, without consent": {
			edit: func(o *viewtest.Namespace) {
				match(o, "api-pr-42", matchAlice, "match")
				o.AddService("again", map[string]string{"app": "api"}, viewtest.ServicePort("http", 80, intstr.FromString("http")))
			},
			states: []string{"deployment/api-pr-42 pr-42 invalid NotAllowed 0/0"},
			routes: nil,
		},
		"the same with consent": {
			edit: func(o *viewtest.Namespace) {
				match(o, "api-pr-42", matchAlice, "match")
				o.AddService("again", map[string]string{"app": "api"}, viewtest.ServicePort("http", 80, intstr.FromString("http"))).
					Annotations = map[string]string{api.AnnotationAllow: "match"}
			},
			states: []string{good},
			routes: []string{route, "8080 match pr-42 [{header x-user exact alice}]"},
		},
		"another Service before another port of the same Pods": {
			edit: func(o *viewtest.Namespace) {
				match(o, "api-pr-42", matchAlice, "match")
				o.AddService("again", map[string]string{"app": "api"}, viewtest.ServicePort("rpc", 80, intstr.FromInt32(9090)))
			},
			states: []string{good},
			routes: []string{route, "8080 match pr-42 [{header x-user exact alice}]"},
		},
		"several matches: the oldest preview's first": {
			edit: func(o *viewtest.Namespace) {
				o.AddPreview("late", "api", "a-key-that-sorts-first")
				match(o, "late", "header x-user present", "match")
				match(o, "api-pr-42", matchAlice, "match")
			},
			states: []string{"deployment/late a-key-that-sorts-first routed 2/2", good},
			routes: []string{
				"8080 a-key-that-sorts-first deployment/late 10.0.0.6:8080", route,
				"8080 match pr-42 [{header x-user exact alice}]", "8080 match a-key-that-sorts-first [{header x-user present }]",
			},
		},
		"a match that is none": {
			edit: func(o *viewtest.Namespace) {
				o.AddPreview("bad", "api", "pr-1")
				match(o, "bad", "header x-user regex (", "match")
				o.AddPreview("worse", "api", "pr-2")
				match(o, "worse", "", "match")
			},
			states: []string{"deployment/bad pr-1 invalid InvalidMatch 0/0", "deployment/worse pr-2 invalid InvalidMatch 0/0", good},
			routes: []string{route},
		},
		"a share, and consent": {
			edit:   func(o *viewtest.Namespace) { percent(o, "api-pr-42", "12.5", "percent") },
			states: []string{good},
			routes: []string{route, "8080 match pr-42 [{share  percent 12.5}]"},
		},
		"a share of those that match": {
			edit: func(o *viewtest.Namespace) {
				match(o, "api-pr-42", matchAlice, "")
				percent(o, "api-pr-42", "10 by cookie S", "percent, match")
			},
			states: []string{good},
			routes: []string{route, "8080 match pr-42 [{header x-user exact alice} {share cookie S percent 10}]"},
		},
		"consent to matches, but to no share": {
			edit: func(o *viewtest.Namespace) {
				match(o, "api-pr-42", matchAlice, "")
				percent(o, "api-pr-42", "10", "match")
			},
			states: []string{"deployment/api-pr-42 pr-42 invalid NotAllowed 0/0"},
			routes: nil,
		},
		"consent to a share, but to no matches": {
			edit: func(o *viewtest.Namespace) {
				match(o, "api-pr-42", matchAlice, "")
				percent(o, "api-pr-42", "10", "percent")
			},
			states: []string{"deployment/api-pr-42 pr-42 invalid NotAllowed 0/0"},
			routes: nil,
		},
		"a share that is none, and one condition too many": {
			edit: func(o *viewtest.Namespace) {
				o.AddPreview("bad", "api", "pr-1")
				percent(o, "bad", "120", "percent")
				o.AddPreview("more", "api", "pr-2")
				percent(o, "more", "10", "percent")
				match(o, "more", strings.Repeat(matchAlice+"\n", 8), "percent,match")
			},
			states: []string{"deployment/bad pr-1 invalid InvalidPercent 0/0", "deployment/more pr-2 invalid InvalidPercent 0/0", good},
			routes: []string{route},
		},
		"shares, the oldest preview's first, and what is left": {
			edit: func(o *viewtest.Namespace) {
				o.AddPreview("late", "api", "a-key-that-sorts-first")
				percent(o, "late", "10", "percent")
				percent(o, "api-pr-42", "10", "percent")
			},
			states: []string{"deployment/late a-key-that-sorts-first routed 2/2", good},
			routes: []string{
				"8080 a-key-that-sorts-first deployment/late 10.0.0.6:8080", route,
				"8080 match pr-42 [{share  percent 10}]", "8080 match a-key-that-sorts-first [{share  percent 10}]",
			},
		},
		"an older one gets all that would be left": {
			edit: func(o *viewtest.Namespace) {
				match(o, "api-pr-42", matchAlice, "")
				o.AddPreview("late", "api", "pr-50")
				match(o, "late", "path prefix /v2/\n"+matchAlice, "")
				percent(o, "late", "10", "percent,match")
			},
			states: []string{good, "deployment/late pr-50 routed (MatchShadowed) 2/2"},
			routes: []string{
				route, "8080 pr-50 deployment/late 10.0.0.6:8080", "8080 match pr-42 [{header x-user exact alice}]",
				"8080 match pr-50 [{path  prefix /v2/} {header x-user exact alice} {share  percent 10}]",
			},
		},
		"a mirror, and consent": {
			edit:   func(o *viewtest.Namespace) { mirror(o, "api-pr-42", "mirror", "mirror") },
			states: []string{good},
			routes: []string{route, "8080 mirror pr-42 []"},
		},
		"a mirror of a share of what matches needs no other consent": {
			edit: func(o *viewtest.Namespace) {
				match(o, "api-pr-42", matchAlice, "")
				percent(o, "api-pr-42", "10", "")
				mirror(o, "api-pr-42", "mirror", "mirror")
			},
			states: []string{good},
			routes: []string{route, "8080 mirror pr-42 [{header x-user exact alice} {share  percent 10}]"},
		},
		"consent to all but mirrors": {
			edit:   func(o *viewtest.Namespace) { mirror(o, "api-pr-42", "mirror", "match,percent") },
			states: []string{"deployment/api-pr-42 pr-42 invalid NotAllowed 0/0"},
			routes: nil,
		},
		"forward is what is done anyhow": {
			edit:   func(o *viewtest.Namespace) { mirror(o, "api-pr-42", "forward", "mirror") },
			states: []string{good},
			routes: []string{route},
		},
		"forwarded matches need their own consent": {
			edit: func(o *viewtest.Namespace) {
				match(o, "api-pr-42", matchAlice, "")
				mirror(o, "api-pr-42", "forward", "mirror")
			},
			states: []string{"deployment/api-pr-42 pr-42 invalid NotAllowed 0/0"},
			routes: nil,
		},
		"a mode that is none": {
			edit: func(o *viewtest.Namespace) {
				o.AddPreview("bad", "api", "pr-1")
				mirror(o, "bad", "Mirror", "mirror")
			},
			states: []string{"deployment/bad pr-1 invalid InvalidMode 0/0", good},
			routes: []string{route},
		},
		"mirrors beside matches, the oldest preview's first": {
			edit: func(o *viewtest.Namespace) {
				mirror(o, "api-pr-42", "mirror", "")
				match(o, "api-pr-42", "path prefix /v2/", "")
				o.AddPreview("late", "api", "pr-50")
				mirror(o, "late", "mirror", "")
				o.AddPreview("led", "api", "pr-60")
				match(o, "led", "path prefix /v2/", "mirror,match")
			},
			states: []string{good, "deployment/late pr-50 routed 2/2", "deployment/led pr-60 routed 2/2"},
			routes: []string{
				route, "8080 pr-50 deployment/late 10.0.0.6:8080", "8080 pr-60 deployment/led 10.0.0.7:8080",
				"8080 match pr-60 [{path  prefix /v2/}]", "8080 mirror pr-42 [{path  prefix /v2/}]", "8080 mirror pr-50 []",
			},
		},
		"an older mirror of all": {
			edit: func(o *viewtest.Namespace) {
				mirror(o, "api-pr-42", "mirror", "")
				o.AddPreview("late", "api", "pr-50")
				match(o, "late", matchAlice, "")
				mirror(o, "late", "mirror", "mirror")
			},
			states: []string{good, "deployment/late pr-50 routed (MatchShadowed) 2/2"},
			routes: []string{
				route, "8080 pr-50 deployment/late 10.0.0.6:8080", "8080 mirror pr-42 []", "8080 mirror pr-50 [{header x-user exact alice}]",
			},
		},

		// Endpoints.
		"an image that cannot be had": {
			edit:   func(o *viewtest.Namespace) { viewtest.Waiting("ImagePullBackOff")(o.Pod("api-pr-42-x")) },
			states: []string{"deployment/api-pr-42 pr-42 not-ready NotReady 2/2"},
			routes: []string{"8080 pr-42 deployment/api-pr-42"},
		},
		"fallback to the baseline": {
			edit: func(o *viewtest.Namespace) {
				viewtest.Waiting("ImagePullBackOff")(o.Pod("api-pr-42-x"))
				deployment(o, "api-pr-42").Annotations[api.AnnotationFallback] = api.FallbackBaseline
			},
			states: []string{"deployment/api-pr-42 pr-42 not-ready NotReady 2/2"},
			routes: []string{"8080 pr-42 deployment/api-pr-42 fallback"},
		},
		"several Pods, one of them terminating": {
			edit: func(o *viewtest.Namespace) {
				o.AddPod("api-pr-42-b", "api-pr-42-1", viewtest.ContainerPort("http", 8081))
				o.AddPod("api-pr-42-a", "api-pr-42-1", viewtest.ContainerPort("http", 8080)).DeletionTimestamp = &metav1.Time{}
			},
			states: []string{good},
			routes: []string{"8080 pr-42 deployment/api-pr-42 10.0.0.6:8081 10.0.0.5:8080"},
		},
		"an injected preview is addressed on the app's own port": {
			edit: func(o *viewtest.Namespace) {
				o.Pod("api-pr-42-x").Spec.Containers[0].Ports = nil
				viewtest.Injected("http:15401:8088")(o.Pod("api-pr-42-x"))
			},
			states: []string{good},
			routes: []string{"8080 pr-42 deployment/api-pr-42 10.0.0.5:8088"},
		},
		"a port that a native sidecar declares": {
			edit: func(o *viewtest.Namespace) {
				p := o.Pod("api-pr-42-x")
				p.Spec.InitContainers = p.Spec.Containers
				p.Spec.InitContainers[0].RestartPolicy = new(corev1.ContainerRestartPolicyAlways)
				p.Spec.Containers = nil
			},
			states: []string{good},
			routes: []string{route},
		},

		// The baseline.
		"a baseline Pod without a proxy": {
			edit:   func(o *viewtest.Namespace) { o.Pod("api-b").Spec.InitContainers = nil },
			states: []string{"deployment/api-pr-42 pr-42 pending 1/2"},
			routes: []string{route},
		},
		"a baseline Pod that is not ready does not count": {
			edit: func(o *viewtest.Namespace) {
				o.Pod("api-b").Spec.InitContainers = nil
				viewtest.Waiting("CrashLoopBackOff")(o.Pod("api-b"))
			},
			states: []string{"deployment/api-pr-42 pr-42 routed 1/1"},
			routes: []string{route},
		},
		"no baseline": {
			edit: func(o *viewtest.Namespace) {
				viewtest.Waiting("CrashLoopBackOff")(o.Pod("api-a"))
				viewtest.Waiting("CrashLoopBackOff")(o.Pod("api-b"))
			},
			states: []string{"deployment/api-pr-42 pr-42 pending NoBaseline 0/0"},
			routes: []string{route},
		},
		"a sidecar whose ports cannot be read": {
			edit:   func(o *viewtest.Namespace) { o.Pod("api-a").Spec.InitContainers[0].Env[0].Value = "nonsense" },
			states: []string{"deployment/api-pr-42 pr-42 pending 1/2"},
			routes: []string{"no table"},
		},
		"a port that the proxies left to the app": {
			edit: func(o *viewtest.Namespace) {
				s := service(o, "api")
				s.Spec.Ports = append(s.Spec.Ports, viewtest.ServicePort("metrics", 9100, intstr.FromInt32(9100)))
			},
			states: []string{"deployment/api-pr-42 pr-42 routed (PortNotTaken) 2/2"},
			routes: []string{route},
		},

		// Services.
		"appProtocol": {
			edit:   func(o *viewtest.Namespace) { service(o, "api").Spec.Ports[0].AppProtocol = new("kubernetes.io/h2c") },
			states: []string{good},
			routes: []string{"8080/h2c pr-42 deployment/api-pr-42 10.0.0.5:8080"},
		},
		"Services that disagree on it": {
			edit: func(o *viewtest.Namespace) {
				service(o, "api").Spec.Ports[0].AppProtocol = new("grpc")
				o.AddService("again", map[string]string{"app": "api"}, viewtest.ServicePort("http", 80, intstr.FromString("http"))).
					Spec.Ports[0].AppProtocol = new("http")
			},
			states: []string{good},
			routes: []string{route},
		},
		"two Services before the same Pods, the same key: the older preview gets the port": {
			edit: func(o *viewtest.Namespace) {
				o.AddService("aaa", map[string]string{"app": "api"}, viewtest.ServicePort("http", 80, intstr.FromString("http")))
				o.AddPreview("late", "aaa", "pr-42")
			},
			states: []string{"deployment/late pr-42 pending 0/2", good},
			routes: []string{route},
		},
	} {
		t.Run(name, func(t *testing.T) {
			o := viewtest.Shop()
			test.edit(o)
			v := viewtest.Acknowledged(o)
			if diff := cmp.Diff(test.states, viewtest.States(v)); diff != "" {
				t.Errorf("states: -want +got\n%s", diff)
			}
			if diff := cmp.Diff(test.routes, routesOf(v, "api-a")); diff != "" {
				t.Errorf("routes: -want +got\n%s", diff)
			}
			for _, table := range v.Tables {
				if err := table.Check(); err != nil {
					t.Errorf("a proxy would refuse the table: %v", err)
				}
			}
		})
	}
}

// TestMessages holds what people read to naming the object, the value and the next step.
func TestMessages(t *testing.T) {
	o := viewtest.Shop()
	o.AddPreview("typo", "apii", "pr-1")
	o.AddPreview("late", "api", "pr-42")
	o.AddPreview("pull", "identity", "pr-2")
	viewtest.Waiting("ImagePullBackOff")(o.Pod("pull-x"))
	o.AddDeployment("bad", map[string]string{"app": "api"}, previewLabels("api", "pr-3"))
	for name, ports := range map[string]string{"garbled": "8080", "stray": "80:9090", "mapped": "http:web"} {
		o.AddPreview(name, "api", name)
		deployment(o, name).Annotations[api.AnnotationPorts] = ports
	}
	o.AddPreview("forever", "api", "pr-4")
	deployment(o, "forever").Annotations[api.AnnotationTTL] = "forever"
	o.AddPreview("old", "api", "pr-5")
	deployment(o, "old").Annotations[api.AnnotationTTL] = "1m"
	for name, conditions := range map[string]string{"matched": matchAlice, "mismatched": matchAlice + "\npath is /"} {
		o.AddPreview(name, "identity", name)
		match(o, name, conditions, "")
	}
	o.AddPreview("uneven", "identity", "pr-6")
	percent(o, "uneven", "150 by header x-user", "")
	o.AddPreview("copied", "identity", "pr-7")
	mirror(o, "copied", "mirror", "")
	o.AddPreview("moody", "identity", "pr-8")
	mirror(o, "moody", "shadow", "")
	delete(service(o, "api").Annotations, api.AnnotationAllow)
	got := map[string]string{}
	for _, p := range viewtest.Acknowledged(o).Status.Previews {
		if p.Problem != nil {
			got[p.Preview] = p.Problem.Message
		}
	}
	want := map[string]string{
		"deployment/typo": `deployment/typo: label detour.dev/target="apii" names no Service of namespace shop: use the name of the Service that it is a preview of`,
		"deployment/late": `deployment/late has the same target "api" and key "pr-42" as deployment/api-pr-42, which is older and gets the requests: change the label detour.dev/key of one of them`,
		"deployment/pull": `deployment/pull has no ready Pod, requests with key "pr-2" are answered 503 until it has (pull-x: ImagePullBackOff)`,
		"deployment/bad":  `deployment/bad: its Pods match the selector of Service api (app=api) and so receive ordinary traffic: give its Pod template another value of one of these labels`,

		"deployment/garbled":    `deployment/garbled: annotation detour.dev/ports: "8080": want target:preview, such as 8080:9090`,
		"deployment/stray":      `deployment/stray: annotation detour.dev/ports: 80 is no port that Service api leads to: use one of its targetPorts (http)`,
		"deployment/mapped":     `deployment/mapped: its Pods declare no port named web, where requests to Service api are to go: name the container's port so, or say in annotation detour.dev/ports which of its ports it is`,
		"deployment/matched":    `deployment/matched: annotation detour.dev/match would lead away requests to Service identity that do not have the key: have the Service's annotation detour.dev/allow include "match" if that is all right, or remove the annotation`,
		"deployment/uneven":     `deployment/uneven: annotation detour.dev/percent="150 by header x-user": "150" is no percentage: want a number from 0 to 100 with up to two decimals`,
		"deployment/copied":     `deployment/copied: annotation detour.dev/mode would copy requests to Service identity that do not have the key: have the Service's annotation detour.dev/allow include "mirror" if that is all right, or remove the annotation`,
		"deployment/moody":      `deployment/moody: annotation detour.dev/mode="shadow": want "forward" or "mirror"`,
		"deployment/mismatched": `deployment/mismatched: annotation detour.dev/match: line 2, "path is /": "is" is no test: want "exact", "prefix", "regex" or, of a header, "present"`,
		"deployment/forever":    `deployment/forever: annotation detour.dev/ttl="forever" is no positive duration in hours, minutes and seconds, such as 72h or 1h30m`,
		"deployment/old":        `deployment/old has expired at 2026-01-02T03:05:36Z, requests with key "pr-5" go to the baseline: delete it, or set annotation detour.dev/updated to the present time to begin its detour.dev/ttl anew`,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}

// TestUnknownConsent names the words, as far as there is room.
func TestUnknownConsent(t *testing.T) {
	o := viewtest.Shop()
	match(o, "api-pr-42", matchAlice, "Match,match,*,all,a,b")
	got := viewtest.Acknowledged(o).Status.Previews[0].Warnings
	want := []api.Problem{{
		Reason:  "UnknownConsent",
		Message: `Service api: annotation detour.dev/allow has words that consent to nothing ("Match"; "*"; "all"; and 2 more): those that do are match, percent, mirror and namespace/<name>`,
	}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}

// TestMatchShadowed: only an older preview of the same Service that takes all of them, and not just a share, is in the way.
func TestMatchShadowed(t *testing.T) {
	const want = "deployment/late gets no requests but those with its key: all others that it asks for, or copies of them, go to deployment/api-pr-42, which is older: have one of them ask for something else"
	for name, c := range map[string]struct {
		older, olderShare, late, lateShare string
		shadowed                           bool
	}{
		"the same":               {matchAlice, "", matchAlice, "", true},
		"a share of the same":    {matchAlice, "", matchAlice, "10", true},
		"one condition more":     {matchAlice, "", matchAlice + "\npath prefix /", "", true},
		"one condition less":     {matchAlice + "\npath prefix /", "", matchAlice, "", false},
		"another":                {matchAlice, "", "header x-user exact bob", "", false},
		"the rest of a share":    {matchAlice, "10", matchAlice, "10", false},
		"the older has none":     {"", "", matchAlice, "", false},
		"the younger has none":   {matchAlice, "", "", "", false},
		"neither asks for more":  {"", "", "", "", false},
		"a share of all, to all": {"", "10", "", "10", false},
	} {
		o := viewtest.Shop()
		o.AddPreview("late", "api", "pr-50")
		for preview, text := range map[string]string{"api-pr-42": c.older, "late": c.late} {
			if text != "" {
				match(o, preview, text, "match,percent")
			}
		}
		for preview, text := range map[string]string{"api-pr-42": c.olderShare, "late": c.lateShare} {
			if text != "" {
				percent(o, preview, text, "match,percent")
			}
		}
		var wanted []api.Problem
		if c.shadowed {
			wanted = []api.Problem{{Reason: "MatchShadowed", Message: want}}
		}
		previews := viewtest.Acknowledged(o).Status.Previews
		if diff := cmp.Diff([][]api.Problem{nil, wanted}, [][]api.Problem{previews[0].Warnings, previews[1].Warnings}); diff != "" {
			t.Errorf("%s: -want +got\n%s", name, diff)
		}
	}
}

func TestMissing(t *testing.T) {
	for name, test := range map[string]struct {
		edit func(*viewtest.Namespace)
		ack  func(api.Acks)
		want string
	}{
		"not injected": {
			edit: func(o *viewtest.Namespace) { o.Pod("api-b").Spec.InitContainers = nil },
			want: "not injected: restart it",
		},
		"not injected for a reason": {
			edit: func(o *viewtest.Namespace) {
				o.Pod("api-b").Spec.InitContainers = nil
				o.Pod("api-b").Annotations = map[string]string{api.AnnotationNotInjected: "host-network"}
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
		"too old": {
			edit: func(o *viewtest.Namespace) { match(o, "api-pr-42", matchAlice, "match") },
			ack: func(acks api.Acks) {
				old := acks["pod-api-b"]
				old.Knows = nil
				acks["pod-api-b"] = old
			},
			want: "its proxy is too old for detour.dev/match, and leads only requests with the key there: restart it",
		},
		"too old for a share": {
			edit: func(o *viewtest.Namespace) { percent(o, "api-pr-42", "10", "percent") },
			ack: func(acks api.Acks) {
				old := acks["pod-api-b"]
				old.Knows = []string{api.KnowsMatches}
				acks["pod-api-b"] = old
			},
			want: "its proxy is too old for detour.dev/percent, and leads only requests with the key there: restart it",
		},
		"too old for mirrors": {
			edit: func(o *viewtest.Namespace) { mirror(o, "api-pr-42", "mirror", "mirror") },
			ack: func(acks api.Acks) {
				old := acks["pod-api-b"]
				old.Knows = []string{api.KnowsMatches}
				acks["pod-api-b"] = old
			},
			want: "its proxy is too old for detour.dev/mode, and leads only requests with the key there: restart it",
		},
		"not switched": {
			edit: func(o *viewtest.Namespace) { service(o, "api").Spec.Ports[0].TargetPort = intstr.FromInt32(8080) },
			want: "the Service still leads past its proxy",
		},
		"port not taken": {
			edit: func(o *viewtest.Namespace) {
				o.Pod("api-b").Spec.Containers[0].Ports = nil
				viewtest.Injected("grpc:15401:7070")(o.Pod("api-b"))
				viewtest.ContainerPort("http", 8080)(o.Pod("api-b"))
				o.Pod("api-b").Annotations = map[string]string{api.AnnotationPortsNotTaken: "8080/TCP:host-port"}
			},
			want: "its proxy serves no port of Service api: 8080/TCP:host-port",
		},
		"no such port any more": {
			edit: func(o *viewtest.Namespace) {
				o.Pod("api-b").Spec.Containers[0].Ports = nil
				viewtest.Injected("web:15401:8080")(o.Pod("api-b"))
			},
			want: "it has no port named http, where Service api leads: name its port so, or correct the Service's targetPort",
		},
	} {
		t.Run(name, func(t *testing.T) {
			o := viewtest.Shop()
			if test.edit != nil {
				test.edit(o)
			}
			o.ResolveSlices()
			acks := viewtest.Acks(view.New("shop", o.Objects, nil, viewtest.Now))
			if test.ack != nil {
				test.ack(acks)
			}
			p := view.New("shop", o.Objects, acks, viewtest.Now).Status.Previews[0]
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

// TestMissingIsCut keeps the ConfigMap small when a large Service is rolled out.
func TestMissingIsCut(t *testing.T) {
	o := viewtest.Shop()
	for i := range 500 {
		o.AddPod(fmt.Sprintf("api-%d", i), "api-1") // without a proxy
	}
	v := viewtest.Acknowledged(o)
	var got api.Status
	if err := json.Unmarshal([]byte(v.Text), &got); err != nil {
		t.Fatal(err)
	}
	if inText, all := len(got.Previews[0].Missing), len(v.Status.Previews[0].Missing); inText != 10 || all != 500 {
		t.Errorf("%d in the ConfigMap, %d in the status, want 10 and 500", inText, all)
	}
}

func TestServiceStatus(t *testing.T) {
	o := viewtest.Shop()
	o.AddService("headless", map[string]string{"app": "api"}, viewtest.ServicePort("", 80, intstr.FromInt32(8080))).Spec.ClusterIP = "None"
	o.AddService("idle", map[string]string{"app": "idle"}, viewtest.ServicePort("", 80, intstr.FromInt32(8080)))
	o.AddService("past", map[string]string{"app": "api"}, viewtest.ServicePort("", 80, intstr.FromInt32(8080)))
	o.Pod("identity-b").Spec.InitContainers = nil
	want := []api.ServiceStatus{
		{Name: "api", Intercepted: true, Covered: 2, Pods: 2},
		{Name: "headless", Problem: &api.Problem{Reason: "Headless", Message: "Service headless is headless (clusterIP: None): its clients address Pods themselves"}},
		{Name: "identity", Covered: 1, Pods: 2, Problem: &api.Problem{Reason: "NotInjected", Message: "1 of 2 Pods behind Service identity are not reached through their proxy on every port (identity-b: not injected: restart it)"}},
		{Name: "idle", Problem: &api.Problem{Reason: "NoBaseline", Message: "Service idle has no ready Pod"}},
		{Name: "past", Pods: 2, Problem: &api.Problem{Reason: "NotSwitched", Message: "2 of 2 Pods behind Service past are not reached through their proxy on every port (api-a: port 80 still leads past its proxy; api-b: port 80 still leads past its proxy)"}},
	}
	if diff := cmp.Diff(want, viewtest.Acknowledged(o).Status.Services); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}

// TestOrderDoesNotMatter is what lets replicas agree without talking.
func TestOrderDoesNotMatter(t *testing.T) {
	o := viewtest.Shop()
	labelTemplate(o, "api-pr-42", "api", "pr-42")
	o.AddPreview("late", "api", "pr-42")
	o.AddPreview("other", "identity", "pr-42")
	o.AddPreview("twin", "api", "pr-43")
	deployment(o, "twin").CreationTimestamp = deployment(o, "late").CreationTimestamp
	o.AddService("again", map[string]string{"app": "api"}, viewtest.ServicePort("http", 81, intstr.FromString("http")))
	o.AddPreview("third", "again", "pr-42")
	for _, home := range []string{"team-b", "team-c"} {
		guests := &viewtest.Namespace{}
		guests.AddPreview("copy", "api", "pr-42")
		guests.AddPreview("copy-2", "api", "pr-44")
		o.Guests = append(o.Guests, viewtest.Guests(home, guests))
	}
	service(o, "api").Annotations = map[string]string{api.AnnotationAllow: "namespace/team-b,namespace/team-c"}
	service(o, "again").Annotations = service(o, "api").Annotations
	o.ResolveSlices()
	want := view.New("shop", o.Objects, nil, viewtest.Now)
	for range 50 {
		shuffle(o.Services)
		shuffle(o.EndpointSlices)
		shuffle(o.Deployments)
		shuffle(o.ReplicaSets)
		shuffle(o.Guests)
		shuffle(o.Pods)
		got := view.New("shop", o.Objects, nil, viewtest.Now)
		if diff := cmp.Diff(want, got, cmp.Comparer(sameAddress)); diff != "" {
			t.Fatalf("the order of the input matters: -want +got\n%s", diff)
		}
	}
}

func shuffle[T any](list []T) {
	rand.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
}

func TestInstances(t *testing.T) {
	o := viewtest.Shop()
	x := o.Pod("api-pr-42-x")
	x.Spec.Containers = append(x.Spec.Containers, corev1.Container{Name: "cache", Image: "redis:8"})
	x.Spec.Containers[0].Image = "registry.example/api:3f2c1ab"
	x.Status.ContainerStatuses = []corev1.ContainerStatus{{RestartCount: 2}, {RestartCount: 1}}
	o.AddPod("api-pr-42-y", "api-pr-42-1", viewtest.Waiting("ImagePullBackOff"))
	v := viewtest.Acknowledged(o)
	want := []api.Instance{
		{Pod: "api-pr-42-x", Images: []string{"registry.example/api:3f2c1ab", "redis:8"}, Restarts: 3},
		{Pod: "api-pr-42-y", Images: []string{""}, Unready: "ImagePullBackOff"},
	}
	if diff := cmp.Diff(want, v.Status.Previews[0].Instances); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	if strings.Contains(v.Text, "instances") {
		t.Errorf("the ConfigMap would change with every restart:\n%s", v.Text)
	}
}

// TestStripKeepsWhatIsRead compares what New makes of whole objects and of stripped ones.
func TestStripKeepsWhatIsRead(t *testing.T) {
	o := viewtest.Shop()
	o.AddPreview("pull", "identity", "pr-2")
	viewtest.Waiting("ImagePullBackOff")(o.Pod("pull-x"))
	deployment(o, "pull").Annotations = map[string]string{
		api.AnnotationFallback: api.FallbackBaseline, api.AnnotationTTL: "72h", api.AnnotationUpdated: "2026-01-02T04:00:00Z",
	}
	deployment(o, "api-pr-42").Annotations = map[string]string{api.AnnotationPorts: "http:http"}
	o.AddPreview("unscheduled", "identity", "pr-3")
	o.Pod("unscheduled-x").Status.Conditions = []corev1.PodCondition{{Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Reason: "Unschedulable"}}
	o.Pod("unscheduled-x").Spec.Containers[0].Image = "registry.example/identity:3f2c1ab"
	o.Pod("unscheduled-x").Status.ContainerStatuses = []corev1.ContainerStatus{{RestartCount: 3}}
	o.Pod("api-b").Annotations = map[string]string{api.AnnotationPortsNotTaken: "9100/TCP:host-port", "secret": "x"}
	o.Pod("api-b").Spec.Containers[0].Env = []corev1.EnvVar{{Name: "PASSWORD", Value: "secret"}}
	match(o, "api-pr-42", matchAlice, "match,everything")
	o.AddPreview("share", "api", "pr-4")
	percent(o, "share", "10", "")
	o.AddPreview("copied", "api", "pr-5")
	mirror(o, "copied", "mirror", "match,percent,mirror,everything")
	o.ResolveSlices()
	var stripped viewtest.Namespace
	stripped.Services, stripped.EndpointSlices = stripAll(t, o.Services), stripAll(t, o.EndpointSlices)
	stripped.Deployments, stripped.ReplicaSets = stripAll(t, o.Deployments), stripAll(t, o.ReplicaSets)
	stripped.Pods = stripAll(t, o.Pods)
	acks := viewtest.Acks(view.New("shop", o.Objects, nil, viewtest.Now))
	if diff := cmp.Diff(view.New("shop", o.Objects, acks, viewtest.Now), view.New("shop", stripped.Objects, acks, viewtest.Now), cmp.Comparer(sameAddress)); diff != "" {
		t.Errorf("-whole +stripped\n%s", diff)
	}
	p := stripped.Pod("api-b")
	if p.Annotations["secret"] != "" || len(p.Spec.Containers[0].Env) > 0 {
		t.Errorf("the cache keeps annotations %v and environment %v", p.Annotations, p.Spec.Containers[0].Env)
	}
}

func stripAll[T any](t *testing.T, list []T) []T {
	var stripped []T
	for i := range list {
		s, err := view.Strip(&list[i])
		if err != nil {
			t.Fatal(err)
		}
		stripped = append(stripped, *s.(*T))
	}
	return stripped
}
