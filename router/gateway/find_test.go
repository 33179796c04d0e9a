package gateway

import (
	"cmp"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/detour-dev/detour/api"
	"github.com/detour-dev/detour/router/view"
	"github.com/detour-dev/detour/router/view/viewtest"
)

// newGateway knows what fixed says, and nothing newer. It is open unless cfg has keys.
func newGateway(t testing.TB, cfg Config, fixed directory) *Gateway {
	t.Helper()
	cfg.URL, cfg.Log = cmp.Or(cfg.URL, "http://preview.test"), slog.New(slog.DiscardHandler)
	cfg.Open = cfg.Keys == nil
	g, err := New(cfg, func() (map[string]*view.View, <-chan struct{}) { return fixed, nil }, prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	g.hold, g.linger = 10*time.Millisecond, 0
	return g
}

func TestFind(t *testing.T) {
	o := viewtest.Shop()
	o.AddPreview("capitals", "api", "PR_1")
	o.AddPreview("committed", "api", "pr-7")
	o.Deployments[len(o.Deployments)-1].Labels[api.LabelCommit] = "3f2c1ab0c9"
	o.AddPreview("broken", "identity", "broken")
	viewtest.Waiting("ImagePullBackOff")(o.Pod("broken-x"))
	o.AddPreview("typo", "apii", "typo")
	o.AddPreview("late", "api", "pr-42")
	o.AddPreview("falling-back", "api", "fallback")
	o.Deployments[len(o.Deployments)-1].Annotations[api.AnnotationFallback] = api.FallbackBaseline
	viewtest.Waiting("CrashLoopBackOff")(o.Pod("falling-back-x"))
	for _, name := range []string{"over", "half-over"} {
		o.AddPreview(name, "api", name)
		o.Deployments[len(o.Deployments)-1].Annotations[api.AnnotationTTL] = "1s"
	}
	o.AddPreview("half-live", "identity", "half-over")
	o.AddPreview("replaced", "api", "replaced")
	o.Deployments[len(o.Deployments)-1].Annotations[api.AnnotationFallback] = "nonsense"
	o.AddPreview("replacing", "api", "replaced")
	o.AddService("outside", nil).Spec.Type = "ExternalName"
	guests := &viewtest.Namespace{}
	for name, target := range map[string]string{"guest": "api", "refused": "identity", "pr-42": "identity"} {
		guests.AddPreview(name, target, name)
	}
	o.Guests = append(o.Guests, viewtest.Guests("team-b", guests))
	o.Services[0].Annotations = map[string]string{api.AnnotationAllow: "namespace/team-b"} // api's
	shop := viewtest.Acknowledged(o)
	unrouted := viewtest.Shop()
	unrouted.ResolveSlices()
	other := &viewtest.Namespace{}
	other.AddService("web", map[string]string{"app": "web"}, viewtest.ServicePort("http", 80, o.Services[0].Spec.Ports[0].TargetPort))
	g := newGateway(t, Config{Namespace: "shop"}, directory{
		"shop": shop, "other": view.New("other", other.Objects, nil, viewtest.Now), "unrouted": view.New("unrouted", unrouted.Objects, nil, viewtest.Now),
	})
	short := api.HostName{Key: "PR_1", Service: "identity", Namespace: "shop"}.Label()
	for host, want := range map[string]string{
		"pr-42--api--shop.preview.test":       "pr-42 api shop",
		"3f2c1ab--api--shop.preview.test":     "pr-7 api shop",
		"3f2c1ab0c9--identity.preview.test":   "pr-7 identity shop",
		"PR-42--Api--Shop.Preview.Test.:8080": "pr-42 api shop",
		"pr-42--identity--shop.preview.test":  "pr-42 identity shop", // an entry that is not the target
		"pr-42--api.preview.test":             "pr-42 api shop",      // in the default namespace
		"fallback--web--other.preview.test":   "fallback web other",  // in a namespace without the preview
		"fallback--api--shop.preview.test":    "fallback api shop",
		short + ".preview.test":               "PR_1 identity shop",
		"half-over--api--shop.preview.test":   "half-over api shop", // the other half is routed
		"replaced--api--shop.preview.test":    "replaced api shop",
		"guest--api--shop.preview.test":       "guest api shop",
		"guest--web--other.preview.test":      "guest web other",
		"refused--api--shop.preview.test":     "invalid: namespace/team-b",
		"guest--api--team-b.preview.test":     "unknown-host: no namespace team-b that takes part",
		"over--api--shop.preview.test":        "preview-expired: deployment/over",
		"broken--api--shop.preview.test":      "not-ready: ImagePullBackOff",
		"typo--api--shop.preview.test":        "invalid: apii",
		"pr-42--api--unrouted.preview.test":   "not-routed: has not acknowledged",
		"pr-1--api--shop.preview.test":        "unknown-host: no preview has the key pr-1",
		"pr-42--nothing--shop.preview.test":   "unknown-host: no Service nothing in namespace shop",
		"pr-42--api--elsewhere.preview.test":  "unknown-host: no namespace elsewhere that takes part",
		"pr-42--outside--shop.preview.test":   "unknown-host: ExternalName",
		"x" + short + ".preview.test":         "unknown-host: not of the form",
		"api.preview.test":                    "unknown-host: not of the form",
		"preview.test":                        "unknown-host: this gateway serves",
		"a.pr-42--api--shop.preview.test":     "unknown-host: this gateway serves",
		"pr-42--api--shop.example.com":        "unknown-host: this gateway serves",
		"169.254.169.254":                     "unknown-host: this gateway serves",
		"":                                    "unknown-host: this gateway serves",
	} {
		got, why := g.find(t.Context(), host)
		if why != nil {
			if reason, message, _ := strings.Cut(want, ": "); why.reason != reason || !strings.Contains(why.message, message) {
				t.Errorf("%q: %s: %s, want %s", host, why.reason, why.message, want)
			}
		} else if s := got.name.Key + " " + got.name.Service + " " + got.name.Namespace; s != want {
			t.Errorf("%q: %s, want %s", host, s, want)
		}
	}
}

func TestFindWithoutADefaultNamespace(t *testing.T) {
	g := newGateway(t, Config{}, directory{"shop": viewtest.Acknowledged(viewtest.Shop())})
	if _, why := g.find(t.Context(), "pr-42--api.preview.test"); why == nil || why.reason != "unknown-host" {
		t.Errorf("got %v", why)
	}
}

// TestFindWhileCachesFill must not say that something does not exist which is only not known.
func TestFindWhileCachesFill(t *testing.T) {
	for name, d := range map[string]directory{"nothing": nil, "one namespace not yet": {"shop": nil}} {
		if _, why := newGateway(t, Config{}, d).find(t.Context(), "pr-42--api--shop.preview.test"); why == nil || why.reason != "starting" {
			t.Errorf("%s: %v", name, why)
		}
	}
}

// TestFindWaits has the routes come while a request is there.
func TestFindWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := viewtest.Shop()
		o.ResolveSlices()
		current, newer := directory{"shop": view.New("shop", o.Objects, nil, viewtest.Now)}, make(chan struct{})
		g := newGateway(t, Config{}, nil)
		g.hold = time.Second
		g.views = func() (map[string]*view.View, <-chan struct{}) { return current, newer }
		found := make(chan *refusal)
		look := func() {
			_, why := g.find(t.Context(), "pr-42--api--shop.preview.test")
			found <- why
		}
		go look()
		if why := <-found; why == nil || why.reason != "not-routed" {
			t.Errorf("routes that do not come: %v", why)
		}
		go look()
		synctest.Wait()
		current = directory{"shop": viewtest.Acknowledged(o)}
		close(newer)
		if why := <-found; why != nil {
			t.Errorf("routes that come: %v", why)
		}
	})
}
