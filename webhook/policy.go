package webhook

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/detour-dev/detour/api"
)

// networkPolicy is a NetworkPolicy, ready to be asked which Pods it selects.
type networkPolicy struct {
	*networkingv1.NetworkPolicy
	selector labels.Selector
}

// parsePolicies leaves out those that have no valid selector; the API server lets none through.
func parsePolicies(list []networkingv1.NetworkPolicy) []networkPolicy {
	var policies []networkPolicy
	for i := range list {
		if selector, err := metav1.LabelSelectorAsSelector(&list[i].Spec.PodSelector); err == nil {
			policies = append(policies, networkPolicy{&list[i], selector})
		}
	}
	return policies
}

// isolates reports whether a Pod receives (or sends) only what this policy or another one admits.
func (p *networkPolicy) isolates(pod *corev1.Pod, direction networkingv1.PolicyType) bool {
	types := p.Spec.PolicyTypes
	if len(types) == 0 { // what the API server's defaulting does
		types = []networkingv1.PolicyType{networkingv1.PolicyTypeIngress}
		if len(p.Spec.Egress) > 0 {
			types = append(types, networkingv1.PolicyTypeEgress)
		}
	}
	return slices.Contains(types, direction) && p.selector.Matches(labels.Set(pod.Labels))
}

// ingressRule admits clients to ports of a Pod.
type ingressRule struct {
	networkingv1.NetworkPolicyIngressRule
	policy string // its name
}

// ingress is the rules of all the policies that isolate a Pod. Policies are additive: what one rule admits is admitted.
// Without policies there is no rule, and everything is admitted.
type ingress []ingressRule

func ingressOf(pod *corev1.Pod, policies []networkPolicy) ingress {
	var rules ingress
	for _, p := range policies {
		if !p.isolates(pod, networkingv1.PolicyTypeIngress) {
			continue
		}
		for _, rule := range p.Spec.Ingress {
			rules = append(rules, ingressRule{rule, p.Name})
		}
	}
	return rules
}

// listener is a TCP port as policies know it.
type listener struct {
	number uint16
	names  []string
}

// opens reports whether a rule admits its clients to a port.
func (r *ingressRule) opens(to listener) bool {
	return len(r.Ports) == 0 || slices.ContainsFunc(r.Ports, func(p networkingv1.NetworkPolicyPort) bool { return isPort(p, to) })
}

func isPort(p networkingv1.NetworkPolicyPort, to listener) bool {
	switch {
	case p.Protocol != nil && !isTCP(*p.Protocol):
		return false
	case p.Port == nil:
		return true
	case p.Port.Type == intstr.String:
		return slices.Contains(to.names, p.Port.StrVal)
	case p.EndPort != nil:
		return p.Port.IntVal <= int32(to.number) && int32(to.number) <= *p.EndPort
	}
	return p.Port.IntVal == int32(to.number)
}

// admits reports whether clients reach a port by any rule that names just them, or everyone.
func (in ingress) admits(clients []networkingv1.NetworkPolicyPeer, to listener) bool {
	return slices.ContainsFunc(in, func(r ingressRule) bool {
		return r.opens(to) && (len(r.From) == 0 || equality.Semantic.DeepEqual(r.From, clients))
	})
}

// tellingApart returns the names of the policies with a rule whose clients reach only one of two ports.
func (in ingress) tellingApart(a, b listener) []string {
	var names []string
	for _, r := range in {
		if r.opens(a) && !in.admits(r.From, b) || r.opens(b) && !in.admits(r.From, a) {
			names = append(names, r.policy)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// barredPort is a port whose clients would not all reach the proxy in the app's place, or not they alone.
type barredPort struct {
	api.TakenPort
	policies []string // by name
}

// barredPorts returns those of the ports that a Pod's proxy serves, or is to serve, at which it must not stand in for the
// app: clients that a NetworkPolicy admits would be kept out, or others let in.
//
// A rule that names a port admits the app, but not the proxy that has taken the name. Where the proxy's container is not
// looked at (https://github.com/projectcalico/calico/issues/8881), the name means nothing any more.
func barredPorts(pod *corev1.Pod, taken []api.TakenPort, policies []networkPolicy) []barredPort {
	rules := ingressOf(pod, policies)
	if len(rules) == 0 {
		return nil
	}
	var barred []barredPort
	for _, port := range taken {
		app := listener{port.App, appNames(pod, taken, port.App)}
		if names := rules.tellingApart(app, listener{number: port.Listen}); len(names) > 0 {
			barred = append(barred, barredPort{port, names})
		}
	}
	return barred
}

// appNames are the names of an app's port, with and without a proxy in the Pod.
func appNames(pod *corev1.Pod, taken []api.TakenPort, number uint16) []string {
	var names []string
	for _, port := range declaredPorts(pod.Spec.Containers) {
		if port.ContainerPort == int32(number) && isTCP(port.Protocol) {
			names = append(names, port.Name)
		}
	}
	for _, port := range taken {
		if port.App == number {
			names = append(names, port.Name)
		}
	}
	return names
}

// servedPorts are the ports that the proxy of an injected Pod serves.
func servedPorts(pod *corev1.Pod) []api.TakenPort {
	proxy := proxyOf(pod)
	if proxy == nil {
		return nil
	}
	for _, env := range proxy.Env {
		if env.Name != api.EnvPorts {
			continue
		}
		if ports, err := api.ParsePorts(env.Value); err == nil {
			return ports
		}
	}
	return nil
}

// admitted returns the Pods without those ports of their proxies that a Service must not lead to, because of
// NetworkPolicies that came later than the Pods.
func admitted(pods []corev1.Pod, list []networkingv1.NetworkPolicy) []corev1.Pod {
	policies := parsePolicies(list)
	if len(policies) == 0 {
		return pods
	}
	pods = slices.Clone(pods)
	for i := range pods {
		for _, port := range barredPorts(&pods[i], servedPorts(&pods[i]), policies) {
			pods[i].Spec.InitContainers = withoutProxyPort(pods[i].Spec.InitContainers, port.Name)
		}
	}
	return pods
}

func withoutProxyPort(containers []corev1.Container, name string) []corev1.Container {
	containers = slices.Clone(containers)
	for i := range containers {
		if isProxy(containers[i]) {
			containers[i].Ports = slices.DeleteFunc(slices.Clone(containers[i].Ports), func(p corev1.ContainerPort) bool { return p.Name == name })
		}
	}
	return containers
}
