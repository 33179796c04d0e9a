package view

import (
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/detour-dev/detour/api"
)

// checkPairs reads where the preview's ports differ from its target's.
func (w *world) checkPairs(p *preview) *api.Problem {
	text, set := w.annotation(p, api.AnnotationPorts)
	if !set {
		return nil
	}
	pairs, err := api.ParsePortPairs(text)
	if err != nil {
		return problem("InvalidPorts", "%s: annotation %s: %v", p.name, api.AnnotationPorts, err)
	}
	p.ports = map[int32]api.PortRef{}
	for _, pair := range pairs {
		if found := w.addPair(p, pair); found != nil {
			return found
		}
	}
	return nil
}

// addPair gives a pair to the Service ports that lead to its target. As long as the Service has no Pods nobody knows
// what their ports' names and numbers are, and a pair for none of them may turn out to be right.
func (w *world) addPair(p *preview, pair api.PortPair) *api.Problem {
	var all []string
	used := false
	for _, port := range tcpPorts(p.service) {
		all = append(all, originalTarget(port).String())
		if !w.leadsTo(p.service, port, pair.Target) {
			continue
		}
		if _, twice := p.ports[port.Port]; twice {
			return problem("InvalidPorts", "%s: annotation %s: %s means a port that another pair means as well: leave one of them out",
				p.name, api.AnnotationPorts, pair.Target)
		}
		p.ports[port.Port] = pair.Preview
		used = true
	}
	if !used && slices.ContainsFunc(w.pods, func(pod *pod) bool { return selects(p.service, pod.Labels) }) {
		return problem("InvalidPorts", "%s: annotation %s: %s is no port that Service %s leads to: use one of its targetPorts (%s)",
			p.name, api.AnnotationPorts, pair.Target, p.target, strings.Join(all, ", "))
	}
	return nil
}

// leadsTo reports whether a Service port leads to that port of the app: by its own words, or by those of a Pod.
func (w *world) leadsTo(service *corev1.Service, port corev1.ServicePort, ref api.PortRef) bool {
	return originalTarget(port) == ref || slices.ContainsFunc(w.pods, func(pod *pod) bool {
		if !selects(service, pod.Labels) {
			return false
		}
		app, leads := appPort(pod, port)
		number, has := pod.port(ref)
		return leads && has && app == number
	})
}

// portFor is the preview's own port for what is meant for a port of its target.
func (p *preview) portFor(port corev1.ServicePort) api.PortRef {
	if ref, differs := p.ports[port.Port]; differs {
		return ref
	}
	return originalTarget(port)
}

// checkPorts refuses a preview whose Pods have none of its target's ports. A preview without Pods is given the
// benefit of the doubt.
func (w *world) checkPorts(p *preview) *api.Problem {
	var names []string
	for _, port := range tcpPorts(p.service) {
		if len(p.pods) == 0 || p.declares(port) {
			return nil
		}
		names = append(names, p.portFor(port).String())
	}
	return problem("NoPort", "%s: its Pods declare no port named %s, where requests to Service %s are to go: name the container's port so, or say in annotation %s which of its ports it is",
		p.name, strings.Join(names, " or "), p.target, api.AnnotationPorts)
}

// declares reports whether one of the preview's Pods has the port.
func (p *preview) declares(port corev1.ServicePort) bool {
	return slices.ContainsFunc(p.pods, func(pod *pod) bool {
		_, ok := pod.port(p.portFor(port))
		return ok
	})
}

// endpoints are the preview's ready Pods that have a port of its target.
func (p *preview) endpoints(port corev1.ServicePort) []api.Endpoint {
	var endpoints []api.Endpoint
	for _, pod := range p.pods {
		app, ok := pod.port(p.portFor(port))
		if address, valid := podAddress(pod.Pod, app); ok && valid && isReady(pod.Pod) {
			endpoints = append(endpoints, api.Endpoint{Pod: pod.Namespace + "/" + pod.Name, Address: address})
		}
	}
	return endpoints
}
