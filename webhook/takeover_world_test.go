package webhook

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"time"

	jsonpatch "github.com/evanphx/json-patch/v5"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/detour-dev/detour/api"
)

// world is a namespace twice: with Detour, and as it would be without. What users and kubelets do happens to both;
// admission and the reconciler, whose code is the real one, know only the first.
type world struct {
	member    bool   // the namespace is labelled
	retry     string // the namespace's [api.AnnotationRetry]
	answering bool   // the Service webhook is; the Pod webhook's absence lets no Pod through
	clock     time.Time
	pods      []*twinPod
	services  []*twinService
	views     []*view // what caches may show, the newest last
	templates []template
	created   int
	metrics   *metrics
	journal   *journal
	tally     tally
	trace     *[]string // nil if nobody reads it
}

// tally counts what happened, to show that histories get to where it matters.
type tally struct {
	proxied   int // endpoints that lead through a proxy
	missing   int // endpoints that the last decision did not know of
	back      int // ports that the reconciler led back to their number
	suspended int // times that the reconciler was done in a suspended namespace
}

func (t *tally) add(other tally) {
	t.proxied += other.proxied
	t.missing += other.missing
	t.back += other.back
	t.suspended += other.suspended
}

// staleViews is how many events a cache may lag behind.
const staleViews = 3

func newWorld(m *metrics) *world {
	w := &world{member: true, answering: true, clock: noon, metrics: m}
	w.journal = newJournal(nobody{}, slog.New(slog.DiscardHandler), w.time)
	return w
}

// open has a shop run already: a Service and two Pods.
func (w *world) open() {
	w.addService(manifest("8080"), w.now())
	for range 2 {
		w.addPod(w.templates[0], w.now(), true)
	}
	for _, p := range w.pods {
		p.set(start)
	}
}

func (w *world) time() time.Time { return w.clock }

func (w *world) tell(format string, args ...any) {
	if w.trace != nil {
		*w.trace = append(*w.trace, fmt.Sprintf(format, args...))
	}
}

// nobody reads Events.
type nobody struct{}

func (nobody) Eventf(_, _ runtime.Object, _, _, _, _ string, _ ...any) {}

// socket is where something listens in a Pod.
type socket struct {
	protocol corev1.Protocol
	number   int
}

// template is what Pods are made from, and where they listen.
type template struct {
	pod corev1.Pod
	app map[socket]bool
}

// twinPod is a Pod with Detour and without.
type twinPod struct {
	plain, live corev1.Pod
	cached      corev1.Pod      // live, as caches have it
	app         map[socket]bool // where the app listens, once it has started
	proxy       map[int]int     // where the proxy listens, and the app's ports that it leads to
	names       map[string]bool // of the ports that the proxy has taken
}

// set changes the parts that both twins have in common.
func (p *twinPod) set(change func(*corev1.Pod)) {
	change(&p.plain)
	change(&p.live)
	p.cached = *stripped(stripPod, &p.live)
}

func (p *twinPod) name() string { return p.live.Name }

func (p *twinPod) started() bool { return p.live.Status.PodIP != "" }

// start is what a kubelet says of a Pod that serves.
func start(pod *corev1.Pod) {
	pod.Status = corev1.PodStatus{
		Phase: corev1.PodRunning, PodIP: "10.0.0.1", PodIPs: []corev1.PodIP{{IP: "10.0.0.1"}},
		Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}},
	}
}

// reach is the app's port that a connection to the live twin gets to, if anything listens there.
func (p *twinPod) reach(at socket) (int, bool) {
	if app, found := p.proxy[at.number]; found && at.protocol == corev1.ProtocolTCP {
		return app, p.app[socket{at.protocol, app}]
	}
	return at.number, p.app[at]
}

// proxyWaits is what it says of one that will not.
func proxyWaits(pod *corev1.Pod) {
	pod.Status.InitContainerStatuses = stuck("", "ImagePullBackOff").Status.InitContainerStatuses
}

// twinService is a Service as its users mean it, and as it is.
type twinService struct {
	meant, live corev1.Service
	cached      corev1.Service // live, as caches have it
	decided     *view          // the view on which its ports and selector were last decided or confirmed; nil if on none
}

func (s *twinService) name() string { return s.live.Name }

// become is a write of the API server.
func (s *twinService) become(live *corev1.Service) {
	version, _ := strconv.Atoi(s.live.ResourceVersion)
	s.live = *live
	s.live.ResourceVersion = strconv.Itoa(version + 1)
	s.cached = *stripped(stripService, &s.live)
}

func (s *twinService) targets() []string { return targets(&s.live) }

// stripped is what the cache keeps of an object.
func stripped[T any](strip func(any) (any, error), object *T) *T {
	kept, err := strip(object)
	if err != nil {
		panic(err)
	}
	return kept.(*T)
}

// asMeant undoes in a Service what Detour may have done to it, by the names alone. Whoever writes detour-8080 himself
// means 8080 by it: the name is reserved, so a port that the app calls so is not what it leads to.
func asMeant(service *corev1.Service) *corev1.Service {
	meant := service.DeepCopy()
	for i := range meant.Spec.Ports {
		port := &meant.Spec.Ports[i]
		number, ours := api.OriginalPort(port.TargetPort.StrVal)
		if ours && port.Protocol == corev1.ProtocolTCP {
			port.TargetPort = intstr.FromInt32(int32(number))
		}
	}
	return meant
}

// view is what a cache shows of the namespace, and never changes.
type view struct {
	client.Reader // anything but what follows panics
	namespace     *corev1.Namespace
	pods          []corev1.Pod
	services      []corev1.Service
}

func (v *view) Get(_ context.Context, _ client.ObjectKey, object client.Object, _ ...client.GetOption) error {
	*object.(*corev1.Namespace) = *v.namespace
	return nil
}

func (v *view) List(_ context.Context, list client.ObjectList, _ ...client.ListOption) error {
	switch l := list.(type) {
	case *corev1.PodList:
		l.Items = v.pods
	case *corev1.ServiceList:
		l.Items = v.services
	}
	return nil
}

// knows reports whether the view shows a Pod as Services see it.
func (v *view) knows(p *twinPod) bool {
	return slices.ContainsFunc(v.pods, func(pod corev1.Pod) bool {
		return pod.Name == p.name() && maps.Equal(pod.Labels, p.live.Labels)
	})
}

// shows reports whether the view has the newest version of a Service.
func (v *view) shows(s *twinService) bool {
	return slices.ContainsFunc(v.services, func(service corev1.Service) bool {
		return service.UID == s.live.UID && service.ResourceVersion == s.live.ResourceVersion
	})
}

// look has the newest view show what there is.
func (w *world) look() {
	w.views = append(w.views, w.now())
	w.views = w.views[max(0, len(w.views)-staleViews-1):]
}

// now is a view of what there is that no cache may have yet.
func (w *world) now() *view {
	v := &view{
		namespace: testNamespace("shop", w.member),
		pods:      make([]corev1.Pod, len(w.pods)),
		services:  make([]corev1.Service, len(w.services)),
	}
	annotate(v.namespace, api.AnnotationRetry, w.retry)
	for i, p := range w.pods {
		v.pods[i] = p.cached
	}
	for i, s := range w.services {
		v.services[i] = s.cached
	}
	return v
}

func (w *world) newest() *view { return w.views[len(w.views)-1] }

// someView is the newest as often as not.
func (w *world) someView(r *rand.Rand) *view {
	if chance(r, 2) {
		return w.newest()
	}
	return one(r, w.views...)
}

func (w *world) admitter(v *view) *admitter {
	return &admitter{
		cache: v, members: members{cache: v, own: "detour-system"}, sidecar: testSidecar,
		tooOld: func() bool { return false }, now: w.time,
	}
}

// addPod creates a Pod. Seen is false of one that the Pod webhook does not see or admits after an error of its own.
func (w *world) addPod(from template, v *view, seen bool) {
	plain := from.pod.DeepCopy()
	w.created++
	plain.Name = fmt.Sprint("pod-", w.created)
	plain.UID = uid(plain.Name)
	plain.CreationTimestamp = metav1.NewTime(w.clock.Truncate(time.Second)) // as the API server keeps it
	p := &twinPod{plain: *plain, live: *plain.DeepCopy(), app: from.app, proxy: map[int]int{}, names: map[string]bool{}}
	if seen && w.member && plain.Labels[api.LabelInject] != api.InjectDisabled {
		result, err := w.admitter(v).inject(context.Background(), "shop", plain)
		if err != nil {
			panic(err) // a view has no errors
		}
		p.live = *result.pod
	}
	taken, err := takenBy(&p.live)
	if err != nil {
		panic(err)
	}
	for _, t := range taken {
		p.proxy[int(t.Listen)], p.names[t.Name] = int(t.App), true
	}
	p.cached = *stripped(stripPod, &p.live)
	w.pods = append(w.pods, p)
	w.tell("%s is admitted: labels %v, ports %s, listens %v, proxy %s, %v", p.name(), p.live.Labels, portsOf(plain), p.app,
		api.FormatPorts(taken), p.live.Annotations)
}

// portsOf is for people.
func portsOf(pod *corev1.Pod) string {
	var text string
	for _, c := range slices.Concat(pod.Spec.InitContainers, pod.Spec.Containers) {
		text += c.Name + "["
		for _, p := range c.Ports {
			text += fmt.Sprintf(" %s=%d/%s", p.Name, p.ContainerPort, p.Protocol)
			if p.HostPort != 0 {
				text += "@host"
			}
		}
		text += " ]"
	}
	return text
}

// addService creates a Service.
func (w *world) addService(object *corev1.Service, v *view) {
	w.created++
	object.Name = fmt.Sprint("service-", w.created)
	object.UID = uid(object.Name)
	s := &twinService{}
	w.services = append(w.services, s)
	w.writeService(s, object, v)
}

// writeService is a user's write of a whole Service, new or not.
func (w *world) writeService(s *twinService, object *corev1.Service, v *view) {
	before := s.live
	s.meant = *asMeant(object)
	if !w.answering || !w.member { // the webhook's selector is the namespace's label
		if !portsAsPlanned(&before, object) || !maps.Equal(before.Spec.Selector, object.Spec.Selector) {
			s.decided = nil
		}
		s.become(object)
		w.tell("%s is written, and nobody asked: %s", s.name(), s)
		return
	}
	w.decide(s, object, v)
	w.tell("%s is written: %s", s.name(), s)
}

// decide is the Service webhook's answer to a write.
func (w *world) decide(s *twinService, object *corev1.Service, v *view) {
	_, after, err := w.admitter(v).mutateService(context.Background(), request("shop", object))
	if err != nil {
		panic(err) // a view has no errors
	}
	s.decided = v
	s.become(after.(*corev1.Service))
}

// String is for people.
func (s *twinService) String() string {
	return fmt.Sprintf("type %q cluster IP %q selector %v targets %v", s.live.Spec.Type, s.live.Spec.ClusterIP,
		s.live.Spec.Selector, s.targets())
}

// reconcile runs the reconciler on one view, and the admission of its writes on another.
func (w *world) reconcile(v, admission *view) error {
	log := slog.New(slog.DiscardHandler)
	server := &apiServer{view: v, world: w, admission: admission}
	r := &serviceReconciler{
		client: server, members: members{cache: v, own: "detour-system"}, tooOld: func() bool { return false },
		journal: w.journal, board: newBoard(server, w.time), metrics: w.metrics, now: w.time, log: log,
	}
	before := w.names()
	_, err := r.Reconcile(context.Background(), reconcile.Request{NamespacedName: types.NamespacedName{Name: "shop"}})
	if err != nil {
		return err
	}
	for _, s := range w.services {
		if v.shows(s) {
			s.decided = v // the reconciler found nothing to do
		}
	}
	w.tally.back += max(0, before-w.names())
	return nil
}

// names counts the ports that lead to a proxy's name.
func (w *world) names() int {
	n := 0
	for _, s := range w.services {
		for _, port := range s.live.Spec.Ports {
			if _, ours := api.OriginalPort(port.TargetPort.StrVal); ours {
				n++
			}
		}
	}
	return n
}

// apiServer is what the reconciler talks to: it reads from a view and writes to the world.
type apiServer struct {
	client.Client // anything but what follows panics
	*view
	world     *world
	admission *view
}

func (a *apiServer) Get(ctx context.Context, key client.ObjectKey, object client.Object, options ...client.GetOption) error {
	return a.view.Get(ctx, key, object, options...)
}

func (a *apiServer) List(ctx context.Context, list client.ObjectList, options ...client.ListOption) error {
	return a.view.List(ctx, list, options...)
}

// Patch knows Services only, and admission sees it as it sees a user's write.
func (a *apiServer) Patch(_ context.Context, object client.Object, patch client.Patch, _ ...client.PatchOption) error {
	i := slices.IndexFunc(a.world.services, func(s *twinService) bool { return s.name() == object.GetName() })
	if i < 0 {
		return apierrors.NewNotFound(corev1.Resource("services"), object.GetName())
	}
	s := a.world.services[i]
	changed, err := apply(&s.live, patch)
	if err != nil {
		return err
	}
	switch {
	case a.world.answering && a.world.member:
		a.world.decide(s, changed, a.admission)
	case patch.Type() == types.JSONPatchType:
		s.decided = a.view
		fallthrough
	default:
		s.become(changed)
	}
	a.world.tell("%s is patched by the reconciler (%s): %s", s.name(), patch.Type(), s)
	s.live.DeepCopyInto(object.(*corev1.Service))
	return nil
}

// apply returns the Service with the patch.
func apply(service *corev1.Service, patch client.Patch) (*corev1.Service, error) {
	body, err := patch.Data(service)
	if err != nil {
		return nil, err
	}
	raw, err := json.Marshal(service)
	if err != nil {
		return nil, err
	}
	if patch.Type() == types.MergePatchType {
		raw, err = jsonpatch.MergePatch(raw, body)
	} else {
		var operations jsonpatch.Patch
		if operations, err = jsonpatch.DecodePatch(body); err == nil {
			raw, err = operations.Apply(raw)
		}
	}
	if err != nil {
		return nil, err
	}
	return decode[corev1.Service](raw)
}
