package plugin

import (
	"context"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
)

// logLines is how much of a log is shown: a stack trace and what came before it.
const logLines = 20

// showTrouble shows a Pod's Events and the last lines of its containers that do not run, as far as the user may read them.
func (s *session) showTrouble(ctx context.Context, pod *corev1.Pod) {
	if pod == nil {
		return
	}
	events, err := s.kube.CoreV1().Events(s.namespace).List(ctx, metav1.ListOptions{FieldSelector: "involvedObject.name=" + pod.Name})
	if err != nil {
		s.note("The Events of Pod %s are not to be had: %v", pod.Name, err)
	} else if len(events.Items) > 0 {
		s.note("Events of Pod %s:\n%s", pod.Name, eventText(events.Items))
	}
	for _, c := range slices.Concat(pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses) {
		if !c.Ready && (c.State.Running != nil || c.State.Terminated != nil || c.LastTerminationState.Terminated != nil) {
			s.showLog(ctx, pod, c)
		}
	}
}

func (s *session) showLog(ctx context.Context, pod *corev1.Pod, c corev1.ContainerStatus) {
	options := &corev1.PodLogOptions{
		Container: c.Name, TailLines: ptr.To(int64(logLines)),
		Previous: c.State.Running == nil && c.State.Terminated == nil, // it waits for its next start
	}
	text, err := s.kube.CoreV1().Pods(s.namespace).GetLogs(pod.Name, options).DoRaw(ctx)
	if err != nil {
		s.note("The log of container %s is not to be had: %v", c.Name, err)
		return
	}
	s.note("Last lines of container %s:\n%s", c.Name, indent(string(text)))
}

func eventText(events []corev1.Event) string {
	slices.SortStableFunc(events, func(a, b corev1.Event) int { return timeOf(&a).Compare(timeOf(&b)) })
	var lines []string
	for _, e := range events {
		lines = append(lines, fmt.Sprintf("%s %s: %s", e.Type, e.Reason, e.Message))
	}
	return indent(strings.Join(lines, "\n"))
}

func indent(text string) string {
	return "  " + strings.ReplaceAll(strings.TrimRight(text, "\n"), "\n", "\n  ")
}
