package plugin

import (
	"cmp"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/detour-dev/detour/api"
)

// checkReach finds NetworkPolicies by which the proxies of a baseline cannot reach a preview. What is not known for certain,
// such as what addresses mean, counts as admitted.
func checkReach(f *facts) []finding {
	var found []finding
	for i := range f.previews() {
		preview := &f.board.Previews[i]
		if service := f.service(preview.Target); service != nil {
			found = append(found, f.barriers(preview, service)...)
		}
	}
	return found
}

// barriers has the first way of each direction that is barred.
func (f *facts) barriers(preview *api.PreviewStatus, service *corev1.Service) []finding {
	var out, in *finding
	home, there := f.at(preview)
	for _, from := range f.baseline(service) {
		if !hasProxy(from) {
			continue
		}
		for _, to := range home.podsOf(there) {
			for _, port := range home.portsOf(there, service, to) {
				w := way{end{from, f}, end{to, home}, port}
				if names := w.barring(networkingv1.PolicyTypeEgress); out == nil && len(names) > 0 && f.notice("NetworkPolicyBarsPreviews", "networkpolicy/"+names[0]) == nil {
					out = w.barrier(preview, f.editing("networkpolicy/"+names[0]), names, "let it out to")
				}
				if names := w.barring(networkingv1.PolicyTypeIngress); in == nil && len(names) > 0 {
					in = w.barrier(preview, home.editing("networkpolicy/"+names[0]), names, "admit it to")
				}
			}
		}
	}
	var found []finding
	for _, b := range []*finding{out, in} {
		if b != nil {
			found = append(found, *b)
		}
	}
	return found
}

// way is how a request comes from a proxy to a preview.
type way struct {
	from, to end
	port     containerPort
}

// end is a Pod in its namespace.
type end struct {
	*corev1.Pod
	home *facts
}

// containerPort is a TCP port of a Pod's app.
type containerPort struct {
	number int32
	names  []string
}

func (w way) barrier(preview *api.PreviewStatus, remedy string, policies []string, what string) *finding {
	return &finding{
		Severity: severe, Namespace: w.from.home.namespace, Object: preview.Preview, Reason: "NetworkPolicyBarsPreview", others: []string{"pod/" + w.from.Name},
		Message: fmt.Sprintf("the proxy of Pod %s cannot reach it, and answers its requests 503: NetworkPolicies (%s) do not %s Pod %s, port %d",
			w.from.Name, shortList(policies), what, w.to.Name, w.port.number),
		Remedy: remedy,
	}
}

// barring names the policies that leave no way in one direction, by name.
func (w way) barring(direction networkingv1.PolicyType) []string {
	one, other := w.from, w.to
	if direction == networkingv1.PolicyTypeIngress {
		one, other = w.to, w.from
	}
	var names []string
	for i := range one.home.policies {
		policy := &one.home.policies[i]
		if !isolates(policy, one.Pod, direction) {
			continue
		}
		if slices.ContainsFunc(rulesOf(policy, direction), func(r rule) bool { return r.opens(w.port) && r.isFor(other, one.home) }) {
			return nil // what one admits is admitted
		}
		names = append(names, policy.Name)
	}
	slices.Sort(names)
	return names
}

func isolates(policy *networkingv1.NetworkPolicy, pod *corev1.Pod, direction networkingv1.PolicyType) bool {
	types := policy.Spec.PolicyTypes
	if len(types) == 0 {
		types = []networkingv1.PolicyType{networkingv1.PolicyTypeIngress} // the API server's default
	}
	return slices.Contains(types, direction) && matches(&policy.Spec.PodSelector, pod.Labels)
}

func matches(selector *metav1.LabelSelector, set labels.Set) bool {
	s, err := metav1.LabelSelectorAsSelector(selector)
	return err == nil && s.Matches(set)
}

// rule is one of either direction.
type rule struct {
	ports []networkingv1.NetworkPolicyPort
	peers []networkingv1.NetworkPolicyPeer
}

func rulesOf(policy *networkingv1.NetworkPolicy, direction networkingv1.PolicyType) []rule {
	var rules []rule
	if direction == networkingv1.PolicyTypeIngress {
		for _, r := range policy.Spec.Ingress {
			rules = append(rules, rule{r.Ports, r.From})
		}
		return rules
	}
	for _, r := range policy.Spec.Egress {
		rules = append(rules, rule{r.Ports, r.To})
	}
	return rules
}

func (r rule) opens(port containerPort) bool {
	return len(r.ports) == 0 || slices.ContainsFunc(r.ports, func(p networkingv1.NetworkPolicyPort) bool {
		switch {
		case p.Protocol != nil && *p.Protocol != corev1.ProtocolTCP:
			return false
		case p.Port == nil:
			return true
		case p.Port.Type == intstr.String:
			return slices.Contains(port.names, p.Port.StrVal)
		case p.EndPort != nil:
			return p.Port.IntVal <= port.number && port.number <= *p.EndPort
		}
		return p.Port.IntVal == port.number
	})
}

// isFor reports whether a Pod is a peer, for a policy whose home that is.
func (r rule) isFor(other end, home *facts) bool {
	return len(r.peers) == 0 || slices.ContainsFunc(r.peers, func(p networkingv1.NetworkPolicyPeer) bool {
		own := other.home.own
		switch {
		case p.IPBlock != nil:
			return true
		case p.NamespaceSelector == nil && other.home != home, p.NamespaceSelector != nil && own != nil && !matches(p.NamespaceSelector, own.Labels):
			return false
		}
		return p.PodSelector == nil || matches(p.PodSelector, other.Labels)
	})
}

// portsOf is where requests to a Service reach a Pod of the preview, as far as that is certain.
func (f *facts) portsOf(preview *api.PreviewStatus, service *corev1.Service, pod *corev1.Pod) []containerPort {
	annotations := pod.Annotations
	if w := f.workload(preview.Preview); w != nil {
		if _, set := w.Annotations[api.AnnotationPorts]; set {
			annotations = w.Annotations
		}
	}
	text, differ := annotations[api.AnnotationPorts]
	var pairs []api.PortPair
	if differ {
		pairs, _ = api.ParsePortPairs(text) // the router tells of bad ones
	}
	var ports []containerPort
	for _, target := range targetsOf(service) {
		i := slices.IndexFunc(pairs, func(p api.PortPair) bool { return p.Target.String() == target.String() })
		if i >= 0 {
			target = intstr.Parse(pairs[i].Preview.String())
		} else if differ {
			continue // a pair may mean it by its other name
		}
		if port, found := declared(pod, target); found {
			ports = append(ports, port)
		}
	}
	return ports
}

// declared finds a port of the Pod's app; a number need not be declared. Where the Pod has a proxy, which has taken the
// port's name, both names count: it is not certain what a policy means by the one that the user has given.
func declared(pod *corev1.Pod, target intstr.IntOrString) (containerPort, bool) {
	port := containerPort{number: target.IntVal}
	for _, taken := range takenPorts(pod) {
		if target.Type == intstr.String && taken.Name == target.StrVal || target.Type == intstr.Int && int32(taken.App) == target.IntVal {
			port.number = int32(taken.App)
			port.names = append(port.names, taken.Name)
		}
	}
	for _, c := range pod.Spec.Containers {
		for _, p := range c.Ports {
			named := target.Type == intstr.String && p.Name == target.StrVal
			if cmp.Or(p.Protocol, corev1.ProtocolTCP) == corev1.ProtocolTCP && (named || p.ContainerPort == port.number) {
				port.number = p.ContainerPort
				port.names = append(port.names, p.Name)
			}
		}
	}
	return port, port.number != 0
}

// takenPorts are those that a Pod's proxy serves in the app's place.
func takenPorts(pod *corev1.Pod) []api.TakenPort {
	for _, c := range pod.Spec.InitContainers {
		for _, env := range c.Env {
			if c.Name == api.ContainerProxy && env.Name == api.EnvPorts {
				ports, _ := api.ParsePorts(env.Value) // without them, names are those of the containers
				return ports
			}
		}
	}
	return nil
}
