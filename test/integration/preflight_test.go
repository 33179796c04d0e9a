//go:build integration

package integration

import (
	"fmt"
	"testing"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
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
