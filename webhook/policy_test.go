package webhook

import (
	"fmt"
	"math/rand"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/detour-dev/detour/api"
)

// testPolicy is for Pods labelled app=api.
func testPolicy(t *testing.T, name, spec string) networkingv1.NetworkPolicy {
	t.Helper()
	policy := networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name, UID: uid(name)}}
	if err := yaml.UnmarshalStrict([]byte("{podSelector: {matchLabels: {app: api}}, "+spec+"}"), &policy.Spec); err != nil {
		t.Fatal(err)
	}
	return policy
}

// proxied has a proxy that serves these ports, written as "http:15401:8080,…".
func proxied(name, ports string) corev1.Pod {
	taken, err := api.ParsePorts(ports)
	if err != nil {
		panic(err)
	}
	var names []string
	for _, p := range taken {
		names = append(names, p.Name)
	}
	pod := testPod(name, names...)
	pod.Spec.InitContainers[0].Env = []corev1.EnvVar{{Name: api.EnvPorts, Value: ports}}
	return pod
}

func TestBarredPorts(t *testing.T) {
	const one, other, someone = `{podSelector: {matchLabels: {app: a}}}`, `{podSelector: {matchLabels: {app: b}}}`, `{namespaceSelector: {}}`
	for _, c := range []struct {
		name  string
		rules string // of one policy
		want  string // the policies that bar a proxy at 15401 in place of an app at 8080 called http
	}{
		{"nothing is admitted", ``, ""},
		{"everything", `{}`, ""},
		{"the app only", `{ports: [{port: 8080}]}`, "p"},
		{"the app by name", `{ports: [{port: http}]}`, "p"},
		{"another name", `{ports: [{port: grpc}]}`, ""},
		{"both", `{ports: [{port: http}, {port: 15401, protocol: TCP}]}`, ""},
		{"both in a range", `{ports: [{port: 8000, endPort: 16000}]}`, ""},
		{"the app in a range", `{ports: [{port: 8000, endPort: 15400}]}`, "p"},
		{"the proxy in a range", `{ports: [{port: 15000, endPort: 16000}]}`, "p"},
		{"any TCP port", `{ports: [{protocol: TCP}]}`, ""},
		{"any UDP port", `{ports: [{protocol: UDP}]}`, ""},
		{"the proxy only: others would be let in", `{ports: [{port: 15401}]}`, "p"},
		{"in two rules of the same clients", fmt.Sprintf(`{from: [%s], ports: [{port: 8080}]}, {from: [%s], ports: [{port: 15401}]}`, one, one), ""},
		{"of different clients", fmt.Sprintf(`{from: [%s], ports: [{port: 8080}]}, {from: [%s], ports: [{port: 15401}]}`, one, other), "p"},
		{"the proxy to everyone, the app to some", fmt.Sprintf(`{from: [%s], ports: [{port: 8080}]}, {ports: [{port: 15401}]}`, one), "p"},
		{"everything to everyone, the app to some", fmt.Sprintf(`{from: [%s], ports: [{port: 8080}]}, {}`, one), ""},
		{"wider, but who knows", fmt.Sprintf(`{from: [%s], ports: [{port: 8080}]}, {from: [%s]}`, one, someone), "p"},
	} {
		policies := parsePolicies([]networkingv1.NetworkPolicy{testPolicy(t, "p", "policyTypes: [Ingress], ingress: ["+c.rules+"]")})
		pod := proxied("api", "http:15401:8080")
		var got []string
		for _, b := range barredPorts(&pod, servedPorts(&pod), policies) {
			got = append(got, b.policies...)
		}
		if strings.Join(got, " ") != c.want {
			t.Errorf("%s: barred by %q, want %q", c.name, got, c.want)
		}
	}
}

// A proxy that has left the app its name is told by the container's port.
func TestBarredByTheNameThatTheAppKept(t *testing.T) {
	pod := proxied("api", "detour-8080:15401:8080")
	pod.Spec.Containers = []corev1.Container{{Ports: []corev1.ContainerPort{{Name: "http", ContainerPort: 8080}}}}
	policies := parsePolicies([]networkingv1.NetworkPolicy{testPolicy(t, "p", "ingress: [{ports: [{port: http}]}]")})
	if barred := barredPorts(&pod, servedPorts(&pod), policies); len(barred) != 1 {
		t.Errorf("barred %v, want the port that the policy names", barred)
	}
}

// A policy that comes later takes the Service back to the number, and is told of.
func TestPolicyThatComesLater(t *testing.T) {
	service := testService("api", "8080", "9000")
	pods := []corev1.Pod{proxied("api-0", "detour-8080:15401:8080,detour-9000:15402:9000"), proxied("api-1", "detour-8080:15401:8080,detour-9000:15402:9000")}
	policies := []networkingv1.NetworkPolicy{testPolicy(t, "p", "ingress: [{ports: [{port: 8080}]}]")}
	before := pods[0].DeepCopy()
	plan := planService(&service, admitted(pods, policies))
	if diff := cmp.Diff([]string{"8080", "detour-9000"}, targets(plan)); diff != "" {
		t.Errorf("the Service leads to (-want +got)\n%s", diff)
	}
	if diff := cmp.Diff(*before, pods[0]); diff != "" {
		t.Errorf("a Pod of the cache changed\n%s", diff)
	}
	notices := findings(surroundings{namespace: testNamespace("shop", true), policies: policies}, pods)
	if len(notices) != 2 || !strings.Contains(notices[0].message, "8080 and 15401") {
		t.Errorf("told %v, want one notice a Pod", notices)
	}
}

func TestEgressNotices(t *testing.T) {
	const router, previews, both = "NetworkPolicyBarsRouter NetworkPolicy/p", "NetworkPolicyBarsPreviews NetworkPolicy/p", "both"
	toHome := `{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: detour-system}}}`
	for _, c := range []struct {
		name  string
		rules string
		want  string
	}{
		{"nothing is admitted", ``, both},
		{"everything", `{}`, ""},
		{"DNS only", `{ports: [{port: 53, protocol: UDP}, {port: 53}]}`, router},
		{"UDP only", `{ports: [{protocol: UDP}]}`, both},
		{"the namespace only", `{to: [{podSelector: {}}]}`, router},
		{"some Pods of the namespace, which may be previews", `{to: [{podSelector: {matchLabels: {app: db}}}], ports: [{port: 5432}]}`, router},
		{"our namespace only", `{to: [` + toHome + `]}`, previews},
		{"our namespace, another port", `{to: [` + toHome + `], ports: [{port: 443}]}`, both},
		{"our namespace, a port's name", `{to: [` + toHome + `], ports: [{port: https}]}`, previews},
		{"the router", `{to: [{namespaceSelector: {}, podSelector: {matchLabels: {app.kubernetes.io/name: detour-router}}}], ports: [{port: 8443}]}`, ""},
		{"other Pods of all namespaces", `{to: [{namespaceSelector: {}, podSelector: {matchLabels: {app: x}}}]}`, router},
		{"addresses", `{to: [{ipBlock: {cidr: 10.0.0.0/8}}], ports: [{port: 8000, endPort: 9000}]}`, ""},
	} {
		around := surroundings{namespace: testNamespace("shop", true), home: testNamespace("detour-system", false)}
		around.home.Labels = map[string]string{"kubernetes.io/metadata.name": "detour-system"}
		around.policies = []networkingv1.NetworkPolicy{testPolicy(t, "p", "policyTypes: [Egress], egress: ["+c.rules+"]")}
		ended := testPod("ended", "http")
		ended.Status.Phase = corev1.PodFailed
		var got []string
		for _, n := range findings(around, []corev1.Pod{ended, testPod("a", "http"), testPod("b")}) {
			got = append(got, n.reason+" "+n.object.Kind+"/"+n.object.Name)
		}
		if want := strings.Replace(c.want, both, router+" "+previews, 1); strings.Join(got, " ") != want {
			t.Errorf("%s: told %q, want %q", c.name, got, want)
		}
	}
}

// Nobody is told of policies for Pods that get no proxy.
func TestEgressOfOtherPods(t *testing.T) {
	optedOut, elsewhere := testPod("a"), testPod("b", "http")
	optedOut.Labels[api.LabelInject] = api.InjectDisabled
	elsewhere.Labels["app"] = "web"
	around := surroundings{namespace: testNamespace("shop", true), home: testNamespace("detour-system", false)}
	around.policies = []networkingv1.NetworkPolicy{testPolicy(t, "p", "policyTypes: [Egress]")}
	if notices := findings(around, []corev1.Pod{optedOut, elsewhere}); len(notices) > 0 {
		t.Errorf("told %v", notices)
	}
}

// Whatever the policies are: who reaches the proxy, where it may stand in for the app, is who reached the app before. That
// is so whether or not a network plugin looks for the names of ports in the proxy's container.
func TestProxyIsReachedByWhoReachedTheApp(t *testing.T) {
	free, barred := 0, 0
	for seed := range int64(3000) {
		random := rand.New(rand.NewSource(seed))
		var policies []networkingv1.NetworkPolicy
		for i := range 1 + random.Intn(3) {
			policies = append(policies, testPolicy(t, fmt.Sprint("p", i), "policyTypes: [Ingress], ingress: ["+randomRules(random)+"]"))
		}
		pod := proxied("api", "http:15401:8080")
		if len(barredPorts(&pod, servedPorts(&pod), parsePolicies(policies))) > 0 {
			barred++
			continue
		}
		free++
		for _, client := range []string{"a", "b", "c"} {
			before := reaches(policies, client, listener{8080, []string{"http"}})
			found, notFound := reaches(policies, client, listener{15401, []string{"http"}}), reaches(policies, client, listener{number: 15401})
			if before != found || before != notFound {
				t.Fatalf("seed %d: client %s reached the app: %v, reaches the proxy: %v (or %v)", seed, client, before, found, notFound)
			}
		}
	}
	if free < 300 || barred < 300 {
		t.Errorf("%d ports were taken over and %d not: too few to say anything", free, barred)
	}
}

func randomRules(r *rand.Rand) string {
	pick := func(choices ...string) string { return choices[r.Intn(len(choices))] }
	var rules []string
	for range r.Intn(4) {
		from := pick("", "", "from: [{podSelector: {matchLabels: {app: a}}}]", "from: [{podSelector: {matchLabels: {app: b}}}]",
			"from: [{podSelector: {matchExpressions: [{key: app, operator: In, values: [a, c]}]}}]")
		ports := pick("", "ports: [{port: 8080}]", "ports: [{port: http}]", "ports: [{port: 15401}]", "ports: [{port: 8080}, {port: 15401}]",
			"ports: [{port: 1, endPort: 20000}]", "ports: [{port: grpc}]", "ports: [{port: 9000, endPort: 9100}, {protocol: UDP}]")
		rules = append(rules, "{"+strings.Trim(from+", "+ports, ", ")+"}")
	}
	return strings.Join(rules, ", ")
}

// reaches is what the API says of policies that all select the Pod: a client of the same namespace gets in by any rule.
func reaches(policies []networkingv1.NetworkPolicy, client string, to listener) bool {
	for _, p := range policies {
		for _, rule := range p.Spec.Ingress {
			fromClient := len(rule.From) == 0 || slices.ContainsFunc(rule.From, func(peer networkingv1.NetworkPolicyPeer) bool {
				return matches(peer.PodSelector, map[string]string{"app": client})
			})
			toPort := len(rule.Ports) == 0 || slices.ContainsFunc(rule.Ports, func(p networkingv1.NetworkPolicyPort) bool { return isPort(p, to) })
			if fromClient && toPort {
				return true
			}
		}
	}
	return false
}
