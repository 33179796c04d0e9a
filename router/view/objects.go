package view

import (
	"cmp"
	"slices"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/detour-dev/detour/api"
)

// Objects is what the API server says of one namespace, in any order; what [Strip] keeps of them is enough. The caches
// share them: read only.
type Objects struct {
	Services       []corev1.Service
	EndpointSlices []discoveryv1.EndpointSlice
	Workloads
	// Guests are those of other namespaces that may have previews of the Services.
	Guests []Workloads
	// Members are the namespaces that take part.
	Members map[string]bool
}

// Workloads are the objects of one namespace that previews and baselines are made of.
type Workloads struct {
	Deployments  []appsv1.Deployment
	StatefulSets []appsv1.StatefulSet
	ReplicaSets  []appsv1.ReplicaSet
	Pods         []corev1.Pod
}

// world is one namespace's objects, indexed and in an order that is the same on every replica.
type world struct {
	namespace string
	members   map[string]bool
	now       time.Time
	services  []*corev1.Service        // by name
	pods      []*pod                   // those that have not ended, by name
	guests    []*pod                   // the same of other namespaces
	nodes     []*node                  // those of other namespaces too, the oldest first
	byUID     map[types.UID]*node      // the same
	reached   map[endpointKey][]uint16 // the port numbers that EndpointSlices name
}

// endpointKey is one Service port on one Pod.
type endpointKey struct {
	service, port string
	pod           types.UID
}

// pod is a Pod and the ports that its proxy has taken over; none means that it is not injected.
type pod struct {
	*corev1.Pod
	taken []api.TakenPort
}

func newWorld(namespace string, o Objects) *world {
	w := &world{namespace: namespace, members: o.Members, byUID: map[types.UID]*node{}, reached: map[endpointKey][]uint16{}}
	for i := range o.Services {
		w.services = append(w.services, &o.Services[i])
	}
	for i := range o.EndpointSlices {
		w.addSlice(&o.EndpointSlices[i])
	}
	w.pods = livePods(o.Workloads)
	w.addNodes(o.Workloads, false)
	for _, guests := range o.Guests {
		w.guests = append(w.guests, livePods(guests)...)
		w.addNodes(guests, true)
	}
	slices.SortFunc(w.services, func(a, b *corev1.Service) int { return cmp.Compare(a.Name, b.Name) })
	slices.SortFunc(w.nodes, func(a, b *node) int {
		return cmp.Or(a.CreationTimestamp.Compare(b.CreationTimestamp.Time), cmp.Compare(a.UID, b.UID))
	})
	return w
}

// livePods are those that have not ended, by name.
func livePods(o Workloads) []*pod {
	var live []*pod
	for i := range o.Pods {
		if p := &o.Pods[i]; !ended(p) {
			live = append(live, &pod{Pod: p, taken: takenPorts(p)})
		}
	}
	slices.SortFunc(live, func(a, b *pod) int { return cmp.Compare(a.Name, b.Name) })
	return live
}

func (w *world) addSlice(slice *discoveryv1.EndpointSlice) {
	for _, port := range slice.Ports {
		if port.Port == nil || port.Protocol != nil && *port.Protocol != corev1.ProtocolTCP {
			continue
		}
		var name string
		if port.Name != nil {
			name = *port.Name
		}
		for _, endpoint := range slice.Endpoints {
			if endpoint.TargetRef == nil {
				continue
			}
			key := endpointKey{slice.Labels[discoveryv1.LabelServiceName], name, endpoint.TargetRef.UID}
			w.reached[key] = append(w.reached[key], uint16(*port.Port))
		}
	}
}

func (w *world) service(name string) *corev1.Service {
	i, found := slices.BinarySearchFunc(w.services, name, func(s *corev1.Service, name string) int {
		return cmp.Compare(s.Name, name)
	})
	if !found {
		return nil
	}
	return w.services[i]
}

// baseline is the ready Pods behind a Service.
func (w *world) baseline(service *corev1.Service) []*pod {
	var ready []*pod
	for _, p := range w.pods {
		if selects(service, p.Labels) && isReady(p.Pod) {
			ready = append(ready, p)
		}
	}
	return ready
}

// leadsToProxy reports whether every endpoint that a Service port has on p is where p's proxy listens for app.
func (w *world) leadsToProxy(service *corev1.Service, port corev1.ServicePort, p *pod, app uint16) bool {
	numbers := w.reached[endpointKey{service.Name, port.Name, p.UID}]
	for _, number := range numbers {
		if !slices.ContainsFunc(p.taken, func(t api.TakenPort) bool { return t.App == app && t.Listen == number }) {
			return false
		}
	}
	return len(numbers) > 0
}

// unsupported says why a Service's traffic cannot be led through proxies.
func unsupported(service *corev1.Service) *api.Problem {
	switch {
	case service.Spec.Type == corev1.ServiceTypeExternalName:
		return problem("ExternalName", "Service %s is of type ExternalName: there are no Pods behind it to route from", service.Name)
	case service.Spec.ClusterIP == corev1.ClusterIPNone:
		return problem("Headless", "Service %s is headless (clusterIP: None): its clients address Pods themselves", service.Name)
	case len(service.Spec.Selector) == 0:
		return problem("NoSelector", "Service %s has no selector: there are no Pods behind it to route from", service.Name)
	case len(tcpPorts(service)) == 0:
		return problem("NoTCPPort", "Service %s has no TCP port: other protocols are not routed", service.Name)
	}
	return nil
}

func tcpPorts(service *corev1.Service) []corev1.ServicePort {
	var ports []corev1.ServicePort
	for _, port := range service.Spec.Ports {
		if port.Protocol == corev1.ProtocolTCP || port.Protocol == "" {
			ports = append(ports, port)
		}
	}
	return ports
}

// selects reports whether Pods with these labels are behind a Service. Every Pod is asked of every Service, so it does
// without the allocations of the labels package.
func selects(service *corev1.Service, podLabels map[string]string) bool {
	for label, want := range service.Spec.Selector {
		if got, has := podLabels[label]; !has || got != want {
			return false
		}
	}
	return len(service.Spec.Selector) > 0
}

// appPort is the app's own port on p behind a Service port, whether or not p's proxy has taken its name.
func appPort(p *pod, port corev1.ServicePort) (uint16, bool) {
	return p.port(originalTarget(port))
}

// port is the number of a port of p's app, whether or not p's proxy has taken its name.
func (p *pod) port(ref api.PortRef) (uint16, bool) {
	if ref.Name == "" {
		return ref.Number, ref.Number != 0
	}
	for _, t := range p.taken {
		if t.Name == ref.Name {
			return t.App, true
		}
	}
	return declaredPort(p.Pod, ref.Name)
}

// originalTarget is the targetPort that the user wrote.
func originalTarget(port corev1.ServicePort) api.PortRef {
	target := port.TargetPort
	if target.Type == intstr.String {
		if number, ok := api.OriginalPort(target.StrVal); ok {
			return api.PortRef{Number: number}
		}
		return api.PortRef{Name: target.StrVal}
	}
	if target.IntVal == 0 { // the API's default
		return api.PortRef{Number: uint16(port.Port)}
	}
	return api.PortRef{Number: uint16(target.IntVal)}
}

// declaredPort finds a port by name as Kubernetes does: in containers first, then in native sidecars.
func declaredPort(p *corev1.Pod, name string) (uint16, bool) {
	containers := slices.Clone(p.Spec.Containers)
	for _, c := range p.Spec.InitContainers {
		if c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways && c.Name != api.ContainerProxy {
			containers = append(containers, c)
		}
	}
	for _, c := range containers {
		for _, port := range c.Ports {
			if port.Name == name && (port.Protocol == corev1.ProtocolTCP || port.Protocol == "") {
				return uint16(port.ContainerPort), port.ContainerPort > 0
			}
		}
	}
	return 0, false
}

// takenPorts reads what the webhook has written into the sidecar.
func takenPorts(p *corev1.Pod) []api.TakenPort {
	for _, c := range p.Spec.InitContainers {
		if c.Name != api.ContainerProxy {
			continue
		}
		for _, env := range c.Env {
			if env.Name != api.EnvPorts {
				continue
			}
			if ports, err := api.ParsePorts(env.Value); err == nil {
				return ports
			}
		}
	}
	return nil
}

// takes reports whether p's proxy serves the app's port.
func (p *pod) takes(app uint16) bool {
	return slices.ContainsFunc(p.taken, func(t api.TakenPort) bool { return t.App == app })
}

func ended(p *corev1.Pod) bool {
	return p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed
}

// isReady reports whether Services send p requests.
func isReady(p *corev1.Pod) bool {
	return !ended(p) && p.DeletionTimestamp == nil && p.Status.PodIP != "" && condition(p, corev1.PodReady).Status == corev1.ConditionTrue
}

func condition(p *corev1.Pod, kind corev1.PodConditionType) corev1.PodCondition {
	for _, c := range p.Status.Conditions {
		if c.Type == kind {
			return c
		}
	}
	return corev1.PodCondition{}
}

// node is a Pod or a workload in the tree of controllers.
type node struct {
	*metav1.ObjectMeta
	kind      string            // "Deployment"
	version   string            // its apiVersion
	podLabels map[string]string // those that its Pods have or will have
	idle      bool              // a ReplicaSet of the past: it has no Pods and is to have none
	pod       *corev1.Pod       // when it is one
	guest     bool              // it is of another namespace
}

func (w *world) addNodes(o Workloads, guest bool) {
	for i := range o.Deployments {
		d := &o.Deployments[i]
		w.addNode(&node{ObjectMeta: &d.ObjectMeta, kind: "Deployment", version: "apps/v1", podLabels: d.Spec.Template.Labels, guest: guest})
	}
	for i := range o.StatefulSets {
		s := &o.StatefulSets[i]
		w.addNode(&node{ObjectMeta: &s.ObjectMeta, kind: "StatefulSet", version: "apps/v1", podLabels: s.Spec.Template.Labels, guest: guest})
	}
	for i := range o.ReplicaSets {
		r := &o.ReplicaSets[i]
		idle := r.Spec.Replicas != nil && *r.Spec.Replicas == 0 && r.Status.Replicas == 0
		w.addNode(&node{ObjectMeta: &r.ObjectMeta, kind: "ReplicaSet", version: "apps/v1", podLabels: r.Spec.Template.Labels, idle: idle, guest: guest})
	}
	for i := range o.Pods {
		p := &o.Pods[i]
		w.addNode(&node{ObjectMeta: &p.ObjectMeta, kind: "Pod", version: "v1", podLabels: p.Labels, pod: p, guest: guest})
	}
}

func (w *world) addNode(n *node) {
	w.nodes = append(w.nodes, n)
	w.byUID[n.UID] = n
}

// lineage is an object and the controllers above it.
type lineage struct {
	nodes []*node                // the object itself, its controller, the controller's controller, …
	top   corev1.ObjectReference // the last of them, or a controller of a kind that is not tracked
	// live is false when one of them is being deleted or is gone: what hangs below will follow.
	live bool
}

// maxDepth ends a circle of owners; Kubernetes has no tree of controllers that is deeper.
const maxDepth = 8

func (w *world) lineage(n *node) lineage {
	l := lineage{live: true}
	for len(l.nodes) < maxDepth {
		l.nodes = append(l.nodes, n)
		l.live = l.live && n.DeletionTimestamp == nil
		l.top = corev1.ObjectReference{APIVersion: n.version, Kind: n.kind, Namespace: n.Namespace, Name: n.Name, UID: n.UID}
		owner := metav1.GetControllerOfNoCopy(n)
		if owner == nil {
			return l
		}
		above := w.byUID[owner.UID]
		// Whoever makes an object may write any owner into it: one of another namespace must not make a Pod an endpoint of
		// that owner's preview.
		if above == nil || above.Namespace != n.Namespace {
			l.live = l.live && !isTracked(owner)
			l.top = corev1.ObjectReference{APIVersion: owner.APIVersion, Kind: owner.Kind, Namespace: n.Namespace, Name: owner.Name, UID: owner.UID}
			return l
		}
		n = above
	}
	return l
}

// isTracked reports whether the owner would be in the caches if it existed.
func isTracked(owner *metav1.OwnerReference) bool {
	switch owner.APIVersion + "/" + owner.Kind {
	case "apps/v1/Deployment", "apps/v1/StatefulSet", "apps/v1/ReplicaSet":
		return true
	}
	return false
}
