//go:build integration

package integration

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"testing"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/detour-dev/detour/api"
)

// TestNetworkPolicy restricts a Service's port while its Pods have proxies, and then admits the proxies as well.
func TestNetworkPolicy(t *testing.T) {
	newNamespace(t, "policies")
	service := newService("policies", "web", intstr.FromInt32(8080))
	create(t, service)
	next := func() *corev1.Pod { return newPod("policies", "web", map[string]string{"app": "web"}, 8080) }
	waitForPorts(t, next, "http:15401:8080,detour-8080:15402:8080", "")
	pod := next()
	create(t, pod)
	waitForTarget(t, service, "detour-8080")

	policy := newPolicy("policies", "web", 8080)
	create(t, policy)
	waitForTarget(t, service, "8080")
	waitForEvent(t, pod, "NetworkPolicyBarsProxy")
	waitForNotice(t, "policies", "Pod/web", "NetworkPolicyBarsProxy")
	waitForPorts(t, next, "", "8080/TCP:network-policy:15401,8080/TCP:network-policy:15402")

	policy.Spec = newPolicy("policies", "web", 8080, 15401, 15402).Spec
	if err := kube.Update(t.Context(), policy); err != nil {
		t.Fatal(err)
	}
	waitForTarget(t, service, "detour-8080")
	waitForPorts(t, next, "http:15401:8080,detour-8080:15402:8080", "")
}

// TestEgressPolicy keeps a proxy from everything.
func TestEgressPolicy(t *testing.T) {
	newNamespace(t, "egress")
	create(t, newPod("egress", "web", map[string]string{"app": "web"}, 8080))
	policy := newPolicy("egress", "web")
	policy.Spec.PolicyTypes = []networkingv1.PolicyType{networkingv1.PolicyTypeEgress}
	policy.Spec.Ingress = nil
	create(t, policy)
	waitForEvent(t, policy, "NetworkPolicyBarsRouter")
	waitForEvent(t, policy, "NetworkPolicyBarsPreviews")
}

// TestLimits restricts a namespace so that the API server would refuse Pods for the sake of their proxies.
func TestLimits(t *testing.T) {
	newNamespace(t, "limits")
	next := func() *corev1.Pod {
		pod := newPod("limits", "web", map[string]string{"app": "web"}, 8080)
		pod.Spec.Containers[0].Resources = corev1.ResourceRequirements{Requests: amounts("100m", "64Mi"), Limits: amounts("200m", "128Mi")}
		return pod
	}
	pod := next()
	create(t, pod)

	limits := &corev1.LimitRange{
		ObjectMeta: metav1.ObjectMeta{Namespace: "limits", Name: "limits"},
		Spec:       corev1.LimitRangeSpec{Limits: []corev1.LimitRangeItem{{Type: corev1.LimitTypeContainer, Max: amounts("1", "1Gi")}}},
	}
	create(t, limits)
	waitForProxy(t, next, "", func(proxy *corev1.Container) bool {
		return proxy.Resources.Limits.Cpu().String() == "1" // the LimitRange's default, which is its maximum
	})
	limits.Spec.Limits[0].Min = amounts("10m", "64Mi")
	if err := kube.Update(t.Context(), limits); err != nil {
		t.Fatal(err)
	}
	waitForProxy(t, next, "limit-range", nil)
	waitForEvent(t, limits, "LimitRangeRejectsProxy")
	if err := kube.Delete(t.Context(), limits); err != nil {
		t.Fatal(err)
	}

	quota := &corev1.ResourceQuota{
		ObjectMeta: metav1.ObjectMeta{Namespace: "limits", Name: "quota"},
		Spec:       corev1.ResourceQuotaSpec{Hard: corev1.ResourceList{corev1.ResourceLimitsCPU: resource.MustParse("10")}},
	}
	create(t, quota)
	quota.Status = corev1.ResourceQuotaStatus{Hard: quota.Spec.Hard, Used: corev1.ResourceList{corev1.ResourceLimitsCPU: resource.MustParse("0")}}
	if err := kube.Status().Update(t.Context(), quota); err != nil { // as its controller would
		t.Fatal(err)
	}
	waitForProxy(t, next, "quota", nil)
	waitForEvent(t, quota, "QuotaRejectsProxy")
}

// TestRemarks makes objects that are in order, and that one should know of.
func TestRemarks(t *testing.T) {
	newNamespace(t, "remarks")
	headless, sticky, early := newService("remarks", "headless", intstr.FromInt32(8080)), newService("remarks", "sticky", intstr.FromInt32(8080)), newService("remarks", "early", intstr.FromInt32(8080))
	headless.Spec.ClusterIP = corev1.ClusterIPNone
	sticky.Spec.SessionAffinity = corev1.ServiceAffinityClientIP
	early.Spec.PublishNotReadyAddresses = true
	autoscaler := &autoscalingv2.HorizontalPodAutoscaler{
		ObjectMeta: metav1.ObjectMeta{Namespace: "remarks", Name: "web"},
		Spec: autoscalingv2.HorizontalPodAutoscalerSpec{
			ScaleTargetRef: autoscalingv2.CrossVersionObjectReference{APIVersion: "apps/v1", Kind: "StatefulSet", Name: "web"},
			MaxReplicas:    3,
			Metrics: []autoscalingv2.MetricSpec{{Type: autoscalingv2.ResourceMetricSourceType, Resource: &autoscalingv2.ResourceMetricSource{
				Name: corev1.ResourceCPU, Target: autoscalingv2.MetricTarget{Type: autoscalingv2.UtilizationMetricType, AverageUtilization: ptr.To[int32](80)},
			}}},
		},
	}
	for _, object := range []client.Object{headless, sticky, early, autoscaler} {
		create(t, object)
	}
	pod := newPod("remarks", "web-0", map[string]string{"app": "web"}, 8080)
	pod.Annotations = map[string]string{"k8s.ovn.org/pod-networks": "{}"} // OVN-Kubernetes writes it a little later
	pod.OwnerReferences = []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: "StatefulSet", Name: "web", UID: "web", Controller: ptr.To(true)}}
	create(t, pod)

	waitForEvent(t, headless, "Headless")
	waitForEvent(t, sticky, "SessionAffinity")
	waitForEvent(t, early, "PublishesNotReady")
	waitForEvent(t, autoscaler, "AutoscalerCountsProxy")
	namespace := namespaceNamed("remarks")
	if err := kube.Get(t.Context(), client.ObjectKeyFromObject(namespace), namespace); err != nil {
		t.Fatal(err)
	}
	waitForEvent(t, namespace, "OVNKubernetes")
	for object, reason := range map[string]string{
		"Service/headless": "Headless", "Service/sticky": "SessionAffinity", "Service/early": "PublishesNotReady",
		"HorizontalPodAutoscaler/web": "AutoscalerCountsProxy", "Namespace/remarks": "OVNKubernetes",
	} {
		waitForNotice(t, "remarks", object, reason)
	}
}

func amounts(cpu, memory string) corev1.ResourceList {
	return corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(cpu), corev1.ResourceMemory: resource.MustParse(memory)}
}

// waitForProxy waits until a next Pod would be accepted, without a proxy for a reason, or else with one that is as wanted.
func waitForProxy(t *testing.T, next func() *corev1.Pod, reason string, wanted func(*corev1.Container) bool) {
	t.Helper()
	eventually(t, "the next Pod is as wanted (not injected: "+reason+")", func() error {
		pod := next()
		pod.Name += "-next"
		if err := kube.Create(t.Context(), pod, client.DryRunAll); err != nil {
			return err
		}
		if got := pod.Annotations[api.AnnotationNotInjected]; got != reason {
			return errors.New("not injected: " + got)
		}
		if reason == "" && !wanted(&pod.Spec.InitContainers[0]) {
			return fmt.Errorf("the proxy has %v", pod.Spec.InitContainers[0].Resources)
		}
		return nil
	})
}

// waitForNotice reads the notices as their readers do.
func waitForNotice(t *testing.T, namespace, object, reason string) {
	t.Helper()
	eventually(t, object+" has the notice "+reason, func() error {
		var status corev1.ConfigMap
		if err := kube.Get(t.Context(), client.ObjectKey{Namespace: namespace, Name: api.ConfigMapStatus}, &status); err != nil {
			return err
		}
		text := status.Data[api.ConfigMapNoticesKey]
		var notices api.Notices
		if err := json.Unmarshal([]byte(text), &notices); err != nil {
			return err
		}
		if !slices.ContainsFunc(notices.Notices, func(n api.Notice) bool { return n.Object == object && n.Reason == reason }) {
			return errors.New(text)
		}
		return nil
	})
}

// waitForPorts waits until a next Pod would have a proxy with these ports, and these annotated as left.
func waitForPorts(t *testing.T, next func() *corev1.Pod, ports, left string) {
	t.Helper()
	eventually(t, "the next Pod's proxy serves "+ports, func() error {
		pod := next()
		pod.Name += "-next"
		if err := kube.Create(t.Context(), pod, client.DryRunAll); err != nil {
			return err
		}
		var got string
		if isInjected(pod) {
			got = api.FormatPorts(takenPorts(t, pod))
		}
		if noted := pod.Annotations[api.AnnotationPortsNotTaken]; got != ports || noted != left {
			return fmt.Errorf("it serves %q and leaves %q (%s)", got, noted, pod.Annotations[api.AnnotationNotInjected])
		}
		return nil
	})
}

// newPolicy admits the namespace's own Pods to some ports of an app.
func newPolicy(namespace, app string, ports ...int32) *networkingv1.NetworkPolicy {
	rule := networkingv1.NetworkPolicyIngressRule{From: []networkingv1.NetworkPolicyPeer{{PodSelector: &metav1.LabelSelector{}}}}
	for _, port := range ports {
		rule.Ports = append(rule.Ports, networkingv1.NetworkPolicyPort{Port: ptr.To(intstr.FromInt32(port))})
	}
	return &networkingv1.NetworkPolicy{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: app},
		Spec: networkingv1.NetworkPolicySpec{
			PodSelector: metav1.LabelSelector{MatchLabels: map[string]string{"app": app}},
			PolicyTypes: []networkingv1.PolicyType{networkingv1.PolicyTypeIngress},
			Ingress:     []networkingv1.NetworkPolicyIngressRule{rule},
		},
	}
}
