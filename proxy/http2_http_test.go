package proxy

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/detour-dev/detour/api"
)

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
