package webhook

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// Reasons of Events about what hurts, or would, although Pods have a proxy.
const (
	eventBarred         = "NetworkPolicyBarsProxy"
	eventRouterBarred   = "NetworkPolicyBarsRouter"
	eventPreviewsBarred = "NetworkPolicyBarsPreviews"
)

// findings says what of a namespace's objects gets in the way of proxies.
func findings(around surroundings, pods []corev1.Pod) []notice {
	var notices []notice
	policies := parsePolicies(around.policies)
	for i := range pods {
		if barred := barredPorts(&pods[i], servedPorts(&pods[i]), policies); len(barred) > 0 && !ended(&pods[i]) {
			notices = append(notices, barredNotice(&pods[i], barred))
		}
	}
	return append(notices, egressNotices(around, pods, policies)...)
}

func barredNotice(pod *corev1.Pod, barred []barredPort) notice {
	var ports []string
	for _, b := range barred {
		ports = append(ports, fmt.Sprintf("%d and %d, where its proxy serves it as %s (%.100s)", b.App, b.Listen, b.Name, strings.Join(b.policies, ", ")))
	}
	return notice{
		object: podReference(pod), kind: corev1.EventTypeWarning, reason: eventBarred,
		message: fmt.Sprintf("NetworkPolicies do not admit the same clients to these ports of Pod %s: %.500s. "+
			"Services that address the port by number lead past the proxy; by its name they lead clients to it who are kept out. "+
			"Admit the second number in each ingress rule that admits the first, and in no other, or restart the Pod: it then keeps the port",
			pod.Name, strings.Join(ports, "; ")),
	}
}
