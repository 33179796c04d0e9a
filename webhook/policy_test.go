package webhook

import (
	"fmt"
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
