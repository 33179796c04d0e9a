package plugin

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/detour-dev/detour/api"
)

func TestUndoOf(t *testing.T) {
	port := func(target intstr.IntOrString, protocol corev1.Protocol) corev1.ServicePort {
		return corev1.ServicePort{TargetPort: target, Protocol: protocol}
	}
	service := &corev1.Service{}
	service.Spec.Ports = []corev1.ServicePort{
		port(intstr.FromString("http"), corev1.ProtocolTCP),
		port(intstr.FromString("detour-8080"), corev1.ProtocolTCP),
		port(intstr.FromString("detour-53"), corev1.ProtocolUDP),
		port(intstr.FromString("detour-99999"), corev1.ProtocolTCP),
		port(intstr.FromInt32(9090), corev1.ProtocolTCP),
	}
	want := []operation{{"test", "/spec/ports/1/targetPort", "detour-8080"}, {"replace", "/spec/ports/1/targetPort", uint16(8080)}}
	if diff := cmp.Diff(want, undoOf(service)); diff != "" {
		t.Error(diff)
	}
	service.Annotations = map[string]string{api.AnnotationTargetPorts: "anything"}
	want = append(want, operation{"remove", "/metadata/annotations/detour.dev~1target-ports", nil})
	if diff := cmp.Diff(want, undoOf(service)); diff != "" {
		t.Error(diff)
	}
}

const routerMetrics = `# HELP detour_router_proxies_cleared Proxies that have acknowledged the empty table.
# TYPE detour_router_proxies_cleared gauge
detour_router_proxies_cleared{namespace="shop"} 3
detour_router_proxies_cleared{namespace="dev"} 0
detour_router_proxies{namespace="shop"} 7
`

func TestClearedIn(t *testing.T) {
	if diff := cmp.Diff(map[string]int{"shop": 3, "dev": 0}, clearedIn(routerMetrics)); diff != "" {
		t.Error(diff)
	}
}

func FuzzClearedIn(f *testing.F) {
	f.Add(routerMetrics)
	f.Fuzz(func(t *testing.T, metrics string) {
		for namespace, n := range clearedIn(metrics) {
			if namespace == "" || n < 0 || strings.Contains(namespace, `"`) {
				t.Errorf("%q: %d", namespace, n)
			}
		}
	})
}
