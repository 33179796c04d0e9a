package webhook

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	"github.com/detour-dev/detour/api"
)

// testWorkload is a Deployment with these labels, "app=api,tier=web", on its Pod template, and is labelled as a preview
// of a Service, or not.
func testWorkload(target, template string) *workload {
	w := &workload{TypeMeta: metav1.TypeMeta{APIVersion: "apps/v1", Kind: "Deployment"}}
	w.Namespace, w.Name = "shop", "api-pr-42"
	if target != "" {
		w.Labels = map[string]string{api.LabelTarget: target, api.LabelKey: "pr-42"}
	}
	w.Spec.Template.Labels = map[string]string{}
	for pair := range strings.SplitSeq(template, ",") {
		name, value, _ := strings.Cut(pair, "=")
		w.Spec.Template.Labels[name] = value
	}
	return w
}

func TestRefusal(t *testing.T) {
	web, manual, external, headless := testService("web"), testService("manual"), testService("external"), testService("headless")
	web.Spec.Selector = map[string]string{"app": "web", "tier": "front"}
	manual.Spec.Selector = nil
	external.Spec.Type = corev1.ServiceTypeExternalName
	headless.Spec.ClusterIP = corev1.ClusterIPNone
	services := []corev1.Service{testService("api"), testService("api-canary"), web, manual, external, headless}

	const inTemplate = ",detour.dev/target=api,detour.dev/key=pr-42"
	keyless := testWorkload("api", "app=api")
	delete(keyless.Labels, api.LabelKey)
	nameless := testWorkload("api", "app=api")
	nameless.Name, nameless.GenerateName = "", "api-"
	elsewhere, inTemplateElsewhere, here := testWorkload("api", "app=api"), testWorkload("api", "app=api"), testWorkload("api", "app=api")
	elsewhere.Annotations = map[string]string{api.AnnotationTargetNamespace: "other"}
	inTemplateElsewhere.Spec.Template.Annotations = elsewhere.Annotations
	here.Annotations = map[string]string{api.AnnotationTargetNamespace: "shop"}
	here.Spec.Template.Annotations = elsewhere.Annotations
	ofController := testWorkload("", "app=api"+inTemplate)
	ofController.Kind = "ReplicaSet"
	ofController.OwnerReferences = []metav1.OwnerReference{{Kind: "Deployment", Name: "api", Controller: ptr.To(true)}}
	ofControllerBefore := *ofController
	ofControllerBefore.Spec.Template = testWorkload("", "app=api").Spec.Template

	for _, c := range []struct {
		name          string
		before, after *workload
		want          string // what the refusal says, in parts divided by "|"
	}{
		{"a sane preview", nil, testWorkload("api", "app=api-pr-42"), ""},
		{"no preview", nil, testWorkload("", "app=api"), ""},
		{"no key yet", nil, keyless, ""},
		{"no template labels", nil, testWorkload("api", ""), ""},
		{"no such Service", nil, testWorkload("nowhere", "app=api"), ""},
		{"another Service selects its Pods", nil, testWorkload("web", "app=api"), ""},
		{"half of a selector", nil, testWorkload("web", "app=web"), ""},
		{"a Service without a selector", nil, testWorkload("manual", "app=api"), ""},
		{"an ExternalName Service", nil, testWorkload("external", "app=api"), ""},

		{"created", nil, testWorkload("api", "app=api,version=2"),
			"Deployment api-pr-42 cannot be|detour.dev/target=api|Service api selects its Pods (app=api)|another value of app,"},
		{"created, by generateName", nil, nameless, "Deployment api- cannot be"},
		{"two labels", nil, testWorkload("web", "app=web,tier=front"), "(app=web,tier=front)|another value of one of app, tier,"},
		{"a headless Service", nil, testWorkload("headless", "app=api"), "Service headless"},
		{"labelled", testWorkload("", "app=api"), testWorkload("api", "app=api"), "Service api "},
		{"key added", keyless, testWorkload("api", "app=api"), "Service api "},
		{"template changed", testWorkload("api", "app=api-pr-42"), testWorkload("api", "app=api"), "Service api "},
		{"target changed", testWorkload("web", "app=api"), testWorkload("api", "app=api"), "Service api "},
		{"labelled in the template", nil, testWorkload("", "app=api"+inTemplate), "Service api "},
		{"a controller's, labelled", &ofControllerBefore, ofController, "ReplicaSet api-pr-42|Service api "},

		{"it was so before", testWorkload("api", "app=api"), testWorkload("api", "app=api,version=2"), ""},
		{"it was so before, by its template", testWorkload("", "app=api"+inTemplate), testWorkload("api", "app=api"), ""},
		{"it is so no longer", testWorkload("api", "app=api"), testWorkload("", "app=api"), ""},
		{"it was so for another Service", testWorkload("api-canary", "app=api"), testWorkload("api", "app=api"), "Service api "},
		{"a controller's, created", nil, ofController, ""},

		{"of another namespace's Service", nil, elsewhere, ""},
		{"the same, by its template", nil, inTemplateElsewhere, ""},
		{"of its own namespace's, in so many words", nil, here, "Service api "},
		{"of another namespace's before", elsewhere, testWorkload("api", "app=api"), "Service api "},
	} {
		got := refusal(c.before, c.after, services)
		if (got == "") != (c.want == "") {
			t.Errorf("%s: refused with %q, want %q", c.name, got, c.want)
		}
		for part := range strings.SplitSeq(c.want, "|") {
			if !strings.Contains(got, part) {
				t.Errorf("%s: %q does not say %q", c.name, got, part)
			}
		}
	}
}

func TestRefusalMessage(t *testing.T) {
	const want = "Deployment api-pr-42 cannot be a preview (detour.dev/target=api): its Pod template has the labels by which Service api selects its Pods (app=api), " +
		"so its Pods would receive ordinary traffic. Give it another value of app, in spec.template and in spec.selector; where spec.selector is in the way, create it anew"
	got := refusal(nil, testWorkload("api", "app=api"), []corev1.Service{testService("api")})
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}

func TestPreviewIsRefused(t *testing.T) {
	service, elsewhere := testService("api"), testService("web")
	elsewhere.Namespace = "elsewhere"
	a := testAdmitter(t, fake.NewClientBuilder().WithObjects(&service, &elsewhere).Build())
	ask := func(before, after *workload) admissionv1.AdmissionResponse {
		req := request("shop", after)
		if before != nil {
			req.OldObject = request("shop", before).Object
		}
		return a.handler("preview", a.checkWorkload).Handle(t.Context(), req).AdmissionResponse
	}
	if resp := ask(testWorkload("", "app=api"), testWorkload("api", "app=api")); resp.Allowed {
		t.Error("admitted when it was labelled")
	} else if resp.Result.Code != 403 || !strings.Contains(resp.Result.Message, "Service api ") {
		t.Errorf("refused with %d: %s", resp.Result.Code, resp.Result.Message)
	}
	if n := count(t, a.metrics.refused); n != 1 {
		t.Errorf("counted %v times, want once", n)
	}
	for name, resp := range map[string]admissionv1.AdmissionResponse{
		"a sane preview":                        ask(nil, testWorkload("api", "app=api-pr-42")),
		"a change of what pollutes already":     ask(testWorkload("api", "app=api"), testWorkload("api", "app=api,version=2")),
		"a Service of another namespace":        ask(nil, testWorkload("web", "app=api")),
		"the rest of what cannot be understood": ask(nil, &workload{}),
	} {
		if !resp.Allowed || len(resp.Warnings) > 0 {
			t.Errorf("%s: allowed %v with warnings %v", name, resp.Allowed, resp.Warnings)
		}
	}
}
