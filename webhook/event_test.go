package webhook

import (
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/detour-dev/detour/api"
)

func annotated(pod corev1.Pod, annotation, value string) corev1.Pod {
	annotate(&pod, annotation, value)
	return pod
}

func TestNotices(t *testing.T) {
	service := []corev1.Service{testService("api", "8080")}
	inJob := annotated(testPod("once-x"), api.AnnotationNotInjected, "job")
	inJob.OwnerReferences = []metav1.OwnerReference{{Kind: "Job", Name: "once", UID: "j", Controller: ptr.To(true)}}
	leaving := testPod("leaving")
	leaving.DeletionTimestamp = &metav1.Time{}
	preview := testPod("preview")
	preview.Labels[api.LabelTarget] = "api"
	done := testPod("done")
	done.Status.Phase = corev1.PodSucceeded

	for _, c := range []struct {
		name     string
		services []corev1.Service
		pods     []corev1.Pod
		tooOld   bool
		want     []string // reason, object, and a part of the message
	}{
		{"nothing to say", service, []corev1.Pod{testPod("p", "http"), preview, done, leaving}, false, nil},
		{"no services", nil, nil, false, []string{"NoServices Namespace/shop: Create a Service"}},
		{"old pods", service, []corev1.Pod{testPod("a"), testPod("b")}, false,
			[]string{"RestartNeeded Namespace/shop: kubectl rollout restart deployment -n shop"}},
		{"left while injection was suspended", service, []corev1.Pod{annotated(testPod("a"), api.AnnotationNotInjected, "proxy-cannot-start")}, false,
			[]string{"RestartNeeded Namespace/shop: no proxy yet: 1."}},
		{"old server", service, []corev1.Pod{annotated(testPod("a"), api.AnnotationNotInjected, "api-server-too-old")}, true,
			[]string{"APIServerTooOld Namespace/shop: older than 1.33"}},
		{"host network", service, []corev1.Pod{annotated(testPod("p"), api.AnnotationNotInjected, "host-network")}, false,
			[]string{"NotInjected Pod/p: Remove hostNetwork"}},
		{"job", service, []corev1.Pod{inJob}, false, []string{"NotInjected Job/once: belongs to a Job"}},
		{"ports", service, []corev1.Pod{annotated(testPod("p", "http"), api.AnnotationPortsNotTaken, "53/UDP:udp")}, false,
			[]string{"PortsNotTaken Pod/p: 53/UDP:udp"}},
		{"ports of a NetworkPolicy", service, []corev1.Pod{annotated(testPod("p", "http"), api.AnnotationPortsNotTaken, "8080/TCP:network-policy:15401")}, false,
			[]string{"PortsNotTaken Pod/p: admit the last number"}},
		{"no port but those of a NetworkPolicy", service, []corev1.Pod{annotated(testPod("p"), api.AnnotationNotInjected, "network-policy")}, false,
			[]string{"NotInjected Pod/p: Admit those numbers"}},
		{"somebody's own choice", service, []corev1.Pod{annotated(testPod("p"), api.AnnotationNotInjected, "opted-out")}, false, nil},
		{"nonsense", service, []corev1.Pod{annotated(testPod("p"), api.AnnotationNotInjected, "%s\x00")}, false, nil},
	} {
		notices := noticesOf(surroundings{namespace: testNamespace("shop", true), services: c.services}, c.pods, injectionState{tooOld: c.tooOld})
		if len(notices) != len(c.want) {
			t.Errorf("%s: %d notices, want %d: %v", c.name, len(notices), len(c.want), notices)
			continue
		}
		for i, n := range notices {
			head, part, _ := strings.Cut(c.want[i], ": ")
			if got := n.reason + " " + n.object.Kind + "/" + n.object.Name; got != head || !strings.Contains(n.message, part) {
				t.Errorf("%s: got %s: %s, want %s with %q", c.name, got, n.message, head, part)
			}
			if n.object.Namespace != "shop" {
				t.Errorf("%s: the Event goes to namespace %q", c.name, n.object.Namespace)
			}
		}
	}
}

// Every reason either explains itself or is known to be told otherwise.
func TestReasonsAreExplained(t *testing.T) {
	silent := []reason{reasonPreview, reasonOptedOut, reasonTooOld, reasonCannotStart, reasonInjectedAlready}
	for _, r := range []reason{
		reasonHostNetwork, reasonWindows, reasonStatic, reasonJob, reasonPreview, reasonOptedOut, reasonMesh, reasonNoPorts,
		reasonTooOld, reasonNameTaken, reasonNoAccount, reasonNetworkPolicy, reasonLimitRange, reasonQuota, reasonCannotStart, reasonInjectedAlready,
	} {
		if _, explained := r.explain(); explained == slices.Contains(silent, r) {
			t.Errorf("%s: explained %v", r, explained)
		}
	}
}

func TestJournalTellsOnce(t *testing.T) {
	var told events
	now := time.Unix(0, 0)
	j := newJournal(&told, slog.New(slog.DiscardHandler), func() time.Time { return now })
	say := func(object, reason string, settle time.Duration) notice {
		return notice{object: corev1.ObjectReference{Kind: "Pod", Name: object, UID: uid(object)}, reason: reason, settle: settle}
	}
	check := func(step string, want ...string) {
		t.Helper()
		if diff := cmp.Diff(events(want), told); diff != "" {
			t.Errorf("%s: (-want +got)\n%s", step, diff)
		}
		told = nil
	}
	a, b, slow := say("a", "R", 0), say("b", "R", 0), say("n", "S", time.Minute)

	j.tell("shop", []notice{a, a})
	check("new", "R Pod/a")
	j.tell("shop", []notice{a, b})
	check("another", "R Pod/b")
	j.tell("shop", []notice{b})
	j.tell("shop", []notice{a, b})
	check("again after it had ceased", "R Pod/a")
	j.tell("else", []notice{a})
	check("another namespace", "R Pod/a")

	if wait := j.tell("shop", []notice{slow}); wait != time.Minute {
		t.Errorf("comes again after %v, want a minute", wait)
	}
	check("not settled")
	now = now.Add(time.Minute)
	if wait := j.tell("shop", []notice{slow}); wait != 0 {
		t.Errorf("comes again after %v, want never", wait)
	}
	check("settled", "S Pod/n")
}
