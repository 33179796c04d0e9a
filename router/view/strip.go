package view

import (
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/detour-dev/detour/api"
)

// Strip keeps of an object what [New] reads, of a Namespace what identifies it, and of mere metadata what [Homes] reads. It
// is made to be the transform of the caches that hold [Objects], so that a replica's memory does not grow with what people
// keep in their Pods, and no secret in an environment variable stays in it. What it returns shares memory with the object,
// which it does not change. Anything else, such as a cache's tombstone, is returned as it is; the error is always nil.
func Strip(object any) (any, error) {
	switch o := object.(type) {
	case *corev1.Namespace:
		return &corev1.Namespace{TypeMeta: o.TypeMeta, ObjectMeta: stripMeta(o.ObjectMeta)}, nil
	case *metav1.PartialObjectMetadata:
		return stripPartial(o), nil
	case *corev1.Service:
		return stripService(o), nil
	case *discoveryv1.EndpointSlice:
		return stripSlice(o), nil
	case *appsv1.Deployment:
		d := &appsv1.Deployment{TypeMeta: o.TypeMeta, ObjectMeta: stripMeta(o.ObjectMeta)}
		d.Spec.Template.Labels = o.Spec.Template.Labels
		return d, nil
	case *appsv1.StatefulSet:
		s := &appsv1.StatefulSet{TypeMeta: o.TypeMeta, ObjectMeta: stripMeta(o.ObjectMeta)}
		s.Spec.Template.Labels = o.Spec.Template.Labels
		return s, nil
	case *appsv1.ReplicaSet:
		r := &appsv1.ReplicaSet{TypeMeta: o.TypeMeta, ObjectMeta: stripMeta(o.ObjectMeta)}
		r.Spec.Template.Labels = o.Spec.Template.Labels
		r.Spec.Replicas, r.Status.Replicas = o.Spec.Replicas, o.Status.Replicas
		return r, nil
	case *corev1.Pod:
		return stripPod(o), nil
	}
	return object, nil // a tombstone
}

// annotationsRead are those that New looks at, of whatever object.
var annotationsRead = []string{
	api.AnnotationTargetNamespace, api.AnnotationFallback, api.AnnotationMode, api.AnnotationMatch, api.AnnotationPercent,
	api.AnnotationPorts, api.AnnotationTTL, api.AnnotationUpdated, api.AnnotationAllow, api.AnnotationNotInjected,
	api.AnnotationPortsNotTaken, revision,
}

// stripMeta keeps what identifies an object, its labels, its controller, and the annotations that are read.
func stripMeta(m metav1.ObjectMeta) metav1.ObjectMeta {
	kept := metav1.ObjectMeta{
		Namespace: m.Namespace, Name: m.Name, UID: m.UID, ResourceVersion: m.ResourceVersion,
		CreationTimestamp: m.CreationTimestamp, DeletionTimestamp: m.DeletionTimestamp,
		Labels: m.Labels, OwnerReferences: m.OwnerReferences,
	}
	for _, name := range annotationsRead {
		if value, set := m.Annotations[name]; set {
			metav1.SetMetaDataAnnotation(&kept, name, value)
		}
	}
	return kept
}

func stripPartial(o *metav1.PartialObjectMetadata) *metav1.PartialObjectMetadata {
	kept := &metav1.PartialObjectMetadata{TypeMeta: o.TypeMeta, ObjectMeta: metav1.ObjectMeta{
		Namespace: o.Namespace, Name: o.Name, UID: o.UID, ResourceVersion: o.ResourceVersion,
	}}
	if named, set := o.Annotations[api.AnnotationTargetNamespace]; set {
		metav1.SetMetaDataAnnotation(&kept.ObjectMeta, api.AnnotationTargetNamespace, named)
	}
	return kept
}

func stripService(s *corev1.Service) *corev1.Service {
	return &corev1.Service{
		TypeMeta: s.TypeMeta, ObjectMeta: stripMeta(s.ObjectMeta),
		Spec: corev1.ServiceSpec{
			Type: s.Spec.Type, ClusterIP: s.Spec.ClusterIP, Selector: s.Spec.Selector, Ports: s.Spec.Ports,
		},
	}
}

func stripSlice(s *discoveryv1.EndpointSlice) *discoveryv1.EndpointSlice {
	kept := &discoveryv1.EndpointSlice{
		TypeMeta: s.TypeMeta, ObjectMeta: stripMeta(s.ObjectMeta), AddressType: s.AddressType, Ports: s.Ports,
	}
	for _, e := range s.Endpoints {
		kept.Endpoints = append(kept.Endpoints, discoveryv1.Endpoint{TargetRef: e.TargetRef})
	}
	return kept
}

func stripPod(p *corev1.Pod) *corev1.Pod {
	return &corev1.Pod{
		TypeMeta: p.TypeMeta, ObjectMeta: stripMeta(p.ObjectMeta),
		Spec: corev1.PodSpec{
			Containers:     stripContainers(p.Spec.Containers),
			InitContainers: stripContainers(p.Spec.InitContainers),
		},
		Status: corev1.PodStatus{
			Phase: p.Status.Phase, PodIP: p.Status.PodIP, Conditions: stripConditions(p.Status.Conditions),
			InitContainerStatuses: stripStatuses(p.Status.InitContainerStatuses),
			ContainerStatuses:     stripStatuses(p.Status.ContainerStatuses),
		},
	}
}

func stripContainers(containers []corev1.Container) []corev1.Container {
	var kept []corev1.Container
	for _, c := range containers {
		k := corev1.Container{Name: c.Name, Image: c.Image, RestartPolicy: c.RestartPolicy, Ports: c.Ports}
		for _, env := range c.Env {
			if c.Name == api.ContainerProxy && env.Name == api.EnvPorts {
				k.Env = append(k.Env, env)
			}
		}
		kept = append(kept, k)
	}
	return kept
}

func stripConditions(conditions []corev1.PodCondition) []corev1.PodCondition {
	var kept []corev1.PodCondition
	for _, c := range conditions {
		if c.Type == corev1.PodReady || c.Type == corev1.PodScheduled {
			kept = append(kept, corev1.PodCondition{Type: c.Type, Status: c.Status, Reason: c.Reason})
		}
	}
	return kept
}

func stripStatuses(statuses []corev1.ContainerStatus) []corev1.ContainerStatus {
	var kept []corev1.ContainerStatus
	for _, s := range statuses {
		k := corev1.ContainerStatus{Name: s.Name, RestartCount: s.RestartCount}
		if s.State.Waiting != nil {
			k.State.Waiting = &corev1.ContainerStateWaiting{Reason: s.State.Waiting.Reason}
		}
		kept = append(kept, k)
	}
	return kept
}
