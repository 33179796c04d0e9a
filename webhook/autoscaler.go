package webhook

import (
	"slices"
	"strings"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// autoscalerNotices tells of autoscalers for which the proxy counts as a part of the app.
func autoscalerNotices(around surroundings, pods []corev1.Pod) []notice {
	var notices []notice
	for i := range around.autoscalers {
		autoscaler := &around.autoscalers[i]
		resources := podMetrics(autoscaler)
		scales := func(pod corev1.Pod) bool { return wantsProxy(&pod) && workloadOf(&pod) == scaleTarget(autoscaler) }
		if len(resources) > 0 && slices.ContainsFunc(pods, scales) {
			notices = append(notices, remark(referenceTo(autoscalingv2.SchemeGroupVersion.String(), "HorizontalPodAutoscaler", autoscaler), eventAutoscaler,
				"HorizontalPodAutoscaler %s goes by the %s of whole Pods. Where they have a proxy, what it uses counts, and so does what it requests (%s). "+
					"With metrics of type ContainerResource, the app's container alone counts",
				autoscaler.Name, strings.Join(resources, " and "), proxyAsks()))
		}
	}
	return notices
}

// podMetrics are the resources that an autoscaler sums up over the containers of a Pod.
func podMetrics(autoscaler *autoscalingv2.HorizontalPodAutoscaler) []string {
	var resources []string
	for _, metric := range autoscaler.Spec.Metrics {
		if metric.Type == autoscalingv2.ResourceMetricSourceType && metric.Resource != nil {
			resources = append(resources, string(metric.Resource.Name))
		}
	}
	return resources
}

// workloadName is what an autoscaler knows a workload by.
type workloadName struct {
	kind, name string
}

func scaleTarget(autoscaler *autoscalingv2.HorizontalPodAutoscaler) workloadName {
	return workloadName{autoscaler.Spec.ScaleTargetRef.Kind, autoscaler.Spec.ScaleTargetRef.Name}
}

// workloadOf returns what has made a Pod. A Deployment names its ReplicaSets after itself and the hash of their template.
func workloadOf(pod *corev1.Pod) workloadName {
	owner := metav1.GetControllerOfNoCopy(pod)
	if owner == nil {
		return workloadName{}
	}
	deployment, made := strings.CutSuffix(owner.Name, "-"+pod.Labels["pod-template-hash"])
	if made && owner.Kind == "ReplicaSet" {
		return workloadName{"Deployment", deployment}
	}
	return workloadName{owner.Kind, owner.Name}
}
