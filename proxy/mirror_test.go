package proxy

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/detour-dev/detour/api"
)

// seen is a request as an app understands it.
type seen struct {
	Proto, Method, Target, Host string
	Header                      http.Header
	Body                        string
	Trailer                     http.Header
}

// recorder is a preview that remembers what it was asked.
type recorder struct {
	mu   sync.Mutex
	seen []seen
}

func (r *recorder) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	body, err := io.ReadAll(req.Body)
	if err != nil {
		body = []byte(err.Error())
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.seen = append(r.seen, seen{req.Proto, req.Method, req.RequestURI, req.Host, req.Header, string(body), req.Trailer})
}

func (r *recorder) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.seen)
}

// mirrors has the preview m get copies of what meets the conditions, as an annotation has them; "" is all.
func (r *running) mirrors(t *testing.T, conditions string, endpoints ...api.Endpoint) {
	t.Helper()
	of := api.Match{Key: "m"}
	if conditions != "" {
		of = matchesOf(t, "m", conditions)
	}
	r.put(t, api.Port{Port: r.port, Mirrors: []api.Match{of}, Routes: []api.Route{{Key: "m", Preview: "deployment/m", Endpoints: endpoints}}})
}

// dropped counts copies that did not reach their preview, by reason.
func (r *running) dropped() map[string]int {
	counts := map[string]int{}
	for _, why := range []string{dropTooLarge, dropMemory, dropQueue, dropIncomplete, dropUnanswered} {
		name := fmt.Sprintf("detour_proxy_mirror_dropped_total{reason=%q}", why)
		if n := r.meters.set.GetOrCreateCounter(name).Get(); n > 0 {
			counts[why] = int(n)
		}
	}
	return counts
}

// mirrorAll has the preview of key get copies of all that goes to the app's port.
func (p *Proxy) mirrorAll(port uint16, key string) {
	t := *p.table.Load()
	of := t.ports[port]
	of.mirrors = []match{{route: of.routes[key]}}
	t.ports, t.matches = maps.Clone(t.ports), true
	t.ports[port] = of
	p.table.Store(&t)
}

// checkReleased checks, of a mirror that sends nothing, that nothing is held but for what waits to be sent.
func (m *mirror) checkReleased(t testing.TB) {
	t.Helper()
	for len(m.queue) > 0 {
		m.release(<-m.queue)
	}
	if held := m.held.Load(); held != 0 {
		t.Errorf("%d bytes are held for copies of requests that are over", held)
	}
}

// settled waits until nothing is held for copies, and says how many were answered.
func (r *running) settled(t *testing.T) int {
	t.Helper()
	eventually(t, "copies are neither answered nor dropped", func() bool { return r.mirror.held.Load() == 0 })
	return int(r.meters.mirrored.Get())
}

// TestCopies compares what an app and a preview understand of the same requests, over HTTP/1.1 as it is written here.
func TestCopies(t *testing.T) {
	for name, c := range map[string]struct {
		request string
		change  func(*seen) // from what the app has seen to what the preview is to see
	}{
		"GET":                      {"GET /a?b=c HTTP/1.1\r\nHost: shop\r\nX-One: 1\r\nx-one: 2\r\nUser-Agent: me\r\n\r\n", nil},
		"HEAD":                     {"HEAD / HTTP/1.1\r\nHost: shop\r\n\r\n", nil},
		"content-length":           {"POST / HTTP/1.1\r\nHost: shop\r\nContent-Length: 5\r\n\r\nhello", nil},
		"chunked":                  {"PUT / HTTP/1.1\r\nHost: shop\r\nTransfer-Encoding: chunked\r\n\r\n3;a=b\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n", nil},
		"no body":                  {"POST / HTTP/1.1\r\nHost: shop\r\nContent-Length: 0\r\n\r\n", nil},
		"trailers":                 {"POST / HTTP/1.1\r\nHost: shop\r\nTrailer: X-T\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nX-T: t\r\n\r\n", nil},
		"a key of another service": {"GET / HTTP/1.1\r\nHost: shop\r\nDetour-Key: other\r\n\r\n", nil},
		"100-continue": {"POST / HTTP/1.1\r\nHost: shop\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\nhi",
			func(s *seen) { s.Header.Del("Expect") }},
		"target as it is": {"GET /a//b/../%7e|\"<%2F?q=%zz#not HTTP/1.1\r\nHost: shop\r\n\r\n", func(s *seen) { *s = seen{} }},
		"odd characters":  {"GET /a//b/../%7e|%2F;x?q=a|b&c HTTP/1.1\r\nHost: shop\r\n\r\n", nil},
		"two slashes":     {"GET //a/b HTTP/1.1\r\nHost: shop\r\n\r\n", nil},
		"a URL":           {"GET http://other/a?b HTTP/1.1\r\nHost: shop\r\n\r\n", func(s *seen) { s.Target = "/a?b" }},
		"HTTP/1.0":        {"GET / HTTP/1.0\r\nHost: shop\r\nConnection: keep-alive\r\n\r\n", func(s *seen) { s.Proto = "HTTP/1.1"; s.Header.Del("Connection") }},
		"fields of a connection": {"GET / HTTP/1.1\r\nHost: shop\r\nConnection: x-hop, keep-alive\r\nKeep-Alive: 5\r\nX-Hop: 1\r\nTE: trailers\r\n\r\n",
			func(s *seen) {
				for _, name := range []string{"Connection", "Keep-Alive", "X-Hop", "Te"} {
					s.Header.Del(name)
				}
			}},
		"cookies and commas": {"GET / HTTP/1.1\r\nHost: shop\r\nCookie: a=b; c=\"d\"\r\nAccept: x, y;q=.1\r\nX-Empty:\r\n\r\n", nil},
	} {
		t.Run(name, func(t *testing.T) {
			var app, preview recorder
			to := endpointOf("m-1", newHTTP(t, preview.ServeHTTP).Listener.Addr())
			p := start(t, newHTTP(t, app.ServeHTTP).Listener.Addr())
			p.mirrors(t, "", to)
			exchange(t, p.addr(), c.request, " 200 OK")
			p.settled(t)
			if c.change == nil {
				c.change = func(*seen) {}
			}
			var want []seen
			for _, s := range app.seen {
				c.change(&s)
				if s.Method == "" { // it is not to be copied
					continue
				}
				s.Header.Set(api.HeaderMirror, "m")
				want = append(want, s)
			}
			if len(app.seen) != 1 {
				t.Fatalf("the app has seen %d requests", len(app.seen))
			}
			if diff := cmp.Diff(want, preview.seen); diff != "" {
				t.Errorf("-want +got\n%s", diff)
			}
			if got := p.counted(t, "deployment/m"); got != (api.Counters{Requests: uint64(len(want))}) {
				t.Errorf("the preview's traffic is %+v", got)
			}
		})
	}
}

// TestCopiesOverH2C is the same of HTTP/2, as gRPC speaks it: content without a length, trailers both ways.
func TestCopiesOverH2C(t *testing.T) {
	for name, change := range map[string]func(*http.Request){
		"GET":         func(*http.Request) {},
		"with length": func(r *http.Request) { r.Method = http.MethodPost; setBody(r, []byte("hello")); r.ContentLength = 5 },
		"gRPC": func(r *http.Request) {
			r.Method, r.ContentLength = http.MethodPost, -1
			r.Header = http.Header{"Content-Type": {"application/grpc"}, "Te": {"trailers"}, "Grpc-Timeout": {"1S"}}
			setBody(r, []byte("\x00\x00\x00\x00\x02hi"))
			r.ContentLength = -1
		},
		"trailers": func(r *http.Request) {
			r.Method = http.MethodPost
			r.Trailer = http.Header{"X-T": {"t"}}
			setBody(r, []byte("hi"))
		},
		"trailers, no content": func(r *http.Request) {
			r.Method = http.MethodPost
			r.Trailer = http.Header{"X-T": {"t"}}
			setBody(r, nil)
		},
		"cookies": func(r *http.Request) { r.Header.Set("Cookie", "a=b; c=d") },
	} {
		t.Run(name, func(t *testing.T) {
			var app, preview recorder
			to := endpointOf("m-1", newHTTP(t, preview.ServeHTTP).Listener.Addr())
			p := start(t, newHTTP(t, app.ServeHTTP).Listener.Addr())
			p.mirrors(t, "", to)
			req, err := http.NewRequest(http.MethodGet, p.url("/a|b?c=%20"), nil)
			if err != nil {
				t.Fatal(err)
			}
			req.Host = "shop"
			change(req)
			do(t, clientH2C(t), req)
			if n := p.settled(t); n != 1 {
				t.Fatalf("%d copies were answered; dropped: %v", n, p.dropped())
			}
			want := slices.Clone(app.seen)
			for i := range want {
				want[i].Header.Set(api.HeaderMirror, "m")
			}
			if diff := cmp.Diff(want, preview.seen); diff != "" {
				t.Errorf("-want +got\n%s", diff)
			}
		})
	}
}

// TestNotCopied: what cannot be copied, or need not be, is not.
func TestNotCopied(t *testing.T) {
	const host = "Host: shop\r\n"
	for name, request := range map[string]string{
		"not met":             "GET /other HTTP/1.1\r\n" + host + "\r\n",
		"a copy":              "GET /m HTTP/1.1\r\n" + host + "Detour-Mirror:\r\n\r\n",
		"with the key":        "GET /m HTTP/1.1\r\n" + host + "Detour-Key: m\r\n\r\n",
		"upgrade":             "GET /m HTTP/1.1\r\n" + host + "Connection: upgrade\r\nUpgrade: websocket\r\n\r\n",
		"two hosts":           "GET /m HTTP/1.1\r\n" + host + host + "\r\n",
		"two lengths":         "POST /m HTTP/1.1\r\n" + host + "Content-Length: 2\r\nContent-Length: 2\r\n\r\nhi",
		"CONNECT":             "CONNECT /m:1 HTTP/1.1\r\n" + host + "\r\n",
		"doubt in its chunks": "POST /m HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\n\r\n2\nhi\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			var preview recorder
			to := endpointOf("m-1", newHTTP(t, preview.ServeHTTP).Listener.Addr())
			addr, got := rawApp(t, ok)
			p := start(t, addr)
			p.mirrors(t, "path prefix /m", to)
			if name == "with the key" {
				exchange(t, p.addr(), request, "HTTP/1.1 200")
				eventually(t, "the preview was not asked", func() bool { return preview.count() == 1 })
				if seen := preview.seen[0]; seen.Header.Get(api.HeaderMirror) != "" {
					t.Errorf("the preview got a copy: %v", seen)
				}
				return
			}
			c := dialTCP(t, p.addr())
			io.WriteString(c, request)
			if heard := receive(t, got); !strings.HasPrefix(request, strings.TrimSpace(heard)) {
				t.Errorf("the app got %q, want %q", heard, request)
			}
			c.Close()
			if n := p.settled(t); n != 0 || preview.count() != 0 {
				t.Errorf("%d copies: %v", n, preview.seen)
			}
		})
	}
}

// TestMirrorThatLeadsNowhere: a preview without a Pod, or one that is the app, gets no copies, and no younger one does instead.
func TestMirrorThatLeadsNowhere(t *testing.T) {
	for name, endpoints := range map[string][]api.Endpoint{
		"no endpoint": nil, "the app's own": {endpointOf("api-0", &anyAddr)},
	} {
		table := compile(api.Table{Ports: []api.Port{{
			Port: 80, Routes: []api.Route{{Key: "a", Endpoints: endpoints}, {Key: "b", Endpoints: []api.Endpoint{someEndpoint("shop/b", "10.0.0.9:80")}}},
			Mirrors: []api.Match{{Key: "a"}, {Key: "b"}},
		}}}, self, nil)
		if d := decide(table, 80, request{}); d.mirror != nil || d.verdict != toBaseline {
			t.Errorf("%s: %s, and a copy for %v", name, d.verdict, d.mirror)
		}
	}
}

// TestMirrorsAndMatches: who is led away is not copied, and of several mirrors the first counts.
func TestMirrorsAndMatches(t *testing.T) {
	there := []api.Endpoint{someEndpoint("shop/x", "10.0.0.9:80")}
	table := compile(api.Table{Ports: []api.Port{{
		Port:    80,
		Routes:  []api.Route{{Key: "f", Endpoints: there}, {Key: "gone"}, {Key: "a", Endpoints: there}, {Key: "b", Endpoints: there}},
		Matches: []api.Match{matchesOf(t, "f", "header x exact f"), matchesOf(t, "gone", "header x exact gone")},
		Mirrors: []api.Match{matchesOf(t, "a", "header x prefix a"), {Key: "b"}},
	}}}, self, nil)
	for x, want := range map[string]string{"f": "", "gone": "", "alice": "a", "bob": "b"} {
		d := decide(table, 80, request{fields: []field{{"x", x}}})
		var got string
		if d.mirror != nil {
			got = d.mirror.key
		}
		if got != want {
			t.Errorf("%s: a copy for %q, want %q", x, got, want)
		}
	}
}

// TestMirrorOfEach sends 10,000 requests of each version, on connections that are used again, with bodies, and finds each
// of them copied once.
func TestMirrorOfEach(t *testing.T) {
	const n, batch = 10_000, 100
	for name, newClient := range clients {
		t.Run(name, func(t *testing.T) {
			copies := map[string]int{}
			var mu sync.Mutex
			to := endpointOf("m-1", serveHTTP(t, func(w http.ResponseWriter, r *http.Request) {
				body, _ := io.ReadAll(r.Body)
				mu.Lock()
				defer mu.Unlock()
				copies[string(body)]++
			}))
			p := start(t, serveHTTP(t, func(w http.ResponseWriter, r *http.Request) { io.Copy(w, r.Body) }))
			p.mirrors(t, "", to)
			c := newClient(t)
			for first := 0; first < n; first += batch {
				var asking sync.WaitGroup
				for worker := range 4 {
					asking.Go(func() {
						for i := worker; i < batch; i += 4 {
							text := fmt.Sprint("request ", first+i)
							if got, err := echoed(c, p.url("/"), text); got != text || err != nil {
								t.Errorf("%q, want %q: %v", got, text, err)
							}
						}
					})
				}
				asking.Wait()
				p.settled(t) // so that the preview keeps up
			}
			if dropped := p.dropped(); len(dropped) > 0 || len(copies) != n || p.settled(t) != n {
				t.Errorf("%d requests were copied, %d copies answered; dropped: %v", len(copies), p.settled(t), dropped)
			}
			for text, times := range copies {
				if times != 1 {
					t.Errorf("%s was copied %d times", text, times)
				}
			}
			if got := p.counted(t, "deployment/m"); got != (api.Counters{Requests: n}) {
				t.Errorf("the preview's traffic is %+v", got)
			}
		})
	}
}

// echoed is what is answered to a body.
func echoed(c *http.Client, url, text string) (string, error) {
	resp, err := c.Post(url, "text/plain", strings.NewReader(text))
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return string(body), err
}

// TestMirrorThatFails: whatever a preview does, requests are answered, and no copy is lost without being counted.
func TestMirrorThatFails(t *testing.T) {
	const n = 1000
	for name, preview := range map[string]func(*testing.T) net.Addr{
		"dead": refusing,
		"hangs": func(t *testing.T) net.Addr {
			return serveTCP(t, func(c *net.TCPConn) { io.Copy(io.Discard, c) })
		},
		"breaks off": func(t *testing.T) net.Addr {
			return serveTCP(t, func(c *net.TCPConn) { c.Read(make([]byte, 10)); c.SetLinger(0) })
		},
		"says nonsense": func(t *testing.T) net.Addr {
			return serveTCP(t, func(c *net.TCPConn) { io.WriteString(c, "nonsense\r\n\r\n"); io.Copy(io.Discard, c) })
		},
		"never ends": func(t *testing.T) net.Addr {
			return serveHTTP(t, func(w http.ResponseWriter, r *http.Request) {
				for w.(http.Flusher).Flush(); r.Context().Err() == nil; {
					if _, err := w.Write(make([]byte, 64<<10)); err != nil {
						return
					}
				}
			})
		},
	} {
		for version, newClient := range clients {
			t.Run(name+"/"+version, func(t *testing.T) {
				to := endpointOf("m-1", preview(t))
				p := start(t, serveHTTP(t, func(w http.ResponseWriter, r *http.Request) { io.Copy(w, r.Body) }))
				p.mirrors(t, "", to)
				c := newClient(t)
				for i := range n {
					text := fmt.Sprint("request ", i)
					if got, err := echoed(c, p.url("/"), text); got != text || err != nil {
						t.Fatalf("%q, want %q: %v", got, text, err)
					}
				}
				if name == "hangs" {
					if dropped := p.dropped(); dropped[dropQueue] < n-mirrorQueue-mirrorSenders || len(dropped) != 1 {
						t.Errorf("dropped: %v", dropped)
					}
					return
				}
				answered, dropped := p.settled(t), p.dropped()
				if answered+dropped[dropUnanswered]+dropped[dropQueue] != n || len(dropped) > 2 || (answered > 0) != (name == "never ends") {
					t.Errorf("%d answered, dropped: %v", answered, dropped)
				}
			})
		}
	}
}

// TestCopiesThatAreDropped: what is too much, or does not come to its end, is counted and forgotten.
func TestCopiesThatAreDropped(t *testing.T) {
	for version, newClient := range clients {
		t.Run(version, func(t *testing.T) {
			var preview recorder
			to := endpointOf("m-1", newHTTP(t, preview.ServeHTTP).Listener.Addr())
			p := start(t, serveHTTP(t, func(w http.ResponseWriter, r *http.Request) { io.Copy(w, r.Body) }))
			p.mirrors(t, "", to)
			c := newClient(t)
			large := strings.Repeat("x", 1<<20)
			if got, err := echoed(c, p.url("/"), large); got != large || err != nil {
				t.Errorf("%d bytes of %d: %v", len(got), len(large), err)
			}
			p.settled(t)

			body, end := io.Pipe()
			gone := make(chan error, 1)
			go func() {
				_, err := c.Post(p.url("/"), "text/plain", body)
				gone <- err
			}()
			io.WriteString(end, "begins")
			eventually(t, "the request does not come", func() bool { return p.mirror.held.Load() > gatheredOverhead })
			end.CloseWithError(io.ErrUnexpectedEOF)
			if err := <-gone; err == nil {
				t.Error("a request that breaks off was answered")
			}
			p.settled(t)

			p.mirror.held.Add(maxMirrors)
			if got, err := echoed(c, p.url("/"), "hello"); got != "hello" || err != nil {
				t.Errorf("%q, %v", got, err)
			}
			p.mirror.held.Add(-maxMirrors)
			p.settled(t)
			want := map[string]int{dropTooLarge: 1, dropIncomplete: 1, dropMemory: 1}
			if diff := cmp.Diff(want, p.dropped()); diff != "" || preview.count() != 0 {
				t.Errorf("%d copies; -want +got\n%s", preview.count(), diff)
			}
		})
	}
}

// TestPipelinedCopies: requests that come together, on one connection, of which a part goes elsewhere.
func TestPipelinedCopies(t *testing.T) {
	var preview recorder
	to := endpointOf("m-1", newHTTP(t, preview.ServeHTTP).Listener.Addr())
	p := start(t, serveHTTP(t, named("baseline")))
	p.mirrors(t, "", to)
	const request = "POST /%d HTTP/1.1\r\nHost: x\r\n%sTransfer-Encoding: chunked\r\n\r\n1\r\n%[1]d\r\n0\r\n\r\n"
	var all strings.Builder
	var want []string
	for i := range 9 {
		key := ""
		if i%3 == 2 {
			key = "Detour-Key: m\r\n"
		}
		fmt.Fprintf(&all, request, i, key)
		want = append(want, fmt.Sprintf("/%d %[1]d %t", i, key == ""))
	}
	c := dialTCP(t, p.addr())
	io.WriteString(c, all.String())
	answers := bufio.NewReader(c)
	for range want {
		resp, err := http.ReadResponse(answers, nil)
		if err != nil {
			t.Fatal(err)
		}
		io.Copy(io.Discard, resp.Body)
	}
	p.settled(t)
	var got []string
	for _, s := range preview.seen {
		got = append(got, fmt.Sprintf("%s %s %t", s.Target, s.Body, s.Header.Get(api.HeaderMirror) == "m"))
	}
	slices.Sort(got)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}

// TestCopiesByProxyProtocol: previews of an app that wants the PROXY protocol want it too.
func TestCopiesByProxyProtocol(t *testing.T) {
	const header = 28 // bytes, of IPv4
	heard := make(chan []byte, 1)
	to := endpointOf("m-1", serveTCP(t, func(c *net.TCPConn) {
		b := make([]byte, header+len("GET / HTTP/1.1\r\n"))
		io.ReadFull(c, b)
		heard <- b
		io.WriteString(c, ok)
	}))
	addr := serveTCP(t, func(c *net.TCPConn) {
		r := bufio.NewReader(c)
		if _, err := r.Discard(header); err != nil {
			return
		}
		if _, err := http.ReadRequest(r); err == nil {
			io.WriteString(c, ok)
		}
	})
	p := start(t, addr, func(c *Config) { c.Sidecar.ClientAddress = api.ClientProxyProtocol })
	p.mirrors(t, "", to)
	exchange(t, p.addr(), "GET / HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP/1.1 200")
	select {
	case b := <-heard:
		from := proxyHeader(netip.AddrPortFrom(loopback, 1), to.Address)
		if !bytes.HasPrefix(b, from[:24]) || !bytes.HasSuffix(b, []byte("GET / HTTP/1.1\r\n")) {
			t.Errorf("%q", b)
		}
	case <-time.After(deadline):
		t.Fatal("no copy")
	}
}
