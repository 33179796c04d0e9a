package proxy

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/detour-dev/detour/api"
)

func TestRoutesOverH2C(t *testing.T) {
	preview := serveHTTP(t, named("preview"))
	second := serveHTTP(t, named("second"))
	p := start(t, serveHTTP(t, named("baseline")))
	p.tables(t,
		api.Route{Key: "pr-42", Preview: "deployment/api-pr-42", Endpoints: []api.Endpoint{endpointOf("api-pr-42-x", preview)}},
		api.Route{Key: "two", Preview: "deployment/two", Endpoints: []api.Endpoint{endpointOf("two-a", refusing(t)), endpointOf("two-b", second)}},
		api.Route{Key: "gone", Preview: "deployment/gone"},
		api.Route{Key: "falls-back", Preview: "deployment/falls-back", Fallback: true},
		api.Route{Key: "dead", Preview: "deployment/dead", Endpoints: []api.Endpoint{endpointOf("dead-x", refusing(t))}},
		api.Route{Key: "dead-falls-back", Preview: "deployment/d", Fallback: true, Endpoints: []api.Endpoint{endpointOf("d-x", refusing(t))}},
		api.Route{Key: "self", Preview: "deployment/self", Endpoints: []api.Endpoint{endpointOf("api-0", refusing(t))}},
	)
	type answer struct {
		Status        int
		Body          string
		ServedBy, Err string
	}
	baseline := answer{Status: 200, Body: "baseline"}
	for name, c := range map[string]struct {
		lines []string
		want  answer
	}{
		"no key":                         {nil, baseline},
		"key of another service":         {[]string{"Detour-Key: other"}, baseline},
		"invalid key":                    {[]string{"Detour-Key: -pr-42"}, baseline},
		"key":                            {[]string{"Detour-Key: pr-42"}, answer{200, "preview", "shop/api-pr-42-x", ""}},
		"key in baggage":                 {[]string{"Baggage: a=b,detour-key=pr-42"}, answer{200, "preview", "shop/api-pr-42-x", ""}},
		"several keys":                   {[]string{"Detour-Key: other, pr-42"}, answer{200, "preview", "shop/api-pr-42-x", ""}},
		"header before baggage":          {[]string{"Baggage: detour-key=gone", "Detour-Key: pr-42"}, answer{200, "preview", "shop/api-pr-42-x", ""}},
		"one endpoint refuses":           {[]string{"Detour-Key: two"}, answer{200, "second", "shop/two-b", ""}},
		"no endpoint":                    {[]string{"Detour-Key: gone"}, answer{503, "deployment/gone", "", "no-endpoint"}},
		"no endpoint, fallback":          {[]string{"Detour-Key: falls-back"}, baseline},
		"all endpoints refuse":           {[]string{"Detour-Key: dead"}, answer{503, "deployment/dead", "", "unreachable"}},
		"all endpoints refuse, fallback": {[]string{"Detour-Key: dead-falls-back"}, baseline},
		"the endpoint is this Pod":       {[]string{"Detour-Key: self"}, baseline},
	} {
		t.Run(name, func(t *testing.T) {
			cl := clientH2C(t)
			for range 3 { // one connection and each endpoint's turn
				resp, body := get(t, cl, p.url("/"), c.lines...)
				got := answer{resp.StatusCode, body, resp.Header.Get(api.HeaderServedBy), resp.Header.Get(api.HeaderError)}
				want := c.want
				if want.Status != 200 && strings.Contains(body, want.Body) {
					want.Body = body
				}
				if diff := cmp.Diff(want, got); diff != "" {
					t.Errorf("-want +got\n%s", diff)
				}
				if got.Err != "" && resp.Header.Get("Content-Type") != "text/plain; charset=utf-8" {
					t.Errorf("our answer is %s", resp.Header.Get("Content-Type"))
				}
				if _, body := get(t, cl, p.url("/")); body != "baseline" {
					t.Errorf("the next request without a key got %q", body)
				}
			}
		})
	}
	want := api.Counters{Requests: 6, Errors: 6}
	want.Requests, want.Errors = 3, 3
	if got := p.ack().Previews["deployment/gone"]; got != want {
		t.Errorf("the unavailable preview's counters: %+v, want %+v", got, want)
	}
}

func TestWithoutTableOverH2C(t *testing.T) {
	p := start(t, serveHTTP(t, named("baseline")))
	c := clientH2C(t)
	if resp, body := get(t, c, p.url("/")); body != "baseline" {
		t.Errorf("without a key: %s %q", resp.Status, body)
	}
	resp, body := get(t, c, p.url("/"), "Detour-Key: pr-42")
	if resp.StatusCode != 503 || resp.Header.Get("Retry-After") == "" || resp.Header.Get(api.HeaderError) != "no-table" || !strings.Contains(body, `"pr-42"`) {
		t.Errorf("with a key: %s, %v, %q", resp.Status, resp.Header, body)
	}
}

// TestBaggageOverH2C: the keys are carried on, whether they match here or not, as far as they fit.
func TestBaggageOverH2C(t *testing.T) {
	echo := serveHTTP(t, func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "%q %q", r.Header["Baggage"], r.Header["Detour-Key"])
	})
	p := start(t, echo)
	p.route(t, "mine", endpointOf("x", echo))
	full := strings.TrimSuffix(strings.Repeat("m=1,", maxBaggageMembers), ",")
	c := clientH2C(t)
	for lines, want := range map[string]string{
		"Detour-Key: mine":                        `["detour-key=mine"] ["mine"]`,
		"Detour-Key: other, mine":                 `["detour-key=other%2Cmine"] ["other, mine"]`,
		"Baggage: u=1\nDetour-Key: other":         `["u=1,detour-key=other"] ["other"]`,
		"Baggage: u=1\nBaggage: v=1":              `["u=1" "v=1"] []`,
		"Baggage: detour-key=mine":                `["detour-key=mine"] []`,
		"Baggage: " + full + "\nDetour-Key: mine": `["` + full + `"] ["mine"]`,
	} {
		if _, got := get(t, c, p.url("/"), strings.Split(lines, "\n")...); got != want {
			t.Errorf("%q: the app got %s, want %s", lines, got, want)
		}
	}
	if n := p.meters.set.GetOrCreateCounter(`detour_proxy_errors_total{reason="baggage-full"}`).Get(); n != 1 {
		t.Errorf("full baggage was counted %d times", n)
	}
}

// echoH2C sends the body and the trailers back.
func echoH2C(w http.ResponseWriter, r *http.Request) {
	http.NewResponseController(w).EnableFullDuplex()
	io.Copy(w, r.Body)
	for name, values := range r.Trailer {
		w.Header()[http.TrailerPrefix+name] = values
	}
}

// TestBodiesOverH2C sends megabytes through both upstreams at once, with trailers.
func TestBodiesOverH2C(t *testing.T) {
	p := start(t, serveHTTP(t, echoH2C))
	p.route(t, "a", endpointOf("x", serveHTTP(t, echoH2C)))
	c := clientH2C(t)
	get(t, c, p.url("/"))
	big := strings.Repeat("0123456789abcdef", 1<<17)
	var requests sync.WaitGroup
	for i := range 12 {
		requests.Go(func() {
			req, err := http.NewRequest(http.MethodPost, p.url("/"), io.MultiReader(strings.NewReader(big)))
			if err != nil {
				t.Error(err)
				return
			}
			req.Trailer = http.Header{"X-Sum": {fmt.Sprint(i)}}
			if i%2 == 0 {
				req.Header.Set("Detour-Key", "a")
			}
			resp, err := c.Do(req)
			if err != nil {
				t.Error(err)
				return
			}
			defer resp.Body.Close()
			if body, err := io.ReadAll(resp.Body); err != nil || string(body) != big {
				t.Errorf("%d bytes came back of %d: %v", len(body), len(big), err)
			}
			if got := resp.Trailer.Get("X-Sum"); got != fmt.Sprint(i) {
				t.Errorf("trailer %q", got)
			}
			if got := resp.Header.Get(api.HeaderServedBy); (got == "shop/x") != (i%2 == 0) {
				t.Errorf("stream %d was served by %q", i, got)
			}
		})
	}
	requests.Wait()
	if n := p.meters.connections[protocolHTTP2].Get(); n != 1 {
		t.Errorf("%d connections", n)
	}
}

func TestEarlyHintsOverH2C(t *testing.T) {
	answer := func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Link", "</style.css>")
		w.WriteHeader(http.StatusEarlyHints)
		io.WriteString(w, "done")
	}
	p := start(t, serveHTTP(t, answer))
	p.route(t, "a", endpointOf("x", serveHTTP(t, answer)))
	for _, key := range []string{"", "a"} {
		var hints []string
		ctx := httptrace.WithClientTrace(context.Background(), &httptrace.ClientTrace{
			Got1xxResponse: func(code int, h textproto.MIMEHeader) error {
				hints = append(hints, fmt.Sprint(code, h.Get("Link"), h.Get(api.HeaderServedBy)))
				return nil
			},
		})
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, p.url("/"), nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, _ := do(t, clientH2C(t), req, "Detour-Key: "+key)
		if diff := cmp.Diff([]string{"103</style.css>"}, hints); diff != "" {
			t.Errorf("-want +got\n%s", diff)
		}
		if got := resp.Header.Get(api.HeaderServedBy); (got == "shop/x") != (key == "a") {
			t.Errorf("key %q: served by %q", key, got)
		}
	}
}

func TestClientThatCancelsOverH2C(t *testing.T) {
	left := make(chan string, 1)
	app := func(name string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			http.NewResponseController(w).Flush()
			<-r.Context().Done()
			left <- name
		}
	}
	p := start(t, serveHTTP(t, app("baseline")))
	p.route(t, "a", endpointOf("x", serveHTTP(t, app("preview"))))
	c := clientH2C(t)
	for key, want := range map[string]string{"": "baseline", "a": "preview"} {
		ctx, cancel := context.WithCancel(context.Background())
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, p.url("/"), nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Detour-Key", key)
		resp, err := c.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		cancel()
		resp.Body.Close()
		if got := receive(t, left); got != want {
			t.Errorf("%s has noticed", got)
		}
	}
}

func TestClientThatEndsOverH2C(t *testing.T) {
	states := make(chan http.ConnState, 16)
	previewStates := make(chan http.ConnState, 16)
	p := start(t, newStateServer(t, states))
	p.route(t, "a", endpointOf("x", newStateServer(t, previewStates)))
	cl := clientH2C(t)
	get(t, cl, p.url("/"))
	get(t, cl, p.url("/"), "Detour-Key: a")
	cl.CloseIdleConnections()
	for _, states := range []chan http.ConnState{states, previewStates} {
		for state := range states {
			if state == http.StateClosed {
				break
			}
		}
	}
	eventually(t, "no connection is left", func() bool { return p.connections() == 0 })
}

// TestPreviewThatCloses ends its connection after each answer; the client must not notice.
func TestPreviewThatClosesOverH2C(t *testing.T) {
	p := start(t, serveHTTP(t, named("baseline")))
	p.route(t, "a", endpointOf("x", serveHTTP(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Connection", "close") // GOAWAY
		io.WriteString(w, "preview")
	})))
	c := clientH2C(t)
	for range 20 {
		for key, want := range map[string]string{"": "baseline", "a": "preview"} {
			if got, err := getErr(c, p.url("/"), key); got != want || err != nil {
				t.Errorf("%q, %v", got, err)
			}
		}
	}
	if n := p.meters.connections[protocolHTTP2].Get(); n != 1 {
		t.Errorf("%d connections, want 1", n)
	}
}

// TestPreviewThatBreaks resets a stream, or speaks no HTTP/2: that is its own streams' business.
func TestPreviewThatBreaksOverH2C(t *testing.T) {
	mute := serveTCP(t, func(c *net.TCPConn) { io.WriteString(c, "HTTP/1.1 400 Bad Request\r\n\r\n") })
	broken := serveHTTP(t, func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, "half of")
		http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	})
	p := start(t, serveHTTP(t, named("baseline")))
	p.tables(t,
		api.Route{Key: "mute", Preview: "deployment/mute", Endpoints: []api.Endpoint{endpointOf("m", mute)}},
		api.Route{Key: "broken", Preview: "deployment/broken", Endpoints: []api.Endpoint{endpointOf("b", broken)}})
	c := clientH2C(t)
	for range 3 {
		resp, _ := get(t, c, p.url("/"), "Detour-Key: mute")
		if resp.StatusCode != 503 || resp.Header.Get(api.HeaderError) != "unreachable" {
			t.Errorf("got %s %v", resp.Status, resp.Header)
		}
		if got, err := getErr(c, p.url("/"), "broken"); err == nil || got != "half of" {
			t.Errorf("%q, %v", got, err)
		}
		if got, err := getErr(c, p.url("/"), ""); got != "baseline" || err != nil {
			t.Errorf("%q, %v", got, err)
		}
	}
	if n := p.meters.connections[protocolHTTP2].Get(); n != 1 {
		t.Errorf("%d connections, want 1", n)
	}
}

// TestManyH2CRequestsWhileTablesChange mixes keys on a few connections: every answer must be the right one.
func TestManyH2CRequestsWhileTablesChange(t *testing.T) {
	p := start(t, serveHTTP(t, named("baseline")))
	preview := endpointOf("x", serveHTTP(t, named("preview")))
	dead := endpointOf("y", refusing(t))
	p.route(t, "always", preview)
	stop := make(chan struct{})
	var swapping, requests sync.WaitGroup
	swapping.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			routes := []api.Route{{Key: "always", Preview: "deployment/always", Endpoints: []api.Endpoint{dead, preview}}}
			if i%2 == 0 {
				routes = append(routes, api.Route{Key: "sometimes", Preview: "deployment/s", Endpoints: []api.Endpoint{preview}})
			}
			p.tables(t, routes...)
		}
	})
	clients := []*http.Client{clientH2C(t), clientH2C(t), clientH2C(t)}
	for i := range 60 {
		requests.Go(func() {
			for range 20 {
				for key, want := range map[string]string{
					"": "baseline", "never": "baseline", "always": "preview", "sometimes": "baseline preview",
				} {
					resp, err := getErr(clients[i%len(clients)], p.url("/"), key)
					if err != nil || !strings.Contains(want, resp) {
						t.Errorf("key %q: %q, %v", key, resp, err)
						return
					}
				}
			}
		})
	}
	requests.Wait()
	close(stop)
	swapping.Wait()
}
