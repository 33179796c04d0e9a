package webhook

import (
	"slices"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/detour-dev/detour/api"
)

// stripPod keeps of a Pod what the package reads, before it goes into the cache: the cluster may have ten thousand.
// What it keeps must never be written back.
func stripPod(object any) (any, error) {
	pod, ok := object.(*corev1.Pod)
	if !ok {
		return object, nil // the informer's note of a deletion that it missed
	}
	kept := &corev1.Pod{
		TypeMeta:   pod.TypeMeta,
		ObjectMeta: stripMeta(pod.ObjectMeta),
		Status:     corev1.PodStatus{Phase: pod.Status.Phase},
	}
	kept.CreationTimestamp = pod.CreationTimestamp
	if proxy := proxyOf(pod); proxy != nil {
		kept.Spec.InitContainers = []corev1.Container{{Name: proxy.Name, Ports: proxy.Ports, Env: stripEnv(proxy.Env)}}
		kept.Spec.Containers = []corev1.Container{{Ports: declaredPorts(pod.Spec.Containers)}} // one is smaller than several
	}
	for _, s := range pod.Status.InitContainerStatuses {
		if isProxyStatus(s) {
			kept.Status.InitContainerStatuses = []corev1.ContainerStatus{stripStatus(s)}
		}
	}
	return kept, nil
}

func stripEnv(env []corev1.EnvVar) []corev1.EnvVar {
	i := slices.IndexFunc(env, func(e corev1.EnvVar) bool { return e.Name == api.EnvPorts })
	if i < 0 {
		return nil
	}
	return []corev1.EnvVar{env[i]}
}

func stripStatus(s corev1.ContainerStatus) corev1.ContainerStatus {
	kept := corev1.ContainerStatus{Name: s.Name, RestartCount: s.RestartCount, Started: s.Started}
	if s.State.Waiting != nil {
		kept.State.Waiting = &corev1.ContainerStateWaiting{Reason: s.State.Waiting.Reason}
	}
	return kept
}

// stripService does the same for Services.
func stripService(object any) (any, error) {
	service, ok := object.(*corev1.Service)
	if !ok {
		return object, nil
	}
	return &corev1.Service{
		TypeMeta:   service.TypeMeta,
		ObjectMeta: stripMeta(service.ObjectMeta),
		Spec: corev1.ServiceSpec{
			Type:      service.Spec.Type,
			ClusterIP: service.Spec.ClusterIP,
			Selector:  service.Spec.Selector,
			Ports:     service.Spec.Ports,

			SessionAffinity:          service.Spec.SessionAffinity,
			PublishNotReadyAddresses: service.Spec.PublishNotReadyAddresses,
		},
	}, nil
}

func stripPolicy(object any) (any, error) {
	policy, ok := object.(*networkingv1.NetworkPolicy)
	if !ok {
		return object, nil
	}
	return &networkingv1.NetworkPolicy{TypeMeta: policy.TypeMeta, ObjectMeta: stripMeta(policy.ObjectMeta), Spec: policy.Spec}, nil
}

func stripLimitRange(object any) (any, error) {
	limits, ok := object.(*corev1.LimitRange)
	if !ok {
		return object, nil
	}
	return &corev1.LimitRange{TypeMeta: limits.TypeMeta, ObjectMeta: stripMeta(limits.ObjectMeta), Spec: limits.Spec}, nil
}

func stripQuota(object any) (any, error) {
	quota, ok := object.(*corev1.ResourceQuota)
	if !ok {
		return object, nil
	}
	return &corev1.ResourceQuota{TypeMeta: quota.TypeMeta, ObjectMeta: stripMeta(quota.ObjectMeta), Spec: quota.Spec, Status: quota.Status}, nil
}

func stripAutoscaler(object any) (any, error) {
	autoscaler, ok := object.(*autoscalingv2.HorizontalPodAutoscaler)
	if !ok {
		return object, nil
	}
	return &autoscalingv2.HorizontalPodAutoscaler{
		TypeMeta:   autoscaler.TypeMeta,
		ObjectMeta: stripMeta(autoscaler.ObjectMeta),
		Spec:       autoscalingv2.HorizontalPodAutoscalerSpec{ScaleTargetRef: autoscaler.Spec.ScaleTargetRef, Metrics: autoscaler.Spec.Metrics},
	}, nil
}

func stripMeta(meta metav1.ObjectMeta) metav1.ObjectMeta {
	kept := metav1.ObjectMeta{
		Namespace:         meta.Namespace,
		Name:              meta.Name,
		UID:               meta.UID,
		ResourceVersion:   meta.ResourceVersion,
		DeletionTimestamp: meta.DeletionTimestamp,
		Labels:            meta.Labels,
		OwnerReferences:   meta.OwnerReferences,
	}
	for _, name := range []string{
		api.AnnotationNotInjected, api.AnnotationPortsNotTaken, api.AnnotationTargetPorts, corev1.MirrorPodAnnotationKey, annotationOVN,
	} {
		annotate(&kept, name, meta.Annotations[name])
	}
	return kept
}
