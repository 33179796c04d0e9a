package conformance

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/detour-dev/detour/api"
)

// TestLeaks opens many connections of every kind, ended in every way, and then looks at what the proxy still has.
// DETOUR_SOAK_CONNECTIONS says how many; 20,000 by default.
func TestLeaks(t *testing.T) {
	total := 20_000
	if n := os.Getenv("DETOUR_SOAK_CONNECTIONS"); n != "" {
		var err error
		if total, err = strconv.Atoi(n); err != nil || total < 1000 {
			t.Fatalf("DETOUR_SOAK_CONNECTIONS=%q: want a number of 1000 at least", n)
		}
	}
	app, preview := listenApp(t), listenPreview(t)
	serveAnything(t, app)
	serveAnything(t, preview)
	s := startSidecar(t, app.Addr().String(), append(otherRoutes(20, 0),
		routeTo(preview.Addr().String()), api.Route{Key: "pr-none", Preview: "deployment/none"})...)

	fresh := held(t, s)
	connections(t, s, 500)
	before := settled(t, s, fresh, 2*time.Second)
	connections(t, s, total/2)
	half := settled(t, s, before, 20*time.Second)
	connections(t, s, total-total/2)
	after := settled(t, s, before, 20*time.Second)
	t.Logf("fresh %+v, warm %+v, half-way %+v, after %+v", fresh, before, half, after)
	if after.sockets > fresh.sockets {
		t.Errorf("%d sockets are open after %d connections, %d before them", after.sockets, total, fresh.sockets)
		blame(t, s)
	}
	if after.descriptors > before.descriptors+32 { // pipes for splicing may be kept for reuse
		t.Errorf("%d descriptors are open after %d connections, %d before them", after.descriptors, total, before.descriptors)
	}
	if after.goroutines > before.goroutines+2 {
		t.Errorf("%d goroutines live after %d connections, %d before them", after.goroutines, total, before.goroutines)
	}
	if after.threads > half.threads+8 {
		t.Errorf("%d threads live after %d connections, %d half-way", after.threads, total, half.threads)
	}
	if grown := after.resident - half.resident; grown > 16<<10 {
		t.Errorf("%d KiB are resident after %d connections, %d KiB half-way", after.resident, total, half.resident)
	}
}

// blame says which kinds of connections leave sockets behind.
func blame(t *testing.T, s *sidecar) {
	t.Helper()
	for _, kind := range connectionKinds {
		before := held(t, s)
		for range 20 {
			if err := kind.open(s.addr); err != nil {
				t.Errorf("%s: %v", kind.name, err)
			}
		}
		if left := settled(t, s, before, 3*time.Second).sockets - before.sockets; left > 0 {
			t.Errorf("20 connections of the kind %q leave %d sockets", kind.name, left)
		}
	}
}

// holdings are what a process has.
type holdings struct {
	descriptors, sockets, threads, goroutines int
	resident                                  int // KiB
}

// settled are those of the proxy once it has no more sockets and goroutines than before, or at the end of the time.
func settled(t *testing.T, s *sidecar, before holdings, within time.Duration) holdings {
	t.Helper()
	deadline := time.Now().Add(within)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	now := held(t, s)
	for time.Now().Before(deadline) && (now.sockets > before.sockets || now.goroutines > before.goroutines) {
		<-tick.C
		now = held(t, s)
	}
	return now
}

func held(t *testing.T, s *sidecar) holdings {
	t.Helper()
	var h holdings
	fds, err := os.ReadDir(s.proc("fd"))
	if err != nil {
		t.Fatal(err)
	}
	h.descriptors = len(fds)
	for _, fd := range fds {
		if target, _ := os.Readlink(filepath.Join(s.proc("fd"), fd.Name())); strings.HasPrefix(target, "socket:") {
			h.sockets++
		}
	}
	status, err := os.ReadFile(s.proc("status"))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		fmt.Sscanf(line, "Threads: %d", &h.threads)
		fmt.Sscanf(line, "VmRSS: %d", &h.resident)
	}
	metrics, err := get("http://" + s.admin + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(metrics) {
		fmt.Sscanf(line, "go_goroutines %d", &h.goroutines)
	}
	return h
}

// connections opens n of them, 32 at a time. Those that are to be answered must be.
func connections(t *testing.T, s *sidecar, n int) {
	t.Helper()
	var next atomic.Int64
	var failures atomic.Int64
	var workers sync.WaitGroup
	for range 32 {
		workers.Go(func() {
			for {
				i := next.Add(1)
				if i > int64(n) {
					return
				}
				kind := connectionKinds[i%int64(len(connectionKinds))]
				if err := kind.open(s.addr); err != nil && failures.Add(1) <= 10 {
					t.Errorf("connection %d, %s: %v", i, kind.name, err)
				}
			}
		})
	}
	workers.Wait()
	if n := failures.Load(); n > 10 {
		t.Errorf("%d connections failed", n)
	}
}

const (
	plainGet = "GET / HTTP/1.1\r\nHost: a\r\n\r\n"
	keyedGet = "GET / HTTP/1.1\r\nHost: a\r\nDetour-Key: pr-1\r\n\r\n"
)

var connectionKinds = []struct {
	name string
	open func(addr string) error
}{
	{"one request", raw(plainGet, finish, 200)},
	{"one keyed request", raw(keyedGet, finish, 200)},
	{"requests by turns", raw(plainGet+keyedGet+plainGet+keyedGet, finish, 200, 200, 200, 200)},
	{"no endpoint", raw("GET / HTTP/1.1\r\nHost: a\r\nDetour-Key: pr-none\r\n\r\n", finish, 503)},
	{"upload", raw("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n"+strings.Repeat("x", 100_000), finish, 200)},
	{"keyed upload in chunks", raw("POST / HTTP/1.1\r\nHost: a\r\nDetour-Key: pr-1\r\nTransfer-Encoding: chunked\r\n\r\n2710\r\n"+strings.Repeat("x", 10_000)+"\r\n0\r\n\r\n", finish, 200)},
	{"closed by the app", raw("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", untilClosed, 200)},
	{"closed by the preview", raw("GET / HTTP/1.1\r\nHost: a\r\nDetour-Key: pr-1\r\nConnection: close\r\n\r\n", untilClosed, 200)},
	{"half-closed when answered", raw(plainGet+keyedGet, halfClose, 200, 200)},
	{"reset after its answer", raw(keyedGet, reset, 200)},
	{"reset before its answer", raw("GET /never HTTP/1.1\r\nHost: a\r\n\r\n", reset)},
	{"reset before its keyed answer", raw("GET /never HTTP/1.1\r\nHost: a\r\nDetour-Key: pr-1\r\n\r\n", reset)},
	{"reset in its body", raw("POST / HTTP/1.1\r\nHost: a\r\nDetour-Key: pr-1\r\nContent-Length: 9\r\n\r\nfour", reset)},
	{"closed in its head", raw("GET / HTTP/1.1\r\nHo", finish)},
	{"nothing said", raw("", finish)},
	{"nothing said, reset", raw("", reset)},
	{"upgraded", raw("GET /upgrade HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n", finish, 101)},
	{"upgraded by the preview, reset", raw("GET /upgrade HTTP/1.1\r\nHost: a\r\nDetour-Key: pr-1\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n", reset, 101)},
	{"tcp", tcpEcho(halfClose)},
	{"tcp, closed", tcpEcho(finish)},
	{"tcp, reset", tcpEcho(reset)},
	{"h2c", h2cRequests},
	{"h2c, given up", h2cGivenUp},
	{"h2c, reset in its preface", raw("PRI * HTTP/2.0\r\n\r\nSM", reset)},
}

// raw sends a text, reads answers of these statuses, and ends the connection somehow.
func raw(text string, end func(*net.TCPConn) error, statuses ...int) func(string) error {
	return func(addr string) error {
		conn, err := dialSoon(addr)
		if err != nil {
			return err
		}
		defer conn.Close()
		if _, err := io.WriteString(conn, text); err != nil {
			return err
		}
		answers := bufio.NewReader(conn)
		for _, want := range statuses {
			resp, err := http.ReadResponse(answers, nil)
			if err != nil {
				return err
			}
			if resp.StatusCode != want {
				return fmt.Errorf("%s, want %d", resp.Status, want)
			}
			if want == http.StatusSwitchingProtocols {
				break
			}
			if _, err := io.Copy(io.Discard, resp.Body); err != nil {
				return err
			}
		}
		return end(conn)
	}
}

func dialSoon(addr string) (*net.TCPConn, error) {
	conn, err := net.DialTimeout("tcp", addr, 10*time.Second)
	if err != nil {
		return nil, err
	}
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	return conn.(*net.TCPConn), nil
}

func finish(conn *net.TCPConn) error { return conn.Close() }

func reset(conn *net.TCPConn) error { return errors.Join(conn.SetLinger(0), conn.Close()) }

func untilClosed(conn *net.TCPConn) error {
	if n, err := io.Copy(io.Discard, conn); n > 0 || err != nil {
		return fmt.Errorf("%d bytes and %w after the answer, want its end", n, err)
	}
	return nil
}

func halfClose(conn *net.TCPConn) error {
	if err := conn.CloseWrite(); err != nil {
		return err
	}
	_, err := io.Copy(io.Discard, conn)
	return err
}

func tcpEcho(end func(*net.TCPConn) error) func(string) error {
	return func(addr string) error {
		conn, err := dialSoon(addr)
		if err != nil {
			return err
		}
		defer conn.Close()
		sent := append([]byte(notHTTP), blob(20_000)...)
		go conn.Write(sent)
		got := make([]byte, len(sent))
		if _, err := io.ReadFull(conn, got); err != nil {
			return err
		}
		if !bytes.Equal(got, sent) {
			return errors.New("the echo differs")
		}
		return end(conn)
	}
}

func h2cTransport() *http.Transport {
	transport := &http.Transport{Protocols: new(http.Protocols)}
	transport.Protocols.SetUnencryptedHTTP2(true)
	return transport
}

// h2cRequests makes four requests on a connection, two of them keyed.
func h2cRequests(addr string) error {
	transport := h2cTransport()
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport, Timeout: 20 * time.Second}
	for i := range 4 {
		req, err := http.NewRequest("POST", "http://"+addr, strings.NewReader("body"))
		if err != nil {
			return err
		}
		if i%2 == 1 {
			req.Header.Set(api.HeaderKey, key)
		}
		if _, _, err := fetch(client, req); err != nil {
			return err
		}
	}
	return nil
}

// h2cGivenUp cancels two requests that are never answered.
func h2cGivenUp(addr string) error {
	transport := h2cTransport()
	defer transport.CloseIdleConnections()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	for _, keyed := range []bool{false, true} {
		req, err := http.NewRequestWithContext(ctx, "GET", "http://"+addr+"/begun", nil)
		if err != nil {
			return err
		}
		if keyed {
			req.Header.Set(api.HeaderKey, key)
		}
		resp, err := transport.RoundTrip(req)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
	}
	return nil
}

// notHTTP is what a connection begins with that is to be echoed.
const notHTTP = "ECHO\n"

// serveAnything echoes TCP and speaks HTTP/1.1 and h2c on one port.
func serveAnything(t *testing.T, l net.Listener) {
	t.Helper()
	web := &handedOver{Listener: l, conns: make(chan net.Conn), done: make(chan struct{})}
	httpServer(t, web, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/never":
			<-r.Context().Done()
		case "/begun":
			http.NewResponseController(w).Flush()
			<-r.Context().Done()
		case "/upgrade":
			conn, _, err := http.NewResponseController(w).Hijack()
			if err != nil {
				return
			}
			defer conn.Close()
			io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n")
			io.Copy(io.Discard, conn)
		default:
			io.Copy(io.Discard, r.Body)
			io.WriteString(w, "answer")
		}
	}))
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go web.sort(conn.(*net.TCPConn))
		}
	}()
}

// handedOver is a listener for the connections that turn out to be HTTP.
type handedOver struct {
	net.Listener
	conns   chan net.Conn
	done    chan struct{}
	closing sync.Once
}

func (h *handedOver) Accept() (net.Conn, error) {
	select {
	case conn := <-h.conns:
		return conn, nil
	case <-h.done:
		return nil, net.ErrClosed
	}
}

func (h *handedOver) Close() error {
	h.closing.Do(func() { close(h.done) })
	return h.Listener.Close()
}

// sort echoes a connection or hands it over.
func (h *handedOver) sort(conn *net.TCPConn) {
	r := bufio.NewReaderSize(conn, 4096)
	if first, err := r.Peek(1); err != nil || first[0] == notHTTP[0] {
		defer conn.Close()
		io.Copy(conn, r)
		return
	}
	h.handOver(&peekedConn{conn, r})
}

func (h *handedOver) handOver(conn net.Conn) {
	select {
	case h.conns <- conn:
	case <-h.done:
		conn.Close()
	}
}

// peekedConn is a connection some of which has been read ahead.
type peekedConn struct {
	*net.TCPConn
	r *bufio.Reader
}

func (c *peekedConn) Read(p []byte) (int, error) { return c.r.Read(p) }
