package dashboard

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/detour-dev/detour/api"
	"github.com/detour-dev/detour/router/view"
	"github.com/detour-dev/detour/router/view/viewtest"
)

// world plays the router: what its tests set is what the dashboard is told.
type world struct {
	mu    sync.Mutex
	views map[string]*view.View
	acks  api.Acks
	newer chan struct{}
}

func newWorld() *world { return &world{newer: make(chan struct{})} }

func (w *world) set(views map[string]*view.View, acks api.Acks) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.views, w.acks = views, acks
	close(w.newer)
	w.newer = make(chan struct{})
}

func (w *world) config() Config {
	return Config{
		Views: func() (map[string]*view.View, <-chan struct{}) {
			w.mu.Lock()
			defer w.mu.Unlock()
			return w.views, w.newer
		},
		Acks: func() api.Acks {
			w.mu.Lock()
			defer w.mu.Unlock()
			return w.acks
		},
	}
}

// shown is a dashboard that has seen the views of the namespace shop, and then the counts of its proxies.
func shown(edit func(*Config), v *view.View, counts ...api.Counters) *Dashboard {
	w := newWorld()
	cfg := w.config()
	if edit != nil {
		edit(&cfg)
	}
	d := newAt(cfg)
	views := map[string]*view.View{"shop": withGateway(v)}
	w.set(views, viewtest.Acks(v))
	d.take(views)
	for _, c := range counts {
		w.set(views, counted(v, "deployment/api-pr-42", c))
		d.take(views)
	}
	return d
}

func withGateway(v *view.View) *view.View {
	return v.WithGateway("http://preview.example.com:18080", false)
}

func newAt(cfg Config) *Dashboard {
	d := New(cfg)
	d.now = func() time.Time { return viewtest.Now }
	return d
}

// counted is the acks of a view whose Pod api-a has counted requests for a preview.
func counted(v *view.View, preview string, c api.Counters) api.Acks {
	acks := viewtest.Acks(v)
	ack := acks["pod-api-a"]
	ack.Previews = map[string]api.Counters{preview: c}
	acks["pod-api-a"] = ack
	return acks
}

// mixed is a namespace with a preview in most states.
func mixed() *view.View {
	o := viewtest.Shop()
	x := o.Pod("api-pr-42-x")
	x.Spec.Containers[0].Image = "registry.example/shop/api:3f2c1ab"
	x.Status.ContainerStatuses = []corev1.ContainerStatus{{RestartCount: 2}}
	o.AddPreview("late", "api", "pr-42")
	o.AddPreview("typo", "apii", "pr-1")
	o.AddPreview("pull", "identity", "pr-2")
	viewtest.Waiting("ImagePullBackOff")(o.Pod("pull-x"))
	return viewtest.Acknowledged(o)
}

func get(t *testing.T, h http.Handler, path string) (*http.Response, string) {
	t.Helper()
	return do(t, h, http.MethodGet, path)
}

func do(t *testing.T, h http.Handler, method, path string) (*http.Response, string) {
	t.Helper()
	w := httptest.NewRecorder()
	r := httptest.NewRequest(method, path, nil)
	r.Host = "detour.preview.example.com:18080"
	h.ServeHTTP(w, r)
	body, err := io.ReadAll(w.Result().Body)
	if err != nil {
		t.Fatal(err)
	}
	return w.Result(), string(body)
}

// contains reports each of the texts that a page lacks.
func contains(t *testing.T, page string, texts ...string) {
	t.Helper()
	for _, text := range texts {
		if !strings.Contains(page, text) {
			t.Errorf("the page lacks %q", text)
		}
	}
	if t.Failed() {
		t.Logf("%.4000s", page)
	}
}
