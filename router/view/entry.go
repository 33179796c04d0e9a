package view

import (
	"net/netip"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/detour-dev/detour/api"
)

// Entry is where requests from outside the cluster enter a Service.
type Entry struct {
	Address netip.AddrPort // the Service's cluster address and HTTP port
	H2C     bool           // its appProtocol says HTTP/2 with prior knowledge
	Problem *api.Problem   // why requests cannot enter; the rest is zero then
}

func (w *world) entries() map[string]Entry {
	entries := map[string]Entry{}
	for _, service := range w.services {
		entries[service.Name] = entryOf(service)
	}
	return entries
}

// entryOf leaves out what may lead away from the namespace's own Pods: the endpoints of a Service without a selector
// are whatever somebody writes into them.
func entryOf(service *corev1.Service) Entry {
	if why := unsupported(service); why != nil {
		return Entry{Problem: why}
	}
	port := entryPort(service)
	if port == nil {
		return Entry{Problem: problem("NotHTTP", "Service %s has no port that could speak HTTP without TLS: name one http, or correct its appProtocol", service.Name)}
	}
	ip, err := netip.ParseAddr(service.Spec.ClusterIP)
	if err != nil {
		return Entry{Problem: problem("NoClusterIP", "Service %s has no cluster IP yet", service.Name)}
	}
	return Entry{Address: netip.AddrPortFrom(ip, uint16(port.Port)), H2C: protocolOf(*port) == api.ProtocolH2C}
}

// entryPort is the TCP port that speaks HTTP: the first that is named "http" or "http-…", else port 80, else the first
// of all. Ports that say they speak something else do not count.
func entryPort(service *corev1.Service) *corev1.ServicePort {
	var best *corev1.ServicePort
	rank := 0
	for _, port := range tcpPorts(service) {
		if r := entryRank(port); r > rank {
			best, rank = &port, r
		}
	}
	return best
}

func entryRank(port corev1.ServicePort) int {
	switch {
	case protocolOf(port) == api.ProtocolTCP, namedAs(port, "https"):
		return 0
	case namedAs(port, "http"):
		return 3
	case port.Port == 80:
		return 2
	}
	return 1
}

// namedAs reports whether a port's name is a protocol, or begins with it and a '-'.
func namedAs(port corev1.ServicePort, protocol string) bool {
	first, _, _ := strings.Cut(port.Name, "-")
	return first == protocol
}
