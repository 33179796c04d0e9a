package view_test

import (
	"fmt"
	"slices"
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

// TestGuests says what people of team-b, and those of the shop, do, and then what the shop's view has.
func TestGuests(t *testing.T) {
	const (
		own      = "deployment/api-pr-42 pr-42 routed 2/2"
		ownRoute = "8080 pr-42 deployment/api-pr-42 10.0.0.5:8080"
		guest    = "team-b/deployment/copy pr-1 routed 2/2"
		route    = "8080 pr-1 team-b/deployment/copy 10.0.0.1:8080"
		refused  = "team-b/deployment/copy pr-1 invalid NotAllowed 0/0"
	)
	allow := func(o *viewtest.Namespace, consent string) {
		metav1.SetMetaDataAnnotation(&service(o, "api").ObjectMeta, api.AnnotationAllow, consent)
	}
	for name, test := range map[string]struct {
		edit   func(shop, teamB *viewtest.Namespace)
		states []string
		routes []string // of api-a
	}{
		"consent": {
			edit:   func(shop, _ *viewtest.Namespace) { allow(shop, "match,namespace/team-b") },
			states: []string{guest, own},
			routes: []string{route, ownRoute},
		},
		"no consent": {
			edit:   func(_, _ *viewtest.Namespace) {},
			states: []string{refused, own},
			routes: []string{ownRoute},
		},
		"consent to others": {
			edit:   func(shop, _ *viewtest.Namespace) { allow(shop, "namespace/team,namespace/team-bb,match") },
			states: []string{refused, own},
			routes: []string{ownRoute},
		},
		"no consent of another Service before the same port": {
			edit: func(shop, _ *viewtest.Namespace) {
				allow(shop, "namespace/team-b")
				shop.AddService("again", map[string]string{"app": "api"}, viewtest.ServicePort("http", 80, intstr.FromString("http")))
			},
			states: []string{refused, own},
			routes: []string{ownRoute},
		},
		"consent to the namespace, but not to a match": {
			edit: func(shop, teamB *viewtest.Namespace) {
				allow(shop, "namespace/team-b")
				teamB.Deployments[0].Annotations[api.AnnotationMatch] = matchAlice
			},
			states: []string{refused, own},
			routes: []string{ownRoute},
		},
		"consent to a match, but not to the namespace": {
			edit: func(shop, teamB *viewtest.Namespace) {
				allow(shop, "match")
				teamB.Deployments[0].Annotations[api.AnnotationMatch] = matchAlice
			},
			states: []string{refused, own},
			routes: []string{ownRoute},
		},
		"consent to both": {
			edit: func(shop, teamB *viewtest.Namespace) {
				allow(shop, "match,namespace/team-b")
				teamB.Deployments[0].Annotations[api.AnnotationMatch] = matchAlice
			},
			states: []string{guest, own},
			routes: []string{route, ownRoute, "8080 match pr-1 [{header x-user exact alice}]"},
		},
		"the same key: the older one of the shop wins": {
			edit: func(shop, teamB *viewtest.Namespace) {
				allow(shop, "namespace/team-b")
				teamB.Deployments[0].Labels[api.LabelKey] = "pr-42"
				teamB.Deployments[0].CreationTimestamp = metav1.NewTime(viewtest.Now)
			},
			states: []string{own, "team-b/deployment/copy pr-42 conflict Conflict 0/0"},
			routes: []string{ownRoute},
		},
		"the same key: the older one of team-b wins": {
			edit: func(shop, teamB *viewtest.Namespace) {
				allow(shop, "namespace/team-b")
				teamB.Deployments[0].Labels[api.LabelKey] = "pr-42"
			},
			states: []string{"team-b/deployment/copy pr-42 routed 2/2", "deployment/api-pr-42 pr-42 conflict Conflict 0/0"},
			routes: []string{"8080 pr-42 team-b/deployment/copy 10.0.0.1:8080"},
		},
		"an older one without consent takes nothing away": {
			edit: func(_, teamB *viewtest.Namespace) {
				teamB.Deployments[0].Labels[api.LabelKey] = "pr-42"
			},
			states: []string{"team-b/deployment/copy pr-42 invalid NotAllowed 0/0", own},
			routes: []string{ownRoute},
		},
		"Pods with the labels that the target selects": {
			edit: func(shop, teamB *viewtest.Namespace) {
				allow(shop, "namespace/team-b")
				teamB.Deployments[0].Spec.Template.Labels["app"] = "api"
				teamB.Pods[0].Labels["app"] = "api"
			},
			states: []string{guest, own},
			routes: []string{route, ownRoute},
		},
		"another Service's": {
			edit: func(shop, teamB *viewtest.Namespace) {
				allow(shop, "namespace/team-b")
				teamB.Deployments[0].Labels[api.LabelTarget] = "identity"
			},
			states: []string{own, refused},
			routes: []string{ownRoute},
		},
		"an unknown target": {
			edit:   func(_, teamB *viewtest.Namespace) { teamB.Deployments[0].Labels[api.LabelTarget] = "apii" },
			states: []string{own, "team-b/deployment/copy pr-1 invalid UnknownTarget 0/0"},
			routes: []string{ownRoute},
		},
		"an unknown fallback": {
			edit: func(shop, teamB *viewtest.Namespace) {
				allow(shop, "namespace/team-b")
				teamB.Deployments[0].Annotations[api.AnnotationFallback] = "prod"
			},
			states: []string{"team-b/deployment/copy pr-1 invalid InvalidFallback 0/0", own},
			routes: []string{ownRoute},
		},
		"Pods that are injected": {
			edit: func(shop, teamB *viewtest.Namespace) {
				allow(shop, "namespace/team-b")
				teamB.Pods[0].Spec.Containers[0].Ports = nil
				viewtest.Injected("http:15401:8088")(&teamB.Pods[0])
			},
			states: []string{guest, own},
			routes: []string{"8080 pr-1 team-b/deployment/copy 10.0.0.1:8088", ownRoute},
		},
		"a preview of team-b's own": {
			edit: func(shop, teamB *viewtest.Namespace) {
				allow(shop, "namespace/team-b")
				teamB.AddPreview("own", "api", "pr-2")
			},
			states: []string{guest, "team-b/deployment/own pr-2 routed 2/2", own},
			routes: []string{route, "8080 pr-2 team-b/deployment/own 10.0.0.2:8080", ownRoute},
		},
	} {
		t.Run(name, func(t *testing.T) {
			shop, teamB := viewtest.Shop(), &viewtest.Namespace{}
			teamB.AddPreview("copy", "api", "pr-1")
			for i := range teamB.Deployments {
				teamB.Deployments[i].Annotations = map[string]string{}
			}
			test.edit(shop, teamB)
			shop.Guests = []view.Workloads{viewtest.Guests("team-b", teamB)}
			v := viewtest.Acknowledged(shop)
			if diff := cmp.Diff(test.states, viewtest.States(v)); diff != "" {
				t.Errorf("states: -want +got\n%s", diff)
			}
			if diff := cmp.Diff(test.routes, routesOf(v, "api-a")); diff != "" {
				t.Errorf("routes: -want +got\n%s", diff)
			}
			if len(v.Tables) != 4 {
				t.Errorf("%d tables, want those of the shop's own Pods", len(v.Tables))
			}
			if ref := v.References["team-b/deployment/copy"]; ref.Namespace != "team-b" || ref.Name != "copy" {
				t.Errorf("Events would go to %v", ref)
			}
		})
	}
}

// TestGuestsThatAreNot has objects of team-b that are no business of the shop's, or pretend to be.
func TestGuestsThatAreNot(t *testing.T) {
	want := viewtest.Acknowledged(viewtest.Shop())
	for name, edit := range map[string]func(*view.Workloads){
		"no annotation":     func(o *view.Workloads) { delete(o.Deployments[0].Annotations, api.AnnotationTargetNamespace) },
		"another namespace": func(o *view.Workloads) { o.Deployments[0].Annotations[api.AnnotationTargetNamespace] = "other" },
		"their own, in so many words": func(o *view.Workloads) {
			o.Deployments[0].Annotations[api.AnnotationTargetNamespace] = "team-b"
		},
		"a Pod that calls a preview of the shop its owner": func(o *view.Workloads) {
			o.Deployments, o.ReplicaSets = nil, nil
			o.Pods[0].OwnerReferences = viewtest.OwnedBy("ReplicaSet", "api-pr-42-1", "replicaset-api-pr-42-1")
			o.Pods[0].Labels = map[string]string{"app": "api"}
		},
	} {
		shop, teamB := viewtest.Shop(), &viewtest.Namespace{}
		teamB.AddPreview("copy", "api", "pr-1")
		guests := viewtest.Guests("team-b", teamB)
		edit(&guests)
		shop.Guests = []view.Workloads{guests}
		service(shop, "api").Annotations = map[string]string{api.AnnotationAllow: "namespace/team-b"}
		if diff := cmp.Diff(want, viewtest.Acknowledged(shop), cmp.Comparer(sameAddress)); diff != "" {
			t.Errorf("%s: -without +with\n%s", name, diff)
		}
	}
}

// TestUninvitedCrowd keeps those whom nobody has asked from filling the ConfigMap.
func TestUninvitedCrowd(t *testing.T) {
	shop, teamB, teamC := viewtest.Shop(), &viewtest.Namespace{}, &viewtest.Namespace{}
	for i := range 30 {
		teamB.AddPreview(fmt.Sprintf("copy-%d", i), "api", fmt.Sprintf("pr-%d", i))
	}
	teamC.AddPreview("copy", "identity", "late")
	teamC.Deployments[0].CreationTimestamp = metav1.NewTime(viewtest.Now)
	service(shop, "identity").Annotations = map[string]string{api.AnnotationAllow: "namespace/team-c"}
	shop.Guests = []view.Workloads{viewtest.Guests("team-b", teamB), viewtest.Guests("team-c", teamC)}
	states := viewtest.States(viewtest.Acknowledged(shop))
	if len(states) != 22 || !slices.Contains(states, "team-c/deployment/copy late routed 2/2") {
		t.Errorf("%d previews, want 20 of team-b and the shop's and team-c's:\n%s", len(states), strings.Join(states, "\n"))
	}
}

// TestAtHome looks at the namespace of previews of other namespaces' Services, which takes part.
func TestAtHome(t *testing.T) {
	for value, want := range map[string]string{
		"shop":  "deployment/api-pr-42 pr-42 routed 2/2",
		"other": "",
		"gone":  "deployment/api-pr-42 pr-42 invalid TargetNotTakingPart 0/0",
		"":      "deployment/api-pr-42 pr-42 invalid InvalidTargetNamespace 0/0",
		"No/Na": "deployment/api-pr-42 pr-42 invalid InvalidTargetNamespace 0/0",
	} {
		o := viewtest.Shop()
		o.Members = map[string]bool{"shop": true, "other": true}
		deployment(o, "api-pr-42").Annotations[api.AnnotationTargetNamespace] = value
		if got := strings.Join(viewtest.States(viewtest.Acknowledged(o)), "\n"); got != want {
			t.Errorf("%q: %q, want %q", value, got, want)
		}
	}
}

// TestAnnotationWithoutLabels has a StatefulSet whose Pods are labelled, and which alone names another namespace: nobody would
// look for its preview from there.
func TestAnnotationWithoutLabels(t *testing.T) {
	o := viewtest.Shop()
	o.Members = map[string]bool{"shop": true, "other": true}
	set := o.AddStatefulSet("db", nil)
	set.Annotations = map[string]string{api.AnnotationTargetNamespace: "other"}
	o.AddPod("db-0", "", viewtest.ContainerPort("http", 8080), func(p *corev1.Pod) {
		p.Labels = previewLabels("api", "pr-7")
		p.OwnerReferences = viewtest.OwnedBy("StatefulSet", "db", set.UID)
	})
	states := func() []string { return viewtest.States(viewtest.Acknowledged(o)) }
	if got := states(); len(got) != 2 || !strings.HasPrefix(got[1], "statefulset/db pr-7 routed") {
		t.Errorf("%q, want it in its own namespace", got)
	}
	o.Pod("db-0").Annotations = set.Annotations
	if got := states(); len(got) != 1 {
		t.Errorf("%q, want the Pod's annotation to count", got)
	}
}

func TestStrays(t *testing.T) {
	o := viewtest.Shop()
	for name, value := range map[string]string{"lost": "nowhere", "bad": "a b", "fine": "other"} {
		o.AddPreview(name, "api", name)
		deployment(o, name).Annotations[api.AnnotationTargetNamespace] = value
	}
	got := map[string]string{}
	for _, s := range view.Strays("shop", o.Workloads, map[string]bool{"other": true}) {
		got[s.Object.Namespace+"/"+s.Object.Name] = s.Problem.Message
	}
	want := map[string]string{
		"shop/lost": `deployment/lost: annotation detour.dev/target-namespace="nowhere" names no namespace that takes part: correct it, or label the namespace detour.dev/inject=enabled`,
		"shop/bad":  `deployment/bad: annotation detour.dev/target-namespace="a b" is not the name of a namespace: use that of the namespace of Service api`,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}

func TestHomes(t *testing.T) {
	object := func(namespace string, annotations map[string]string) metav1.PartialObjectMetadata {
		return metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Annotations: annotations}}
	}
	to := func(namespace string) map[string]string {
		return map[string]string{api.AnnotationTargetNamespace: namespace, "other": "x"}
	}
	labelled := []metav1.PartialObjectMetadata{
		object("shop", nil), object("shop", to("shop")),
		object("team-b", to("shop")), object("team-b", to("bank")), object("team-b", to("shop")), object("team-c", to("")),
	}
	want := map[string]map[string]bool{"team-b": {"shop": true, "bank": true}, "team-c": {"": true}}
	if diff := cmp.Diff(want, view.Homes(labelled)); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	if diff := cmp.Diff(want, view.Homes(stripAll(t, labelled))); diff != "" {
		t.Errorf("stripped: -want +got\n%s", diff)
	}
}
