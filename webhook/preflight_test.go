package webhook

import (
	"strings"
	"testing"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/detour-dev/detour/api"
)

func TestServiceNotices(t *testing.T) {
	service := func(change func(*corev1.ServiceSpec)) []corev1.Service {
		s := testService("api", "8080")
		change(&s.Spec)
		return []corev1.Service{s}
	}
	for _, c := range []struct {
		name     string
		services []corev1.Service
		want     string
	}{
		{"an ordinary one", service(func(*corev1.ServiceSpec) {}), ""},
		{"headless", service(func(s *corev1.ServiceSpec) { s.ClusterIP, s.PublishNotReadyAddresses = "None", true }), "Headless Service/api: add a Service with a cluster IP"},
		{"headless without Pods", service(func(s *corev1.ServiceSpec) { s.ClusterIP, s.Selector = "None", nil }), ""},
		{"affinity", service(func(s *corev1.ServiceSpec) { s.SessionAffinity = corev1.ServiceAffinityClientIP }), "SessionAffinity Service/api: ClientIP"},
		{"no affinity", service(func(s *corev1.ServiceSpec) { s.SessionAffinity = corev1.ServiceAffinityNone }), ""},
		{"not ready", service(func(s *corev1.ServiceSpec) { s.PublishNotReadyAddresses = true }), "PublishesNotReady Service/api: before their app listens"},
		{"ExternalName", service(func(s *corev1.ServiceSpec) { s.Type, s.PublishNotReadyAddresses = corev1.ServiceTypeExternalName, true }), ""},
	} {
		checkOneNotice(t, c.name, serviceNotices(c.services), c.want)
	}
}

func TestAutoscalerNotices(t *testing.T) {
	made := func(pod corev1.Pod, kind, name string) []corev1.Pod {
		pod.OwnerReferences = []metav1.OwnerReference{{Kind: kind, Name: name, Controller: ptr.To(true)}}
		pod.Labels["pod-template-hash"] = "5f9c"
		return []corev1.Pod{pod}
	}
	const onCPU, onContainer = "{type: Resource, resource: {name: cpu}}", "{type: ContainerResource, containerResource: {name: cpu, container: api}}"
	optedOut := testPod("p")
	optedOut.Labels["detour.dev/inject"] = "disabled"
	for _, c := range []struct {
		name   string
		target string
		metric string
		pods   []corev1.Pod
		want   string
	}{
		{"a Deployment with proxies", "Deployment", onCPU, made(testPod("p", "http"), "ReplicaSet", "api-5f9c"), "AutoscalerCountsProxy HorizontalPodAutoscaler/h: ContainerResource"},
		{"a Deployment that will have proxies", "Deployment", onCPU, made(testPod("p"), "ReplicaSet", "api-5f9c"), "AutoscalerCountsProxy HorizontalPodAutoscaler/h: the cpu of whole Pods"},
		{"a StatefulSet", "StatefulSet", onCPU, made(testPod("p", "http"), "StatefulSet", "api"), "AutoscalerCountsProxy HorizontalPodAutoscaler/h: requests"},
		{"a container's metric", "Deployment", onContainer, made(testPod("p", "http"), "ReplicaSet", "api-5f9c"), ""},
		{"another Deployment", "Deployment", onCPU, made(testPod("p", "http"), "ReplicaSet", "api-v2-5f9c"), ""},
		{"Pods without a proxy", "Deployment", onCPU, made(optedOut, "ReplicaSet", "api-5f9c"), ""},
		{"nobody's Pod", "Deployment", onCPU, []corev1.Pod{testPod("p", "http")}, ""},
	} {
		autoscaler := autoscalingv2.HorizontalPodAutoscaler{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "h"}}
		autoscaler.Spec.ScaleTargetRef = autoscalingv2.CrossVersionObjectReference{Kind: c.target, Name: "api"}
		autoscaler.Spec.Metrics = []autoscalingv2.MetricSpec{parse[autoscalingv2.MetricSpec](t, c.metric)}
		around := surroundings{namespace: testNamespace("shop", true), autoscalers: []autoscalingv2.HorizontalPodAutoscaler{autoscaler}}
		checkOneNotice(t, c.name, autoscalerNotices(around, c.pods), c.want)
	}
}

func TestNetworkNotices(t *testing.T) {
	namespace := testNamespace("shop", true)
	checkOneNotice(t, "another network", networkNotices(namespace, []corev1.Pod{testPod("p")}), "")
	onOVN := annotated(testPod("p"), annotationOVN, `{"default":{}}`)
	checkOneNotice(t, "OVN-Kubernetes", networkNotices(namespace, []corev1.Pod{onOVN}), "OVNKubernetes Namespace/shop: issues/5908")
	onOVN.Labels["detour.dev/inject"] = "disabled"
	checkOneNotice(t, "without us", networkNotices(namespace, []corev1.Pod{onOVN}), "")
}

// The API server refuses Events with longer notes (events.k8s.io), whatever the names in them.
func TestNoticesFitIntoEvents(t *testing.T) {
	const longest = 1024
	long := strings.Repeat("n", 253)
	namespace := testNamespace(long[:63], true)
	policy := testPolicy(t, long, "policyTypes: [Ingress, Egress], ingress: [{ports: [{port: 8080}, {port: 9000}]}]")
	pod := annotated(proxied(long, "detour-8080:15401:8080,detour-9000:15402:9000"), annotationOVN, "{}")
	annotate(&pod, api.AnnotationPortsNotTaken, strings.Repeat("8080/TCP:network-policy:15401,", 100))
	limits := corev1.LimitRange{ObjectMeta: metav1.ObjectMeta{Name: long}}
	limits.Spec.Limits = []corev1.LimitRangeItem{parse[corev1.LimitRangeItem](t, "{type: Container, min: {cpu: 50m}}")}
	quota := parse[corev1.ResourceQuota](t, "{spec: {hard: {limits.cpu: 10}}}")
	quota.Name = long
	around := surroundings{
		namespace: namespace, home: testNamespace(long[:62], false), services: []corev1.Service{testService(long, "8080")},
		policies: []networkingv1.NetworkPolicy{policy, policy}, ranges: []corev1.LimitRange{limits}, quotas: []corev1.ResourceQuota{quota},
	}
	pods := []corev1.Pod{pod}
	for why := range explanations {
		pods = append(pods, annotated(testPod(long+string(why)), api.AnnotationNotInjected, string(why)))
	}
	notices := noticesOf(around, pods, injectionState{})
	for _, n := range notices {
		if len(n.message) > longest {
			t.Errorf("%s has %d bytes: %s", n.reason, len(n.message), n.message)
		}
	}
	if want := len(explanations) + 7; len(notices) != want {
		t.Errorf("%d notices, want %d", len(notices), want)
	}
}
