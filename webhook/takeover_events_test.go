package webhook

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/detour-dev/detour/api"
)

// happening is something that can happen to a world. It does nothing where there is nothing for it to happen to.
type happening struct {
	weight int
	happen func(*world, *rand.Rand) error
}

// happenings are what a history is made of. The reconciler's being late is one of them.
var happenings = []happening{
	{10, (*world).podComes},
	{2, (*world).podComesUnseen},
	{12, (*world).podStarts},
	{2, (*world).proxyDoesNotStart},
	{2, (*world).podEnds},
	{2, (*world).podTerminates},
	{4, (*world).podIsGone},
	{2, (*world).podIsRelabelled},
	{1, (*world).podIsAnnotated},
	{5, (*world).serviceComes},
	{1, (*world).serviceIsGone},
	{5, (*world).serviceIsAppliedAgain},
	{3, (*world).serviceChanges},
	{2, (*world).selectorChanges},
	{1, (*world).serviceIsAnnotated},
	{2, (*world).webhookTurns},
	{2, (*world).namespaceTurns},
	{1, (*world).namespaceIsTold},
	{2, (*world).clockJumps},
	{8, (*world).reconcilerRuns},
}

// happens has one of them happen.
func (w *world) happens(r *rand.Rand) error {
	total := 0
	for _, h := range happenings {
		total += h.weight
	}
	pick := r.IntN(total)
	for _, h := range happenings {
		if pick -= h.weight; pick < 0 {
			return h.happen(w, r)
		}
	}
	return nil
}

func one[T any](r *rand.Rand, of ...T) T { return of[r.IntN(len(of))] }

// chance is true once in n times.
func chance(r *rand.Rand, n int) bool { return r.IntN(n) == 0 }

// anyPod is one of the Pods that this is true of, or nil.
func (w *world) anyPod(r *rand.Rand, is func(*twinPod) bool) *twinPod {
	pods := slices.DeleteFunc(slices.Clone(w.pods), func(p *twinPod) bool { return !is(p) })
	if len(pods) == 0 {
		return nil
	}
	return one(r, pods...)
}

func (w *world) anyService(r *rand.Rand) *twinService {
	if len(w.services) == 0 {
		return nil
	}
	return one(r, w.services...)
}

// updatePod changes a Pod of which this is true, and checks that the reconciler wakes if it is to do anything.
func (w *world) updatePod(r *rand.Rand, is func(*twinPod) bool, what string, change func(*corev1.Pod)) error {
	p := w.anyPod(r, is)
	if p == nil {
		return nil
	}
	before, old := w.plans(w.newest()), p.cached
	p.set(change)
	w.tell("%s %s", p.name(), what)
	if !slices.Equal(before, w.plans(w.now())) && !podChanged(podUpdate(&old, &p.cached)) {
		return fmt.Errorf("%s %s, and the reconciler sleeps", p.name(), what)
	}
	return nil
}

// plans are the targets that all Services should have.
func (w *world) plans(v *view) []string {
	covering := suspensionOf(v.namespace, v.pods, w.clock).covering(v.pods)
	var all []string
	for i := range v.services {
		all = append(all, targets(planService(&v.services[i], covering))...)
	}
	return all
}

func alive(p *twinPod) bool { return !ended(&p.live) }

func (w *world) podComes(r *rand.Rand) error { return w.podIsCreated(r, true) }

func (w *world) podComesUnseen(r *rand.Rand) error { return w.podIsCreated(r, false) }

func (w *world) podIsCreated(r *rand.Rand, seen bool) error {
	if len(w.pods) >= 5 {
		return nil
	}
	from := w.templates[0] // most Pods are of one Deployment
	switch r.IntN(6) {
	case 0:
		from = w.templates[1]
	case 1:
		from = randomTemplate(r)
	}
	w.addPod(from, w.someView(r), seen)
	return nil
}

func (w *world) podStarts(r *rand.Rand) error {
	waits := func(p *twinPod) bool { return alive(p) && !p.started() && p.live.DeletionTimestamp == nil }
	return w.updatePod(r, waits, "starts", start)
}

// proxyDoesNotStart keeps the plain twin from starting, too: the first such Pods of a namespace are the price.
func (w *world) proxyDoesNotStart(r *rand.Rand) error {
	waits := func(p *twinPod) bool { return alive(p) && !p.started() && len(p.proxy) > 0 }
	return w.updatePod(r, waits, "waits for its proxy", proxyWaits)
}

func (w *world) podEnds(r *rand.Rand) error {
	phase := one(r, corev1.PodSucceeded, corev1.PodFailed)
	return w.updatePod(r, alive, "ends", func(pod *corev1.Pod) { pod.Status.Phase = phase })
}

// podTerminates leaves a Pod serving.
func (w *world) podTerminates(r *rand.Rand) error {
	now := metav1.NewTime(w.clock)
	return w.updatePod(r, alive, "is told to end", func(pod *corev1.Pod) { pod.DeletionTimestamp = &now })
}

func (w *world) podIsGone(r *rand.Rand) error {
	p := w.anyPod(r, func(*twinPod) bool { return true })
	if p != nil {
		w.pods = slices.DeleteFunc(w.pods, func(other *twinPod) bool { return p == other })
		w.tell("%s is gone", p.name())
	}
	return nil
}

func (w *world) podIsRelabelled(r *rand.Rand) error {
	labels := randomLabels(r)
	return w.updatePod(r, alive, fmt.Sprint("is relabelled ", labels), func(pod *corev1.Pod) { pod.Labels = labels })
}

func (w *world) podIsAnnotated(r *rand.Rand) error {
	annotation := one(r, api.AnnotationNotInjected, api.AnnotationPortsNotTaken)
	value := one(r, string(reasonCannotStart), string(reasonOptedOut), "8080/TCP:udp", "nonsense")
	return w.updatePod(r, alive, "is annotated "+annotation+"="+value, func(pod *corev1.Pod) {
		pod.Annotations = map[string]string{annotation: value}
	})
}

func (w *world) serviceComes(r *rand.Rand) error {
	if len(w.services) >= 3 {
		return nil
	}
	w.addService(randomManifest(r), w.someView(r))
	return nil
}

func (w *world) serviceIsGone(r *rand.Rand) error {
	if s := w.anyService(r); s != nil {
		w.services = slices.DeleteFunc(w.services, func(other *twinService) bool { return s == other })
		w.tell("%s is gone", s.name())
	}
	return nil
}

// serviceIsAppliedAgain writes what its user has in a file, where nothing of ours is.
func (w *world) serviceIsAppliedAgain(r *rand.Rand) error {
	if s := w.anyService(r); s != nil {
		w.writeService(s, s.meant.DeepCopy(), w.someView(r))
	}
	return nil
}

func (w *world) serviceChanges(r *rand.Rand) error {
	if s := w.anyService(r); s != nil {
		changed := randomManifest(r)
		changed.Name, changed.UID = s.name(), s.live.UID
		w.writeService(s, changed, w.someView(r))
	}
	return nil
}

// selectorChanges is kubectl edit: the ports go back as they came, with our names.
func (w *world) selectorChanges(r *rand.Rand) error {
	if s := w.anyService(r); s != nil {
		edited := s.live.DeepCopy()
		edited.Spec.Selector = randomSelector(r)
		w.writeService(s, edited, w.someView(r))
	}
	return nil
}

func (w *world) serviceIsAnnotated(r *rand.Rand) error {
	if s := w.anyService(r); s != nil {
		edited := s.live.DeepCopy()
		annotate(edited, api.AnnotationTargetPorts, one(r, "", "80:9000", "81:8080,80:8080", "nonsense"))
		w.writeService(s, edited, w.someView(r))
	}
	return nil
}

func (w *world) webhookTurns(r *rand.Rand) error {
	w.answering = !w.answering || chance(r, 2)
	w.tell("the Service webhook answers: %v", w.answering)
	return nil
}

func (w *world) namespaceTurns(r *rand.Rand) error {
	w.member = !w.member || chance(r, 2)
	w.tell("the namespace takes part: %v", w.member)
	return nil
}

func (w *world) namespaceIsTold(r *rand.Rand) error {
	at := w.clock.Add(time.Duration(r.IntN(40)-20) * time.Minute)
	w.retry = one(r, "", "nonsense", at.Format(time.RFC3339))
	w.tell("the namespace is annotated %s=%s", api.AnnotationRetry, w.retry)
	return nil
}

func (w *world) clockJumps(r *rand.Rand) error {
	w.clock = w.clock.Add(time.Duration(r.IntN(60)-20) * time.Minute)
	w.tell("the clock says %s", w.clock.Format(time.TimeOnly))
	return nil
}

// reconcilerRuns late, perhaps, and on a cache that lags behind.
func (w *world) reconcilerRuns(r *rand.Rand) error {
	w.tell("the reconciler runs")
	return w.reconcile(w.someView(r), w.someView(r))
}

// What ports are made from: few, so that they meet.
var (
	randomNumbers = []int32{8080, 8080, 8080, 8080, 9000, 80, 81, 15400, 15401}
	randomNames   = []string{"", "", "http", "http", "http", "grpc", "app-8080", "detour-8080", "detour-metrics"}
	randomTargets = []string{"8080", "8080", "8080", "8080", "9000", "0", "15400", "15401", "http", "http", "grpc", "app-8080",
		"nothing", "detour-8080", "detour-9000", "detour-metrics", "detour-0"}
)

// randomTemplate makes Pods of one or two containers, perhaps with a native sidecar, as the API server has them before
// webhooks.
func randomTemplate(r *rand.Rand) template {
	pod := testPod("")
	pod.Labels = randomLabels(r)
	for i := range 1 + r.IntN(2) {
		pod.Spec.Containers = append(pod.Spec.Containers, randomContainer(r, fmt.Sprint("app-", i)))
	}
	if chance(r, 5) {
		sidecar := randomContainer(r, "sidecar")
		sidecar.RestartPolicy = one(r, nil, ptr.To(corev1.ContainerRestartPolicyAlways), ptr.To(corev1.ContainerRestartPolicyAlways))
		pod.Spec.InitContainers = []corev1.Container{sidecar}
	}
	if chance(r, 8) {
		spoil(r, &pod)
	}
	return template{pod, listening(r, &pod)}
}

// spoil gives a Pod a reason to get no proxy.
func spoil(r *rand.Rand, pod *corev1.Pod) {
	one(r,
		func() { pod.Labels[api.LabelInject] = api.InjectDisabled },
		func() { pod.Labels[api.LabelInject] = api.InjectDisabled },
		func() { pod.Labels[api.LabelTarget] = "api" },
		func() { pod.Spec.HostNetwork = true },
		func() { pod.Spec.ServiceAccountName = "" },
		func() { pod.Annotations = map[string]string{"linkerd.io/inject": "enabled"} },
		func() { pod.Annotations = map[string]string{api.AnnotationClientAddress: "nonsense"} },
	)()
}

func randomContainer(r *rand.Rand, name string) corev1.Container {
	c := corev1.Container{Name: name}
	used := map[string]bool{"": false} // the API server refuses a name that is twice in a container
	for range r.IntN(4) {
		port := corev1.ContainerPort{ContainerPort: one(r, randomNumbers...), Protocol: randomProtocol(r)}
		if name := one(r, randomNames...); !used[name] {
			port.Name, used[name] = name, name != ""
		}
		if chance(r, 20) {
			port.HostPort = port.ContainerPort
		}
		c.Ports = append(c.Ports, port)
	}
	return c
}

func randomProtocol(r *rand.Rand) corev1.Protocol {
	if chance(r, 10) {
		return one(r, corev1.ProtocolUDP, corev1.ProtocolSCTP)
	}
	return corev1.ProtocolTCP
}

// listening is where the app and its sidecars listen: on most ports that they declare, and on some others.
func listening(r *rand.Rand, pod *corev1.Pod) map[socket]bool {
	app := map[socket]bool{}
	for _, port := range slices.Concat(allPorts(&corev1.Pod{Spec: corev1.PodSpec{Containers: pod.Spec.Containers}}), nativeSidecarPorts(pod)) {
		app[socket{port.Protocol, int(port.ContainerPort)}] = !chance(r, 15)
	}
	for _, number := range []int{8080, 9000, 80} {
		if chance(r, 3) {
			app[socket{corev1.ProtocolTCP, number}] = true
		}
	}
	return app
}

func randomLabels(r *rand.Rand) map[string]string {
	return map[string]string{"app": one(r, "api", "api", "api", "api", "api", "web"), "tier": one(r, "a", "b")}
}

func randomSelector(r *rand.Rand) map[string]string {
	return one(r, map[string]string{"app": "api"}, map[string]string{"app": "api"}, map[string]string{"app": "web"},
		map[string]string{"tier": "a"}, map[string]string{"app": "api", "tier": "b"}, nil)
}

// manifest is a Service as the API server has it before webhooks: its defaults are set.
func manifest(to ...string) *corev1.Service {
	s := testService("", to...)
	for i := range s.Spec.Ports {
		port := &s.Spec.Ports[i]
		*port = defaulted(*port)
		port.Name = fmt.Sprint("p", i)
	}
	return &s
}

func randomManifest(r *rand.Rand) *corev1.Service {
	var to []string
	for range 1 + r.IntN(3) {
		to = append(to, one(r, randomTargets...))
	}
	s := manifest(to...)
	s.Spec.Selector = randomSelector(r)
	for i := range s.Spec.Ports {
		s.Spec.Ports[i].Protocol = randomProtocol(r)
	}
	if chance(r, 10) {
		s.Spec.ClusterIP = corev1.ClusterIPNone
	}
	if chance(r, 30) {
		s.Spec.Type = corev1.ServiceTypeExternalName
	}
	return s
}
