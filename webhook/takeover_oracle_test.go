package webhook

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	discovery "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	discoveryclient "k8s.io/client-go/kubernetes/typed/discovery/v1"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"
	"k8s.io/endpointslice"
	endpoints "k8s.io/endpointslice/util"
	"k8s.io/klog/v2"
)

// [endpoint] asks functions of Kubernetes' EndpointSlice controller one by one, because histories need millions of
// answers. The whole of it says the same.
func TestEndpointIsTheControllersOwn(t *testing.T) {
	m := testMetrics(t)
	compared := 0
	for seed := range uint64(200) {
		h := history{seed: seed, metrics: m}
		if err := h.hold(); err != nil {
			t.Fatal(err)
		}
		for _, s := range h.world.services {
			if s.live.Spec.Type == corev1.ServiceTypeExternalName || s.live.Spec.Selector == nil {
				continue // the controller does not look at these
			}
			want := controllersEndpoints(t, &s.live, h.world.pods)
			if diff := cmp.Diff(want, endpointsOf(&s.live, h.world.pods)); diff != "" {
				t.Errorf("seed %d: %s: -controller +endpoint\n%s", seed, s, diff)
			}
			compared += len(want)
		}
	}
	if compared == 0 {
		t.Error("there are no endpoints")
	}
}

// endpointsOf are the numbers by "port pod".
func endpointsOf(s *corev1.Service, pods []*twinPod) map[string]int {
	found := map[string]int{}
	for i, port := range s.Spec.Ports {
		for _, p := range pods {
			if number, served := endpoint(s, i, &p.live); served {
				found[fmt.Sprint(port.Name, " ", p.name())] = number
			}
		}
	}
	return found
}

// controllersEndpoints are those that Kubernetes' reconciler puts into the EndpointSlices of a new Service.
func controllersEndpoints(t *testing.T, s *corev1.Service, pods []*twinPod) map[string]int {
	t.Helper()
	s = s.DeepCopy()
	s.Spec.IPFamilies = []corev1.IPFamily{corev1.IPv4Protocol}
	var selected []*corev1.Pod // by the controller's lister of Pods
	for _, p := range pods {
		if pod := p.live.DeepCopy(); selects(s, pod.Labels) {
			pod.Spec.NodeName = "node"
			selected = append(selected, pod)
		}
	}
	nodes := cache.NewIndexer(cache.MetaNamespaceKeyFunc, nil)
	if err := nodes.Add(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "node"}}); err != nil {
		t.Fatal(err)
	}
	var made sliceRecorder
	r := endpointslice.NewReconciler(sliceClient{discovery: sliceDiscovery{slices: &made}}, corelisters.NewNodeLister(nodes), 100,
		endpoints.NewEndpointSliceTracker(), nil, record.NewFakeRecorder(10), "test")
	if err := r.Reconcile(klog.Background(), s, selected, nil, time.Time{}); err != nil {
		t.Fatal(err)
	}
	return made.serving()
}

// sliceClient is a client that can create EndpointSlices. Anything else panics.
type sliceClient struct {
	kubernetes.Interface
	discovery sliceDiscovery
}

func (c sliceClient) DiscoveryV1() discoveryclient.DiscoveryV1Interface { return c.discovery }

type sliceDiscovery struct {
	discoveryclient.DiscoveryV1Interface
	slices *sliceRecorder
}

func (d sliceDiscovery) EndpointSlices(string) discoveryclient.EndpointSliceInterface {
	return d.slices
}

// sliceRecorder remembers the EndpointSlices that are created.
type sliceRecorder struct {
	discoveryclient.EndpointSliceInterface
	made []*discovery.EndpointSlice
}

func (r *sliceRecorder) Create(_ context.Context, slice *discovery.EndpointSlice, _ metav1.CreateOptions) (*discovery.EndpointSlice, error) {
	r.made = append(r.made, slice)
	return slice, nil
}

// serving are the endpoints that serve, whether their Pods are to end or not.
func (r *sliceRecorder) serving() map[string]int {
	found := map[string]int{}
	for _, slice := range r.made {
		for _, port := range slice.Ports {
			for _, e := range slice.Endpoints {
				if *e.Conditions.Serving {
					found[fmt.Sprint(*port.Name, " ", e.TargetRef.Name)] = int(*port.Port)
				}
			}
		}
	}
	return found
}
