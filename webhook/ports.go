package webhook

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/detour-dev/detour/api"
)

// portPlan says which ports of a Pod the proxy serves in the app's place.
type portPlan struct {
	taken   []api.TakenPort
	left    []leftPort
	admin   uint16
	renames []rename
}

// rename gives a container's port another name, because the proxy has taken the one it had.
type rename struct {
	container, port int // indices
	to              string
}

// planPorts decides what happens to each TCP port of a Pod.
//
// A named port is taken over under its name, which Services resolve Pod by Pod. A port without a name, and one that
// a Service addresses by number, is taken over under [api.PortName], to which [planService] can lead that Service. A
// port can be both, and is then served twice. A port whose clients NetworkPolicies would keep from the proxy stays with
// the app.
func planPorts(pod *corev1.Pod, around surroundings) portPlan {
	p := portPlanner{
		pod:      pod,
		demand:   demandOn(pod, around.services),
		sidecars: nativeSidecarPorts(pod),
		reserved: reservedNames(pod),
		seen:     map[string]bool{},
		names:    map[string]bool{},
		blocked:  map[int32]bool{},
	}
	for i, container := range pod.Spec.Containers {
		for j, port := range container.Ports {
			p.declared(i, j, port)
		}
	}
	for _, number := range slices.Sorted(maps.Keys(p.demand.numbers)) {
		p.demanded(number)
	}
	p.assignListeners()
	p.leaveBarred(parsePolicies(around.policies))
	return p.plan
}

// portPlanner is the state of one [planPorts].
type portPlanner struct {
	plan     portPlan
	pod      *corev1.Pod
	demand   demand
	sidecars []corev1.ContainerPort
	reserved map[string]bool // names like ours that the Pod has already
	seen     map[string]bool // names of TCP ports seen in containers: Services resolve a name to its first port
	names    map[string]bool // names that the proxy takes
	blocked  map[int32]bool  // numbers that stay with the app under every name
}

// declared decides on a port that a container declares. Whatever becomes of it: where the proxy has the port's name, the
// port gets another, because Services would find it before the proxy's.
func (p *portPlanner) declared(container, index int, port corev1.ContainerPort) {
	why := leaveReason(port)
	if why != "" {
		p.leave(port, why)
	}
	if !isTCP(port.Protocol) {
		return
	}
	if why != "" {
		p.blocked[port.ContainerPort] = true
	} else {
		p.takeDeclared(port)
	}
	p.seen[port.Name] = true
	if p.names[port.Name] {
		p.plan.renames = append(p.plan.renames, rename{container: container, port: index})
	}
}

// takeDeclared takes over a declared port under its name, under its number or not at all.
func (p *portPlanner) takeDeclared(port corev1.ContainerPort) {
	switch {
	case port.Name == "":
		p.takeNumber(port.ContainerPort)
	case p.demand.headless[port.Name]:
		p.leave(port, reasonHeadless)
	case p.sidecarHas(port.Name):
		p.leave(port, reasonSidecarPort) // it stands before the proxy, and would get the name's traffic
	case p.seen[port.Name]: // shadowed by the same name in an earlier container
		p.takeNumber(port.ContainerPort)
	default:
		p.take(port.Name, port.ContainerPort)
	}
}

// leaveReason says why a declared port stays with the app whatever Services there are, or nothing.
func leaveReason(port corev1.ContainerPort) reason {
	switch {
	case port.Protocol == corev1.ProtocolUDP:
		return reasonUDP
	case !isTCP(port.Protocol):
		return reasonSCTP
	case port.HostPort != 0:
		return reasonHostPort
	case strings.HasPrefix(port.Name, api.PortNamePrefix):
		return reasonReservedName
	}
	return ""
}

// demanded takes over a number that Services address, unless the port is somebody else's.
func (p *portPlanner) demanded(number int32) {
	tcpPort := corev1.ContainerPort{ContainerPort: number, Protocol: corev1.ProtocolTCP}
	declares := func(port corev1.ContainerPort) bool { return port.ContainerPort == number && isTCP(port.Protocol) }
	switch {
	case p.blocked[number]:
	case slices.ContainsFunc(p.sidecars, declares):
		p.leave(tcpPort, reasonSidecarPort)
	default:
		p.takeNumber(number)
	}
}

func (p *portPlanner) takeNumber(number int32) {
	if !validPort(number) {
		return
	}
	name := api.PortName(uint16(number))
	if p.reserved[name] { // Services would find the Pod's own port of this name
		p.leave(corev1.ContainerPort{ContainerPort: number}, reasonReservedName)
		return
	}
	p.take(name, number)
}

func (p *portPlanner) take(name string, number int32) {
	if p.names[name] || !validPort(number) {
		return
	}
	p.names[name] = true
	p.plan.taken = append(p.plan.taken, api.TakenPort{Name: name, App: uint16(number)})
}

func (p *portPlanner) leave(port corev1.ContainerPort, why reason) {
	left := leftPort{number: port.ContainerPort, protocol: port.Protocol, reason: why}
	if left.protocol == "" {
		left.protocol = corev1.ProtocolTCP
	}
	if !slices.Contains(p.plan.left, left) {
		p.plan.left = append(p.plan.left, left)
	}
}

func (p *portPlanner) sidecarHas(name string) bool {
	return slices.ContainsFunc(p.sidecars, func(port corev1.ContainerPort) bool { return port.Name == name && isTCP(port.Protocol) })
}

// assignListeners gives the proxy ports of its own that nothing in the Pod is known to use, and names to the ports
// whose name it took.
func (p *portPlanner) assignListeners() {
	used := maps.Clone(p.demand.numbers)
	names := maps.Clone(p.names)
	for _, port := range allPorts(p.pod) {
		used[port.ContainerPort] = true
		names[port.Name] = true
	}
	next := int32(api.FirstProxyPort)
	free := func() uint16 {
		for used[next] {
			next++
		}
		used[next] = true
		return uint16(next)
	}
	p.plan.admin = free()
	for i := range p.plan.taken {
		p.plan.taken[i].Listen = free()
	}
	if next > math.MaxUint16 {
		p.plan = portPlan{left: p.plan.left} // a Pod with 50,000 ports keeps them
	}
	for i := range p.plan.renames {
		r := &p.plan.renames[i]
		r.to = freeName(p.pod.Spec.Containers[r.container].Ports[r.port].ContainerPort, names)
		names[r.to] = true
	}
}

// leaveBarred leaves to the app what NetworkPolicies do not let the proxy serve. The numbers of the other ports stay as
// they are, so that the number to admit is the one that a Pod gets once it is admitted.
func (p *portPlanner) leaveBarred(policies []networkPolicy) {
	for _, barred := range barredPorts(p.pod, p.plan.taken, policies) {
		p.plan.taken = slices.DeleteFunc(p.plan.taken, func(t api.TakenPort) bool { return t == barred.TakenPort })
		p.plan.renames = slices.DeleteFunc(p.plan.renames, func(r rename) bool {
			return p.pod.Spec.Containers[r.container].Ports[r.port].Name == barred.Name
		})
		p.plan.left = append(p.plan.left, leftPort{
			number: int32(barred.App), protocol: corev1.ProtocolTCP, reason: reasonNetworkPolicy, admit: barred.Listen,
		})
	}
}

// freeName is "app-8080", or "app-8080-2" and so on: within the 15 characters of a port name.
func freeName(number int32, used map[string]bool) string {
	name := fmt.Sprintf("app-%d", number)
	for i := 2; used[name]; i++ {
		name = fmt.Sprintf("app-%d-%d", number, i)
	}
	return name
}

// rename carries out the plan's renames. What named a port within its own container gets the number.
func (p portPlan) rename(pod *corev1.Pod) {
	for _, r := range p.renames {
		container := &pod.Spec.Containers[r.container]
		port := &container.Ports[r.port]
		for _, reference := range portReferences(container) {
			if reference.Type == intstr.String && reference.StrVal == port.Name {
				*reference = intstr.FromInt32(port.ContainerPort)
			}
		}
		port.Name = r.to
	}
}

// portReferences returns everything in a container that can name one of its ports. (A gRPC probe has a number.)
func portReferences(c *corev1.Container) []*intstr.IntOrString {
	var references []*intstr.IntOrString
	add := func(get *corev1.HTTPGetAction, socket *corev1.TCPSocketAction) {
		if get != nil {
			references = append(references, &get.Port)
		}
		if socket != nil {
			references = append(references, &socket.Port)
		}
	}
	for _, probe := range []*corev1.Probe{c.StartupProbe, c.ReadinessProbe, c.LivenessProbe} {
		if probe != nil {
			add(probe.HTTPGet, probe.TCPSocket)
		}
	}
	if c.Lifecycle != nil {
		for _, hook := range []*corev1.LifecycleHandler{c.Lifecycle.PostStart, c.Lifecycle.PreStop} {
			if hook != nil {
				add(hook.HTTPGet, hook.TCPSocket)
			}
		}
	}
	return references
}

// demand is what the Services that select a Pod ask of it.
type demand struct {
	numbers  map[int32]bool  // TCP ports addressed by number
	headless map[string]bool // names that headless Services publish with their numbers
}

func demandOn(pod *corev1.Pod, services []corev1.Service) demand {
	d := demand{numbers: map[int32]bool{}, headless: map[string]bool{}}
	for i := range services {
		if selects(&services[i], pod.Labels) {
			d.add(&services[i])
		}
	}
	return d
}

func (d demand) add(service *corev1.Service) {
	for _, port := range service.Spec.Ports {
		switch number, numeric := originalPort(port); {
		case !isTCP(port.Protocol):
		case isHeadless(service) && !numeric:
			d.headless[port.TargetPort.StrVal] = true
		case !isHeadless(service) && numeric:
			d.numbers[int32(number)] = true
		}
	}
}

// nativeSidecarPorts returns the ports of init containers that run beside the app.
func nativeSidecarPorts(pod *corev1.Pod) []corev1.ContainerPort {
	var ports []corev1.ContainerPort
	for _, c := range pod.Spec.InitContainers {
		if c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways {
			ports = append(ports, c.Ports...)
		}
	}
	return ports
}

// reservedNames returns the port names of a Pod that the proxy could want.
func reservedNames(pod *corev1.Pod) map[string]bool {
	names := map[string]bool{}
	for _, port := range allPorts(pod) {
		if strings.HasPrefix(port.Name, api.PortNamePrefix) {
			names[port.Name] = true
		}
	}
	return names
}

func allPorts(pod *corev1.Pod) []corev1.ContainerPort {
	return declaredPorts(slices.Concat(pod.Spec.InitContainers, pod.Spec.Containers))
}

func declaredPorts(containers []corev1.Container) []corev1.ContainerPort {
	var ports []corev1.ContainerPort
	for _, c := range containers {
		ports = append(ports, c.Ports...)
	}
	return ports
}

// isTCP is true of no protocol, too: TCP is the default.
func isTCP(protocol corev1.Protocol) bool {
	return protocol == corev1.ProtocolTCP || protocol == ""
}

func validPort(number int32) bool {
	return 0 < number && number <= math.MaxUint16
}
