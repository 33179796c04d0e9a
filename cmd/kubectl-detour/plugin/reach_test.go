package plugin

import (
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/detour-dev/detour/api"
)

// TestReach lets policies admit the way from api-1 to api-pr-42-1, port 8080 (http), or not.
func TestReach(t *testing.T) {
	port := func(p intstr.IntOrString) []networkingv1.NetworkPolicyPort {
		return []networkingv1.NetworkPolicyPort{{Port: &p}}
	}
	app := func(name string) networkingv1.NetworkPolicyPeer {
		return networkingv1.NetworkPolicyPeer{PodSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": name}}}
	}
	inNamespace := func(label, value string) networkingv1.NetworkPolicyPeer {
		return networkingv1.NetworkPolicyPeer{NamespaceSelector: &metav1.LabelSelector{MatchLabels: map[string]string{label: value}}}
	}
	udp, last := corev1.ProtocolUDP, int32(9000)
	for name, c := range map[string]struct {
		rule rule
		want bool
	}{
		"everything":           {rule{}, true},
		"its port":             {rule{ports: port(intstr.FromInt32(8080))}, true},
		"its port by name":     {rule{ports: port(intstr.FromString("http"))}, true},
		"another":              {rule{ports: port(intstr.FromInt32(8081))}, false},
		"another name":         {rule{ports: port(intstr.FromString("grpc"))}, false},
		"a range with it":      {rule{ports: []networkingv1.NetworkPolicyPort{{Port: new(intstr.FromInt32(8000)), EndPort: &last}}}, true},
		"a range without":      {rule{ports: []networkingv1.NetworkPolicyPort{{Port: new(intstr.FromInt32(8081)), EndPort: &last}}}, false},
		"all TCP ports":        {rule{ports: []networkingv1.NetworkPolicyPort{{}}}, true},
		"all UDP ports":        {rule{ports: []networkingv1.NetworkPolicyPort{{Protocol: &udp}}}, false},
		"its client":           {rule{peers: []networkingv1.NetworkPolicyPeer{app("web"), app("api")}}, true},
		"another client":       {rule{peers: []networkingv1.NetworkPolicyPeer{app("web")}}, false},
		"an address":           {rule{peers: []networkingv1.NetworkPolicyPeer{{IPBlock: &networkingv1.IPBlock{CIDR: "10.0.0.0/8"}}}}, true},
		"its namespace":        {rule{peers: []networkingv1.NetworkPolicyPeer{inNamespace(api.LabelInject, api.InjectEnabled)}}, true},
		"another namespace":    {rule{peers: []networkingv1.NetworkPolicyPeer{inNamespace("team", "other")}}, false},
		"its client elsewhere": {rule{ports: port(intstr.FromInt32(8081)), peers: []networkingv1.NetworkPolicyPeer{app("api")}}, false},
	} {
		f := healthy(t)
		policy := policyFor("api-pr-42", networkingv1.PolicyTypeIngress)
		policy.Spec.Ingress = []networkingv1.NetworkPolicyIngressRule{{Ports: c.rule.ports, From: c.rule.peers}}
		f.policies = []networkingv1.NetworkPolicy{policyFor("api-pr-42", networkingv1.PolicyTypeIngress), policy}
		if got := len(checkReach(f)) == 0; got != c.want {
			t.Errorf("%s: admitted %v, want %v", name, got, c.want)
		}
	}
}

// TestReachPastAProxy has a Pod of the preview have a proxy itself: requests reach its app past that.
func TestReachPastAProxy(t *testing.T) {
	f := healthy(t)
	pod := &f.pods[1]
	pod.Spec.InitContainers = []corev1.Container{{Name: api.ContainerProxy, Image: proxyIn(&f.pods[0]), Env: []corev1.EnvVar{{Name: api.EnvPorts, Value: "http:15401:8080"}}}}
	pod.Spec.Containers[0].Ports[0].Name = "app-8080"
	policy := policyFor("api-pr-42", networkingv1.PolicyTypeIngress)
	f.policies = []networkingv1.NetworkPolicy{policy}
	if found := checkReach(f); len(found) != 1 || !strings.HasSuffix(found[0].Message, "port 8080") {
		t.Errorf("%+v, want port 8080", found)
	}
	policy.Spec.Ingress = []networkingv1.NetworkPolicyIngressRule{{Ports: []networkingv1.NetworkPolicyPort{{Port: new(intstr.FromString("http"))}}}}
	f.policies = []networkingv1.NetworkPolicy{policy}
	if found := checkReach(f); len(found) > 0 {
		t.Errorf("by its name: %+v", found)
	}
}

// TestReachByPorts has a preview listen elsewhere than its target.
func TestReachByPorts(t *testing.T) {
	for pairs, want := range map[string]int{"http:9090": 9090, "8080:9090": 0, "http:http": 8080} {
		f := healthy(t)
		f.workloads[1].Annotations = map[string]string{api.AnnotationPorts: pairs}
		f.policies = []networkingv1.NetworkPolicy{policyFor("api-pr-42", networkingv1.PolicyTypeIngress)}
		found := checkReach(f)
		if want == 0 && len(found) > 0 || want != 0 && (len(found) != 1 || !strings.HasSuffix(found[0].Message, fmt.Sprint("port ", want))) {
			t.Errorf("%s: %+v, want port %d", pairs, found, want)
		}
	}
}

// TestReachElsewhere has the preview be of namespace team-b, and policies of both let the way through, or not.
func TestReachElsewhere(t *testing.T) {
	guest := func(t *testing.T) *facts {
		f := healthy(t)
		f.homes = map[string]*facts{"team-b": {
			namespace: "team-b", pods: f.pods[1:], workloads: f.workloads[1:],
			own: &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"team": "b"}}},
		}}
		f.pods, f.workloads = f.pods[:1], f.workloads[:1]
		f.board.Previews[0].Preview = "team-b/deployment/api-pr-42"
		return f
	}
	team := func(value string) *metav1.LabelSelector {
		return &metav1.LabelSelector{MatchLabels: map[string]string{"team": value}}
	}
	shop := &metav1.LabelSelector{MatchLabels: map[string]string{api.LabelInject: api.InjectEnabled}}
	for name, c := range map[string]struct {
		peer networkingv1.NetworkPolicyPeer
		in   bool // the policy is the preview's and admits peer; else it is the baseline's and lets out to peer
		want bool
	}{
		"in from its own namespace":         {networkingv1.NetworkPolicyPeer{PodSelector: &metav1.LabelSelector{}}, true, false},
		"in from the target's":              {networkingv1.NetworkPolicyPeer{NamespaceSelector: shop}, true, true},
		"in from another":                   {networkingv1.NetworkPolicyPeer{NamespaceSelector: team("b")}, true, false},
		"in from others of the target's":    {networkingv1.NetworkPolicyPeer{NamespaceSelector: shop, PodSelector: team("b")}, true, false},
		"in from an address":                {networkingv1.NetworkPolicyPeer{IPBlock: &networkingv1.IPBlock{CIDR: "10.0.0.0/8"}}, true, true},
		"out to the baseline's namespace":   {networkingv1.NetworkPolicyPeer{PodSelector: &metav1.LabelSelector{}}, false, false},
		"out to the preview's":              {networkingv1.NetworkPolicyPeer{NamespaceSelector: team("b")}, false, true},
		"out to its Pods":                   {networkingv1.NetworkPolicyPeer{NamespaceSelector: team("b"), PodSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "api-pr-42"}}}, false, true},
		"out to another namespace":          {networkingv1.NetworkPolicyPeer{NamespaceSelector: team("c")}, false, false},
		"out to others of the preview's":    {networkingv1.NetworkPolicyPeer{NamespaceSelector: team("b"), PodSelector: team("b")}, false, false},
		"out to every Pod of any namespace": {networkingv1.NetworkPolicyPeer{NamespaceSelector: &metav1.LabelSelector{}}, false, true},
	} {
		f := guest(t)
		at, policy := f, policyFor("api", networkingv1.PolicyTypeEgress)
		policy.Spec.Egress = []networkingv1.NetworkPolicyEgressRule{{To: []networkingv1.NetworkPolicyPeer{c.peer}}}
		if c.in {
			at, policy = f.homes["team-b"], policyFor("api-pr-42", networkingv1.PolicyTypeIngress)
			policy.Spec.Ingress = []networkingv1.NetworkPolicyIngressRule{{From: []networkingv1.NetworkPolicyPeer{c.peer}}}
		}
		at.policies = []networkingv1.NetworkPolicy{policy}
		found := diagnose(f)
		if (len(found) == 0) != c.want {
			t.Errorf("%s: %+v, want a way %v", name, found, c.want)
			continue
		}
		if !c.want && (len(found) != 1 || found[0].Object != "team-b/deployment/api-pr-42" || found[0].Remedy != "kubectl edit networkpolicy p -n "+at.namespace) {
			t.Errorf("%s: %+v", name, found)
		}
	}
	f := guest(t)
	f.policies = []networkingv1.NetworkPolicy{policyFor("api", networkingv1.PolicyTypeEgress)}
	f.homes = nil
	if found := diagnose(f); len(found) > 0 {
		t.Errorf("without the right to look: %+v", found)
	}
}

// policyFor admits nothing in one direction.
func policyFor(app string, direction networkingv1.PolicyType) networkingv1.NetworkPolicy {
	return networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Name: "p"}, Spec: networkingv1.NetworkPolicySpec{
		PodSelector: metav1.LabelSelector{MatchLabels: map[string]string{"app": app}}, PolicyTypes: []networkingv1.PolicyType{direction},
	}}
}
