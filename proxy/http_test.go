package proxy

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/detour-dev/detour/api"
)

func TestRoutes(t *testing.T) {
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
		"no key":                          {nil, baseline},
		"key of another service":          {[]string{"Detour-Key: other"}, baseline},
		"invalid key":                     {[]string{"Detour-Key: -pr-42"}, baseline},
		"key":                             {[]string{"Detour-Key: pr-42"}, answer{200, "preview", "shop/api-pr-42-x", ""}},
		"key in baggage":                  {[]string{"Baggage: a=b,detour-key=pr-42"}, answer{200, "preview", "shop/api-pr-42-x", ""}},
		"several keys":                    {[]string{"Detour-Key: other, pr-42"}, answer{200, "preview", "shop/api-pr-42-x", ""}},
		"header before baggage":           {[]string{"Baggage: detour-key=gone", "Detour-Key: pr-42"}, answer{200, "preview", "shop/api-pr-42-x", ""}},
		"one endpoint refuses":            {[]string{"Detour-Key: two"}, answer{200, "second", "shop/two-b", ""}},
		"no endpoint":                     {[]string{"Detour-Key: gone"}, answer{503, "deployment/gone", "", "no-endpoint"}},
		"no endpoint, fallback":           {[]string{"Detour-Key: falls-back"}, baseline},
		"all endpoints refuse":            {[]string{"Detour-Key: dead"}, answer{503, "deployment/dead", "", "unreachable"}},
		"all endpoints refuse, fallback":  {[]string{"Detour-Key: dead-falls-back"}, baseline},
		"the endpoint is this Pod":        {[]string{"Detour-Key: self"}, baseline},
		"the key is hidden from the next": {[]string{"Detour-Key: pr-42", "Connection: detour-key"}, answer{400, "Connection", "", "connection-header"}},
	} {
		for _, proto := range []string{"http1", "h2c"} {
			if proto == "h2c" && strings.Contains(strings.Join(c.lines, ""), "Connection") {
				continue // HTTP/2 has no such header
			}
			t.Run(name+"/"+proto, func(t *testing.T) {
				cl := client(t)
				if proto == "h2c" {
					cl = clientH2C(t)
				}
				for range 3 { // keep-alive and each endpoint's turn
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
				}
			})
		}
	}
	want := api.Counters{Requests: 6, Errors: 6}
	if got := p.counted(t, "deployment/gone"); got != want {
		t.Errorf("the unavailable preview's counters: %+v, want %+v", got, want)
	}
}

// counted is what p tells of a preview, without the time of its last request, which is to be this minute's.
func (p *running) counted(t *testing.T, preview string) api.Counters {
	t.Helper()
	c := p.ack().Previews[preview]
	if ago := time.Since(c.Last); c.Last.IsZero() != (c.Requests == 0) || c.Requests > 0 && (ago < 0 || ago > time.Minute) {
		t.Errorf("%d requests went to %s, the last %v ago", c.Requests, preview, ago)
	}
	c.Last = time.Time{}
	return c
}

func TestWithoutTable(t *testing.T) {
	p := start(t, serveHTTP(t, named("baseline")))
	c := client(t)
	if resp, body := get(t, c, p.url("/")); body != "baseline" {
		t.Errorf("without a key: %s %q", resp.Status, body)
	}
	resp, body := get(t, c, p.url("/"), "Detour-Key: pr-42")
	if resp.StatusCode != 503 || resp.Header.Get("Retry-After") == "" || resp.Header.Get(api.HeaderError) != "no-table" || !strings.Contains(body, `"pr-42"`) {
		t.Errorf("with a key: %s, %v, %q", resp.Status, resp.Header, body)
	}
}

func TestTableThatCannotBeUsedIsRefused(t *testing.T) {
	p := start(t, serveHTTP(t, named("baseline")))
	p.route(t, "pr-42", endpointOf("x", serveHTTP(t, named("preview"))))
	if err := p.apply(api.Table{Version: "bad", Ports: []api.Port{{}}}); err == nil {
		t.Error("accepted")
	}
	if _, body := get(t, client(t), p.url("/"), "Detour-Key: pr-42"); body != "preview" {
		t.Errorf("the last table is not in force: %q", body)
	}
}

func TestEndpointsTakeTurns(t *testing.T) {
	p := start(t, serveHTTP(t, named("baseline")))
	p.route(t, "a", endpointOf("0", serveHTTP(t, named("0"))), endpointOf("1", serveHTTP(t, named("1"))))
	c := client(t)
	var got []string
	for range 4 {
		_, body := get(t, c, p.url("/"), "Detour-Key: a")
		got = append(got, body)
	}
	slices.Sort(got)
	if diff := cmp.Diff([]string{"0", "0", "1", "1"}, got); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}

// exchange sends raw bytes and returns the raw answer, up to its end or until enough says so.
func exchange(t *testing.T, addr, request string, enough string) string {
	t.Helper()
	c := dialTCP(t, addr)
	io.WriteString(c, request)
	var b strings.Builder
	buf := make([]byte, 4096)
	for enough == "" || !strings.Contains(b.String(), enough) {
		n, err := c.Read(buf)
		b.Write(buf[:n])
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatalf("after %q: %v", b.String(), err)
		}
	}
	return b.String()
}

// rawApp answers each request, whose head it reads and reports, with the same bytes.
func rawApp(t *testing.T, answer string) (net.Addr, <-chan string) {
	heads := make(chan string, 16)
	return serveTCP(t, func(c *net.TCPConn) {
		r := bufio.NewReader(c)
		for {
			var head strings.Builder
			for !strings.HasSuffix(head.String(), "\r\n\r\n") {
				line, err := r.ReadString('\n')
				if err != nil {
					return
				}
				head.WriteString(line)
			}
			heads <- head.String()
			io.WriteString(c, answer)
		}
	}), heads
}

// receive waits for what the app was sent.
func receive(t *testing.T, from <-chan string) string {
	t.Helper()
	select {
	case s := <-from:
		return s
	case <-time.After(deadline):
		t.Fatal("nothing reached the app")
	}
	return ""
}

func TestRequestsPassUnchanged(t *testing.T) {
	app, heads := rawApp(t, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
	p := start(t, app)
	p.route(t, "mine")
	for _, request := range []string{
		"GET / HTTP/1.1\r\nHost: frontend.shop\r\n\r\n",
		"GET /a;b//c%2fd?x=1;y=%zz&z HTTP/1.1\r\nHost: x\r\n\r\n",
		"GET //double?a HTTP/1.1\r\nHost: x\r\n\r\n",
		"GET /? HTTP/1.1\r\nHost: x\r\n\r\n",
		"GET http://other/path?q HTTP/1.1\r\nHost: other\r\n\r\n",
		"GET /#fragment HTTP/1.1\r\nHost: x\r\n\r\n",
		"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: x\r\nAccept-Encoding: br\r\nConnection: keep-alive\r\nForwarded: for=1.2.3.4\r\nKeep-Alive: 5\r\n" +
			"Te: trailers\r\nVia: 1.1 me\r\nX-Forwarded-For: 1.2.3.4\r\nX-Forwarded-Host: y\r\nX-Forwarded-Proto: https\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: x\r\nUser-Agent: curl\r\nBaggage: a=1, detour-key=other\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: x\r\nBaggage: a=1 , b\r\nBaggage: c\r\nCookie: a=b\r\nCookie: c=d\r\n\r\n",
	} {
		if got := exchange(t, p.addr(), request, "\r\n\r\n"); !strings.HasPrefix(got, "HTTP/1.1 200 ") {
			t.Errorf("%q was answered %q", request, got)
			continue
		}
		if got := receive(t, heads); got != request {
			t.Errorf("the app got\n%q, want\n%q", got, request)
		}
	}
}

func TestRequestsAreChangedWhereTheyMust(t *testing.T) {
	app, heads := rawApp(t, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
	p := start(t, app)
	p.route(t, "mine", endpointOf("x", app))
	full := strings.Repeat("m=1,", maxBaggageMembers)
	for request, want := range map[string]string{
		// The keys are carried on in baggage, whether they match here or not.
		"Detour-Key: mine\r\n":                                  "Detour-Key: mine\r\nBaggage: detour-key=mine\r\n",
		"Detour-Key: other, mine\r\n":                           "Detour-Key: other, mine\r\nBaggage: detour-key=other%2Cmine\r\n",
		"detour-key: mine\r\nbaggage: \r\n":                     "detour-key: mine\r\nbaggage: detour-key=mine\r\n",
		"Baggage: u=1\r\nbaggage: v=2\r\nDetour-Key: other\r\n": "Baggage: u=1,detour-key=other\r\nbaggage: v=2\r\nDetour-Key: other\r\n",
		"Baggage: u=1\r\nDetour-Key: other\r\n":                 "Baggage: u=1,detour-key=other\r\nDetour-Key: other\r\n",
		// A tunnel of HTTP/2 would escape routing.
		"Connection: Upgrade, HTTP2-Settings, x\r\nHttp2-Settings: AAMAAABk\r\nUpgrade: h2c\r\n": "Connection: x\r\n",
		"Connection: Upgrade, HTTP2-Settings\r\nHttp2-Settings: AAMAAABk\r\nUpgrade: h2c\r\n":    "",
		"connection: upgrade\r\nupgrade: foo, h2c\r\nX-A:b\r\n":                                  "connection: upgrade\r\nupgrade: foo\r\nX-A:b\r\n",
		// Beyond what others have to hand on, baggage stays as it is.
		"Baggage: " + full + "\r\nDetour-Key: mine\r\n": "Baggage: " + full + "\r\nDetour-Key: mine\r\n",
	} {
		const head = "GET / HTTP/1.1\r\nHost: x\r\n"
		exchange(t, p.addr(), head+request+"\r\n", "\r\n\r\n")
		if got := receive(t, heads); got != head+want+"\r\n" {
			t.Errorf("the app got\n%q, want\n%q", got, head+want+"\r\n")
		}
	}
	if n := p.meters.set.GetOrCreateCounter(`detour_proxy_errors_total{reason="baggage-full"}`).Get(); n != 1 {
		t.Errorf("full baggage was counted %d times", n)
	}
}

func TestAnswersPassUnchanged(t *testing.T) {
	for _, answer := range []string{
		"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi",
		"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Type: x/y\r\nDate: today\r\nKeep-Alive: timeout=5\r\nX-A: 1\r\nX-A: 2\r\n\r\nhi",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"HTTP/1.1 200 OK\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nX-Sum: 7\r\n\r\n",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nX-Unannounced: 7\r\n\r\n",
		"HTTP/1.1 204 No Content\r\nX-A: 1\r\n\r\n",
		"HTTP/1.1 304 Not Modified\r\nEtag: x\r\n\r\n",
		"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </b>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
		"HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi",
		"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\nxx",
		"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nhi",
		"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n",
	} {
		app, _ := rawApp(t, answer)
		p := start(t, app)
		if got := exchange(t, p.addr(), "GET / HTTP/1.1\r\nHost: x\r\n\r\n", answer); got != answer {
			t.Errorf("the client got\n%q, want\n%q", got, answer)
		}
	}
}

// TestAnswerThatEndsWithTheConnection has no length: the end of the connection is the end of the body.
func TestAnswerThatEndsWithTheConnection(t *testing.T) {
	const answer = "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nuntil the end"
	app := serveTCP(t, func(c *net.TCPConn) {
		http.ReadRequest(bufio.NewReader(c))
		io.WriteString(c, answer)
	})
	p := start(t, app)
	if got := exchange(t, p.addr(), "GET / HTTP/1.1\r\nHost: x\r\n\r\n", ""); got != answer {
		t.Errorf("the client got\n%q, want\n%q", got, answer)
	}
}

func TestHEAD(t *testing.T) {
	const answer = "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"
	app, _ := rawApp(t, answer)
	p := start(t, app)
	if got := exchange(t, p.addr(), "HEAD / HTTP/1.1\r\nHost: x\r\n\r\n", "\r\n\r\n"); got != answer {
		t.Errorf("the client got %q", got)
	}
}

func TestPipelining(t *testing.T) {
	p := start(t, serveHTTP(t, func(w http.ResponseWriter, r *http.Request) { fmt.Fprintf(w, "answer to %s.", r.URL.Path) }))
	got := exchange(t, p.addr(), "GET /1 HTTP/1.1\r\nHost: x\r\n\r\nGET /2 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", "")
	first, second := strings.Index(got, "answer to /1."), strings.Index(got, "answer to /2.")
	if first < 0 || second < first {
		t.Errorf("got %q", got)
	}
}

func TestRequestTrailers(t *testing.T) {
	for _, cl := range []*http.Client{client(t), clientH2C(t)} {
		p := start(t, serveHTTP(t, func(w http.ResponseWriter, r *http.Request) {
			body, _ := io.ReadAll(r.Body)
			fmt.Fprintf(w, "%s %v %s", body, r.TransferEncoding, r.Trailer.Get("X-Sum"))
		}))
		req, err := http.NewRequest(http.MethodPost, p.url("/"), io.MultiReader(strings.NewReader("body")))
		if err != nil {
			t.Fatal(err)
		}
		req.Trailer = http.Header{"X-Sum": {"7"}}
		if _, got := do(t, cl, req); !strings.HasPrefix(got, "body [") || !strings.HasSuffix(got, "] 7") {
			t.Errorf("the app got %q", got)
		}
	}
}

func TestBodiesBothWays(t *testing.T) {
	p := start(t, serveHTTP(t, func(w http.ResponseWriter, r *http.Request) {
		http.NewResponseController(w).EnableFullDuplex()
		io.Copy(w, r.Body)
	}))
	big := strings.Repeat("0123456789abcdef", 1<<16)
	for _, cl := range []*http.Client{client(t), clientH2C(t)} {
		req, err := http.NewRequest(http.MethodPost, p.url("/"), strings.NewReader(big))
		if err != nil {
			t.Fatal(err)
		}
		if _, got := do(t, cl, req); got != big {
			t.Errorf("%d bytes came back of %d", len(got), len(big))
		}
	}
}

// TestEarlyAnswer is one that comes before the request's body has: it must not wait for it.
func TestEarlyAnswer(t *testing.T) {
	p := start(t, serveHTTP(t, func(w http.ResponseWriter, r *http.Request) {
		http.NewResponseController(w).EnableFullDuplex()
		http.Error(w, "too much", http.StatusRequestEntityTooLarge)
		http.NewResponseController(w).Flush()
	}))
	got := exchange(t, p.addr(), "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\nonly this", "too much")
	if !strings.HasPrefix(got, "HTTP/1.1 413 ") {
		t.Errorf("got %q", got)
	}
}

func TestExpectContinue(t *testing.T) {
	for name, app := range map[string]http.HandlerFunc{
		"100": func(w http.ResponseWriter, r *http.Request) {
			body, _ := io.ReadAll(r.Body)
			fmt.Fprintf(w, "%s %s", body, r.Header.Get("Expect"))
		},
		"417": func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(http.StatusExpectationFailed) },
	} {
		p := start(t, serveHTTP(t, app))
		c := client(t)
		c.Transport.(*http.Transport).ExpectContinueTimeout = deadline
		req, err := http.NewRequest(http.MethodPost, p.url("/"), strings.NewReader("body"))
		if err != nil {
			t.Fatal(err)
		}
		resp, body := do(t, c, req, "Expect: 100-continue")
		if got := fmt.Sprint(resp.StatusCode, body); got != "200body 100-continue" && got != "417" {
			t.Errorf("%s: got %s", name, got)
		}
	}
}

// TestStreaming sends a piece only after the client has had the one before.
func TestStreaming(t *testing.T) {
	for _, cl := range []*http.Client{client(t), clientH2C(t)} {
		next := make(chan struct{})
		p := start(t, serveHTTP(t, func(w http.ResponseWriter, r *http.Request) {
			flush := http.NewResponseController(w).Flush
			flush()
			for i := range 3 {
				<-next
				fmt.Fprint(w, i)
				flush()
			}
		}))
		resp, err := cl.Get(p.url("/"))
		if err != nil {
			t.Fatal(err)
		}
		for i := range 3 {
			next <- struct{}{}
			var b [1]byte
			if _, err := io.ReadFull(resp.Body, b[:]); err != nil || string(b[:]) != fmt.Sprint(i) {
				t.Errorf("piece %d: %q, %v", i, b, err)
			}
		}
		resp.Body.Close()
	}
}

func TestInformationalAnswersOverH2C(t *testing.T) {
	p := start(t, serveHTTP(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Link", "</style.css>")
		w.WriteHeader(http.StatusEarlyHints)
		io.WriteString(w, "done")
	}))
	var hints []string
	ctx := httptrace.WithClientTrace(context.Background(), &httptrace.ClientTrace{
		Got1xxResponse: func(code int, h textproto.MIMEHeader) error {
			hints = append(hints, fmt.Sprint(code, h.Get("Link")))
			return nil
		},
	})
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, p.url("/"), nil)
	if err != nil {
		t.Fatal(err)
	}
	do(t, clientH2C(t), req)
	if diff := cmp.Diff([]string{"103</style.css>"}, hints); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}

// TestConnectionsArePaired: each client has a connection to the app of its own, for all of its requests.
func TestConnectionsArePaired(t *testing.T) {
	p := start(t, serveHTTP(t, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.RemoteAddr) }))
	for proto, clients := range map[string][]*http.Client{
		"http1": {client(t), client(t)},
		"h2c":   {clientH2C(t), clientH2C(t)},
	} {
		seen := map[string]int{}
		for range 3 {
			for i, c := range clients {
				_, addr := get(t, c, p.url("/"))
				if before, ok := seen[addr]; ok && before != i {
					t.Errorf("%s: two clients share %s", proto, addr)
				}
				seen[addr] = i
			}
		}
		if len(seen) != len(clients) {
			t.Errorf("%s: %d connections for %d clients", proto, len(seen), len(clients))
		}
	}
}

func TestClientEndsSoDoesTheApp(t *testing.T) {
	for name, c := range map[string]func(*testing.T) *http.Client{"http1": client, "h2c": clientH2C} {
		t.Run(name, func(t *testing.T) {
			states := make(chan http.ConnState, 16)
			preview := serveHTTP(t, named("preview"))
			app := newStateServer(t, states)
			p := start(t, app)
			p.route(t, "a", endpointOf("x", preview))
			cl := c(t)
			get(t, cl, p.url("/"))
			get(t, cl, p.url("/"), "Detour-Key: a")
			cl.CloseIdleConnections()
			for state := range states {
				if state == http.StateClosed {
					break
				}
			}
		})
	}
}

// newStateServer runs an app that reports what becomes of its connections.
func newStateServer(t *testing.T, states chan<- http.ConnState) net.Addr {
	l := listenLocal(t)
	s := &http.Server{Handler: named("baseline"), Protocols: new(http.Protocols)}
	s.Protocols.SetHTTP1(true)
	s.Protocols.SetUnencryptedHTTP2(true)
	s.ConnState = func(_ net.Conn, state http.ConnState) { states <- state }
	go s.Serve(l)
	t.Cleanup(func() { s.Close() })
	return l.Addr()
}

func TestAppEndsSoDoesTheClient(t *testing.T) {
	for name, request := range map[string]string{
		"idle after an answer": "GET / HTTP/1.1\r\nHost: x\r\n\r\n",
		"before any request":   "",
	} {
		t.Run(name, func(t *testing.T) {
			app := serveTCP(t, func(c *net.TCPConn) {
				if request != "" {
					http.ReadRequest(bufio.NewReader(c))
					io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")
				}
			})
			p := start(t, app)
			got := exchange(t, p.addr(), request, "")
			if want := "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"; request != "" && got != want {
				t.Errorf("got %q", got)
			}
		})
	}
}

func TestAppThatBreaksOffIsNotMended(t *testing.T) {
	for name, c := range map[string]struct {
		answer string
		reset  bool
	}{
		"no answer":                     {"", false},
		"reset instead of an answer":    {"", true},
		"half a head":                   {"HTTP/1.1 200 OK\r\nContent-", false},
		"no HTTP":                       {"hello\r\n\r\n", false},
		"body too short":                {"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhi", false},
		"chunks without the last":       {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n", false},
		"101 that nobody has asked for": {"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n", false},
	} {
		t.Run(name, func(t *testing.T) {
			app := serveTCP(t, func(conn *net.TCPConn) {
				http.ReadRequest(bufio.NewReader(conn))
				io.WriteString(conn, c.answer)
				if c.reset {
					conn.SetLinger(0)
				}
			})
			p := start(t, app)
			conn := dialTCP(t, p.addr())
			io.WriteString(conn, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
			got, err := io.ReadAll(conn)
			if c.reset && !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("ended with %v, want a reset", err)
			}
			if !c.reset && err != nil {
				t.Error(err)
			}
			if strings.HasPrefix(string(got), "HTTP/1.1 5") || strings.HasSuffix(string(got), "0\r\n\r\n") {
				t.Errorf("got %q", got)
			}
			if strings.HasSuffix(c.answer, "hi") && string(got) != c.answer {
				t.Errorf("got %q of what the app said", got)
			}
		})
	}
}

func TestClientThatLeavesCancelsAtTheApp(t *testing.T) {
	for name, c := range map[string]func(*testing.T) *http.Client{"http1": client, "h2c": clientH2C} {
		t.Run(name, func(t *testing.T) {
			reached, left := make(chan struct{}), make(chan struct{})
			p := start(t, serveHTTP(t, func(w http.ResponseWriter, r *http.Request) {
				close(reached)
				<-r.Context().Done()
				close(left)
			}))
			ctx, cancel := context.WithCancel(context.Background())
			req, err := http.NewRequestWithContext(ctx, http.MethodGet, p.url("/"), nil)
			if err != nil {
				t.Fatal(err)
			}
			go func() { <-reached; cancel() }()
			if _, err := c(t).Do(req); err == nil {
				t.Error("there is an answer")
			}
			select {
			case <-left:
			case <-time.After(deadline):
				t.Error("the app still works on it")
			}
		})
	}
}

// TestPreviewConnectionThatHasBeenClosed is one that a preview closed while it was idle: the next request gets another.
func TestPreviewConnectionThatHasBeenClosed(t *testing.T) {
	var connections atomic.Int32
	preview := serveTCP(t, func(c *net.TCPConn) {
		connections.Add(1)
		http.ReadRequest(bufio.NewReader(c))
		io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")
	})
	p := start(t, serveHTTP(t, named("baseline")))
	p.route(t, "a", endpointOf("x", preview))
	c := client(t)
	for range 20 {
		if _, body := get(t, c, p.url("/"), "Detour-Key: a"); body != "hi" {
			t.Fatalf("got %q", body)
		}
	}
	if n := connections.Load(); n < 20 {
		t.Errorf("%d connections for 20 requests", n)
	}
}

// TestManyRequestsWhileTablesChange mixes clients, keys and protocols: every answer must be the right one.
func TestManyRequestsWhileTablesChange(t *testing.T) {
	p := start(t, serveHTTP(t, named("baseline")))
	preview := endpointOf("x", serveHTTP(t, named("preview")))
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
			routes := []api.Route{{Key: "always", Preview: "deployment/always", Endpoints: []api.Endpoint{preview}}}
			if i%2 == 0 {
				routes = append(routes, api.Route{Key: "sometimes", Preview: "deployment/s", Endpoints: []api.Endpoint{preview}})
			}
			p.tables(t, routes...)
		}
	})
	for i := range 200 {
		requests.Go(func() {
			c := client(t)
			if i%2 == 0 {
				c = clientH2C(t)
			}
			for range 5 {
				for key, want := range map[string][]string{
					"": {"baseline"}, "never": {"baseline"}, "always": {"preview"}, "sometimes": {"baseline", "preview"},
				} {
					resp, err := getErr(c, p.url("/"), key)
					if err != nil || !slices.Contains(want, resp) {
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

func getErr(c *http.Client, url, key string) (string, error) {
	req, err := http.NewRequest(http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	if key != "" {
		req.Header.Set(api.HeaderKey, key)
	}
	resp, err := c.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return string(body), err
}
