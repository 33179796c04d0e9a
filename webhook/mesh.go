package webhook

import (
	"cmp"
	"slices"

	corev1 "k8s.io/api/core/v1"
)

// inMesh recognises Istio and Linkerd by the proxy that they have injected, or will: the API server may ask them after
// us, and then only the Pod's labels and annotations and those of its namespace tell. The namespace may be nil.
func inMesh(pod *corev1.Pod, namespace *corev1.Namespace) bool {
	if namespace == nil {
		namespace = &corev1.Namespace{}
	}
	isMesh := func(c corev1.Container) bool { return c.Name == "istio-proxy" || c.Name == "linkerd-proxy" }
	return slices.ContainsFunc(pod.Spec.Containers, isMesh) || slices.ContainsFunc(pod.Spec.InitContainers, isMesh) ||
		inIstio(pod, namespace) || inLinkerd(pod, namespace)
}

// inIstio knows Istio's two ways of injecting a sidecar, and its ambient mode, which needs none.
func inIstio(pod *corev1.Pod, namespace *corev1.Namespace) bool {
	const inject, mode = "sidecar.istio.io/inject", "istio.io/dataplane-mode"
	if cmp.Or(pod.Labels[mode], namespace.Labels[mode]) == "ambient" {
		return true
	}
	if choice := cmp.Or(pod.Labels[inject], pod.Annotations[inject]); choice != "" {
		return choice == "true"
	}
	const revision = "istio.io/rev"
	return namespace.Labels["istio-injection"] == "enabled" || cmp.Or(pod.Labels[revision], namespace.Labels[revision]) != ""
}

func inLinkerd(pod *corev1.Pod, namespace *corev1.Namespace) bool {
	const inject = "linkerd.io/inject"
	mode := cmp.Or(pod.Annotations[inject], namespace.Annotations[inject])
	return mode == "enabled" || mode == "ingress"
}
