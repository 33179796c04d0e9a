// Package view is the pure function in the middle of the router: what the API server says of one namespace, and what
// its proxies have acknowledged, make the table of each injected Pod and the namespace's [api.Status].
//
// The same input gives the same tables and the same status on every replica, whatever its order; that is what lets
// replicas agree without talking.
//
// # Use
//
//	v := view.New("shop", view.Objects{Services: services, Pods: pods, …}, acks, time.Now())
//	table := v.Tables[pod.UID]
//
// A cache that is to hold the objects needs no more of them than [Strip] keeps.
//
// A preview of a Service of another namespace ([api.AnnotationTargetNamespace]), a guest there, is in the view of that
// namespace. [Strays] are in none.
//
// # What it does not do
//
// It reads no API server, holds no cache, starts no goroutine and knows no clock: which namespaces take part, what time it
// is, whom to send a table and when an acknowledgement is too old is the router's to say. It counts no traffic.
package view

import (
	"cmp"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/detour-dev/detour/api"
)

// View is what the router makes of one namespace at one moment. It is not changed once it is made.
type View struct {
	Tables map[types.UID]*api.Table // of injected Pods
	Status api.Status               // without Traffic
	Text   string                   // the Status as the ConfigMap holds it
	// References are the previews' topmost objects, by the name of the preview: Events go to them.
	References map[string]corev1.ObjectReference
	Entries    map[string]Entry // by the name of the Service
	// Next is when a preview expires, so that the view will be another; zero if none will.
	Next time.Time
}

// Traffic sums, by the name of the preview, what the namespace's proxies have counted since they started.
func (v *View) Traffic(acks api.Acks) map[string]api.Counters {
	sum := map[string]api.Counters{}
	for pod := range v.Tables {
		for preview, counted := range acks[string(pod)].Previews {
			sum[preview] = sum[preview].Plus(counted)
		}
	}
	return sum
}

// New makes the view of a namespace. A Pod's proxy has put its table in force when acks, which are by Pod UID, hold the
// table's version; how old they are does not matter here. A preview whose time is over by now is not routed.
func New(namespace string, o Objects, acks api.Acks, now time.Time) *View {
	w := newWorld(namespace, o)
	w.now = now
	previews := w.findPreviews()
	w.checkAll(previews)
	previews = withoutCrowd(previews)
	v := &View{
		Tables: w.tables(previews), References: map[string]corev1.ObjectReference{}, Entries: w.entries(),
		Next: nextExpiry(previews, now),
	}
	for _, p := range previews {
		v.References[p.name] = p.object
		v.Status.Previews = append(v.Status.Previews, w.previewStatus(p, v.Tables, acks))
	}
	slices.SortStableFunc(v.Status.Previews, func(a, b api.PreviewStatus) int {
		return cmp.Or(cmp.Compare(a.Target, b.Target), cmp.Compare(a.Key, b.Key))
	})
	for _, service := range w.services {
		v.Status.Services = append(v.Status.Services, w.serviceStatus(service))
	}
	v.Text = statusText(v.Status)
	return v
}

// WithGateway is v with what its status says of the gateway that serves it by URL.
func (v *View) WithGateway(url string, open bool) *View {
	told := *v
	told.Status.Gateway, told.Status.GatewayOpen = url, open
	told.Text = statusText(told.Status)
	return &told
}
