package plugin

import (
	"fmt"
	"slices"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/detour-dev/detour/api"
)

// observation is one preview at one moment.
type observation struct {
	name     string       // "deployment/api-pr-42"
	workload *workload    // nil for kinds that do not roll out
	pods     []corev1.Pod // those of its newest revision
	status   *api.PreviewStatus
}

// verdict says whether to go on waiting for a preview.
type verdict struct {
	done   bool
	broken bool // it does not mend itself
	why    string
	pod    *corev1.Pod // the one that keeps it
}

// verdictOn says whether a preview is what it is waited to be.
func verdictOn(o observation, c condition) verdict {
	switch c {
	case conditionReady:
		return o.readiness()
	case conditionExpired:
		return o.expiry()
	}
	return o.routing()
}

// routing is done once requests reach what the workload is now: its newest Pods are all there is, and each ready Pod of the
// baseline sends requests to exactly them.
func (o observation) routing() verdict {
	status := o.status
	if status != nil && o.workload != nil && status.Created.Before(o.workload.CreationTimestamp.Time) {
		status = nil // that of another, which had the same name
	}
	if status != nil && slices.Contains(brokenStates, status.State) {
		return verdict{broken: true, why: problemText(status.Problem, "%s is %s", o.name, status.State)}
	}
	if o.workload != nil {
		if v := o.onRollout(); !v.done {
			return v
		}
	}
	switch {
	case status == nil:
		return verdict{why: o.name + ": the router has not seen it yet"}
	case o.workload != nil && !slices.Equal(slices.Sorted(slices.Values(status.Endpoints)), readyNames(o.pods)):
		return verdict{why: o.name + ": the router has not seen its newest Pods yet"}
	case status.State == api.StateRouted:
		return verdict{done: true, why: fmt.Sprintf("%s is routed by %d of %d Pods", o.name, status.Routed, status.Of)}
	}
	return verdict{why: o.name + ": " + pendingText(status)}
}

// brokenStates are those that only a change of the preview, or of another, ends.
var brokenStates = []api.State{api.StateConflict, api.StateInvalid, api.StateExpired}

// readiness is done once the newest Pods are all there is, and ready, wherever requests go.
func (o observation) readiness() verdict {
	switch {
	case o.workload != nil:
		v := o.onRollout()
		if v.done {
			v.why = fmt.Sprintf("%s: all Pods are up to date and ready", o.name)
		}
		return v
	case len(o.status.Endpoints) > 0:
		return verdict{done: true, why: o.name + " is ready"}
	}
	return verdict{why: o.name + ": no Pod of it is ready"}
}

// expiry is done once the time to live is over.
func (o observation) expiry() verdict {
	switch {
	case o.status.State == api.StateExpired:
		return verdict{done: true, why: o.name + " has expired"}
	case o.status.Expires.IsZero():
		return verdict{broken: true, why: fmt.Sprintf("%s never expires: it has no annotation %s", o.name, api.AnnotationTTL)}
	}
	return verdict{why: fmt.Sprintf("%s expires at %s", o.name, o.status.Expires.Format(time.RFC3339))}
}

// onRollout looks at the workload alone.
func (o observation) onRollout() verdict {
	available, of, done := o.workload.rolledOut()
	if done {
		return verdict{done: true}
	}
	for _, c := range o.workload.Status.Conditions {
		if o.workload.isSeen() && c.Type == appsv1.DeploymentReplicaFailure && c.Status == corev1.ConditionTrue {
			return verdict{broken: true, why: fmt.Sprintf("%s gets no Pods: %s", o.name, c.Message)}
		}
	}
	v := verdict{why: fmt.Sprintf("%s: %d of %d Pods are up to date and ready", o.name, available, of)}
	for i := range o.pods {
		pod := &o.pods[i]
		if why, broken := complaint(pod); why != "" {
			return verdict{broken: broken, why: fmt.Sprintf("Pod %s: %s", pod.Name, why), pod: pod}
		}
		if !isReady(pod) {
			v.pod = pod
		}
	}
	return v
}

func readyNames(pods []corev1.Pod) []string {
	var names []string
	for i := range pods {
		if isReady(&pods[i]) {
			names = append(names, pods[i].Name)
		}
	}
	slices.Sort(names)
	return names
}

func pendingText(status *api.PreviewStatus) string {
	if status.Problem != nil {
		return status.Problem.Message
	}
	text := fmt.Sprintf("routed by %d of %d Pods", status.Routed, status.Of)
	for _, missing := range status.Missing {
		text += fmt.Sprintf("; %s: %s", missing.Pod, missing.Reason)
	}
	return text
}

// brokenWaits are the reasons for which a container waits that need a person.
var brokenWaits = []string{
	"CrashLoopBackOff", "ImagePullBackOff", "ErrImageNeverPull", "InvalidImageName",
	"CreateContainerConfigError", "CreateContainerError", "RunContainerError",
}

// complaint says what keeps a Pod from getting ready. A node may yet come for a Pod that has none; the rest is broken.
func complaint(pod *corev1.Pod) (why string, broken bool) {
	for _, c := range slices.Concat(pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses) {
		if w := c.State.Waiting; w != nil && slices.Contains(brokenWaits, w.Reason) {
			return strings.TrimSuffix(fmt.Sprintf("container %s: %s: %s", c.Name, w.Reason, w.Message), ": "), true
		}
	}
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.PodScheduled && c.Status == corev1.ConditionFalse {
			return fmt.Sprintf("not scheduled: %s", c.Message), false
		}
	}
	return "", false
}
