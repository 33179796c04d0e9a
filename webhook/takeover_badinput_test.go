package webhook

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"

	"github.com/detour-dev/detour/api"
)

// Whatever users get wrong, every Service leads to the right port of its Pods, through the proxy or directly; [world.check]
// is asked after each step.
func TestTakeoverOfBadInput(t *testing.T) {
	type wanted = map[string][]string // targets, by Service
	untouched := wanted{"service-1": {"detour-8080"}}
	for _, c := range []struct {
		name  string
		steps []func(*world)
		want  wanted
	}{
		{"nothing is wrong", nil, untouched},
		{"a Service is edited to nonsense", []func(*world){
			writes("nothing", "70000", "detour-0", "detour-metrics", "detour-08080"),
		}, wanted{"service-1": {"nothing", "70000", "detour-0", "detour-metrics", "detour-08080"}}},
		{"a Service is edited to nonsense and back", []func(*world){
			writes("nothing"), writes("8080"),
		}, untouched},
		{"a Service loses its selector", []func(*world){
			edits(func(s *corev1.Service) { s.Spec.Selector = nil }),
		}, wanted{"service-1": {"8080"}}},
		{"a Service is written with our name", []func(*world){
			writes("detour-8080", "detour-9000"),
		}, wanted{"service-1": {"detour-8080", "9000"}}},
		{"a Service's annotation is removed", []func(*world){
			edits(withNote("")),
		}, untouched},
		{"a Service's annotation is edited, and an opted-out Pod comes", []func(*world){
			edits(withNote("80:9000")), optedOut,
		}, wanted{"service-1": {"8080"}}},
		{"a Service's annotation is edited while the webhook is away, and an opted-out Pod comes", []func(*world){
			away, edits(withNote("nonsense")), optedOut,
		}, wanted{"service-1": {"8080"}}},
		{"a Pod's annotation says that it has no proxy", []func(*world){
			annotates(api.AnnotationNotInjected, string(reasonOptedOut)),
		}, untouched},
		{"a Pod's annotation says that its proxy could not start", []func(*world){
			annotates(api.AnnotationNotInjected, string(reasonCannotStart)),
		}, wanted{"service-1": {"8080"}}},
		{"two Services contradict each other", []func(*world){
			adds("9000", "http"),
		}, wanted{"service-1": {"detour-8080"}, "service-4": {"9000", "http"}}},
		{"a headless Service contradicts another", []func(*world){
			adds("detour-8080", "http"), edits(func(s *corev1.Service) { s.Spec.ClusterIP = corev1.ClusterIPNone }),
		}, wanted{"service-1": {"detour-8080"}, "service-4": {"8080", "http"}}},
		{"two containers call a port alike", []func(*world){
			adds("http"), comes(declaring("http", 8080), declaring("http", 9000)),
		}, wanted{"service-1": {"detour-8080"}, "service-4": {"http"}}},
		{"two containers call a port alike, and the second has it on the host, too", []func(*world){
			adds("http"), comes(declaring("http", 8080), onTheHost(declaring("http", 9000))),
		}, wanted{"service-1": {"detour-8080"}, "service-4": {"http"}}},
		{"a Pod has a port of our name", []func(*world){
			comes(declaring("", 8080), declaring("detour-8080", 9000)),
		}, wanted{"service-1": {"8080"}}},
		{"a Pod opts out under a switched Service", []func(*world){optedOut}, wanted{"service-1": {"8080"}}},
		{"the clock jumps", []func(*world){
			proxiesFail, jumps(24 * time.Hour), jumps(-48 * time.Hour),
		}, wanted{"service-1": {"8080"}}},
		{"the clock jumps, and the Pods that it is about are gone", []func(*world){
			proxiesFail, jumps(-24 * time.Hour), lastTwoGo, jumps(48 * time.Hour),
		}, untouched},
	} {
		t.Run(c.name, func(t *testing.T) { checkBadInput(t, c.steps, c.want) })
	}
}

func checkBadInput(t *testing.T, steps []func(*world), want map[string][]string) {
	w := newWorld(testMetrics(t))
	w.templates = []template{madeOf(declaring("http", 8080))}
	w.templates[0].app[socket{corev1.ProtocolTCP, 9000}] = true // undeclared
	w.open()
	for _, step := range append([]func(*world){func(*world) {}}, steps...) {
		step(w)
		w.look()
		if err := w.check(); err != nil {
			t.Error(err)
		}
		if err := w.settle(); err != nil {
			t.Error(err)
		}
		for _, p := range w.pods {
			if !cannotStart(&p.live) {
				p.set(start)
			}
		}
		if err := w.check(); err != nil {
			t.Error(err)
		}
	}
	got := map[string][]string{}
	for _, s := range w.services {
		got[s.name()] = s.targets()
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}

// madeOf is a template whose app listens on all that it declares.
func madeOf(containers ...corev1.Container) template {
	made := template{testPod(""), map[socket]bool{}}
	made.pod.Spec.Containers = containers
	for _, port := range allPorts(&made.pod) {
		made.app[socket{port.Protocol, int(port.ContainerPort)}] = true
	}
	return made
}

func declaring(name string, number int32) corev1.Container {
	return corev1.Container{Ports: []corev1.ContainerPort{{Name: name, ContainerPort: number, Protocol: corev1.ProtocolTCP}}}
}

func onTheHost(c corev1.Container) corev1.Container {
	c.Ports[0].HostPort = c.Ports[0].ContainerPort
	return c
}

func comes(containers ...corev1.Container) func(*world) {
	return func(w *world) { w.addPod(madeOf(containers...), w.now(), true) }
}

func optedOut(w *world) {
	out := madeOf(declaring("http", 8080))
	out.pod.Labels[api.LabelInject] = api.InjectDisabled
	w.addPod(out, w.now(), true)
}

// proxiesFail has two Pods come whose proxies do not start.
func proxiesFail(w *world) {
	for range tooManyFailures {
		w.addPod(w.templates[0], w.now(), true)
		w.pods[len(w.pods)-1].set(proxyWaits)
	}
}

func lastTwoGo(w *world) { w.pods = w.pods[:len(w.pods)-2] }

func jumps(by time.Duration) func(*world) {
	return func(w *world) { w.clock = w.clock.Add(by) }
}

func away(w *world) { w.answering = false }

func adds(to ...string) func(*world) {
	return func(w *world) { w.addService(manifest(to...), w.now()) }
}

// edits changes the newest Service as it is.
func edits(change func(*corev1.Service)) func(*world) {
	return func(w *world) {
		s := w.services[len(w.services)-1]
		edited := s.live.DeepCopy()
		change(edited)
		w.writeService(s, edited, w.now())
	}
}

func writes(to ...string) func(*world) {
	return edits(func(s *corev1.Service) { s.Spec.Ports = manifest(to...).Spec.Ports })
}

func withNote(value string) func(*corev1.Service) {
	return func(s *corev1.Service) { annotate(s, api.AnnotationTargetPorts, value) }
}

func annotates(annotation, value string) func(*world) {
	return func(w *world) {
		w.pods[0].set(func(pod *corev1.Pod) { pod.Annotations = map[string]string{annotation: value} })
	}
}
