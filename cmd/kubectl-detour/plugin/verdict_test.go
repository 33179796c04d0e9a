package plugin

import (
	"errors"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/detour-dev/detour/api"
)

// routedObservation is a preview that requests reach: one Pod, up to date, and known to the router.
func routedObservation() observation {
	created := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	w := &workload{TypeMeta: metav1.TypeMeta{Kind: "Deployment"}, ObjectMeta: metav1.ObjectMeta{
		Name: "api-pr-42", Generation: 2, CreationTimestamp: metav1.NewTime(created),
	}}
	w.Status = workloadStatus{ObservedGeneration: 2, Replicas: 1, UpdatedReplicas: 1, ReadyReplicas: 1, AvailableReplicas: 1}
	pod := corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "api-pr-42-x"}}
	pod.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}
	status := &api.PreviewStatus{Created: created, State: api.StateRouted, Endpoints: []string{pod.Name}, Routed: 2, Of: 2}
	return observation{name: "deployment/api-pr-42", workload: w, pods: []corev1.Pod{pod}, status: status}
}

func TestVerdict(t *testing.T) {
	waiting := func(reason string) []corev1.ContainerStatus {
		return []corev1.ContainerStatus{{Name: "app", State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason}}}}
	}
	for name, c := range map[string]struct {
		change func(*observation)
		done   bool
		broken bool
		why    string
	}{
		"routed":         {func(*observation) {}, true, false, "is routed by 2 of 2 Pods"},
		"of other kinds": {func(o *observation) { o.workload, o.pods = nil, nil }, true, false, "is routed"},
		"not seen":       {func(o *observation) { o.workload.Generation = 3 }, false, false, "1 of 1 Pods are up to date"},
		"old Pods left":  {func(o *observation) { o.workload.Status.Replicas = 2 }, false, false, "1 of 1 Pods are up to date"},
		"old Pods routed": {func(o *observation) { o.status.Endpoints = []string{"api-pr-42-w"} }, false, false,
			"the router has not seen its newest Pods yet"},
		"no status": {func(o *observation) { o.status = nil }, false, false, "the router has not seen it yet"},
		"status of another before": {func(o *observation) { o.status.Created = o.status.Created.Add(-time.Second) }, false, false,
			"the router has not seen it yet"},
		"partly routed": {func(o *observation) {
			o.status.State, o.status.Routed = api.StatePending, 1
			o.status.Missing = []api.Missing{{Pod: "api-2", Reason: "not injected: restart it"}}
		}, false, false, "routed by 1 of 2 Pods; api-2: not injected: restart it"},
		"conflict": {func(o *observation) {
			o.status.State, o.status.Problem = api.StateConflict, &api.Problem{Message: "another is older"}
		}, false, true, "another is older"},
		"expired": {func(o *observation) { o.status.State = api.StateExpired }, false, true, "deployment/api-pr-42 is expired"},
		"crashing": {func(o *observation) {
			o.workload.Status.AvailableReplicas, o.pods[0].Status = 0, corev1.PodStatus{ContainerStatuses: waiting("CrashLoopBackOff")}
		}, false, true, "Pod api-pr-42-x: container app: CrashLoopBackOff"},
		"starting": {func(o *observation) {
			o.workload.Status.AvailableReplicas, o.pods[0].Status = 0, corev1.PodStatus{ContainerStatuses: waiting("ContainerCreating")}
		}, false, false, "0 of 1 Pods are up to date"},
		"without a node": {func(o *observation) {
			o.workload.Status.AvailableReplicas = 0
			o.pods[0].Status.Conditions = []corev1.PodCondition{{Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Message: "no node"}}
		}, false, false, "not scheduled: no node"},
		"quota": {func(o *observation) {
			o.workload.Status.AvailableReplicas = 0
			o.workload.Status.Conditions = []appsv1.DeploymentCondition{{Type: appsv1.DeploymentReplicaFailure, Status: corev1.ConditionTrue, Message: "exceeded quota"}}
		}, false, true, "gets no Pods: exceeded quota"},
	} {
		o := routedObservation()
		c.change(&o)
		got := verdictOn(o, conditionRouted)
		if got.done != c.done || got.broken != c.broken || !strings.Contains(got.why, c.why) {
			t.Errorf("%s: %+v, want done %v, broken %v, %q", name, got, c.done, c.broken, c.why)
		}
	}
}

func TestVerdictOnOtherConditions(t *testing.T) {
	for name, c := range map[string]struct {
		condition condition
		change    func(*observation)
		done      bool
		broken    bool
		why       string
	}{
		"ready":              {conditionReady, func(o *observation) { o.status.State = api.StatePending }, true, false, "all Pods are up to date and ready"},
		"not up to date":     {conditionReady, func(o *observation) { o.workload.Generation = 3 }, false, false, "1 of 1 Pods are up to date"},
		"ready, other kind":  {conditionReady, func(o *observation) { o.workload = nil }, true, false, "is ready"},
		"without Pods":       {conditionReady, func(o *observation) { o.workload, o.status.Endpoints = nil, nil }, false, false, "no Pod of it is ready"},
		"expired":            {conditionExpired, func(o *observation) { o.status.State = api.StateExpired }, true, false, "has expired"},
		"expires":            {conditionExpired, func(o *observation) { o.status.Expires = o.status.Created.Add(time.Hour) }, false, false, "expires at 2026-01-02T04:04:05Z"},
		"no time to live":    {conditionExpired, func(*observation) {}, false, true, "never expires: it has no annotation detour.dev/ttl"},
		"gone, still routed": {conditionExpired, func(o *observation) { o.workload, o.status.State = nil, api.StateExpired }, true, false, "has expired"},
	} {
		o := routedObservation()
		c.change(&o)
		got := verdictOn(o, c.condition)
		if got.done != c.done || got.broken != c.broken || !strings.Contains(got.why, c.why) {
			t.Errorf("%s: %+v, want done %v, broken %v, %q", name, got, c.done, c.broken, c.why)
		}
	}
}

func TestOutcome(t *testing.T) {
	long := strings.Repeat("ä", 200)
	for name, c := range map[string]struct {
		said string
		err  error
		want commitStatus
	}{
		"done":        {"api is routed\nweb is routed", nil, commitStatus{"success", "api is routed; web is routed", "https://pr-42.test/"}},
		"broken":      {"", fail(exitUnroutable, "it crashes"), commitStatus{"failure", "it crashes", "https://pr-42.test/"}},
		"too slow":    {"", fail(exitTimeout, "not routed"), commitStatus{"failure", "not routed", "https://pr-42.test/"}},
		"no cluster":  {"", errors.New("refused"), commitStatus{"error", "refused", "https://pr-42.test/"}},
		"much to say": {long, nil, commitStatus{"success", strings.Repeat("ä", 139) + "…", "https://pr-42.test/"}},
	} {
		w := waiter{said: c.said, url: "https://pr-42.test/"}
		if got := w.outcome(c.err); got != c.want {
			t.Errorf("%s: %+v, want %+v", name, got, c.want)
		}
	}
}

// One that is broken counts before one that is not there yet, and that before those that are.
func TestVerdictOnSeveral(t *testing.T) {
	pending, broken := routedObservation(), routedObservation()
	pending.status = nil
	broken.status.State = api.StateInvalid
	for name, c := range map[string]struct {
		observed     []observation
		done, broken bool
	}{
		"all":     {[]observation{routedObservation(), routedObservation()}, true, false},
		"pending": {[]observation{routedObservation(), pending}, false, false},
		"broken":  {[]observation{pending, routedObservation(), broken}, false, true},
	} {
		if got := joined(c.observed, conditionRouted); got.done != c.done || got.broken != c.broken {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

func TestRolledOut(t *testing.T) {
	for name, c := range map[string]struct {
		kind   string
		status workloadStatus
		want   bool
	}{
		"StatefulSet":              {"StatefulSet", workloadStatus{Replicas: 1, AvailableReplicas: 1, CurrentRevision: "a", UpdateRevision: "a"}, true},
		"StatefulSet, old Pods":    {"StatefulSet", workloadStatus{Replicas: 1, AvailableReplicas: 1, CurrentRevision: "a", UpdateRevision: "b"}, false},
		"DaemonSet":                {"DaemonSet", workloadStatus{DesiredNumberScheduled: 3, UpdatedNumberScheduled: 3, NumberAvailable: 3}, true},
		"DaemonSet, old Pods":      {"DaemonSet", workloadStatus{DesiredNumberScheduled: 3, UpdatedNumberScheduled: 2, NumberAvailable: 3}, false},
		"Deployment":               {"Deployment", workloadStatus{Replicas: 1, UpdatedReplicas: 1, AvailableReplicas: 1}, true},
		"Deployment, not yet seen": {"Deployment", workloadStatus{ObservedGeneration: -1, Replicas: 1, UpdatedReplicas: 1, AvailableReplicas: 1}, false},
	} {
		w := &workload{TypeMeta: metav1.TypeMeta{Kind: c.kind}, Status: c.status}
		if _, _, done := w.rolledOut(); done != c.want {
			t.Errorf("%s: %v, want %v", name, done, c.want)
		}
	}
}
