package proxy

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"syscall"
	"testing"

	"github.com/detour-dev/detour/api"
)

// logApp answers each connection with the same bytes once it has seen the mark, and reports all that it was sent when
// the connection ends.
func logApp(t *testing.T, mark, answer string) (net.Addr, <-chan string) {
	t.Helper()
	logs := make(chan string, 16)
	return serveTCP(t, func(c *net.TCPConn) {
		var log bytes.Buffer
		buf := make([]byte, 4096)
		answered := false
		for {
			n, err := c.Read(buf)
			log.Write(buf[:n])
			if !answered && strings.Contains(log.String(), mark) {
				answered = true
				io.WriteString(c, answer)
			}
			if err != nil {
				break
			}
		}
		logs <- log.String()
	}), logs
}

const ok = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"

// doubtful are requests whose framing is in doubt, each in its own way. Their last bytes are "END".
var doubtful = map[doubt]string{
	doubtNoHTTP:     "GET / HTTP/1.5\r\nHost: x\r\n\r\nEND",
	doubtLineEnd:    "GET / HTTP/1.1\r\nHost: x\nX-A: b\r\n\r\nEND",
	doubtName:       "GET / HTTP/1.1\r\nHost : x\r\n\r\nEND",
	doubtFold:       "GET / HTTP/1.1\r\nHost: x\r\n folded\r\n\r\nEND",
	doubtLength:     "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: +3\r\n\r\nEND",
	doubtCoding:     "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: xchunked\r\n\r\nEND",
	doubtBoth:       "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\nEND",
	doubtCodingIn10: "POST / HTTP/1.0\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nEND",
	doubtChunk:      "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\nEND",
	doubtTrailer:    "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nContent-Length: 3\r\n\r\nEND",
	doubtConnect:    "CONNECT x:1 HTTP/1.1\r\nHost: x\r\n\r\nEND",
	doubtTooLong:    "GET / HTTP/1.1\r\nHost: x\r\nX-Long: " + strings.Repeat("x", maxHead) + "\r\n\r\nEND",
}

// TestDoubtPassesThrough: without a key, everything goes to the app as it is, and so does all that follows.
func TestDoubtPassesThrough(t *testing.T) {
	for why, request := range doubtful {
		t.Run(string(why), func(t *testing.T) {
			app, log := logApp(t, "LAST", ok)
			p := start(t, app)
			p.route(t, "a", endpointOf("x", serveHTTP(t, named("preview"))))
			request += "GET / HTTP/1.1\r\nDetour-Key: a\r\n\r\nLAST" // routed no more
			if why == doubtNoHTTP || why == doubtConnect {
				request = "GET / HTTP/1.1\r\nHost: x\r\n\r\n" + request // as the first one, it is no HTTP at all
			}
			c := dialTCP(t, p.addr())
			io.WriteString(c, request)
			c.CloseWrite()
			if got, err := io.ReadAll(c); string(got) != ok || err != nil {
				t.Errorf("the client got %q, %v", got, err)
			}
			if got := receive(t, log); got != request {
				t.Errorf("the app got\n%.300q, want\n%.300q", got, request)
			}
			if n := p.meters.set.GetOrCreateCounter(fmt.Sprintf("detour_proxy_passed_through_total{reason=%q}", why)).Get(); n != 1 {
				t.Errorf("counted %d times", n)
			}
		})
	}
}

// TestDoubtWithKeyIsRefused: with a key, nothing of such a request reaches anyone, or what does is not whole.
func TestDoubtWithKeyIsRefused(t *testing.T) {
	requests := map[string]string{
		"no Host":                 "GET / HTTP/1.1\r\nDetour-Key: a\r\n\r\n",
		"two Hosts":               "GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\nDetour-Key: a\r\n\r\n",
		"fragment":                "GET /#f HTTP/1.1\r\nHost: x\r\nDetour-Key: a\r\n\r\n",
		"hidden carrier":          "GET / HTTP/1.1\r\nHost: x\r\nDetour-Key: a\r\nConnection: x, Detour-Key\r\n\r\n",
		"hidden baggage":          "GET / HTTP/1.1\r\nHost: x\r\nbaggage: detour-key=a\r\nConnection: baggage\r\n\r\n",
		"key in a line after LF":  "GET / HTTP/1.1\r\nHost: x\nDetour-Key: a\n\n",
		"key in a line after CR":  "GET / HTTP/1.1\r\nHost: x\rDetour-Key: a\r\n\r\n",
		"key continued":           "GET / HTTP/1.1\r\nHost: x\r\nDetour-Key:\r\n a\r\n\r\n",
		"key, space before colon": "GET / HTTP/1.1\r\nHost: x\r\nDetour-Key : a\r\n\r\n",
		"key in a continued line": "GET / HTTP/1.1\r\nHost: x\r\n Detour-Key: a\r\n\r\n",
		"key in baggage":          "GET / HTTP/1.1\r\nHost: x\r\nBaggage: x=y\r\n ,detour-key=a\r\n\r\n",
		"NUL":                     "GET / HTTP/1.1\r\nHost: x\r\nX: \x00\r\nDetour-Key: a\r\n\r\n",
		"NUL in the target":       "GET /\x00 HTTP/1.1\r\nHost: x\r\nDetour-Key: a\r\n\r\n",
		"unknown version":         "GET / HTTP/1.5\r\nHost: x\r\nDetour-Key: a\r\n\r\n",
		"lengths":                 "POST / HTTP/1.1\r\nHost: x\r\nDetour-Key: a\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\nx",
		"length list":             "POST / HTTP/1.1\r\nHost: x\r\nDetour-Key: a\r\nContent-Length: 1, 1\r\n\r\nx",
		"empty length":            "POST / HTTP/1.1\r\nHost: x\r\nDetour-Key: a\r\nContent-Length: \r\n\r\n",
		"huge length":             "POST / HTTP/1.1\r\nHost: x\r\nDetour-Key: a\r\nContent-Length: 99999999999999999999\r\n\r\n",
		"codings":                 "POST / HTTP/1.1\r\nHost: x\r\nDetour-Key: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"VT in the coding":        "POST / HTTP/1.1\r\nHost: x\r\nDetour-Key: a\r\nTransfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
		"empty lines before":      "\r\n\r\nGET / HTTP/1.1\r\nHost: x\r\nDetour-Key: a\r\n\r\n",
		"breaks off":              "GET / HTTP/1.1\r\nHost: x\r\nDetour-Key: a\r\n",
	}
	for why, request := range doubtful {
		if why != doubtChunk && why != doubtTrailer { // these show in the body
			requests[string(why)] = strings.Replace(request, "\r\n", "\r\nDetour-Key: a\r\n", 1)
		}
	}
	for name, request := range requests {
		t.Run(name, func(t *testing.T) {
			app, log := logApp(t, "never", "")
			preview, previewLog := logApp(t, "never", "")
			p := start(t, app)
			p.route(t, "a", endpointOf("x", preview))
			c := dialTCP(t, p.addr())
			io.WriteString(c, request)
			if name == "breaks off" {
				c.CloseWrite()
			}
			got, err := io.ReadAll(c)
			if !strings.HasPrefix(string(got), "HTTP/1.1 40") || !strings.Contains(string(got), "\r\nDetour-Error: ") || err != nil {
				t.Errorf("the client got %q, %v", got, err)
			}
			c.Close()
			if got := receive(t, log); got != "" {
				t.Errorf("the app got %q", got)
			}
			select {
			case got := <-previewLog:
				t.Errorf("the preview got %q", got)
			default:
			}
		})
	}
}

// TestDoubtInKeyedBody: the preview is reset before it can take the request for whole, and the client is told why.
func TestDoubtInKeyedBody(t *testing.T) {
	for name, body := range map[string]string{
		"size":      "xyz\r\n",
		"bare LF":   "3\nabc\r\n0\r\n\r\n",
		"no end":    "3\r\nabcd\r\n",
		"huge":      "fffffffffffffffff\r\n",
		"extension": "3;a=\x00\r\nabc\r\n0\r\n\r\n",
		"long":      "3;" + strings.Repeat("x", maxChunkLine) + "\r\nabc\r\n0\r\n\r\n",
		"trailer":   "3\r\nabc\r\n0\r\nHost: y\r\n\r\n",
		"key":       "3\r\nabc\r\n0\r\nDetour-Key: b\r\n\r\n",
		"fold":      "3\r\nabc\r\n0\r\nX: y\r\n z\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			ends := make(chan error, 1)
			preview := serveTCP(t, func(c *net.TCPConn) {
				_, err := io.Copy(io.Discard, c)
				ends <- err
			})
			p := start(t, serveHTTP(t, named("baseline")))
			p.route(t, "a", endpointOf("x", preview))
			got := exchange(t, p.addr(), "POST / HTTP/1.1\r\nHost: x\r\nDetour-Key: a\r\nTransfer-Encoding: chunked\r\n\r\n"+body, "")
			if !strings.HasPrefix(got, "HTTP/1.1 400 ") || !strings.Contains(got, "Detour-Error: malformed\r\n") {
				t.Errorf("the client got %q", got)
			}
			if err := <-ends; !isReset(err) {
				t.Errorf("the preview's connection ended with %v", err)
			}
		})
	}
}

// TestRequestsPassByteForByte sends odd but sound requests in pieces of every size, pipelined.
func TestRequestsPassByteForByte(t *testing.T) {
	all := strings.Join([]string{
		"GET /a;b//c%2fd?x=1;y=%zz HTTP/1.1\r\nhOsT: x\r\nZ: 1\r\na:2\r\nA:   3  \r\nEmpty:\r\nX-L: caf\xe9\r\n\r\n",
		"POST / HTTP/1.1\r\nHost: x\r\ntransfer-ENCODING:  Chunked \r\n\r\n3;ext=\"a;b\"\r\nabc\r\n00\r\nTrailer-Field: x\r\n\r\n",
		"PUT /x HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\nGET /",
		"HEAD / HTTP/1.0\r\n\r\n",
		"OPTIONS * HTTP/1.1\r\nHost: x\r\nConnection: Keep-Alive, foo\r\nVia: 1.1 me\r\n\r\n",
		"DELETE http://y/z HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n",
		"M-SEARCH /LAST HTTP/1.1\r\nHost: x\r\n\r\n",
	}, "")
	for _, size := range []int{1, 2, 3, 7, 50, len(all)} {
		app, log := logApp(t, "LAST", "")
		p := start(t, app)
		c := dialTCP(t, p.addr())
		for rest := all; rest != ""; {
			n := min(size, len(rest))
			io.WriteString(c, rest[:n])
			rest = rest[n:]
		}
		c.CloseWrite()
		if got := receive(t, log); got != all {
			t.Errorf("pieces of %d: the app got\n%q, want\n%q", size, got, all)
		}
		if n := p.meters.requests[toBaseline].Get(); n != 7 {
			t.Errorf("pieces of %d: %d requests counted", size, n)
		}
	}
}

func TestAnswersPassByteForByte(t *testing.T) {
	for _, answer := range []string{
		"HTTP/1.1 200 \r\nz: 1\r\nA:2\r\nContent-length: 2\r\n\r\nhi",
		"HTTP/1.1 200\r\ncontent-length: 0\r\n\r\n",
		"HTTP/1.1 299 A Reason, Of Sorts\r\nTransfer-Encoding: chunked\r\n\r\n2;x=y\r\nhi\r\n0\r\nX: y\r\n\r\n",
		"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + ok,
		"HTTP/1.1 304 Not Modified\r\nContent-Length: 1000\r\n\r\n",
		"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nhi",
		// What cannot be framed is passed on to its end.
		"HTTP/1.1 200 OK\nContent-Length: 2\n\nhi",
		"HTTP/1.1 200 OK\r\nContent-Length : 2\r\n\r\nhi",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\nContent-Length: 5\r\n\r\nhi",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxx\r\nhi",
		"HTTP/2 200 OK\r\n\r\n",
		"hello",
		"",
	} {
		app, _ := logApp(t, "\r\n\r\n", answer)
		p := start(t, app)
		p.route(t, "a", endpointOf("x", app))
		for _, key := range []string{"", "Detour-Key: a\r\n"} {
			c := dialTCP(t, p.addr())
			io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\n"+key+"\r\n")
			got := make([]byte, 0, len(answer)+100)
			want := answer
			if end := strings.LastIndex(answer, "\r\n\r\n"); key != "" && strings.HasPrefix(answer, "HTTP/1.") && !strings.Contains(answer, " : ") && !strings.Contains(answer, "gzip") && end > 0 {
				head := strings.LastIndex(answer[:headEnd([]byte(answer), 0)], "\r\n")
				if i := strings.LastIndex(answer, "HTTP/1.1 200 OK"); i > 0 { // behind those with 1xx
					head = i + strings.Index(answer[i:], "\r\n\r\n") + 2
				}
				want = answer[:head] + "Detour-Served-By: shop/x\r\n" + answer[head:]
			}
			buf := make([]byte, 4096)
			for len(got) < len(want) {
				n, err := c.Read(buf)
				got = append(got, buf[:n]...)
				if err != nil {
					break
				}
			}
			if string(got) != want {
				t.Errorf("key %q: the client got\n%q, want\n%q", key, got, want)
			}
			c.Close()
		}
	}
}

// TestPipeliningAcrossCopies: answers come in the order of the requests, whoever gives them.
func TestPipeliningAcrossCopies(t *testing.T) {
	serve := func(name string) net.Addr {
		return serveHTTP(t, func(w http.ResponseWriter, r *http.Request) { fmt.Fprintf(w, "[%s %s]", name, r.URL.Path) })
	}
	p := start(t, serve("baseline"))
	p.tables(t, api.Route{Key: "a", Endpoints: []api.Endpoint{endpointOf("x", serve("preview"))}}, api.Route{Key: "gone", Preview: "deployment/gone"})
	var requests, want strings.Builder
	for i := range 40 {
		key, name := "", "baseline"
		switch i % 5 {
		case 1, 2:
			key, name = "Detour-Key: a\r\n", "preview"
		case 4:
			key, name = "Detour-Key: gone\r\n", "gone"
		}
		fmt.Fprintf(&requests, "POST /%d HTTP/1.1\r\nHost: x\r\n%sContent-Length: 4\r\n\r\nbody", i, key)
		if name == "gone" {
			want.WriteString("503 ")
		} else {
			fmt.Fprintf(&want, "[%s /%d] ", name, i)
		}
	}
	c := dialTCP(t, p.addr())
	go io.WriteString(c, requests.String())
	r := bufio.NewReader(c)
	var got strings.Builder
	for range 40 {
		resp, err := http.ReadResponse(r, nil)
		if err != nil {
			t.Fatalf("after %q: %v", got.String(), err)
		}
		body, _ := io.ReadAll(resp.Body)
		if resp.StatusCode == 503 {
			body = []byte("503")
		}
		fmt.Fprintf(&got, "%s ", body)
	}
	if got.String() != want.String() {
		t.Errorf("got %q, want %q", got.String(), want.String())
	}
}

// TestClientThatHalfCloses still gets its answer, from whomever.
func TestClientThatHalfCloses(t *testing.T) {
	slow := func(name string) net.Addr {
		return serveTCP(t, func(c *net.TCPConn) {
			io.Copy(io.Discard, c) // until the client's end
			fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(name), name)
		})
	}
	p := start(t, slow("baseline"))
	p.route(t, "a", endpointOf("x", slow("preview")))
	for key, want := range map[string]string{"": "baseline", "Detour-Key: a\r\n": "preview"} {
		c := dialTCP(t, p.addr())
		io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\n"+key+"\r\n")
		c.CloseWrite()
		if got, err := io.ReadAll(c); !strings.HasSuffix(string(got), want) || err != nil {
			t.Errorf("got %q, %v", got, err)
		}
	}
}

// TestAppIdleWhilePreviewsAreUsed: that the app closes its idle connection, with a 408 or without, ends nothing.
func TestAppIdleWhilePreviewsAreUsed(t *testing.T) {
	app := serveTCP(t, func(c *net.TCPConn) {
		r := bufio.NewReader(c)
		if _, err := http.ReadRequest(r); err != nil {
			return
		}
		io.WriteString(c, ok)
		c.SetReadDeadline(nowPlus("20ms"))
		if _, err := r.ReadByte(); err != nil {
			io.WriteString(c, "HTTP/1.1 408 Request Timeout\r\nConnection: close\r\n\r\n")
		}
	})
	p := start(t, app)
	p.route(t, "a", endpointOf("x", serveHTTP(t, named("preview"))))
	c := client(t)
	for range 3 {
		if _, body := get(t, c, p.url("/")); body != "hi" {
			t.Fatalf("the app said %q", body)
		}
		closed := false
		for until := nowPlus("60ms"); !closed; closed = !until.After(nowPlus("0s")) {
			if resp, body := get(t, c, p.url("/"), "Detour-Key: a"); body != "preview" {
				t.Fatalf("the preview said %s %q", resp.Status, body)
			}
		}
	}
	if n := p.meters.connections[protocolHTTP1].Get(); n != 1 {
		t.Errorf("%d connections", n)
	}
}

// TestStaleConnection is one to a preview that breaks as soon as it is used again: the request is sent once more if
// nothing of it has been processed for sure, or if that does no harm.
func TestStaleConnection(t *testing.T) {
	p := newMemoryProxy(t, api.Route{Key: "a", Endpoints: []api.Endpoint{endpointOf("x", &anyAddr)}})
	const post = "POST / HTTP/1.1\r\nHost: x\r\nbaggage: detour-key=a\r\nContent-Length: 4\r\n\r\nbody"
	const get = "GET / HTTP/1.1\r\nHost: x\r\nbaggage: detour-key=a\r\n\r\n"
	for name, c := range map[string]struct {
		request string
		acked   uint64 // bytes of it
		breaks  func(*wire)
		again   bool
	}{
		"POST, closed before it came":  {post, 0, func(w *wire) { w.ends = true }, true},
		"POST, reset before it came":   {post, 0, func(w *wire) { w.fail(syscall.ECONNRESET) }, true},
		"POST, reset after it came":    {post, 10, func(w *wire) { w.fail(syscall.ECONNRESET) }, false},
		"GET, reset after it came":     {get, 10, func(w *wire) { w.fail(syscall.ECONNRESET) }, true},
		"GET, broken within an answer": {get, 10, func(w *wire) { w.unfed, w.ends = []byte("HTTP/1.1 200"), true }, false},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMemory(t, p, func(*wire) {})
			defer m.close()
			m.client.unfed = []byte(get)
			m.run()
			first := m.dialled[1]
			first.unfed = []byte(ok)
			m.run()
			before := uint64(len(first.got))
			first.sent, first.acked = before, before+c.acked
			m.client.unfed = []byte(c.request)
			m.run()
			c.breaks(first)
			m.run()
			if again := len(m.dialled) == 3 && string(m.dialled[2].got) == c.request; again != c.again {
				t.Errorf("sent again: %v", again)
			}
			if ended := m.client.gone || m.client.gotEnd; ended == c.again {
				t.Errorf("the client's connection has ended: %v", ended)
			}
		})
	}
}

func TestAbsoluteTargetReplacesHost(t *testing.T) {
	app, heads := rawApp(t, ok)
	p := start(t, app)
	p.route(t, "a", endpointOf("x", app))
	for request, want := range map[string]string{
		"GET http://u@y:1/z HTTP/1.1\r\nHost: x\r\nBaggage: detour-key=a\r\n\r\n": "GET http://u@y:1/z HTTP/1.1\r\nHost: y:1\r\nBaggage: detour-key=a\r\n\r\n",
		"GET http://y/z HTTP/1.1\r\nHost: x\r\n\r\n":                              "GET http://y/z HTTP/1.1\r\nHost: x\r\n\r\n",
	} {
		exchange(t, p.addr(), request, "hi")
		if got := receive(t, heads); got != want {
			t.Errorf("got\n%q, want\n%q", got, want)
		}
	}
}

func TestClientAddressForwarded(t *testing.T) {
	app, heads := rawApp(t, ok)
	p := start(t, app, func(c *Config) { c.Sidecar.ClientAddress = api.ClientForwarded })
	exchange(t, p.addr(), "GET / HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 1.2.3.4\r\n\r\n", "hi")
	want := "GET / HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 1.2.3.4\r\nX-Forwarded-For: 127.0.0.1\r\nForwarded: for=127.0.0.1\r\n\r\n"
	if got := receive(t, heads); got != want {
		t.Errorf("got\n%q, want\n%q", got, want)
	}
}

func TestProxyHeader(t *testing.T) {
	const signature = "\r\n\r\n\x00\r\nQUIT\n\x21"
	v6 := strings.Repeat("\x00", 10) + "\xff\xff"
	for name, c := range map[string]struct{ from, to, want string }{
		"IPv4":  {"10.0.0.1:258", "10.0.0.2:80", "\x11\x00\x0c\x0a\x00\x00\x01\x0a\x00\x00\x02\x01\x02\x00\x50"},
		"mixed": {"[::1]:258", "10.0.0.2:80", "\x21\x00\x24" + strings.Repeat("\x00", 15) + "\x01" + v6 + "\x0a\x00\x00\x02\x01\x02\x00\x50"},
	} {
		got := string(proxyHeader(netip.MustParseAddrPort(c.from), netip.MustParseAddrPort(c.to)))
		if got != signature+c.want {
			t.Errorf("%s: got %q, want %q", name, got, signature+c.want)
		}
	}
}

func TestClientAddressForwardedInHTTP2(t *testing.T) {
	app := serveHTTP(t, func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, r.Header["X-Forwarded-For"], r.Header["Forwarded"])
	})
	p := start(t, app, func(c *Config) { c.Sidecar.ClientAddress = api.ClientForwarded })
	p.route(t, "a", endpointOf("x", app))
	c := clientH2C(t)
	for _, key := range []string{"Detour-Key: other", "Detour-Key: a", "X-None: 1"} {
		for range 2 {
			if _, body := get(t, c, p.url("/"), key, "X-Forwarded-For: 1.2.3.4"); body != "[1.2.3.4 127.0.0.1] [for=127.0.0.1]" {
				t.Errorf("%s: the app got %s", key, body)
			}
		}
	}
}

// TestClientAddressByProxyProtocol: connections begin with the client's address, those of server-first protocols too.
func TestClientAddressByProxyProtocol(t *testing.T) {
	app := serveTCP(t, func(c *net.TCPConn) {
		header := make([]byte, 28)
		io.ReadFull(c, header)
		fmt.Fprintf(c, "hello %s:%d\n", net.IP(header[16:20]), int(header[24])<<8|int(header[25]))
	})
	p := start(t, app, func(c *Config) { c.Sidecar.ClientAddress = api.ClientProxyProtocol })
	c := dialTCP(t, p.addr())
	line, err := bufio.NewReader(c).ReadString('\n')
	if want := fmt.Sprintf("hello %s\n", c.LocalAddr()); line != want || err != nil {
		t.Errorf("got %q, %v, want %q", line, err, want)
	}
}
