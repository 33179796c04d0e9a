package proxy

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/detour-dev/detour/api"
)

// hazard is something that proxies of HTTP/1 are known to get wrong.
type hazard struct {
	name    string // as docs/transparency.md has it
	request string // without a key; "KEY" in it is where a line with one goes
	keyed   string // how the answer to the same request with a key begins
	ends    bool   // after that answer, the connection ends
}

// hazards are judged by two rules: without a key every byte reaches the app, and with one the request is refused, or
// reaches the preview as it is.
var hazards = []hazard{
	{"1 Content-Length with Transfer-Encoding", "POST / HTTP/1.1\r\nHost: x\r\nKEYContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "HTTP/1.1 400 ", true},
	{"2 Transfer-Encoding that is not chunked", "POST / HTTP/1.1\r\nHost: x\r\nKEYTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n", "HTTP/1.1 400 ", true},
	{"2 Transfer-Encoding twice", "POST / HTTP/1.1\r\nHost: x\r\nKEYTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "HTTP/1.1 400 ", true},
	{"2 Transfer-Encoding with a VT", "POST / HTTP/1.1\r\nHost: x\r\nKEYTransfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n", "HTTP/1.1 400 ", true},
	{"3 Transfer-Encoding in HTTP/1.0", "POST / HTTP/1.0\r\nHost: x\r\nKEYTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "HTTP/1.1 400 ", true},
	{"4 Content-Length list", "POST / HTTP/1.1\r\nHost: x\r\nKEYContent-Length: 1, 2\r\n\r\nx", "HTTP/1.1 400 ", true},
	{"4 Content-Length sign", "POST / HTTP/1.1\r\nHost: x\r\nKEYContent-Length: +1\r\n\r\nx", "HTTP/1.1 400 ", true},
	{"4 Content-Length hex", "POST / HTTP/1.1\r\nHost: x\r\nKEYContent-Length: 0x1\r\n\r\nx", "HTTP/1.1 400 ", true},
	{"4 Content-Length overflow", "POST / HTTP/1.1\r\nHost: x\r\nKEYContent-Length: 99999999999999999999\r\n\r\nx", "HTTP/1.1 400 ", true},
	{"6 chunk size", "POST / HTTP/1.1\r\nHost: x\r\nKEYTransfer-Encoding: chunked\r\n\r\nx\r\n", "HTTP/1.1 400 ", true},
	{"6 chunk without CRLF", "POST / HTTP/1.1\r\nHost: x\r\nKEYTransfer-Encoding: chunked\r\n\r\n1\r\nxx\r\n0\r\n\r\n", "HTTP/1.1 400 ", true},
	{"7 folded field", "GET / HTTP/1.1\r\nHost: x\r\nKEYX: a\r\n b\r\n\r\n", "HTTP/1.1 400 ", true},
	{"8 space before the colon", "GET / HTTP/1.1\r\nHost: x\r\nKEYX : a\r\n\r\n", "HTTP/1.1 400 ", true},
	{"9 bare LF", "GET / HTTP/1.1\r\nHost: x\r\nKEYX: a\nY: b\r\n\r\n", "HTTP/1.1 400 ", true},
	{"9 bare CR", "GET / HTTP/1.1\r\nHost: x\r\nKEYX: a\rY: b\r\n\r\n", "HTTP/1.1 400 ", true},
	{"9 NUL", "GET / HTTP/1.1\r\nHost: x\r\nKEYX: \x00\r\n\r\n", "HTTP/1.1 400 ", true},
	{"10 no Host", "GET / HTTP/1.1\r\nKEY\r\n", "HTTP/1.1 400 ", true},
	{"10 two Hosts", "GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\nKEY\r\n", "HTTP/1.1 400 ", true},
	{"12 bytes of the target", "GET //a%2f;b?%zz&c=%00 HTTP/1.1\r\nHost: x\r\nKEY\r\n", "HTTP/1.1 200 ", false},
	{"12 fragment", "GET /a#b HTTP/1.1\r\nHost: x\r\nKEY\r\n", "HTTP/1.1 400 ", true},
	{"13 Connection with others", "GET / HTTP/1.1\r\nHost: x\r\nKEYConnection: X-A, keep-alive\r\nX-A: b\r\n\r\n", "HTTP/1.1 200 ", false},
	{"13 Connection with a carrier", "GET / HTTP/1.1\r\nHost: x\r\nKEYConnection: x, bagGage\r\n\r\n", "HTTP/1.1 400 ", true},
	{"14 Via and X-Forwarded", "GET / HTTP/1.1\r\nHost: x\r\nKEYVia: 1.1 a\r\nForwarded: for=b\r\nX-Forwarded-For: c\r\n\r\n", "HTTP/1.1 200 ", false},
	{"18 CONNECT", "CONNECT x:1 HTTP/1.1\r\nHost: x:1\r\nKEY\r\n", "HTTP/1.1 405 ", true},
	{"19 OPTIONS *", "OPTIONS * HTTP/1.1\r\nHost: x\r\nKEYMax-Forwards: 0\r\n\r\n", "HTTP/1.1 200 ", false},
	{"19 TRACE", "TRACE / HTTP/1.1\r\nHost: x\r\nKEYMax-Forwards: 0\r\n\r\n", "HTTP/1.1 200 ", false},
	{"20 trailers", "POST / HTTP/1.1\r\nHost: x\r\nKEYTransfer-Encoding: chunked\r\nTrailer: X\r\n\r\n0\r\nX: y\r\nUnannounced: z\r\n\r\n", "HTTP/1.1 200 ", false},
	{"20 framing in a trailer", "POST / HTTP/1.1\r\nHost: x\r\nKEYTransfer-Encoding: chunked\r\n\r\n0\r\nContent-Length: 5\r\n\r\n", "HTTP/1.1 400 ", true},
}

func TestHazards(t *testing.T) {
	for _, h := range hazards {
		t.Run(h.name+"/unkeyed", func(t *testing.T) {
			app, log := logApp(t, "LAST", ok)
			p := start(t, app)
			p.route(t, "a", endpointOf("x", serveHTTP(t, named("preview"))))
			request := strings.Replace(h.request, "KEY", "", 1) + "LAST"
			c := dialTCP(t, p.addr())
			io.WriteString(c, request)
			c.CloseWrite()
			if got, err := io.ReadAll(c); string(got) != ok || err != nil {
				t.Errorf("the client got %q, %v", got, err)
			}
			if got := receive(t, log); got != request {
				t.Errorf("the app got\n%q, want\n%q", got, request)
			}
		})
		t.Run(h.name+"/keyed", func(t *testing.T) {
			const member = "Baggage: detour-key=a\r\n"
			end := h.request[strings.LastIndex(h.request, "\r\n"):]
			app, log := logApp(t, "never", "")
			preview, got := logApp(t, end, ok)
			p := start(t, app)
			p.route(t, "a", endpointOf("x", preview))
			request := strings.Replace(h.request, "KEY", member, 1)
			c := dialTCP(t, p.addr())
			io.WriteString(c, request)
			r := bufio.NewReader(c)
			line, err := r.ReadString('\n')
			if !strings.HasPrefix(line, h.keyed) || err != nil {
				t.Errorf("the answer begins %q, %v, want %q", line, err, h.keyed)
			}
			if h.ends {
				if _, err := io.ReadAll(r); err != nil {
					t.Errorf("the connection ends with %v", err)
				}
			}
			c.Close()
			if strings.HasPrefix(h.keyed, "HTTP/1.1 200") {
				if got := receive(t, got); got != request {
					t.Errorf("the preview got\n%q, want\n%q", got, request)
				}
			}
			if got := receive(t, log); got != "" {
				t.Errorf("the app got %q", got)
			}
		})
	}
}

// TestBodyOfARefusedRequest is not taken for the next request (row 5).
func TestBodyOfARefusedRequest(t *testing.T) {
	p := start(t, serveHTTP(t, named("baseline")))
	p.route(t, "gone")
	const inner = "GET /inner HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
	request := fmt.Sprintf("POST / HTTP/1.1\r\nHost: x\r\nDetour-Key: gone\r\nContent-Length: %d\r\n\r\n%s", len(inner), inner)
	got := exchange(t, p.addr(), request+"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", "")
	if strings.Count(got, "HTTP/1.1 ") != 2 || !strings.HasSuffix(got, "baseline") {
		t.Errorf("got %q", got)
	}
}

// TestAnswerInsteadOf100 ends the connection, because the client may leave out the body that it has announced (row 16).
func TestAnswerInsteadOf100(t *testing.T) {
	preview := serveTCP(t, func(c *net.TCPConn) {
		http.ReadRequest(bufio.NewReader(c))
		io.WriteString(c, "HTTP/1.1 417 Expectation Failed\r\nContent-Length: 0\r\n\r\n")
		io.Copy(io.Discard, c)
	})
	p := start(t, serveHTTP(t, named("baseline")))
	p.tables(t, api.Route{Key: "a", Endpoints: []api.Endpoint{endpointOf("x", preview)}}, api.Route{Key: "gone"})
	for key, want := range map[string]string{"a": "HTTP/1.1 417 ", "gone": "HTTP/1.1 503 "} {
		got := exchange(t, p.addr(), "PUT / HTTP/1.1\r\nHost: x\r\nDetour-Key: "+key+"\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n", "")
		if !strings.HasPrefix(got, want) {
			t.Errorf("got %q", got)
		}
	}
}

// TestStrayBytesOfAPreview behind an answer that has no body reach nobody (row 21).
func TestStrayBytesOfAPreview(t *testing.T) {
	var connections atomic.Int32
	preview := serveTCP(t, func(c *net.TCPConn) {
		connections.Add(1)
		http.ReadRequest(bufio.NewReader(c))
		io.WriteString(c, "HTTP/1.1 204 No Content\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison")
		io.Copy(io.Discard, c)
	})
	p := start(t, serveHTTP(t, named("baseline")))
	p.route(t, "a", endpointOf("x", preview))
	c := client(t)
	for range 3 {
		if resp, body := get(t, c, p.url("/"), "Detour-Key: a"); resp.StatusCode != 204 || body != "" {
			t.Errorf("got %s %q", resp.Status, body)
		}
	}
	if n := connections.Load(); n != 3 {
		t.Errorf("%d connections, want one each", n)
	}
}

// TestBrokenAnswerLooksBroken: what a preview does not finish is not finished for it (row 22).
func TestBrokenAnswerLooksBroken(t *testing.T) {
	for name, answer := range map[string]string{
		"length":  "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhi",
		"chunked": "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n",
		"head":    "HTTP/1.1 200 OK\r\nContent-Le",
	} {
		preview := serveTCP(t, func(c *net.TCPConn) {
			http.ReadRequest(bufio.NewReader(c))
			io.WriteString(c, answer)
		})
		p := start(t, serveHTTP(t, named("baseline")))
		p.route(t, "a", endpointOf("x", preview))
		got := exchange(t, p.addr(), "GET / HTTP/1.1\r\nHost: x\r\nDetour-Key: a\r\n\r\n", "")
		if got = strings.Replace(got, "Detour-Served-By: shop/x\r\n", "", 1); got != answer {
			t.Errorf("%s: got %q", name, got)
		}
	}
}

// TestKeyedConnectionsHaveDeadlines and others have none (row 26).
func TestKeyedConnectionsHaveDeadlines(t *testing.T) {
	p := newMemoryProxy(t, api.Route{Key: "gone"})
	for _, c := range []struct {
		first, rest string
		timers      int
	}{
		{"", "GET / HTTP/1.1\r\nHo", 0},
		{"GET / HTTP/1.1\r\nHost: x\r\nDetour-Key: gone\r\n\r\n", "", 1},           // that of an idle connection
		{"GET / HTTP/1.1\r\nHost: x\r\nDetour-Key: gone\r\n\r\n", "GET / HTTP", 2}, // and that of a head
	} {
		m := newMemory(t, p, func(*wire) {})
		m.client.unfed = []byte(c.first)
		m.run()
		m.client.unfed = []byte(c.rest)
		m.run()
		if len(m.loop.timers) != c.timers {
			t.Errorf("after %q%q there are %d timers, want %d", c.first, c.rest, len(m.loop.timers), c.timers)
		}
		for _, timer := range m.loop.timers {
			if d := time.Until(timer.at); d > keyedIdle || d < headTime-time.Second {
				t.Errorf("a deadline is %s away", d)
			}
		}
		m.close()
		if len(m.loop.timers) > 1 {
			t.Errorf("%d timers are left", len(m.loop.timers))
		}
	}
}

// TestMemoryOfAConnectionIsBounded: a client that sends without an end, to an app that takes nothing.
func TestMemoryOfAConnectionIsBounded(t *testing.T) {
	p := newMemoryProxy(t)
	for name, flood := range map[string]string{
		"head":    "GET / HTTP/1.1\r\nX: " + strings.Repeat("x", 1<<20),
		"fields":  "GET / HTTP/1.1\r\n" + strings.Repeat("X: y\r\n", 1<<18),
		"chunk":   "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1;" + strings.Repeat("x", 1<<20),
		"trailer": "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: " + strings.Repeat("x", 1<<20),
		"line":    strings.Repeat("G", 1<<20),
	} {
		m := newMemory(t, p, func(w *wire) {})
		m.client.unfed = []byte(flood)
		for range 100 {
			m.run()
			if n := cap(m.client.in); n > readBuffer+maxHead {
				t.Fatalf("%s: %d bytes are kept", name, n)
			}
		}
		if len(m.client.unfed) > 0 {
			t.Errorf("%s: it is not passed through", name)
		}
		m.close()
	}
}
