package plugin

import (
	"strings"
	"testing"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestPolicyNote(t *testing.T) {
	original := map[string]string{"app": "api", "tier": "backend"}
	preview := map[string]string{"tier": "backend"}
	app := metav1.LabelSelector{MatchLabels: map[string]string{"app": "api"}}
	tier := metav1.LabelSelector{MatchLabels: map[string]string{"tier": "backend"}}
	other := metav1.LabelSelector{MatchLabels: map[string]string{"app": "other"}}
	admitting := func(peer networkingv1.NetworkPolicyPeer) networkingv1.NetworkPolicySpec {
		return networkingv1.NetworkPolicySpec{PodSelector: other, Ingress: []networkingv1.NetworkPolicyIngressRule{
			{From: []networkingv1.NetworkPolicyPeer{peer}},
		}}
	}
	for name, c := range map[string]struct {
		spec networkingv1.NetworkPolicySpec
		want string
	}{
		"for a label that only the original has": {networkingv1.NetworkPolicySpec{PodSelector: app}, "NetworkPolicy p is for the original's Pods and not"},
		"for a label that both have":             {networkingv1.NetworkPolicySpec{PodSelector: tier}, ""},
		"for all Pods":                           {networkingv1.NetworkPolicySpec{}, ""},
		"for others":                             {networkingv1.NetworkPolicySpec{PodSelector: other}, ""},
		"admits the original":                    {admitting(networkingv1.NetworkPolicyPeer{PodSelector: &app}), "NetworkPolicy p admits the original's Pods"},
		"admits both":                            {admitting(networkingv1.NetworkPolicyPeer{PodSelector: &tier}), ""},
		"admits other namespaces'":               {admitting(networkingv1.NetworkPolicyPeer{PodSelector: &app, NamespaceSelector: &other}), ""},
		"lets out to the original": {networkingv1.NetworkPolicySpec{PodSelector: other, Egress: []networkingv1.NetworkPolicyEgressRule{
			{To: []networkingv1.NetworkPolicyPeer{{PodSelector: &app}}},
		}}, "NetworkPolicy p admits the original's Pods"},
	} {
		policy := &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Name: "p"}, Spec: c.spec}
		got := strings.Join(policyNote(policy, original, preview), "\n")
		if c.want == "" && got != "" || !strings.HasPrefix(got, c.want) {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}
