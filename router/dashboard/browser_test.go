//go:build browser

package dashboard

import (
	"context"
	"flag"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/detour-dev/detour/api"
	"github.com/detour-dev/detour/router/view"
)

var screenshots = flag.String("screenshots", "", "folder for screenshots; none when empty")

// TestBrowser serves made-up namespaces to test/browser/dashboard.mjs; hack/browser runs it.
func TestBrowser(t *testing.T) {
	w := newWorld()
	cfg := w.config()
	cfg.Open = true
	d := New(cfg)
	acks := playMinutes(d, w)

	mux := http.NewServeMux()
	mux.Handle("/", d)
	mux.HandleFunc("POST /turn", func(http.ResponseWriter, *http.Request) {
		views := madeUp()
		api57 := &views["shop"].Status.Previews[1]
		api57.State, api57.Routed, api57.Missing = api.StateRouted, api57.Of, nil
		w.set(views, acks)
	})
	server := httptest.NewServer(mux)
	defer server.Close()
	ctx, stop := context.WithCancel(t.Context())
	defer stop() // streams end, and then the server can
	go func() { _ = d.Run(ctx) }()

	args := []string{"../../test/browser/dashboard.mjs", server.URL}
	if *screenshots != "" {
		args = append(args, *screenshots)
	}
	node := exec.CommandContext(ctx, os.Getenv("NODE"), args...)
	node.Stdout, node.Stderr = os.Stdout, os.Stderr
	if err := node.Run(); err != nil {
		t.Error(err)
	}
}

// playMinutes has the proxies count for a quarter of an hour that is over now, and returns what they told last.
func playMinutes(d *Dashboard, w *world) api.Acks {
	views, began := madeUp(), time.Now().Add(-steps*step)
	a, b := api.Counters{}, api.Counters{}
	var acks api.Acks
	for i := range uint64(steps + 1) {
		d.now = func() time.Time { return began.Add(time.Duration(i) * step) }
		a = a.Plus(api.Counters{Requests: 12 + i*7%23 + i%4*6, Errors: i % 9 / 8 * 5})
		if i > 17 {
			b = b.Plus(api.Counters{Requests: 3 + i%5, Errors: (3 + i%5) * (i % 2)})
		}
		acks = api.Acks{"pod": {Ack: api.Ack{Previews: map[string]api.Counters{"deployment/api-pr-42": a, "deployment/checkout-pr-61": b}}}}
		w.set(views, acks)
		d.take(views)
	}
	d.now = time.Now
	return acks
}

func madeUp() map[string]*view.View {
	return map[string]*view.View{"shop": madeUpShop(), "empty": {}, "hundred": madeUpHundred(), "starting": nil}
}

func madeUpShop() *view.View {
	now := time.Now()
	v := &view.View{Tables: map[types.UID]*api.Table{"pod": {}}, Entries: map[string]view.Entry{"api": {}, "frontend": {}}}
	v.Status.Gateway = "https://preview.example.com"
	v.Status.Services = []api.ServiceStatus{
		{Name: "api", Intercepted: true, Covered: 12, Pods: 12},
		{Name: "checkout", Intercepted: true, Covered: 3, Pods: 3},
		{Name: "db", Problem: &api.Problem{Reason: "Headless", Message: "Service db is headless (clusterIP: None): its clients address Pods themselves"}},
		{Name: "frontend", Intercepted: true, Covered: 2, Pods: 2},
		{Name: "identity", Covered: 1, Pods: 2, Problem: &api.Problem{Reason: "NotInjected", Message: "1 of 2 Pods behind Service identity are not reached through their proxy on every port (identity-7c9f-x2x8m: not injected: restart it)"}},
	}
	preview := func(target, key string, state api.State, age time.Duration) *api.PreviewStatus {
		name := target + "-" + key
		v.Status.Previews = append(v.Status.Previews, api.PreviewStatus{
			Preview: "deployment/" + name, Target: target, Key: key, State: state, Created: now.Add(-age),
			Endpoints: []string{name + "-5f9c7-k2x4d"}, Routed: 12, Of: 12,
			Instances: []api.Instance{{Pod: name + "-5f9c7-k2x4d", Images: []string{"registry.example/shop/" + target + ":3f2c1ab"}}},
		})
		return &v.Status.Previews[len(v.Status.Previews)-1]
	}
	preview("api", "pr-42", api.StateRouted, 26*time.Hour).Expires = now.Add(46*time.Hour + time.Minute)
	p := preview("api", "pr-57", api.StatePending, 40*time.Second)
	p.Routed = 7
	for _, pod := range []string{"2q8lw", "4mz7n", "9hk2c", "p6x8s", "w7r5d"} {
		p.Missing = append(p.Missing, api.Missing{Pod: "api-84cf7dcb56-" + pod, Reason: "has not acknowledged the routes yet"})
	}
	p = preview("api", "pr-58", api.StateNotReady, 9*time.Minute)
	p.Endpoints, p.Instances[0].Unready, p.Instances[0].Restarts = nil, "CrashLoopBackOff", 6
	p.Problem = &api.Problem{Reason: "NotReady", Message: `deployment/api-pr-58 has no ready Pod, requests with key "pr-58" are answered 503 until it has (api-pr-58-5f9c7-k2x4d: CrashLoopBackOff)`}
	p = preview("checkout", "pr-61", api.StateRouted, 3*time.Hour)
	p.Routed, p.Of = 3, 3
	p.Warnings = []api.Problem{{Reason: "PortNotTaken", Message: "port 9100 of Service checkout does not pass the proxies: host-port: keyed requests to it reach the baseline"}}
	p = preview("checkout", "pr-61", api.StateConflict, 2*time.Hour)
	p.Preview, p.Routed, p.Of = "statefulset/checkout-again", 0, 0
	p.Problem = &api.Problem{Reason: "Conflict", Message: `statefulset/checkout-again has the same target "checkout" and key "pr-61" as deployment/checkout-pr-61, which is older and gets the requests: change the label detour.dev/key of one of them`}
	p = preview("frontend", "release-2026.1_rc", api.StateExpired, 96*time.Hour)
	p.Routed, p.Of, p.Expires = 0, 0, now.Add(-24*time.Hour)
	p.Problem = &api.Problem{Reason: "Expired", Message: `deployment/frontend-release-2026.1_rc has expired, requests with key "release-2026.1_rc" go to the baseline: delete it, or set annotation detour.dev/updated to the present time to begin its detour.dev/ttl anew`}
	p = preview("idntity", "pr-60", api.StateInvalid, 5*time.Hour)
	p.Routed, p.Of = 0, 0
	p.Problem = &api.Problem{Reason: "UnknownTarget", Message: `deployment/idntity-pr-60: label detour.dev/target="idntity" names no Service of namespace shop: use the name of the Service that it is a preview of`}
	return v
}

func madeUpHundred() *view.View {
	v := &view.View{}
	for i := range 100 {
		state := []api.State{api.StateRouted, api.StatePending, api.StateRouted}[i%3]
		v.Status.Previews = append(v.Status.Previews, api.PreviewStatus{
			Preview: fmt.Sprintf("deployment/api-pr-%d", i), Target: "api", Key: fmt.Sprintf("pr-%d", i), State: state, Routed: i % 3, Of: 2,
		})
	}
	return v
}
