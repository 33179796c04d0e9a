package plugin

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/detour-dev/detour/api"
)

// diagnose says what is wrong, the worst first. What the router and the webhook have found out is in the status, and is told
// in their words; the rest is what only somebody else than they can see.
func diagnose(f *facts) []finding {
	found := []finding{}
	for _, check := range []func(*facts) []finding{
		checkPrograms, checkConfigurations, checkCA, checkTakesPart, checkVersions, checkStatus,
		checkPods, checkServices, checkNotices, checkPreviews, checkPollution, checkReach, checkQuotas, checkRanges,
	} {
		found = append(found, check(f)...)
	}
	sortFindings(found)
	return found
}

// takesPart reports whether the webhook has taken notice of the namespace.
func (f *facts) takesPart() bool { return f.board != nil }

func checkTakesPart(f *facts) []finding {
	if !f.knows(subjectStatus) {
		return nil
	}
	label, asked := "", f.own == nil // who may not read the label has to believe the status
	if f.own != nil {
		label = f.own.Labels[api.LabelInject]
		asked = label == api.InjectEnabled
	}
	about := finding{Severity: severe, Object: "namespace/" + f.namespace, Remedy: f.command("%[1]s enable %[2]s")}
	switch {
	case f.takesPart() && !asked:
		about.Severity, about.Reason = warning, "BeingTakenOut"
		about.Message = fmt.Sprintf("it has no label %s=%s any more, and yet its ConfigMap %s: the webhook has not cleared it, or is about to", api.LabelInject, api.InjectEnabled, api.ConfigMapStatus)
		about.Remedy = "kubectl logs -n " + system + " deployment/detour-webhook"
	case f.takesPart():
		return nil
	case label != "" && !asked:
		about.Reason = "UnknownLabel"
		about.Message = fmt.Sprintf("its label %s=%s means nothing, so it does not take part: the value is to be %s", api.LabelInject, label, api.InjectEnabled)
		about.Remedy = fmt.Sprintf("kubectl label namespace %s --overwrite %s=%s", f.namespace, api.LabelInject, api.InjectEnabled)
	case label != "":
		about.Reason = "NotNoticed"
		about.Message = fmt.Sprintf("it is labelled %s=%s, and has no ConfigMap %s: the webhook has taken no notice", api.LabelInject, label, api.ConfigMapStatus)
		about.Remedy = "kubectl logs -n " + system + " deployment/detour-webhook"
	default:
		about.Reason = "NotTakingPart"
		about.Message = fmt.Sprintf("it does not take part (it has no ConfigMap %s), so no request of it is routed", api.ConfigMapStatus)
	}
	return []finding{about}
}

// checkCA looks for what proxies trust the router by.
func checkCA(f *facts) []finding {
	if !f.takesPart() || !f.knows(subjectCA) {
		return nil
	}
	about := finding{
		Severity: severe, Namespace: f.namespace, Object: "configmap/" + api.ConfigMapCA, Reason: "NoCA",
		Remedy: "kubectl logs -n " + system + " deployment/detour-webhook",
	}
	if f.bundle == nil {
		about.Message = "it is not there, so proxies that start trust no router and answer requests with a key 503: the webhook is to make it"
		return []finding{about}
	}
	if why := whyNoTrust([]byte(f.bundle.Data[api.ConfigMapCAKey]), f.now); why != "" {
		about.Message = fmt.Sprintf("%s, so proxies trust no router: the webhook is to write it", why)
		return []finding{about}
	}
	return nil
}

// settled is how long something has to last before the status must speak of it.
const settled = 30 * time.Second

// checkStatus looks for what the router should have seen.
func checkStatus(f *facts) []finding {
	if !f.takesPart() {
		return nil
	}
	var unseen []string
	for i := range f.services {
		if service := &f.services[i]; f.isSettled(service.CreationTimestamp.Time) && f.board.service(service.Name) == nil {
			unseen = append(unseen, "service/"+service.Name)
		}
	}
	for _, w := range f.workloads {
		if w.isPreview() && w.DeletionTimestamp == nil && f.isSettled(w.CreationTimestamp.Time) && f.board.preview(w.String(), w.Labels[api.LabelKey]) == nil {
			unseen = append(unseen, w.String())
		}
	}
	for i := range f.board.Previews {
		preview := &f.board.Previews[i]
		for _, pod := range f.podsOf(preview) {
			if f.isSettled(readySince(pod)) && !slices.Contains(preview.Endpoints, pod.Name) {
				unseen = append(unseen, "pod/"+pod.Name)
			}
		}
	}
	if len(unseen) == 0 {
		return nil
	}
	return []finding{{
		Severity: severe, Namespace: f.namespace, Object: "configmap/" + api.ConfigMapStatus, Reason: "StatusBehind", others: unseen,
		Message: fmt.Sprintf("the router's status knows nothing of %s, which have been there for longer than %s: the router does not run, or may not write it", shortList(unseen), settled),
		Remedy:  "kubectl logs -n " + system + " deployment/detour-router",
	}}
}

func (f *facts) isSettled(since time.Time) bool {
	return !since.IsZero() && f.now.Sub(since) > settled
}

// readySince is zero for a Pod that is not ready.
func readySince(pod *corev1.Pod) time.Time {
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue {
			return c.LastTransitionTime.Time
		}
	}
	return time.Time{}
}

// The reasons of the webhook's notices that [checkPods] tells in other words.
const (
	noticeNotInjected   = "NotInjected"
	noticeRestartNeeded = "RestartNeeded"
)

// checkPods tells of the Pods behind Services that have no proxy, those of one reason together.
func checkPods(f *facts) []finding {
	if !f.takesPart() {
		return nil
	}
	var found []finding
	told := map[string]int{} // where the finding is for a word
	for i := range f.pods {
		pod := &f.pods[i]
		if !isRunning(pod) || hasProxy(pod) || f.isPreviewPod(pod) || !f.isServed(pod) {
			continue
		}
		word := whyUncovered(pod)
		if first, alike := told[word]; alike {
			found[first].others = append(found[first].others, "pod/"+pod.Name)
			continue
		}
		told[word] = len(found)
		found = append(found, f.uncovered(pod, word))
	}
	for i := range found {
		if others := found[i].others; len(others) > 0 {
			found[i].Message += fmt.Sprintf(" (as do %s)", shortList(others))
		}
	}
	return found
}

// isServed reports whether a Service that can have previews selects the Pod.
func (f *facts) isServed(pod *corev1.Pod) bool {
	return slices.ContainsFunc(f.services, func(service corev1.Service) bool {
		return unsupported(&service) == "" && selects(&service, pod.Labels)
	})
}

const optedOut = "opted-out"

// whyUncovered is the webhook's word for it; "" if it was not asked.
func whyUncovered(pod *corev1.Pod) string {
	if pod.Labels[api.LabelInject] == api.InjectDisabled {
		return optedOut // the webhook is not asked about these
	}
	return pod.Annotations[api.AnnotationNotInjected]
}

func (f *facts) uncovered(pod *corev1.Pod, word string) finding {
	about := finding{Severity: warning, Namespace: f.namespace, Object: "pod/" + pod.Name, Reason: noticeNotInjected}
	switch word {
	case optedOut:
		about.Severity = remark
		about.Message = fmt.Sprintf("it goes without a proxy, for it has the label %s=%s", api.LabelInject, api.InjectDisabled)
	case "":
		about.Reason = noticeRestartNeeded
		about.Message = "it goes without a proxy, for it was there before its namespace took part"
		about.Remedy = f.command("%[1]s enable %[2]s --restart")
	default:
		about.Message = fmt.Sprintf("it goes without a proxy (%s)", word)
		about.Remedy = fmt.Sprintf("kubectl describe pod %s -n %s", pod.Name, f.namespace)
		if notice := f.notice(noticeNotInjected, about.Object); notice != nil {
			about.Message = strings.TrimSuffix(fmt.Sprintf("it goes without a proxy: %s", notice.Message), ".")
		}
	}
	return about
}

// notice is what the webhook says of an object; nil if it does not.
func (f *facts) notice(reason, object string) *api.Notice {
	i := slices.IndexFunc(f.board.Notices.Notices, func(n api.Notice) bool {
		return n.Reason == reason && objectOf(n) == object
	})
	if i < 0 {
		return nil
	}
	return &f.board.Notices.Notices[i]
}

// objectOf names a notice's object as the status does: "pod/api-0".
func objectOf(n api.Notice) string {
	kind, name, _ := strings.Cut(n.Object, "/")
	return strings.ToLower(kind) + "/" + name
}

// checkServices tells, in the router's words, which Services are not intercepted.
func checkServices(f *facts) []finding {
	if !f.takesPart() {
		return nil
	}
	var found []finding
	for _, status := range f.board.Services {
		if status.Problem == nil {
			continue
		}
		about := finding{
			Severity: warning, Namespace: f.namespace, Object: "service/" + status.Name, Reason: status.Problem.Reason,
			Message: status.Problem.Message, Remedy: fmt.Sprintf("kubectl describe service %s -n %s", status.Name, f.namespace),
		}
		if service := f.service(status.Name); service != nil && unsupported(service) != "" {
			about.Severity, about.Remedy = remark, ""
		}
		if isUnsettled(status) {
			about.Remedy = f.command("%[1]s enable %[2]s --restart")
		}
		found = append(found, about)
	}
	return found
}

// checkNotices tells, in the webhook's words, what gets in the way of proxies: NetworkPolicies, LimitRanges, ResourceQuotas,
// autoscalers, networks, and proxies that cannot start.
func checkNotices(f *facts) []finding {
	if !f.takesPart() {
		return nil
	}
	var found []finding
	for _, notice := range f.board.Notices.Notices {
		if f.isToldOtherwise(notice) {
			continue
		}
		about := finding{Severity: remark, Namespace: f.namespace, Object: objectOf(notice), Reason: notice.Reason, Message: notice.Message}
		if notice.Warning {
			about.Severity, about.Remedy = warning, f.editing(about.Object)
		}
		found = append(found, about)
	}
	if f.board.More > 0 {
		found = append(found, finding{
			Severity: remark, Namespace: f.namespace, Object: "configmap/" + api.ConfigMapStatus, Reason: "MoreNotices",
			Message: fmt.Sprintf("it has no room for %d more notices, which are Events only", f.board.More),
			Remedy:  f.command("kubectl get events -n %[2]s"),
		})
	}
	return found
}

// isToldOtherwise reports whether [checkPods] has it. It has no Pods where the user may not read them.
func (f *facts) isToldOtherwise(notice api.Notice) bool {
	switch {
	case !f.knows(subjectPods) || !f.knows(subjectServices):
		return false
	case notice.Reason == noticeRestartNeeded:
		return true
	}
	return notice.Reason == noticeNotInjected && slices.ContainsFunc(f.pods, func(pod corev1.Pod) bool {
		return objectOf(notice) == "pod/"+pod.Name && f.isServed(&pod)
	})
}

// checkPollution finds Services other than the target that lead to a preview's Pods. Of the target the router tells.
func checkPollution(f *facts) []finding {
	var found []finding
	for _, w := range f.workloads {
		if !w.isPreview() {
			continue
		}
		for i := range f.services {
			service := &f.services[i]
			if !selects(service, w.Spec.Template.Labels) || service.Name == w.Labels[api.LabelTarget] && f.board.preview(w.String(), w.Labels[api.LabelKey]) != nil {
				continue
			}
			found = append(found, finding{
				Severity: severe, Namespace: f.namespace, Object: w.String(), Reason: "Pollutes", others: []string{"service/" + service.Name},
				Message: fmt.Sprintf("Service %s selects its Pods (%s), so requests without its key reach them: give its Pod template another value of one of these labels",
					service.Name, selectorText(service)),
				Remedy: f.editing(w.String()),
			})
		}
	}
	return found
}

// checkPreviews tells, in the router's words, which previews are not routed, and what their Pods say.
func checkPreviews(f *facts) []finding {
	var found []finding
	for i := range f.previews() {
		preview := &f.board.Previews[i]
		if preview.State != api.StateRouted {
			found = append(found, f.unrouted(preview))
		}
		for _, problem := range preview.Warnings {
			found = append(found, finding{
				Severity: warning, Namespace: f.namespace, Object: preview.Preview, Reason: problem.Reason, Message: problem.Message, Remedy: f.editing(preview.Preview),
			})
		}
	}
	return found
}

func (f *facts) unrouted(preview *api.PreviewStatus) finding {
	about := finding{
		Severity: severe, Namespace: f.namespace, Object: preview.Preview, Reason: "Pending",
		Message: problemText(preview.Problem, "its state is %s", preview.State), Remedy: f.editing(preview.Preview),
	}
	if preview.Problem != nil {
		about.Reason = preview.Problem.Reason
	}
	home, object := preview.Home()
	switch preview.State {
	case api.StateExpired:
		about.Severity, about.Remedy = warning, f.command("%[1]s gc -n %[2]s")
		if home != "" {
			about.Remedy = fmt.Sprintf("kubectl delete %s -n %s", object, home)
		}
	case api.StateConflict:
		about.Remedy = fmt.Sprintf("kubectl label %s -n %s --overwrite %s=ANOTHER-KEY", object, cmp.Or(home, f.namespace), api.LabelKey)
	case api.StatePending:
		about.Severity, about.Message = warning, pendingText(preview)
		about.Remedy = f.command("%[1]s status %[3]s -n %[2]s", preview.Key)
		if slices.ContainsFunc(preview.Missing, func(m api.Missing) bool { return strings.Contains(m.Reason, "restart") }) {
			about.Remedy = f.command("kubectl rollout restart deployment -n %[2]s")
		}
	case api.StateNotReady:
		f.explain(preview, &about)
	}
	return about
}

// explain adds what keeps the Pods of a preview from being ready, or from being there.
func (f *facts) explain(preview *api.PreviewStatus, about *finding) {
	if w := f.workload(preview.Preview); w != nil {
		for _, c := range w.Status.Conditions {
			if c.Type == appsv1.DeploymentReplicaFailure && c.Status == corev1.ConditionTrue {
				about.Message += "; it gets no Pods: " + c.Message
			}
		}
	}
	for _, pod := range f.podsOf(preview) {
		if isReady(pod) {
			continue
		}
		about.Remedy = fmt.Sprintf("kubectl describe pod %s -n %s", pod.Name, f.namespace)
		if why, _ := complaint(pod); why != "" {
			about.Message += fmt.Sprintf("; Pod %s: %s", pod.Name, why)
		}
		if event, told := f.events[pod.Name]; told {
			about.Message += fmt.Sprintf("; its last Event: %s: %s", event.Reason, event.Message)
		}
		return
	}
}
