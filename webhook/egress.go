package webhook

import (
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// routerLabel and routerPort are what proxies look for in Detour's own namespace.
const (
	routerLabel = "app.kubernetes.io/name"
	routerName  = "detour-router"
	routerPort  = 8443
)

// destination is some Pod that a proxy has to reach.
type destination struct {
	namespace *corev1.Namespace
	labels    map[string]string // nil if they can be any
	port      int32             // zero if it can be any
}

// egressNotices tells of policies by which proxies reach no router or no preview. What is not known for certain counts as
// reached: addresses, and the labels of previews. Pods that the same policies isolate fare alike, so each set is told once,
// with its first policy.
func egressNotices(around surroundings, pods []corev1.Pod, policies []networkPolicy) []notice {
	var notices []notice
	seen := map[string]bool{}
	for i := range pods {
		isolating := isolatingEgress(&pods[i], policies)
		names := policyNames(isolating)
		if len(isolating) == 0 || seen[names] || !wantsProxy(&pods[i]) {
			continue
		}
		seen[names] = true
		if router := (destination{around.home, map[string]string{routerLabel: routerName}, routerPort}); around.home != nil && !couldReach(isolating, router) {
			notices = append(notices, routerNotice(isolating, around.home.Name))
		}
		if preview := (destination{namespace: around.namespace}); !couldReach(isolating, preview) {
			notices = append(notices, previewsNotice(isolating))
		}
	}
	return notices
}

// wantsProxy reports whether a Pod has a proxy, or will have once it is replaced.
func wantsProxy(pod *corev1.Pod) bool {
	return !ended(pod) && (proxyOf(pod) != nil || withoutReason(pod))
}

func isolatingEgress(pod *corev1.Pod, policies []networkPolicy) []networkPolicy {
	var isolating []networkPolicy
	for _, p := range policies {
		if p.isolates(pod, networkingv1.PolicyTypeEgress) {
			isolating = append(isolating, p)
		}
	}
	slices.SortFunc(isolating, func(a, b networkPolicy) int { return strings.Compare(a.Name, b.Name) })
	return isolating
}

func policyNames(policies []networkPolicy) string {
	var names []string
	for _, p := range policies {
		names = append(names, p.Name)
	}
	return strings.Join(names, ", ")
}

// couldReach reports whether any rule of the policies could admit the way to a destination.
func couldReach(policies []networkPolicy, to destination) bool {
	return slices.ContainsFunc(policies, func(p networkPolicy) bool {
		return slices.ContainsFunc(p.Spec.Egress, func(rule networkingv1.NetworkPolicyEgressRule) bool {
			return couldBePort(rule.Ports, to) && couldBePeer(rule.To, p.Namespace, to)
		})
	})
}

func couldBePort(ports []networkingv1.NetworkPolicyPort, to destination) bool {
	return len(ports) == 0 || slices.ContainsFunc(ports, func(p networkingv1.NetworkPolicyPort) bool {
		named := p.Port != nil && p.Port.Type == intstr.String // it is the destination's Pod that says what the name means
		tcp := p.Protocol == nil || isTCP(*p.Protocol)
		return tcp && (named || to.port == 0 || isPort(p, listener{number: uint16(to.port)}))
	})
}

func couldBePeer(peers []networkingv1.NetworkPolicyPeer, from string, to destination) bool {
	return len(peers) == 0 || slices.ContainsFunc(peers, func(p networkingv1.NetworkPolicyPeer) bool {
		switch {
		case p.IPBlock != nil:
			return true
		case p.NamespaceSelector == nil && from != to.namespace.Name:
			return false
		case p.NamespaceSelector != nil && !matches(p.NamespaceSelector, to.namespace.Labels):
			return false
		}
		return p.PodSelector == nil || to.labels == nil || matches(p.PodSelector, to.labels)
	})
}

func matches(selector *metav1.LabelSelector, set labels.Set) bool {
	s, err := metav1.LabelSelectorAsSelector(selector)
	return err == nil && s.Matches(set)
}

func routerNotice(policies []networkPolicy, home string) notice {
	return warning(policyReference(policies[0]), eventRouterBarred,
		"NetworkPolicies (%.300s) keep proxies from the router, so they answer requests with a key 503: no rule admits the way to TCP port %d of Pods %s=%s in namespace %s. "+
			"Add an egress rule with to: [{namespaceSelector: {matchLabels: {%s: %s}}}] and ports: [{port: %d}], and one for DNS if there is none",
		policyNames(policies), routerPort, routerLabel, routerName, home, corev1.LabelMetadataName, home, routerPort)
}

func previewsNotice(policies []networkPolicy) notice {
	return warning(policyReference(policies[0]), eventPreviewsBarred,
		"NetworkPolicies (%.300s) keep proxies from every preview, whose requests they answer 503: no rule admits the way to a TCP port of a Pod of this namespace. "+
			"Add an egress rule with to: [{podSelector: {}}], or with the labels and ports of the previews' Pods",
		policyNames(policies))
}

func policyReference(policy networkPolicy) corev1.ObjectReference {
	return referenceTo(networkingv1.SchemeGroupVersion.String(), "NetworkPolicy", policy)
}
