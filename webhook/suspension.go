package webhook

import (
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"

	"github.com/detour-dev/detour/api"
)

const (
	// tooManyFailures is how many proxies of a namespace must fail to start before its Pods get none: a single one
	// may have a reason of its own.
	tooManyFailures = 2

	// resumeAfter is how long no Pod must have come before one gets a proxy again.
	resumeAfter = 10 * time.Minute
)

// startFailures are the reasons that a kubelet gives for a container that waits, and will go on waiting.
var startFailures = []string{
	"ImagePullBackOff", "ErrImagePull", "InvalidImageName", "CreateContainerConfigError", "CreateContainerError",
	"RunContainerError", "CrashLoopBackOff",
}

// suspension says whether the Pods of a namespace get no proxy for now, because proxies do not start there. The app that
// a proxy starts before would wait as well.
type suspension struct {
	active     bool
	failing    []string      // the Pods whose proxy does not start, by name
	wrongRetry string        // the namespace's [api.AnnotationRetry], if it is no time
	ends       time.Duration // until the passing of time alone can end it; zero if it cannot
}

// suspensionOf depends on the namespace, its Pods and the time alone, so that it is the same in every replica and after
// a restart. It begins when tooManyFailures proxies do not start. The Pods that come then are left without one, and say
// so: it goes on while they are younger than resumeAfter or any proxy still does not start. Pods that are older than the
// annotation [api.AnnotationRetry] are not counted.
func suspensionOf(namespace *corev1.Namespace, pods []corev1.Pod, now time.Time) suspension {
	var s suspension
	var left time.Time // when the last Pod was left without a proxy
	since, wrong := retryOf(namespace)
	if since.After(now) { // by a clock that is ahead
		s.ends, since = min(since.Sub(now), resumeAfter), time.Time{}
	}
	s.wrongRetry = wrong
	for i := range pods {
		pod := &pods[i]
		created := pod.CreationTimestamp.Time
		switch {
		case ended(pod) || created.Before(since):
		case cannotStart(pod):
			s.failing = append(s.failing, pod.Name)
		case pod.Annotations[api.AnnotationNotInjected] == string(reasonCannotStart) && created.After(left):
			left = created
		}
	}
	slices.Sort(s.failing)
	rest := resumeAfter - now.Sub(left)
	s.active = len(s.failing) >= tooManyFailures || !left.IsZero() && (len(s.failing) > 0 || rest > 0)
	if !s.active {
		s.ends = 0
	} else if len(s.failing) == 0 {
		s.ends = sooner(s.ends, rest)
	}
	return s
}

// covering returns the Pods whose proxies a Service may lead to.
func (s suspension) covering(pods []corev1.Pod) []corev1.Pod {
	if s.active {
		return nil
	}
	return pods
}

// retryOf reads [api.AnnotationRetry], and returns the value instead if it is no time.
func retryOf(namespace *corev1.Namespace) (since time.Time, wrong string) {
	value, set := namespace.Annotations[api.AnnotationRetry]
	if !set {
		return time.Time{}, ""
	}
	since, err := time.Parse(time.RFC3339, value)
	if err != nil {
		return time.Time{}, value
	}
	return since, ""
}

// cannotStart reports whether a Pod waits for a proxy that does not start. One that has crashed counts until it has
// passed its startup probe, and not only while it waits for its next try.
func cannotStart(pod *corev1.Pod) bool {
	i := slices.IndexFunc(pod.Status.InitContainerStatuses, isProxyStatus)
	if i < 0 {
		return false
	}
	status := &pod.Status.InitContainerStatuses[i]
	if waiting := status.State.Waiting; waiting != nil {
		return slices.Contains(startFailures, waiting.Reason)
	}
	return status.RestartCount > 0 && !ptr.Deref(status.Started, false)
}

func isProxyStatus(s corev1.ContainerStatus) bool {
	return s.Name == api.ContainerProxy
}

// notice tells of a suspension that is active.
func (s suspension) notice(namespace *corev1.Namespace) notice {
	state := "proxies did not start there before"
	if len(s.failing) > 0 {
		state = fmt.Sprintf("these Pods wait for a proxy that does not start: %.300s. See kubectl describe pod -n %s %s; those that go on waiting have to be deleted",
			strings.Join(s.failing, ", "), namespace.Name, s.failing[0])
	}
	if s.wrongRetry != "" {
		state += fmt.Sprintf(". Annotation %s=%.50q is no time such as 2026-01-31T12:00:00Z, and is ignored", api.AnnotationRetry, s.wrongRetry)
	}
	return namespaceNotice(namespace, corev1.EventTypeWarning, eventSuspended,
		"New Pods of namespace %s get no proxy, and its Services lead past those that are there: %s. Injection resumes once none waits and no Pod has come for %.0f minutes, or with kubectl annotate namespace %s --overwrite %s=$(date -u +%%FT%%TZ)",
		namespace.Name, state, resumeAfter.Minutes(), namespace.Name, api.AnnotationRetry)
}
