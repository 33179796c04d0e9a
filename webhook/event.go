package webhook

import (
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"

	"github.com/detour-dev/detour/api"
)

// Reasons of Events.
const (
	eventNotInjected   = "NotInjected"
	eventPortsNotTaken = "PortsNotTaken"
	eventRestartNeeded = "RestartNeeded"
	eventNoServices    = "NoServices"
	eventTooOld        = "APIServerTooOld"
	eventSuspended     = "InjectionSuspended"

	eventAdmissionFailed = "AdmissionFailed"
)

// settling is how long a state of a whole namespace must last before it is told: while a namespace is being filled,
// it has no Services for a moment.
const settling = 10 * time.Second

// notice is something that somebody should know of an object while it lasts.
type notice struct {
	object  corev1.ObjectReference
	kind    string // corev1.EventTypeNormal or corev1.EventTypeWarning
	reason  string
	message string
	settle  time.Duration // how long it must last first
}

// injectionState is what keeps all Pods of a namespace from getting a proxy.
type injectionState struct {
	tooOld     bool
	suspension suspension
}

func (s injectionState) possible() bool { return !s.tooOld && !s.suspension.active }

// noticesOf says what keeps the Pods and Services of a namespace that takes part from being intercepted, or gets in the
// way of those that are.
func noticesOf(around surroundings, pods []corev1.Pod, injection injectionState) []notice {
	var notices []notice
	namespace := around.namespace
	if injection.suspension.active {
		notices = append(notices, injection.suspension.notice(namespace))
	}
	if injection.tooOld {
		notices = append(notices, namespaceNotice(namespace, corev1.EventTypeWarning, eventTooOld,
			"Pods of namespace %s get no proxy: the API server is older than %s, from which on Services find a port of a native sidecar by name. Upgrade the cluster",
			namespace.Name, oldestServer))
	}
	if len(around.services) == 0 {
		notices = append(notices, namespaceNotice(namespace, corev1.EventTypeWarning, eventNoServices,
			"Namespace %s is labelled %s=%s but has no Service, so there is nothing to intercept. Create a Service, or remove the label",
			namespace.Name, api.LabelInject, api.InjectEnabled))
	}
	bare := 0
	for i := range pods {
		if ended(&pods[i]) {
			continue
		}
		notices = append(notices, podNotices(&pods[i])...)
		if withoutReason(&pods[i]) && pods[i].DeletionTimestamp == nil {
			bare++
		}
	}
	if bare > 0 && injection.possible() {
		notices = append(notices, namespaceNotice(namespace, corev1.EventTypeNormal, eventRestartNeeded,
			"Pods of namespace %s that have no proxy yet: %d. Their Services are not intercepted. Restart them: kubectl rollout restart deployment -n %s",
			namespace.Name, bare, namespace.Name))
	}
	return append(notices, findings(around, pods)...)
}

// withoutReason reports whether a Pod has no proxy only because it was created when nobody was asked, or when injection
// was suspended.
func withoutReason(pod *corev1.Pod) bool {
	why := reason(pod.Annotations[api.AnnotationNotInjected])
	return proxyOf(pod) == nil && (why == "" || why == reasonCannotStart) && reasonInMetadata(pod) == ""
}

// podNotices says what the annotations of one Pod say.
func podNotices(pod *corev1.Pod) []notice {
	var notices []notice
	why := reason(pod.Annotations[api.AnnotationNotInjected])
	if e, found := why.explain(); found && proxyOf(pod) == nil {
		object := faultyObject(pod)
		message := fmt.Sprintf("%s %s gets no proxy (%s): %s. Its requests reach it directly.", object.Kind, object.Name, why, e.why)
		if e.advice != "" {
			message += fmt.Sprintf(" %s, or label the Pod %s=%s.", e.advice, api.LabelInject, api.InjectDisabled)
		}
		notices = append(notices, notice{object: object, kind: corev1.EventTypeWarning, reason: eventNotInjected, message: message})
	}
	if left := pod.Annotations[api.AnnotationPortsNotTaken]; left != "" {
		notices = append(notices, portsNotTaken(pod, left))
	}
	return notices
}

func portsNotTaken(pod *corev1.Pod, left string) notice {
	message := fmt.Sprintf("Pod %s keeps these ports for the reasons given, and requests that address them so are not intercepted: %.400s", pod.Name, left)
	if strings.Contains(left, string(reasonNetworkPolicy)) {
		message += ". To have those of NetworkPolicies intercepted, admit the last number of each wherever the first is admitted, and nowhere else, and restart the workload"
	}
	return notice{object: podReference(pod), kind: corev1.EventTypeNormal, reason: eventPortsNotTaken, message: message}
}

// faultyObject is what a person would have to change: the Job of a Job's Pod, otherwise the Pod.
func faultyObject(pod *corev1.Pod) corev1.ObjectReference {
	if job := ownerJob(pod); job != nil {
		return corev1.ObjectReference{
			APIVersion: job.APIVersion, Kind: job.Kind, Namespace: pod.Namespace, Name: job.Name, UID: job.UID,
		}
	}
	return podReference(pod)
}

func podReference(pod *corev1.Pod) corev1.ObjectReference {
	return referenceTo("v1", "Pod", pod)
}

// namespaceNotice is about a namespace. The reference names the namespace as its own, so that the Event is found there
// and not in "default".
func namespaceNotice(namespace *corev1.Namespace, kind, reason, format string, args ...any) notice {
	return notice{
		object: corev1.ObjectReference{
			APIVersion: "v1", Kind: "Namespace", Namespace: namespace.Name, Name: namespace.Name, UID: namespace.UID,
		},
		kind: kind, reason: reason, message: fmt.Sprintf(format, args...), settle: settling,
	}
}

// recorder writes Events; client-go's does.
type recorder interface {
	Eventf(regarding, related runtime.Object, kind, reason, action, note string, args ...any)
}

// journal tells each notice once, by an Event and in the log: again only after it had ceased in between.
type journal struct {
	recorder recorder
	log      *slog.Logger
	now      func() time.Time

	mu      sync.Mutex
	entries map[string]map[entryKey]entry // by namespace
}

type entryKey struct {
	object types.UID
	reason string
}

type entry struct {
	since time.Time
	told  bool
}

func newJournal(r recorder, log *slog.Logger, now func() time.Time) *journal {
	return &journal{recorder: r, log: log, now: now, entries: map[string]map[entryKey]entry{}}
}

// tell records the notices of a namespace that are new, and forgets those that have ceased. It returns when to come
// again for those that have yet to settle, or zero.
func (j *journal) tell(namespace string, notices []notice) time.Duration {
	j.mu.Lock()
	defer j.mu.Unlock()
	now, before, after := j.now(), j.entries[namespace], map[entryKey]entry{}
	var wait time.Duration
	for _, n := range notices {
		key := entryKey{n.object.UID, n.reason}
		if _, done := after[key]; done {
			continue // a Job has many Pods
		}
		e, known := before[key]
		if !known {
			e.since = now
		}
		if rest := n.settle - now.Sub(e.since); !e.told && rest > 0 {
			wait = sooner(wait, rest)
		} else if !e.told {
			j.recorder.Eventf(&n.object, nil, n.kind, n.reason, "Inject", "%s", n.message)
			j.log.Info("event recorded", "namespace", namespace, "object", n.object.Kind+"/"+n.object.Name,
				"reason", n.reason, "message", n.message)
			e.told = true
		}
		after[key] = e
	}
	j.entries[namespace] = after
	return wait
}

// forget drops what was told of a namespace.
func (j *journal) forget(namespace string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	delete(j.entries, namespace)
}
