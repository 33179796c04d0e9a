package webhook

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/detour-dev/detour/api"
)

// reason names why a Pod, or one port of it, stays as it is. The same word is in the log, in the metric and in the
// Pod's annotation, from which the reconciler makes an Event and the router the status.
type reason string

// Why a Pod gets no proxy; the values of [api.AnnotationNotInjected].
const (
	reasonHostNetwork     reason = "host-network"
	reasonWindows         reason = "windows"
	reasonStatic          reason = "static-pod"
	reasonJob             reason = "job"
	reasonPreview         reason = "preview"
	reasonOptedOut        reason = "opted-out"
	reasonMesh            reason = "service-mesh"
	reasonNoPorts         reason = "no-ports"
	reasonTooOld          reason = "api-server-too-old"
	reasonNameTaken       reason = "name-taken"
	reasonNoAccount       reason = "no-service-account"
	reasonClientAddress   reason = "bad-client-address"
	reasonCannotStart     reason = "proxy-cannot-start" // [suspension]
	reasonNetworkPolicy   reason = "network-policy"     // also of a single port
	reasonLimitRange      reason = "limit-range"
	reasonQuota           reason = "quota"
	reasonInjectedAlready reason = "injected-already" // never annotated: the Pod has its proxy
	reasonDissolved       reason = "being-removed"    // never annotated: nothing of ours is to be left
)

// Why a port of an injected Pod is left to the app; the values in [api.AnnotationPortsNotTaken].
const (
	reasonHostPort     reason = "host-port"
	reasonUDP          reason = "udp"
	reasonSCTP         reason = "sctp"
	reasonHeadless     reason = "headless"
	reasonSidecarPort  reason = "native-sidecar"
	reasonReservedName reason = "reserved-name"
)

// explanation is what an Event says of a reason.
type explanation struct {
	why    string
	advice string
}

// explain returns false for reasons that were somebody's own choice, or that are reported for the whole namespace:
// they get no Event of their own.
func (r reason) explain() (explanation, bool) {
	e, found := explanations[r]
	return e, found
}

var explanations = map[reason]explanation{
	reasonHostNetwork: {
		"it uses the node's network, where the proxy's ports could meet another program's",
		"Remove hostNetwork from the Pod template",
	},
	reasonWindows: {"it runs on Windows, for which there is no proxy", ""},
	reasonStatic:  {"a kubelet runs it from a file and would ignore the change", "Run it from a Deployment"},
	reasonJob:     {"it belongs to a Job, which is not expected to serve requests", ""},
	reasonMesh: {
		"a service mesh's proxy serves its ports already, and the two have not been tried together",
		"Switch the mesh's injection off for this Pod",
	},
	reasonNoPorts: {
		"it declares no TCP port that could be taken over, and no Service that selects it addresses one by number",
		"Declare the app's ports under containers[].ports and restart the workload",
	},
	reasonNoAccount: {
		"it has no ServiceAccount, so the proxy could not tell the router who it is",
		"Switch the API server's ServiceAccount admission on",
	},
	reasonClientAddress: {
		fmt.Sprintf("its annotation %s has a value that means nothing", api.AnnotationClientAddress),
		fmt.Sprintf("Set it to %q or %q, or remove it", api.ClientForwarded, api.ClientProxyProtocol),
	},
	reasonNetworkPolicy: {
		fmt.Sprintf("NetworkPolicies do not admit the clients of its ports to the proxy's, which annotation %s has after each port", api.AnnotationPortsNotTaken),
		"Admit those numbers in each ingress rule that admits the port, and restart the workload",
	},
	reasonLimitRange: {
		"a LimitRange of its namespace does not admit the resources of the proxy, or of the Pod with a proxy (" + proxyAsks() + ")",
		"See kubectl describe limitrange, have it admit them, and restart the workload",
	},
	reasonQuota: {
		"a ResourceQuota of its namespace does not admit the resources of the proxy, or of the Pod with a proxy (" + proxyAsks() + ")",
		"See kubectl describe quota, have it admit them, and restart the workload; where it limits limits.cpu, have a LimitRange give containers a default",
	},
	reasonNameTaken: {
		fmt.Sprintf("it has a container or a volume named %q of its own", api.ContainerProxy),
		"Rename it",
	},
}

// leftPort is a port that stays with the app.
type leftPort struct {
	number   int32
	protocol corev1.Protocol
	reason   reason
	admit    uint16 // for reasonNetworkPolicy, the number under which the proxy would have served it
}

// formatLeft renders ports as [api.AnnotationPortsNotTaken] has them:
//
//	9100/TCP:host-port,8080/TCP:network-policy:15401
func formatLeft(ports []leftPort) string {
	parts := make([]string, len(ports))
	for i, p := range ports {
		parts[i] = fmt.Sprintf("%d/%s:%s", p.number, p.protocol, p.reason)
		if p.admit != 0 {
			parts[i] += fmt.Sprintf(":%d", p.admit)
		}
	}
	return strings.Join(parts, ",")
}
