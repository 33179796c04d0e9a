package plugin

import (
	"context"
	"fmt"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// revision is the annotation by which a Deployment knows its newest ReplicaSet.
const revision = "deployment.kubernetes.io/revision"

// isSeen reports whether the status is about the workload's last change.
func (w *workload) isSeen() bool { return w.Status.ObservedGeneration >= w.Generation }

// rolledOut reports how many of a workload's Pods are of its newest revision and available, of how many, and whether no
// others are left.
func (w *workload) rolledOut() (available, of int32, done bool) {
	status := w.Status
	seen := w.isSeen()
	switch w.Kind {
	case "StatefulSet":
		of = w.replicas()
		current := status.CurrentRevision == status.UpdateRevision
		return status.AvailableReplicas, of, seen && current && status.AvailableReplicas == of && status.Replicas == of
	case "DaemonSet":
		of = status.DesiredNumberScheduled
		return status.NumberAvailable, of, seen && status.UpdatedNumberScheduled == of && status.NumberAvailable == of
	}
	of = w.replicas()
	available = min(status.UpdatedReplicas, status.AvailableReplicas)
	return available, of, seen && available == of && status.Replicas == of
}

// podsOf lists a workload's Pods.
func (s *session) podsOf(ctx context.Context, w *workload) ([]corev1.Pod, error) {
	options := metav1.ListOptions{LabelSelector: metav1.FormatLabelSelector(w.Spec.Selector)}
	list, err := s.kube.CoreV1().Pods(s.namespace).List(ctx, options)
	if err != nil {
		return nil, fmt.Errorf("listing the Pods of %s: %w", w, err)
	}
	return list.Items, nil
}

// newestPods are those of a workload's newest revision: what is wrong with the others does not matter any more. There are
// none before the workload's controller has seen its last change.
func (s *session) newestPods(ctx context.Context, w *workload) ([]corev1.Pod, error) {
	if !w.isSeen() {
		return nil, nil
	}
	all, err := s.podsOf(ctx, w)
	if err != nil {
		return nil, err
	}
	isNewest, err := s.newest(ctx, w)
	if err != nil {
		return nil, err
	}
	var pods []corev1.Pod
	for i := range all {
		if isNewest(&all[i]) && all[i].DeletionTimestamp == nil {
			pods = append(pods, all[i])
		}
	}
	return pods, nil
}

// newest tells a workload's newest Pods from its others.
func (s *session) newest(ctx context.Context, w *workload) (func(*corev1.Pod) bool, error) {
	switch w.Kind {
	case "Deployment":
		replicaSet, err := s.newestReplicaSet(ctx, w)
		return func(pod *corev1.Pod) bool { return replicaSet != nil && metav1.IsControlledBy(pod, replicaSet) }, err
	case "StatefulSet":
		return func(pod *corev1.Pod) bool {
			return pod.Labels[appsv1.ControllerRevisionHashLabelKey] == w.Status.UpdateRevision
		}, nil
	}
	return func(*corev1.Pod) bool { return true }, nil
}

// newestReplicaSet is nil until the Deployment's controller has made it.
func (s *session) newestReplicaSet(ctx context.Context, deployment *workload) (*workload, error) {
	all, err := s.workloads(ctx, replicaSets)
	if err != nil {
		return nil, err
	}
	for _, replicaSet := range all {
		if metav1.IsControlledBy(replicaSet, deployment) && replicaSet.Annotations[revision] == deployment.Annotations[revision] {
			return replicaSet, nil
		}
	}
	return nil, nil
}

func isReady(pod *corev1.Pod) bool {
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.PodReady {
			return c.Status == corev1.ConditionTrue && pod.DeletionTimestamp == nil
		}
	}
	return false
}
