package webhook

import (
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"

	"github.com/detour-dev/detour/api"
)

var noon = time.Date(2030, 1, 1, 12, 0, 0, 0, time.UTC)

// aged has a Pod be created before noon.
func aged(pod corev1.Pod, age time.Duration) corev1.Pod {
	pod.CreationTimestamp = metav1.NewTime(noon.Add(-age))
	return pod
}

// stuck is an injected Pod, an hour old at noon, whose proxy waits for this reason.
func stuck(name, why string) corev1.Pod {
	pod := aged(testPod(name, "detour-8080"), time.Hour)
	pod.Status.InitContainerStatuses = []corev1.ContainerStatus{
		{Name: "setup", State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "CrashLoopBackOff"}}},
		{Name: api.ContainerProxy, State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: why}}},
	}
	return pod
}

func leftOut(name string, age time.Duration) corev1.Pod {
	return aged(annotated(testPod(name), api.AnnotationNotInjected, string(reasonCannotStart)), age)
}

func TestCannotStart(t *testing.T) {
	for reason, want := range map[string]bool{
		"ImagePullBackOff": true, "ErrImagePull": true, "InvalidImageName": true, "CreateContainerConfigError": true,
		"CreateContainerError": true, "RunContainerError": true, "CrashLoopBackOff": true,
		"PodInitializing": false, "ContainerCreating": false, "": false,
	} {
		if pod := stuck("p", reason); cannotStart(&pod) != want {
			t.Errorf("waiting for %q: %v, want %v", reason, !want, want)
		}
	}
	running := corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}
	over := corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: 1}}
	for name, c := range map[string]struct {
		status corev1.ContainerStatus
		want   bool
	}{
		"starting":                 {corev1.ContainerStatus{State: running, Started: ptr.To(false)}, false},
		"started":                  {corev1.ContainerStatus{State: running, Started: ptr.To(true)}, false},
		"the first crash":          {corev1.ContainerStatus{State: over}, false},
		"another try":              {corev1.ContainerStatus{State: running, RestartCount: 1}, true},
		"another crash":            {corev1.ContainerStatus{State: over, RestartCount: 2}, true},
		"started on the third try": {corev1.ContainerStatus{State: running, RestartCount: 2, Started: ptr.To(true)}, false},
	} {
		c.status.Name = api.ContainerProxy
		pod := testPod("p", "detour-8080")
		pod.Status.InitContainerStatuses = []corev1.ContainerStatus{c.status}
		if cannotStart(&pod) != c.want {
			t.Errorf("%s: %v, want %v", name, !c.want, c.want)
		}
	}
	if pod := testPod("p"); cannotStart(&pod) {
		t.Error("a Pod without a proxy cannot start")
	}
}

func TestSuspension(t *testing.T) {
	a, b, healthy := stuck("a", "ImagePullBackOff"), stuck("b", "CrashLoopBackOff"), testPod("healthy", "detour-8080")
	ended := stuck("ended", "ImagePullBackOff")
	ended.Status.Phase = corev1.PodFailed
	optedOut := aged(annotated(testPod("out"), api.AnnotationNotInjected, "opted-out"), time.Minute)
	at := func(d time.Duration) string { return noon.Add(d).Format(time.RFC3339) }

	for _, c := range []struct {
		name  string
		pods  []corev1.Pod
		retry string
		want  suspension
	}{
		{"no pods", nil, "", suspension{}},
		{"all is well", []corev1.Pod{healthy, optedOut}, "", suspension{}},
		{"one fails", []corev1.Pod{a, healthy}, "", suspension{failing: []string{"a"}}},
		{"one fails, one has ended", []corev1.Pod{a, ended}, "", suspension{failing: []string{"a"}}},
		{"two fail", []corev1.Pod{b, healthy, a}, "", suspension{active: true, failing: []string{"a", "b"}}},

		{"one still fails", []corev1.Pod{a, leftOut("l", time.Minute)}, "", suspension{active: true, failing: []string{"a"}}},
		{"one still fails after long", []corev1.Pod{a, leftOut("l", time.Hour)}, "", suspension{active: true, failing: []string{"a"}}},
		{"none fails any more", []corev1.Pod{healthy, leftOut("l", time.Hour), leftOut("m", 4*time.Minute)}, "", suspension{active: true, ends: 6 * time.Minute}},
		{"none fails for long", []corev1.Pod{healthy, leftOut("l", 10*time.Minute)}, "", suspension{}},

		{"told, failures from before", []corev1.Pod{a, b, leftOut("l", time.Minute)}, at(-time.Second), suspension{}},
		{"told, failures from afterwards", []corev1.Pod{a, b}, at(-time.Hour), suspension{active: true, failing: []string{"a", "b"}}},
		{"told, another zone", []corev1.Pod{a, b}, "2030-01-01T13:00:00+01:00", suspension{}},
		{"told, in a moment", []corev1.Pod{a, b}, at(30 * time.Second), suspension{active: true, failing: []string{"a", "b"}, ends: 30 * time.Second}},
		{"told, in a moment, none fails any more", []corev1.Pod{leftOut("l", 0)}, at(30 * time.Second), suspension{active: true, ends: 30 * time.Second}},
		{"told, in a hundred years", []corev1.Pod{a, b}, at(876000 * time.Hour), suspension{active: true, failing: []string{"a", "b"}, ends: resumeAfter}},
		{"told, nothing to resume", []corev1.Pod{a}, at(time.Minute), suspension{failing: []string{"a"}}},
		{"told nonsense", []corev1.Pod{a, b}, "now", suspension{active: true, failing: []string{"a", "b"}, wrongRetry: "now"}},
	} {
		namespace := testNamespace("shop", true)
		annotate(namespace, api.AnnotationRetry, c.retry)
		private := cmp.AllowUnexported(suspension{})
		if diff := cmp.Diff(c.want, suspensionOf(namespace, c.pods, noon), private); diff != "" {
			t.Errorf("%s: (-want +got)\n%s", c.name, diff)
		}
		var slim []corev1.Pod
		for _, pod := range c.pods {
			stripped, err := stripPod(pod.DeepCopy())
			if err != nil {
				t.Fatal(err)
			}
			slim = append(slim, *stripped.(*corev1.Pod))
		}
		if diff := cmp.Diff(c.want, suspensionOf(namespace, slim, noon), private); diff != "" {
			t.Errorf("%s, stripped: (-want +got)\n%s", c.name, diff)
		}
	}
}

func TestSuspensionIsTold(t *testing.T) {
	namespace, services := testNamespace("shop", true), []corev1.Service{testService("api", "8080")}
	namespace.Annotations = map[string]string{api.AnnotationRetry: "%s"}
	pods := []corev1.Pod{stuck("a", "ErrImagePull"), stuck("b", "ErrImagePull"), leftOut("l", 0)}
	s := suspensionOf(namespace, pods, noon)
	notices := noticesOf(surroundings{namespace: namespace, services: services}, pods, injectionState{suspension: s})
	if len(notices) != 1 || notices[0].reason != eventSuspended || notices[0].object.Kind != "Namespace" {
		t.Fatalf("%d notices, want one that injection is suspended: %v", len(notices), notices)
	}
	for _, part := range []string{"a, b", "kubectl describe pod -n shop a;", `detour.dev/retry="%s" is no time`, "for 10 minutes",
		"kubectl annotate namespace shop --overwrite detour.dev/retry=$(date -u +%FT%TZ)"} {
		if !strings.Contains(notices[0].message, part) {
			t.Errorf("%q does not say %q", notices[0].message, part)
		}
	}
}

// What happens to a shop whose proxies do not start, and when they do again.
func TestSuspendedNamespaceGetsNoProxies(t *testing.T) {
	service, covered := testService("api", "8080"), testPod("covered", "detour-8080")
	clock := noon
	now := func() time.Time { return clock }
	c := admitting(t, shop(true, &service, &covered), now)
	r, told := testReconciler(t, c)
	r.now = now
	r.journal = newJournal(told, slog.New(slog.DiscardHandler), r.now)
	a := testAdmitter(t, c)
	a.now = r.now
	created := 0
	checkNext := func(step, target, annotation string) {
		t.Helper()
		reconcileShop(t, r)
		if got := targets(liveService(t, c))[0]; got != target {
			t.Errorf("%s: the Service leads to %s, want %s", step, got, target)
		}
		created++
		pod := aged(testPod(fmt.Sprint("next-", created)), noon.Sub(clock))
		pod.Spec.Containers = []corev1.Container{{Name: "app", Ports: []corev1.ContainerPort{{ContainerPort: 8080}}}}
		got, err := a.inject(t.Context(), "shop", &pod)
		if err != nil {
			t.Fatal(err)
		}
		if value := got.pod.Annotations[api.AnnotationNotInjected]; value != annotation || (proxyOf(got.pod) == nil) != (annotation != "") {
			t.Errorf("%s: a Pod is annotated %q, want %q", step, value, annotation)
		}
		if err := c.Create(t.Context(), got.pod); err != nil {
			t.Fatal(err)
		}
	}
	checkNext("all is well", "detour-8080", "")

	one, two := stuck("one", "ImagePullBackOff"), stuck("two", "ImagePullBackOff")
	for _, pod := range []*corev1.Pod{&one, &two} {
		if err := c.Create(t.Context(), pod); err != nil {
			t.Fatal(err)
		}
	}
	checkNext("two fail", "8080", "proxy-cannot-start")
	clock = clock.Add(settling)
	reconcileShop(t, r)
	if diff := cmp.Diff(events{"InjectionSuspended Namespace/shop"}, *told); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	for _, pod := range []*corev1.Pod{&one, &two} {
		if err := c.Delete(t.Context(), pod); err != nil {
			t.Fatal(err)
		}
	}
	checkNext("a moment ago two failed", "8080", "proxy-cannot-start")
	if result := reconcileShop(t, r); result.RequeueAfter == 0 || result.RequeueAfter > resumeAfter {
		t.Errorf("comes again after %v", result.RequeueAfter)
	}
	clock = clock.Add(resumeAfter)
	checkNext("all is well again", "8080", "") // there are Pods without a proxy
	if err := c.DeleteAllOf(t.Context(), &corev1.Pod{}, client.InNamespace("shop")); err != nil {
		t.Fatal(err)
	}
	if err := c.Create(t.Context(), ptr.To(testPod("covered", "detour-8080"))); err != nil {
		t.Fatal(err)
	}
	checkNext("restarted", "detour-8080", "")
}

func TestPodChanged(t *testing.T) {
	pulling, waiting, creating := stuck("p", "ErrImagePull"), stuck("p", "ImagePullBackOff"), stuck("p", "PodInitializing")
	leaving := testPod("p")
	leaving.DeletionTimestamp = &metav1.Time{}
	for name, c := range map[string]struct {
		before, after *corev1.Pod
		want          bool
	}{
		"begins": {&creating, &pulling, true}, "ends": {&waiting, &creating, true}, "goes on": {&pulling, &waiting, false},
		"is deleted": {ptr.To(testPod("p")), &leaving, true},
	} {
		if got := podChanged(event.UpdateEvent{ObjectOld: c.before, ObjectNew: c.after}); got != c.want {
			t.Errorf("%s: noticed %v, want %v", name, got, c.want)
		}
	}
}
