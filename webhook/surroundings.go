package webhook

import (
	"context"
	"fmt"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// surroundings is what a Pod's namespace has to say on whether and how the Pod gets a proxy.
type surroundings struct {
	namespace *corev1.Namespace // nil if it is not known to take part
	home      *corev1.Namespace // Detour's own; nil if it is not known
	services  []corev1.Service
	policies  []networkingv1.NetworkPolicy
	ranges    []corev1.LimitRange
	quotas    []corev1.ResourceQuota

	autoscalers []autoscalingv2.HorizontalPodAutoscaler
}

// survey reads the surroundings of the Pods of a namespace from the cache. They are not to be changed.
func survey(ctx context.Context, cache client.Reader, namespace string) (surroundings, error) {
	var services corev1.ServiceList
	var policies networkingv1.NetworkPolicyList
	var ranges corev1.LimitRangeList
	var quotas corev1.ResourceQuotaList
	var autoscalers autoscalingv2.HorizontalPodAutoscalerList
	for _, list := range []client.ObjectList{&services, &policies, &ranges, &quotas, &autoscalers} {
		if err := cache.List(ctx, list, client.InNamespace(namespace), client.UnsafeDisableDeepCopy); err != nil {
			return surroundings{}, fmt.Errorf("listing %T of namespace %s: %w", list, namespace, err)
		}
	}
	return surroundings{
		services: services.Items, policies: policies.Items, ranges: ranges.Items, quotas: quotas.Items, autoscalers: autoscalers.Items,
	}, nil
}
