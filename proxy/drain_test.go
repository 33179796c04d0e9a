package proxy

import (
	"bufio"
	"container/heap"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"github.com/detour-dev/detour/api"
)

// drainNow does what the sidecar's preStop hook does, and waits until all connections have heard of it.
func (r *running) drainNow(t *testing.T) {
	t.Helper()
	if err := Drain(t.Context(), r.AdminAddr().(*net.TCPAddr).AddrPort().Port()); err != nil {
		t.Fatal(err)
	}
	r.connections()
}

// worker sends requests, one after the other. Those of HTTP/1 are of a kind that no client sends twice, so that a lost one
// shows. In HTTP/2 a client may send what a GOAWAY says was not processed; Go's needs GetBody for it, even where it had
// sent nothing yet.
type worker struct {
	client *http.Client
	http2  bool
	key    string
	want   string

	sent   atomic.Int64
	parted atomic.Bool // the last answer said that its connection ends
}

func (w *worker) run(url string, stop <-chan struct{}) error {
	for {
		select {
		case <-stop:
			return nil
		default:
		}
		if err := w.ask(url); err != nil {
			return err
		}
		w.sent.Add(1)
	}
}

func (w *worker) ask(url string) error {
	req, err := http.NewRequest(http.MethodPost, url, strings.NewReader("hello"))
	if err != nil {
		return err
	}
	if !w.http2 {
		req.GetBody = nil
	}
	if w.key != "" {
		req.Header.Set(api.HeaderKey, w.key)
	}
	resp, err := w.client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(resp.Body)
	if err != nil || string(got) != w.want || resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s, %q, %v, want %q", resp.Status, got, err, w.want)
	}
	w.parted.Store(resp.Close)
	return nil
}

// TestDrain is a Pod that ends under steady load: draining begins, the app serves on for a while, the app ends, and the
// proxy is told to. No request is lost.
func TestDrain(t *testing.T) {
	app := newHTTP(t, named("baseline"))
	p := start(t, app.Listener.Addr(), func(c *Config) { c.Grace = time.Hour }) // it is not needed
	p.route(t, "a", endpointOf("x", serveHTTP(t, named("preview"))))

	var workers, keepAlive []*worker
	add := func(c *http.Client, key, want string) *worker {
		w := &worker{client: c, key: key, want: want}
		workers = append(workers, w)
		return w
	}
	shared := clientH2C(t)
	for range 3 {
		fresh := client(t)
		fresh.Transport.(*http.Transport).DisableKeepAlives = true
		add(fresh, "", "baseline")
		for key, want := range map[string]string{"": "baseline", "a": "preview"} {
			keepAlive = append(keepAlive, add(client(t), key, want))
			add(clientH2C(t), key, want).http2 = true
			add(shared, key, want).http2 = true
		}
	}
	stop := make(chan struct{})
	var working sync.WaitGroup
	var lost atomic.Int64
	for _, w := range workers {
		working.Go(func() {
			if err := w.run(p.url("/"), stop); err != nil {
				lost.Add(1)
				t.Errorf("after %d requests with key %q: %v", w.sent.Load(), w.key, err)
			}
		})
	}
	more := func(what string) {
		before := make([]int64, len(workers))
		for i, w := range workers {
			before[i] = w.sent.Load()
		}
		for i, w := range workers {
			eventually(t, what, func() bool { return lost.Load() > 0 || w.sent.Load() >= before[i]+50 })
		}
	}
	more("before the Pod ends")
	p.drainNow(t)
	more("while the app serves on")
	close(stop)
	working.Wait()
	for _, w := range keepAlive {
		if !w.parted.Load() {
			t.Errorf("key %q: an answer does not say that its connection ends", w.key)
		}
	}
	if !p.ready.Load() {
		t.Error("it is not ready any more while the app serves")
	}
	app.CloseClientConnections()
	app.Close()
}

// TestIdleConnectionIsLeftToItsNextRequest: closing it could cross that request.
func TestIdleConnectionIsLeftToItsNextRequest(t *testing.T) {
	app, heads := rawApp(t, ok)
	p := start(t, app)
	c := dialTCP(t, p.addr())
	const request, last = "GET / HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi"
	io.WriteString(c, request)
	buf := make([]byte, len(ok))
	if _, err := io.ReadFull(c, buf); err != nil || string(buf) != ok {
		t.Fatalf("got %q, %v", buf, err)
	}
	p.drainNow(t)
	if n := p.connections(); n != 1 {
		t.Errorf("%d connections are open", n)
	}
	io.WriteString(c, request)
	if got, err := io.ReadAll(c); string(got) != last || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
	receive(t, heads)
	receive(t, heads)
	if got := exchange(t, p.addr(), request, ""); got != last { // on a new connection
		t.Errorf("got %q", got)
	}
}

// TestTunnelsAndStreamsOutliveDraining: they go on until they end themselves, and new ones may begin.
func TestTunnelsAndStreamsOutliveDraining(t *testing.T) {
	echoes := map[string]func(t *testing.T) (net.Addr, string, string){
		"TCP": func(t *testing.T) (net.Addr, string, string) {
			return serveTCP(t, func(c *net.TCPConn) {
				lines := bufio.NewScanner(c)
				for lines.Scan() {
					fmt.Fprintf(c, "tcp: %s\n", lines.Text())
				}
				io.WriteString(c, "tcp: bye\n")
			}), "\x01\n", "tcp: \x01\n"
		},
		"upgrade": func(t *testing.T) (net.Addr, string, string) {
			return upgrading(t, "ws"), upgradeRequest + "\r\n", "HTTP/1.1 101 Do It\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\nws: hello\n"
		},
	}
	for name, echo := range echoes {
		t.Run(name, func(t *testing.T) {
			app, opening, greeting := echo(t)
			p := start(t, app)
			begin := func() (*net.TCPConn, *bufio.Reader) {
				c := dialTCP(t, p.addr())
				io.WriteString(c, opening)
				r := bufio.NewReader(c)
				got := make([]byte, len(greeting))
				if _, err := io.ReadFull(r, got); err != nil || string(got) != greeting {
					t.Fatalf("got %q, %v", got, err)
				}
				return c, r
			}
			old, fromOld := begin()
			p.drainNow(t)
			late, fromLate := begin()
			for c, r := range map[*net.TCPConn]*bufio.Reader{old: fromOld, late: fromLate} {
				io.WriteString(c, "still there\n")
				if got, err := r.ReadString('\n'); !strings.HasSuffix(got, ": still there\n") {
					t.Errorf("got %q, %v", got, err)
				}
				c.CloseWrite()
				if got, err := io.ReadAll(r); !strings.HasSuffix(string(got), ": bye\n") || err != nil {
					t.Errorf("got %q, %v", got, err)
				}
			}
		})
	}
}

// TestStreamOutlivesDraining has a call of HTTP/2 open all the while.
func TestStreamOutlivesDraining(t *testing.T) {
	p := start(t, serveHTTP(t, func(w http.ResponseWriter, r *http.Request) {
		lines := bufio.NewScanner(r.Body)
		for http.NewResponseController(w).Flush(); lines.Scan(); http.NewResponseController(w).Flush() {
			fmt.Fprintln(w, lines.Text())
		}
	}))
	c := clientH2C(t)
	in, out := io.Pipe()
	req, err := http.NewRequest(http.MethodPost, p.url("/"), in)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	p.drainNow(t)
	resp2, err := c.Post(p.url("/"), "", strings.NewReader("another\n")) // on another connection
	if err != nil {
		t.Fatal(err)
	}
	defer resp2.Body.Close()
	if got, err := io.ReadAll(resp2.Body); string(got) != "another\n" || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
	io.WriteString(out, "still there\n")
	out.Close()
	if got, err := io.ReadAll(resp.Body); string(got) != "still there\n" || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
	eventually(t, "the connections end", func() bool { return p.meters.active[protocolHTTP2].Get() == 0 })
}

// TestDrainIsForThePodItself: nobody else in the cluster may end a Pod's connections.
func TestDrainIsForThePodItself(t *testing.T) {
	p := start(t, serveHTTP(t, named("baseline")))
	for _, from := range []string{"10.0.0.7:1", "[fd00::7]:1", "[::ffff:10.0.0.7]:1"} {
		if status, _ := p.orderToDrain(netip.MustParseAddrPort(from)); status != http.StatusForbidden || p.draining.Load() {
			t.Errorf("from %s: %d", from, status)
		}
	}
	if status, _ := p.orderToDrain(netip.AddrPort{}); status != http.StatusForbidden || p.draining.Load() {
		t.Errorf("from nobody: %d", status)
	}
	for _, from := range []string{"127.0.0.1:1", "[::1]:1", "[::ffff:127.0.0.1]:1"} {
		if status, _ := p.orderToDrain(netip.MustParseAddrPort(from)); status != http.StatusOK || !p.draining.Load() {
			t.Errorf("from %s: %d", from, status)
		}
	}
	resp, _ := get(t, client(t), "http://"+local(p.AdminAddr())+pathDrain)
	if resp.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("GET: %s", resp.Status)
	}
}

func TestDrainThatReachesNoProxy(t *testing.T) {
	port := refusing(t).(*net.TCPAddr).AddrPort().Port()
	if err := Drain(t.Context(), port); err == nil || !strings.Contains(err.Error(), "asking the proxy to drain") {
		t.Errorf("error %v", err)
	}
	silent := serveTCP(t, func(c *net.TCPConn) { io.Copy(io.Discard, c) })
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if err := Drain(ctx, silent.(*net.TCPAddr).AddrPort().Port()); err == nil {
		t.Error("no error")
	}
	old := serveHTTP(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNotFound) })
	if err := Drain(t.Context(), old.(*net.TCPAddr).AddrPort().Port()); err == nil || !strings.Contains(err.Error(), "404") {
		t.Errorf("error %v", err)
	}
}

func TestWithClose(t *testing.T) {
	for head, want := range map[string]string{
		"HTTP/1.1 200 OK\r\n\r\n":                                           "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n",
		"HTTP/1.1 200\r\nb:  c \r\nA: x\r\n\r\n":                            "HTTP/1.1 200\r\nb:  c \r\nA: x\r\nConnection: close\r\n\r\n",
		"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nA: b\r\n\r\n":         "HTTP/1.0 200 OK\r\nA: b\r\nConnection: close\r\n\r\n",
		"HTTP/1.1 200 OK\r\nconnection:Keep-Alive , Upgrade\r\n\r\n":        "HTTP/1.1 200 OK\r\nConnection: close, Upgrade\r\n\r\n",
		"HTTP/1.1 200 OK\r\nConnection: a\r\nCONNECTION: b,,\r\n\r\n":       "HTTP/1.1 200 OK\r\nConnection: close, a, b\r\n\r\n",
		"HTTP/1.1 200 OK\r\nConnection:\r\nX-Connection: keep\r\n\r\n":      "HTTP/1.1 200 OK\r\nX-Connection: keep\r\nConnection: close\r\n\r\n",
		"HTTP/1.1 200 OK\r\nKeep-Alive: timeout=5\r\nA: Connection\r\n\r\n": "HTTP/1.1 200 OK\r\nKeep-Alive: timeout=5\r\nA: Connection\r\nConnection: close\r\n\r\n",
	} {
		if got := withClose([]byte(head)); string(got) != want {
			t.Errorf("%q: got %q, want %q", head, got, want)
		}
	}
}

// TestAnswersWhileDraining has requests answered, the answers in pieces, and then another request follow.
func TestAnswersWhileDraining(t *testing.T) {
	const (
		request = "GET / HTTP/1.1\r\nHost: x\r\n\r\n"
		keyed   = "GET / HTTP/1.1\r\nHost: x\r\nDetour-Key: a\r\n\r\n"
		upgrade = upgradeRequest + "\r\n"
		closing = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi"
	)
	for name, c := range map[string]struct {
		requests string
		answers  []string
		want     string
		ends     bool // because of us
	}{
		"one":          {request, []string{ok}, closing, true},
		"in pieces":    {request, []string{ok[:9], ok[9:30], ok[30:]}, closing, true},
		"chunks":       {request, []string{"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2", "\r\nhi\r\n0\r\n\r\n"}, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n2\r\nhi\r\n0\r\n\r\n", true},
		"HEAD":         {"HEAD" + request[3:], []string{ok[:len(ok)-2]}, closing[:len(closing)-2], true},
		"no content":   {request, []string{"HTTP/1.1 204 No\r\n\r\n"}, "HTTP/1.1 204 No\r\nConnection: close\r\n\r\n", true},
		"HTTP/1.0":     {"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", []string{"HTTP/1.0 204 No\r\nConnection: keep-alive\r\n\r\n"}, "HTTP/1.0 204 No\r\nConnection: close\r\n\r\n", true},
		"100":          {request, []string{"HTTP/1.1 100 Go\r\n\r\n", ok}, "HTTP/1.1 100 Go\r\n\r\n" + closing, true},
		"preview":      {keyed, []string{ok}, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\nDetour-Served-By: " + previewPod + "\r\n\r\nhi", true},
		"pipelined":    {request + request, []string{ok + ok[:20], ok[20:]}, ok + closing, true},
		"a half more":  {request + request[:9], []string{ok}, ok, false},
		"early":        {"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n", []string{ok}, ok, false},
		"closes":       {request, []string{closing}, closing, false},
		"HTTP/1.0 end": {request, []string{"HTTP/1.0 204 No\r\n\r\n"}, "HTTP/1.0 204 No\r\n\r\n", false},
		"until end":    {request, []string{"HTTP/1.1 200 OK\r\n\r\nhi"}, "HTTP/1.1 200 OK\r\n\r\nhi", false},
		"in doubt":     {request, []string{"HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\nhi"}, "HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\nhi", false},
		"tunnel":       {upgrade, []string{"HTTP/1.1 101 Do\r\nUpgrade: echo\r\nConnection: upgrade\r\n\r\nhi"}, "HTTP/1.1 101 Do\r\nUpgrade: echo\r\nConnection: upgrade\r\n\r\nhi", false},
		"no tunnel":    {upgrade, []string{ok}, closing, true},
	} {
		t.Run(name, func(t *testing.T) {
			m := newDrainMemory(t, func(p *Proxy) { p.draining.Store(true) })
			m.say(m.client, c.requests)
			up := m.dialled[len(m.dialled)-1]
			asked := len(up.got)
			for _, piece := range c.answers {
				m.say(up, piece)
			}
			if got := string(m.client.got); got != c.want || m.client.gotEnd != c.ends {
				t.Errorf("got %q (ends: %v), want\n%q (%v)", got, m.client.gotEnd, c.want, c.ends)
			}
			m.say(m.client, request)
			if on := len(up.got) > asked; on == c.ends {
				t.Errorf("what follows goes on: %v", on)
			}
		})
	}
}

// TestDrainingThatBeginsAmidAnAnswer: what the client has of a head cannot be taken back; the next answer says it.
func TestDrainingThatBeginsAmidAnAnswer(t *testing.T) {
	for _, cut := range []int{9, len(ok) - 1} {
		m := newDrainMemory(t, func(*Proxy) {})
		for range 2 {
			m.say(m.client, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
			m.say(m.dialled[0], ok[:cut])
			m.proxy.draining.Store(true)
			m.say(m.dialled[0], ok[cut:])
		}
		if got := string(m.client.got); got != ok+string(withClose([]byte(ok[:len(ok)-2])))+"hi" || !m.client.gotEnd {
			t.Errorf("got %q", got)
		}
	}
}

// TestSlowClientIsNotCut: it has all the time that it takes to read the last answer of its connection.
func TestSlowClientIsNotCut(t *testing.T) {
	m := newDrainMemory(t, func(p *Proxy) { p.draining.Store(true) })
	m.say(m.client, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	m.say(m.dialled[0], ok)
	pass := func() {
		for range len(m.loop.timers) {
			heap.Pop(&m.loop.timers).(*timer).f()
		}
	}
	m.client.out.owned = []byte("not read yet")
	pass()
	if m.client.gone {
		t.Error("the answer is cut")
	}
	m.client.out.owned = nil
	pass()
	if !m.client.gone {
		t.Error("the connection does not end")
	}
}

// newDrainMemory is a connection to a proxy with a preview a.
func newDrainMemory(t *testing.T, change func(*Proxy)) *memory {
	p := newMemoryProxy(t, api.Route{Key: "a", Preview: "deployment/a", Endpoints: []api.Endpoint{
		{Pod: previewPod, Address: anyAddr.AddrPort()},
	}})
	change(p)
	m := newMemory(t, p, func(*wire) {})
	t.Cleanup(m.close)
	return m
}

// say has a far end send s.
func (m *memory) say(w *wire, s string) {
	w.unfed = append(w.unfed, s...)
	m.run()
	m.run() // what is dialled last is connected by then
}

// TestH2ConnectionThatComesWhileDraining is used before its client is told to go.
func TestH2ConnectionThatComesWhileDraining(t *testing.T) {
	m := newH2Memory(t)
	m.h.proxy.draining.Store(true)
	m.client.out.WriteString(http2.ClientPreface)
	m.client.framer.WriteSettings()
	m.client.send()
	m.h.drain() // as when draining begins
	m.client.expect()
	m.client.request(1, true)
	m.client.expect() // the app may not speak HTTP/2 at all
	m.app.framer.WriteSettings()
	m.app.framer.WriteSettingsAck()
	m.app.send()
	m.client.expect("SETTINGS 0 MAX_HEADER_LIST_SIZE=65536", "GOAWAY 0 2147483647 NO_ERROR", `PING 0 "detour\r\n"`, "SETTINGS 0 ACK")
	m.app.head(1, true, ":status", "200")
	m.client.expect("HEADERS 1 :status=200 END")

	m = opened(t)
	m.h.proxy.draining.Store(true)
	m.h.drain()
	m.client.expect()
	m.client.request(1, true)
	m.client.expect("GOAWAY 0 2147483647 NO_ERROR", `PING 0 "detour\r\n"`)
}

// TestH2AppThatGoesAwayAfterUs: no GOAWAY may allow more than the one before.
func TestH2AppThatGoesAwayAfterUs(t *testing.T) {
	m := opened(t)
	m.client.request(1, false)
	m.h.drain()
	m.h.drainNow()
	m.app.framer.WriteGoAway(h2MaxStream, http2.ErrCodeNo, nil)
	m.app.send()
	m.client.expect("GOAWAY 0 2147483647 NO_ERROR", `PING 0 "detour\r\n"`, "GOAWAY 0 1 NO_ERROR", "GOAWAY 0 1 NO_ERROR")

	m = opened(t)
	m.client.request(1, false)
	m.app.framer.WriteGoAway(1, http2.ErrCodeNo, nil)
	m.app.send()
	m.h.drain()
	m.client.expect("GOAWAY 0 1 NO_ERROR", "GOAWAY 0 1 NO_ERROR", `PING 0 "detour\r\n"`)
}
