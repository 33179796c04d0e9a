package plugin

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/detour-dev/detour/api"
)

// Kinds of workloads, by the name that kubectl and the status have for them.
var (
	deployments  = schema.GroupVersionResource{Group: "apps", Version: "v1", Resource: "deployments"}
	statefulSets = schema.GroupVersionResource{Group: "apps", Version: "v1", Resource: "statefulsets"}
	daemonSets   = schema.GroupVersionResource{Group: "apps", Version: "v1", Resource: "daemonsets"}
	replicaSets  = schema.GroupVersionResource{Group: "apps", Version: "v1", Resource: "replicasets"}
	barePods     = schema.GroupVersionResource{Version: "v1", Resource: "pods"}
	rollouts     = schema.GroupVersionResource{Group: "argoproj.io", Version: "v1alpha1", Resource: "rollouts"}
)

// workload is what the package reads of a Deployment, a StatefulSet, a DaemonSet, a ReplicaSet or an Argo Rollout.
type workload struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`
	Spec              workloadSpec   `json:"spec"`
	Status            workloadStatus `json:"status"`
}

type workloadSpec struct {
	Replicas             *int32                         `json:"replicas,omitempty"`
	Paused               bool                           `json:"paused,omitempty"` // a Deployment's
	Selector             *metav1.LabelSelector          `json:"selector,omitempty"`
	Template             corev1.PodTemplateSpec         `json:"template"`
	Strategy             appsv1.DeploymentStrategy      `json:"strategy"`       // a Deployment's
	UpdateStrategy       updateStrategy                 `json:"updateStrategy"` // a StatefulSet's or DaemonSet's
	MinReadySeconds      int32                          `json:"minReadySeconds,omitempty"`
	VolumeClaimTemplates []corev1.PersistentVolumeClaim `json:"volumeClaimTemplates,omitempty"`
}

type updateStrategy struct {
	Type string `json:"type,omitempty"`
}

// workloadStatus is the union of what the kinds have.
type workloadStatus struct {
	ObservedGeneration int64                        `json:"observedGeneration,omitempty"`
	Replicas           int32                        `json:"replicas,omitempty"`
	ReadyReplicas      int32                        `json:"readyReplicas,omitempty"`
	UpdatedReplicas    int32                        `json:"updatedReplicas,omitempty"`
	AvailableReplicas  int32                        `json:"availableReplicas,omitempty"`
	Conditions         []appsv1.DeploymentCondition `json:"conditions,omitempty"`

	CurrentRevision string `json:"currentRevision,omitempty"` // a StatefulSet's
	UpdateRevision  string `json:"updateRevision,omitempty"`

	DesiredNumberScheduled int32 `json:"desiredNumberScheduled,omitempty"` // a DaemonSet's
	UpdatedNumberScheduled int32 `json:"updatedNumberScheduled,omitempty"`
	NumberAvailable        int32 `json:"numberAvailable,omitempty"`
}

// String names the workload as the status does.
func (w *workload) String() string { return strings.ToLower(w.Kind) + "/" + w.Name }

func (w *workload) replicas() int32 {
	if w.Spec.Replicas == nil {
		return 1
	}
	return *w.Spec.Replicas
}

func (w *workload) isPreview() bool {
	return w.Labels[api.LabelTarget] != "" && w.Labels[api.LabelKey] != ""
}

// owns reports whether the workload's selector is for a Pod.
func (w *workload) owns(pod *corev1.Pod) bool {
	selector, err := metav1.LabelSelectorAsSelector(w.Spec.Selector)
	return err == nil && !selector.Empty() && selector.Matches(labels.Set(pod.Labels))
}

// workloads lists one kind, by name. A kind that the cluster does not have, or that the user may not read, is left out if
// it is Argo's.
func (s *session) workloads(ctx context.Context, kind schema.GroupVersionResource) ([]*workload, error) {
	list, err := s.dynamic.Resource(kind).Namespace(s.namespace).List(ctx, metav1.ListOptions{})
	if kind == rollouts && (apierrors.IsNotFound(err) || apierrors.IsForbidden(err)) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("listing the %s of namespace %s: %w", kind.Resource, s.namespace, err)
	}
	var found []*workload
	for i := range list.Items {
		w, err := decodeWorkload(&list.Items[i])
		if err != nil {
			return nil, err
		}
		found = append(found, w)
	}
	return found, nil
}

func decodeWorkload(object *unstructured.Unstructured) (*workload, error) {
	if object.GroupVersionKind().Group == rollouts.Group {
		unstructured.RemoveNestedField(object.Object, "status") // it has other types
	}
	w := &workload{}
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(object.Object, w); err != nil {
		return nil, fmt.Errorf("reading %s %s: %w", object.GetKind(), object.GetName(), err)
	}
	return w, nil
}

// workloadNamed is the one that the status calls "deployment/api-pr-42"; nil if it is gone, of a kind that does not roll
// out, or of another namespace, where the user may have no rights.
func (s *session) workloadNamed(ctx context.Context, name string) (*workload, error) {
	if isGuest(name) {
		return nil, nil
	}
	kind, object, _ := strings.Cut(name, "/")
	switch kind {
	case "deployment":
		return s.workload(ctx, deployments, object)
	case "statefulset":
		return s.workload(ctx, statefulSets, object)
	}
	return nil, nil
}

// workload returns nil if there is none.
func (s *session) workload(ctx context.Context, kind schema.GroupVersionResource, name string) (*workload, error) {
	object, err := s.dynamic.Resource(kind).Namespace(s.namespace).Get(ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("looking for %s %s: %w", kind.Resource, name, err)
	}
	return decodeWorkload(object)
}

// workloadsBehind lists the workloads whose Pods a Service selects, previews left out.
func (s *session) workloadsBehind(ctx context.Context, service *corev1.Service) ([]*workload, error) {
	var behind []*workload
	for _, kind := range []schema.GroupVersionResource{deployments, statefulSets, rollouts} {
		all, err := s.workloads(ctx, kind)
		if err != nil {
			return nil, err
		}
		for _, w := range all {
			if selects(service, w.Spec.Template.Labels) && !w.isPreview() {
				behind = append(behind, w)
			}
		}
	}
	return behind, nil
}

// workloadBehind is the one that a preview of the Service is to be a copy of: the only one, or the one that is named.
func (s *session) workloadBehind(ctx context.Context, service *corev1.Service, name string) (*workload, error) {
	behind, err := s.workloadsBehind(ctx, service)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, w := range behind {
		if w.String() == name || name == "" && len(behind) == 1 {
			return w, nil
		}
		names = append(names, w.String())
	}
	switch {
	case len(behind) == 0:
		return nil, notFound("no Deployment, StatefulSet or Rollout of namespace %s has Pods that Service %s selects (%s): deploy the service first, or correct the Service's selector",
			s.namespace, service.Name, selectorText(service))
	case name != "":
		return nil, notFound("%s is not behind Service %s: --from can be %s", name, service.Name, strings.Join(names, " or "))
	}
	return nil, usageError("Service %s has several workloads behind it: choose the one to copy with --from %s",
		service.Name, strings.Join(names, " or --from "))
}

// rolloutHash is what Argo Rollouts adds to a Service's selector, to choose among the Pods of one Rollout.
const rolloutHash = "rollouts-pod-template-hash"

// selectorOf is a Service's selector as its user wrote it.
func selectorOf(service *corev1.Service) map[string]string {
	selector := maps.Clone(service.Spec.Selector)
	delete(selector, rolloutHash)
	return selector
}

// selects reports whether Pods with these labels are behind a Service.
func selects(service *corev1.Service, podLabels map[string]string) bool {
	selector := selectorOf(service)
	return len(selector) > 0 && labels.SelectorFromSet(selector).Matches(labels.Set(podLabels))
}

func selectorText(service *corev1.Service) string {
	selector := selectorOf(service)
	var terms []string
	for _, label := range slices.Sorted(maps.Keys(selector)) {
		terms = append(terms, label+"="+selector[label])
	}
	return strings.Join(terms, ",")
}
