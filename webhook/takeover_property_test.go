package webhook

import (
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/endpointslice"
	endpoints "k8s.io/endpointslice/util"
	"sigs.k8s.io/controller-runtime/pkg/event"

	"github.com/detour-dev/detour/api"
)

// histories are held if nobody asks for another number.
const histories = 8000

// TestTakeover holds generated histories of a namespace against what Kubernetes' own EndpointSlice code makes of it,
// and of its twin without Detour. DETOUR_TAKEOVER is how many, and DETOUR_SEED the seed of the first. A failure names
// the seed that holds that history alone, and tells it as short as it could be made.
func TestTakeover(t *testing.T) {
	t.Parallel()
	n, first := numberIn(t, "DETOUR_TAKEOVER", histories), numberIn(t, "DETOUR_SEED", 1)
	const stages = 4
	for i := range stages {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			t.Parallel()
			m := testMetrics(t)
			var seen tally
			for seed := first + i; seed < first+n; seed += stages {
				h := history{seed: uint64(seed), metrics: m}
				err := h.hold()
				seen.add(h.world.tally)
				if err != nil {
					t.Fatalf("DETOUR_SEED=%d DETOUR_TAKEOVER=1: %v\n%s", seed, err, h.shortest())
				}
			}
			t.Logf("%+v", seen)
			if n >= histories && (seen.proxied == 0 || seen.missing == 0 || seen.back == 0 || seen.suspended == 0) {
				t.Errorf("histories do not get to where it matters: %+v", seen)
			}
		})
	}
}

func numberIn(t *testing.T, name string, otherwise int) int {
	t.Helper()
	value := os.Getenv(name)
	if value == "" {
		return otherwise
	}
	n, err := strconv.Atoi(value)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return n
}

func podUpdate(before, after *corev1.Pod) event.UpdateEvent {
	return event.UpdateEvent{ObjectOld: before, ObjectNew: after}
}

// history is what happens to a world. Each step's randomness is its own, so that steps can be left out.
type history struct {
	seed    uint64
	left    map[int]bool // steps that are left out
	metrics *metrics
	trace   *[]string
	world   *world // how it ended
}

// hold returns the first thing that is wrong.
//
// In every other history the reconciler is as quick as it should be: it has done its work on all that has happened when
// the next thing happens, and so before a Pod that came has started. In the others it is as late as it happens to be.
func (h *history) hold() error {
	w := h.begin()
	h.world = w
	quick := h.seed%8 < 4 // all of them in each stage
	for i := range h.steps() {
		if h.left[i] {
			continue
		}
		if err := w.happens(rand.New(rand.NewPCG(h.seed, uint64(i)))); err != nil {
			return err
		}
		w.look()
		if err := w.check(); err != nil {
			return err
		}
		if quick {
			if err := w.settle(); err != nil {
				return err
			}
		}
	}
	return w.settle()
}

func (h *history) steps() int { return 5 + int(h.seed%30) }

// begin is a world that is empty or has a shop.
func (h *history) begin() *world {
	r := rand.New(rand.NewPCG(h.seed, math.MaxUint64))
	w := newWorld(h.metrics)
	w.trace = h.trace
	w.templates = []template{randomTemplate(r), randomTemplate(r)}
	if chance(r, 2) {
		w.open()
	}
	w.look()
	return w
}

// shortest tells the history without the steps that it fails without.
func (h *history) shortest() string {
	short := history{seed: h.seed, left: map[int]bool{}, metrics: h.metrics}
	for i := range h.steps() {
		short.left[i] = true
		if short.hold() == nil {
			delete(short.left, i)
		}
	}
	short.trace = &[]string{}
	err := short.hold()
	return fmt.Sprintf("%s\n%v", strings.Join(*short.trace, "\n"), err)
}

// settle has the reconciler work on all that has happened, as the newest view shows it.
func (w *world) settle() error {
	if err := w.reconcile(w.newest(), w.newest()); err != nil {
		return err
	}
	w.look()
	if err := w.check(); err != nil {
		return err
	}
	return w.checkSettled()
}

// check holds at any time: what every Service leads to, and that it can be undone.
func (w *world) check() error {
	for _, s := range w.services {
		if err := checkUndone(s); err != nil {
			return err
		}
		for i := range s.live.Spec.Ports {
			for _, p := range w.pods {
				if err := w.checkEndpoint(s, i, p); err != nil {
					return fmt.Errorf("%s port %d (%s instead of %s): %w", s.name(), i,
						&s.live.Spec.Ports[i].TargetPort, &s.meant.Spec.Ports[i].TargetPort, err)
				}
			}
		}
	}
	return nil
}

// checkEndpoint holds at any time, of each port of a Service and each Pod that serves. If the Service leads, without us,
// to a port at which the Pod's app listens, it leads to the very same with us, directly or through the proxy: it never
// refuses, and it never reaches another port of the app.
//
// Exactly one kind of Pod may be missing: one that the last decision on the Service could not know, while the Service leads
// to a name that the Pod does not have. The reconciler decides when a Pod comes, not when it is ready, so that none is
// missing if the reconciler is as quick as it should be. Where it is not, and where nobody decides because webhook and
// reconciler are both gone, the known Pods go on serving, and the Pod that was opted out waits behind the name.
func (w *world) checkEndpoint(s *twinService, i int, p *twinPod) error {
	protocol := s.meant.Spec.Ports[i].Protocol
	want, served := endpoint(&s.meant, i, &p.plain)
	if !served || !p.app[socket{protocol, want}] {
		return nil
	}
	target := s.live.Spec.Ports[i].TargetPort
	unknown := isOurs(target) && (s.decided == nil || !s.decided.knows(p))
	got, found := endpoint(&s.live, i, &p.live)
	if !found && unknown {
		w.tally.missing++
		return nil
	}
	if !found {
		return fmt.Errorf("%s is missing", p.name())
	}
	app, listens := p.reach(socket{protocol, got})
	switch {
	case unknown && reservedNames(&p.plain)[target.StrVal]:
		return nil // the app has a port of our name, and nobody could know yet that it has
	case !listens || app != want:
		return fmt.Errorf("%s is reached at %d, which leads to %d (listening: %v) and not to %d", p.name(), got, app, listens, want)
	case got != app:
		w.tally.proxied++
	case protocol == corev1.ProtocolTCP && p.names[target.StrVal]:
		return fmt.Errorf("%s is reached at %d, round the proxy that took the name", p.name(), got)
	}
	return nil
}

func isOurs(target intstr.IntOrString) bool {
	_, ours := api.OriginalPort(target.StrVal)
	return ours
}

// endpoint is the number that Kubernetes' EndpointSlice controller gives a Pod for a port of a Service. It gives none
// for the Service of another type or without a selector; terminating Pods serve while there are no others.
func endpoint(s *corev1.Service, i int, pod *corev1.Pod) (int, bool) {
	if s.Spec.Type == corev1.ServiceTypeExternalName || s.Spec.Selector == nil || !endpoints.IsPodReady(pod) ||
		!labels.ValidatedSetSelector(s.Spec.Selector).Matches(labels.Set(pod.Labels)) ||
		!endpoints.ShouldPodBeInEndpoints(pod, true) {
		return 0, false
	}
	number, err := endpointslice.FindPort(pod, &s.Spec.Ports[i])
	return number, err == nil
}

// checkUndone wants the ports that the user means to come out of the names alone.
func checkUndone(s *twinService) error {
	bare := s.live.DeepCopy()
	bare.Annotations = nil
	if undone := planService(bare, nil); !portsAsPlanned(undone, &s.meant) {
		return fmt.Errorf("%s: %v is undone to %v, want %v", s.name(), s.targets(), targets(undone), targets(&s.meant))
	}
	return nil
}

// checkSettled holds once the reconciler has seen everything.
func (w *world) checkSettled() error {
	now := w.newest()
	suspension := suspensionOf(now.namespace, now.pods, w.clock)
	if suspension.active {
		w.tally.suspended++
	}
	possible := w.member && !suspension.active
	if possible && w.answering {
		if plans := planServices(now.services, now.pods); len(plans) > 0 {
			return fmt.Errorf("%s is planned again: %v", plans[0].Name, targets(plans[0]))
		}
	}
	for _, s := range w.services {
		for i := range s.live.Spec.Ports {
			port := s.live.Spec.Ports[i]
			switched := isOurs(port.TargetPort) && port.Protocol == corev1.ProtocolTCP
			if covered := possible && w.covered(s, i); switched && !covered || covered && w.answering && !switched {
				return fmt.Errorf("%s port %d leads to %s, covered: %v", s.name(), i, &port.TargetPort, covered)
			}
		}
	}
	return nil
}

// covered reports whether all Pods of a Service that addresses a number have a proxy for it.
func (w *world) covered(s *twinService, i int) bool {
	port := s.meant.Spec.Ports[i]
	if port.TargetPort.Type == intstr.String || port.Protocol != corev1.ProtocolTCP || s.meant.Spec.Selector == nil ||
		s.meant.Spec.ClusterIP == corev1.ClusterIPNone || s.meant.Spec.Type == corev1.ServiceTypeExternalName {
		return false
	}
	number := port.TargetPort.IntValue()
	port.TargetPort = intstr.FromString(api.PortName(uint16(number)))
	selector, selected := labels.ValidatedSetSelector(s.meant.Spec.Selector), 0
	for _, p := range w.pods {
		if ended(&p.live) || !selector.Matches(labels.Set(p.live.Labels)) {
			continue
		}
		selected++
		at, err := endpointslice.FindPort(&p.live, &port)
		if app, found := p.proxy[at]; err != nil || !found || app != number {
			return false
		}
	}
	return selected > 0
}
