package view

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/detour-dev/detour/api"
)

// tables gives every injected Pod what its proxy needs to route; previews are the oldest first.
func (w *world) tables(previews []*preview) map[types.UID]*api.Table {
	tables := map[types.UID]*api.Table{}
	for _, pod := range w.pods {
		if len(pod.taken) > 0 {
			tables[pod.UID] = w.tableFor(pod, previews)
		}
	}
	return tables
}

// way is a Service port that leads to a port of an app whose proxy serves it.
type way struct {
	service *corev1.Service
	port    corev1.ServicePort
	app     uint16
}

// ways lists how Services lead to the pod's proxy: by the Service's name, then as the Service lists its ports.
func (w *world) ways(pod *pod) []way {
	var ways []way
	for _, service := range w.services {
		if unsupported(service) == nil && selects(service, pod.Labels) {
			ways = append(ways, waysOf(service, pod)...)
		}
	}
	return ways
}

func waysOf(service *corev1.Service, pod *pod) []way {
	var ways []way
	for _, port := range tcpPorts(service) {
		if app, ok := appPort(pod, port); ok && pod.takes(app) {
			ways = append(ways, way{service, port, app})
		}
	}
	return ways
}

// tableFor is the table of one Pod. Services that lead to one port of the app share what it says: a key that two of
// their previews have goes to the older one, the older one's match is tried first, and a protocol on which they disagree is left to the proxy.
func (w *world) tableFor(pod *pod, previews []*preview) *api.Table {
	ways := w.ways(pod)
	ports := map[uint16]*api.Port{}
	for _, way := range ways {
		protocol := protocolOf(way.port)
		if port := ports[way.app]; port == nil {
			ports[way.app] = &api.Port{Port: way.app, Protocol: protocol}
		} else if port.Protocol != protocol {
			port.Protocol = api.ProtocolSniff
		}
	}
	for _, p := range previews {
		for _, way := range ways {
			if p.isRouted() && p.service == way.service {
				p.addTo(ports[way.app], way.port)
			}
		}
	}
	return newTable(ports)
}

// addTo adds to a port of the app what leads requests for a port of a Service to p.
func (p *preview) addTo(port *api.Port, of corev1.ServicePort) {
	if slices.ContainsFunc(port.Routes, func(r api.Route) bool { return r.Key == p.key }) {
		return
	}
	port.Routes = append(port.Routes, p.route(of))
	switch match := (api.Match{Key: p.key, Conditions: p.conditions}); {
	case p.mirror:
		port.Mirrors = append(port.Mirrors, match)
	case p.picks():
		port.Matches = append(port.Matches, match)
	}
}

func (p *preview) route(port corev1.ServicePort) api.Route {
	return api.Route{Key: p.key, Preview: p.name, Fallback: p.fallback, Endpoints: p.endpoints(port)}
}

func newTable(ports map[uint16]*api.Port) *api.Table {
	table := &api.Table{}
	for _, port := range ports {
		if port.Protocol == api.ProtocolSniff && len(port.Routes) == 0 {
			continue
		}
		slices.SortFunc(port.Routes, func(a, b api.Route) int { return cmp.Compare(a.Key, b.Key) })
		table.Ports = append(table.Ports, *port)
	}
	slices.SortFunc(table.Ports, func(a, b api.Port) int { return cmp.Compare(a.Port, b.Port) })
	table.Version = table.Hash()
	return table
}

// protocolOf maps a Service port's appProtocol. The prefixed names are Kubernetes' own (KEP-3726), the others IANA
// service names as they are in use.
func protocolOf(port corev1.ServicePort) api.Protocol {
	if port.AppProtocol == nil {
		return api.ProtocolSniff
	}
	switch strings.ToLower(*port.AppProtocol) {
	case "kubernetes.io/h2c", "h2c", "http2", "grpc":
		return api.ProtocolH2C
	case "http", "kubernetes.io/ws":
		return api.ProtocolHTTP
	case "tcp", "tls", "https", "kubernetes.io/wss", "redis", "mysql", "mongo", "mongodb", "postgres", "postgresql",
		"kafka", "amqp", "amqps", "mqtt", "nats", "ldap", "ldaps", "smtp", "ssh", "ftp", "cassandra", "zookeeper":
		return api.ProtocolTCP
	}
	return api.ProtocolSniff
}

func podAddress(p *corev1.Pod, port uint16) (netip.AddrPort, bool) {
	ip, err := netip.ParseAddr(p.Status.PodIP)
	return netip.AddrPortFrom(ip, port), err == nil && port != 0
}
