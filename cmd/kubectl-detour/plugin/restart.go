package plugin

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
)

// restartable are the kinds that replace their Pods when their template changes.
var restartable = map[string]schema.GroupVersionResource{
	"Deployment": deployments, "StatefulSet": statefulSets, "DaemonSet": daemonSets,
}

// workloadsWith lists the workloads that have a Pod of which this is true.
func (s *session) workloadsWith(ctx context.Context, is func(*workload, *corev1.Pod) bool) ([]*workload, error) {
	pods, err := s.kube.CoreV1().Pods(s.namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, fmt.Errorf("listing the Pods of namespace %s: %w", s.namespace, err)
	}
	running := slices.DeleteFunc(pods.Items, func(pod corev1.Pod) bool {
		return pod.DeletionTimestamp != nil || pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed
	})
	var found []*workload
	for _, kind := range []schema.GroupVersionResource{deployments, statefulSets, daemonSets, rollouts} {
		all, err := s.workloads(ctx, kind)
		if err != nil {
			return nil, err
		}
		for _, w := range all {
			if slices.ContainsFunc(running, func(pod corev1.Pod) bool { return w.owns(&pod) && is(w, &pod) }) {
				found = append(found, w)
			}
		}
	}
	return found, nil
}

func names(workloads []*workload) string {
	var all []string
	for _, w := range workloads {
		all = append(all, w.String())
	}
	return strings.Join(all, ", ")
}

// whyNotRestarted says what has to be done by hand.
func (s *session) whyNotRestarted(w *workload) string {
	switch {
	case w.Kind == "Rollout":
		return fmt.Sprintf("it is Argo's to restart: kubectl argo rollouts restart %s -n %s", w.Name, s.namespace)
	case w.Spec.Paused:
		return fmt.Sprintf("it is paused: kubectl rollout resume deployment %s -n %s", w.Name, s.namespace)
	case w.Spec.UpdateStrategy.Type == "OnDelete":
		return "it replaces Pods only when they are deleted (updateStrategy OnDelete): delete them"
	}
	return ""
}

// restart has workloads replace their Pods, and waits until they have.
func (s *session) restart(ctx context.Context, all []*workload, timeout time.Duration) error {
	var restarted []*workload
	for _, w := range all {
		if why := s.whyNotRestarted(w); why != "" {
			s.note("%s is not restarted: %s", w, why)
			continue
		}
		if err := s.touch(ctx, w); err != nil {
			return err
		}
		restarted = append(restarted, w)
	}
	for _, w := range restarted {
		if err := s.awaitRollout(ctx, w, timeout); err != nil {
			return err
		}
	}
	return nil
}

// touch changes the template as kubectl rollout restart does.
func (s *session) touch(ctx context.Context, w *workload) error {
	patch := fmt.Sprintf(`{"spec":{"template":{"metadata":{"annotations":{"kubectl.kubernetes.io/restartedAt":%q}}}}}`, time.Now().Format(time.RFC3339))
	options := metav1.PatchOptions{FieldManager: "kubectl-rollout"} // the field is kubectl's, and whoever restarts next owns it
	_, err := s.dynamic.Resource(restartable[w.Kind]).Namespace(s.namespace).Patch(ctx, w.Name, types.MergePatchType, []byte(patch), options)
	if err != nil {
		return fmt.Errorf("restarting %s: %w", w, err)
	}
	return nil
}

func (s *session) awaitRollout(ctx context.Context, w *workload, timeout time.Duration) error {
	said := ""
	var last observation
	over, err := until(ctx, timeout, func() (bool, error) {
		now, err := s.workload(ctx, restartable[w.Kind], w.Name)
		if err != nil || now == nil {
			return true, err // deleted in the meantime
		}
		last = observation{name: w.String(), workload: now}
		available, of, done := now.rolledOut()
		if text := fmt.Sprintf("%s: %d of %d Pods are replaced", w, available, of); text != said {
			s.note("%s", text)
			said = text
		}
		return done, nil
	})
	if !over {
		return err
	}
	if last.pods, err = s.newestPods(ctx, last.workload); err != nil {
		return err
	}
	v := last.onRollout()
	s.showTrouble(ctx, v.pod)
	return fail(exitTimeout, "%s has not replaced its Pods within %s (%s): its others go on serving; kubectl rollout status %s -n %s goes on watching",
		w, timeout, v.why, w, s.namespace)
}
