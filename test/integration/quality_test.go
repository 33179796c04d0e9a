//go:build integration

package integration

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// TestPodKeepsItsQuality asks the API server which class of quality of service it gives a Pod with a proxy.
func TestPodKeepsItsQuality(t *testing.T) {
	newNamespace(t, "quality")
	some := corev1.ResourceList{
		corev1.ResourceCPU:    resource.MustParse("500m"),
		corev1.ResourceMemory: resource.MustParse("64Mi"),
	}
	for want, resources := range map[corev1.PodQOSClass]corev1.ResourceRequirements{
		corev1.PodQOSGuaranteed: {Limits: some}, // requests are the limits where they are left out
		corev1.PodQOSBurstable:  {Requests: some},
	} {
		pod := newPod("quality", "api", nil, 8080)
		pod.GenerateName, pod.Name = "api-", ""
		pod.Spec.Containers[0].Resources = resources
		create(t, pod)
		if !isInjected(pod) || pod.Status.QOSClass != want {
			t.Errorf("injected: %v, class %s, want %s", isInjected(pod), pod.Status.QOSClass, want)
		}
	}
}
