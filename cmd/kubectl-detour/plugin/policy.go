package plugin

import (
	"context"
	"fmt"
	"slices"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
)

// policyNotes warns of NetworkPolicies that know the original's Pods by labels which the preview's Pods cannot have. Whoever
// may not read the policies gets no warning.
func (s *session) policyNotes(ctx context.Context, original, preview map[string]string) []string {
	policies, err := s.kube.NetworkingV1().NetworkPolicies(s.namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil
	}
	var notes []string
	for i := range policies.Items {
		notes = append(notes, policyNote(&policies.Items[i], original, preview)...)
	}
	return notes
}

func policyNote(policy *networkingv1.NetworkPolicy, original, preview map[string]string) []string {
	loses := func(selector *metav1.LabelSelector) bool {
		s, err := metav1.LabelSelectorAsSelector(selector)
		return err == nil && s.Matches(labels.Set(original)) && !s.Matches(labels.Set(preview))
	}
	const advice = "have it name their labels, too: detour.dev/target, detour.dev/key"
	var notes []string
	if loses(&policy.Spec.PodSelector) {
		notes = append(notes, fmt.Sprintf("NetworkPolicy %s is for the original's Pods and not for the preview's: %s", policy.Name, advice))
	}
	if slices.ContainsFunc(peers(policy), func(peer networkingv1.NetworkPolicyPeer) bool {
		return peer.NamespaceSelector == nil && peer.PodSelector != nil && loses(peer.PodSelector)
	}) {
		notes = append(notes, fmt.Sprintf("NetworkPolicy %s admits the original's Pods and perhaps not the preview's: %s", policy.Name, advice))
	}
	return notes
}

// peers are those of all rules, in both directions.
func peers(policy *networkingv1.NetworkPolicy) []networkingv1.NetworkPolicyPeer {
	var all []networkingv1.NetworkPolicyPeer
	for _, rule := range policy.Spec.Ingress {
		all = append(all, rule.From...)
	}
	for _, rule := range policy.Spec.Egress {
		all = append(all, rule.To...)
	}
	return all
}
