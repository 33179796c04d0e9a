//go:build integration

package integration

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/detour-dev/detour/api"
)

// TestPreviewOfAnotherNamespace has a namespace that does not take part make a preview of a Service of one that does.
func TestPreviewOfAnotherNamespace(t *testing.T) {
	newNamespace(t, "host")
	newHome(t, "team-b")
	service := newService("host", "api", intstr.FromString("http"))
	create(t, service)
	baseline := newPod("host", "api-1", map[string]string{"app": "api"}, 8080)
	create(t, baseline)
	makeReady(t, baseline, "198.18.128.30")
	create(t, endpointSlice(service, baseline, int32(takenPorts(t, baseline)[0].Listen)))
	token := tokenFor(t, baseline)
	next := openStream(t, token)

	const name = "team-b/deployment/api-pr-42"
	deployment, pod := newPreview(t, "team-b", "api-pr-42", "api", "pr-42")
	makeReady(t, pod, "198.18.128.31")
	annotate(t, deployment, api.AnnotationTargetNamespace, "host")
	refused := waitForState(t, "host", name, api.StateInvalid)
	if refused.Problem.Reason != "NotAllowed" || !strings.Contains(refused.Problem.Message, `include "namespace/team-b"`) {
		t.Errorf("without consent its problem is %v", refused.Problem)
	}
	waitForEvent(t, deployment, "NotAllowed")

	annotate(t, service, api.AnnotationAllow, "namespace/team-b")
	want := []api.Port{{Port: 8080, Routes: []api.Route{{
		Key: "pr-42", Preview: name,
		Endpoints: []api.Endpoint{{Pod: "team-b/" + pod.Name, Address: netip.MustParseAddrPort("198.18.128.31:8080")}},
	}}}}
	var table api.Table
	for !cmp.Equal(table.Ports, want, cmpopts.EquateComparable(netip.AddrPort{})) {
		table = next()
	}
	acknowledge(t, token, api.Ack{Version: table.Version})
	waitForState(t, "host", name, api.StateRouted)
	waitForEvent(t, deployment, "Routed")

	// The plugin, with no rights in team-b.
	viewer := newDeveloper(t, "host", "detour-previews")
	for _, args := range [][]string{{"list", "-o", "wide"}, {"status", "pr-42"}} {
		if a := viewer.detour(t, args...); a.code != 0 || !strings.Contains(a.out, name) {
			t.Errorf("%v: exit code %d, %q and %q", args, a.code, a.out, a.errOut)
		}
	}
	create(t, newPolicy("team-b", "api-pr-42", 8080)) // admits none but Pods of team-b
	viewer.detour(t, "doctor").check(t, 0, "not looked at: no right to read namespace team-b, where a preview is from (ask for the role detour-previews of manifests/roles)", "")
	admin := &developer{kubeconfig: viewer.kubeconfig, namespace: "host", account: "admin", groups: []string{"system:masters"}}
	barred := admin.detour(t, "doctor", "pr-42")
	barred.check(t, 6, "error    "+name+": the proxy of Pod api-1 cannot reach it, and answers its requests 503: NetworkPolicies (api-pr-42) do not admit it to Pod api-pr-42-1-x, port 8080", "")
	barred.check(t, 6, "kubectl edit networkpolicy api-pr-42 -n team-b", "")
	annotate(t, deployment, api.AnnotationTTL, "1ms")
	waitForState(t, "host", name, api.StateExpired)
	waitForEvent(t, deployment, "Expired")
	viewer.detour(t, "gc").check(t, 0, "", name+" stays: it is a preview of namespace host's from another")
	annotate(t, deployment, api.AnnotationTTL, "1h")
	waitForState(t, "host", name, api.StateRouted)

	// Its namespace takes part, and no longer does.
	home := namespaceNamed("team-b")
	relabel(t, home, api.InjectEnabled)
	waitForState(t, "host", name, api.StateRouted)
	relabel(t, home, "")

	annotate(t, service, api.AnnotationAllow, "namespace/team-c")
	for len(next().Ports) != 0 {
	}
	waitForState(t, "host", name, api.StateInvalid)
}

// TestPreviewOfNowhere tells the owner of a preview that no status has.
func TestPreviewOfNowhere(t *testing.T) {
	newHome(t, "stray")
	for value, reason := range map[string]string{"Not_A_Name": "InvalidTargetNamespace", "nowhere": "TargetNotTakingPart"} {
		deployment := newDeployment("stray", "api-"+strings.ToLower(reason), map[string]string{"app": reason})
		deployment.Labels = map[string]string{api.LabelTarget: "api", api.LabelKey: "pr-42"}
		deployment.Annotations = map[string]string{api.AnnotationTargetNamespace: value}
		create(t, deployment)
		waitForEvent(t, deployment, reason)
	}
	var events corev1.EventList
	if err := kube.List(t.Context(), &events, client.InNamespace("stray")); err != nil {
		t.Fatal(err)
	}
	if len(events.Items) != 2 {
		t.Errorf("%d Events, want one of each preview", len(events.Items))
	}

	// Where its namespace takes part, the status has it.
	newNamespace(t, "stray-member")
	deployment, _ := newPreview(t, "stray-member", "api-pr-1", "api", "pr-1")
	annotate(t, deployment, api.AnnotationTargetNamespace, "nowhere")
	for waitForState(t, "stray-member", "deployment/api-pr-1", api.StateInvalid).Problem.Reason != "TargetNotTakingPart" {
	}
	waitForEvent(t, deployment, "TargetNotTakingPart")
}

// TestPreviewElsewhereIsNoPolluter admits what its own namespace's Service of that name selects.
func TestPreviewElsewhereIsNoPolluter(t *testing.T) {
	newNamespace(t, "own-api")
	create(t, newService("own-api", "web", intstr.FromInt32(8080)))
	polluting := func() *appsv1.Deployment {
		d := newDeployment("own-api", "web", map[string]string{"app": "web"})
		d.Labels = asPreview
		return d
	}
	eventually(t, "the webhook knows the Service", func() error {
		return refused(kube.Create(t.Context(), polluting(), client.DryRunAll))
	})
	deployment := polluting()
	deployment.Annotations = map[string]string{api.AnnotationTargetNamespace: "own-api"}
	if err := refused(kube.Create(t.Context(), deployment)); err != nil {
		t.Errorf("a preview of its own namespace's Service, in so many words: %v", err)
	}
	deployment.Annotations[api.AnnotationTargetNamespace] = "host"
	create(t, deployment)
	before := deployment.DeepCopy()
	deployment.Annotations = nil
	if err := refused(kube.Patch(t.Context(), deployment, client.MergeFrom(before))); err != nil {
		t.Errorf("without the annotation again: %v", err)
	}
}

// newHome makes a namespace that does not take part.
func newHome(t *testing.T, name string) {
	t.Helper()
	create(t, namespaceNamed(name))
	create(t, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "default", Namespace: name}})
}

// relabel has a namespace take part, or not with "".
func relabel(t *testing.T, namespace *corev1.Namespace, value string) {
	t.Helper()
	content := `{"metadata":{"labels":{"` + api.LabelInject + `":null}}}`
	if value != "" {
		content = strings.Replace(content, "null", `"`+value+`"`, 1)
	}
	if err := kube.Patch(t.Context(), namespace, client.RawPatch("application/merge-patch+json", []byte(content))); err != nil {
		t.Fatal(err)
	}
}
