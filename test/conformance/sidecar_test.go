// Package conformance runs other people's suites, clients and servers against the sidecar as its users run it: the
// program cmd/proxy, with a routes file, between a client and an app. What each suite has to say of HTTP/2, gRPC,
// WebSocket, bad networks and raw HTTP/1.1 must be said of the app through the proxy as well, and of a preview for
// requests that carry its key.
//
//	hack/conformance
//	hack/conformance -test.run=TestGRPC
//
// The program comes in DETOUR_PROXY, the folder with npm's ws in DETOUR_NODE_PEER; curl, nghttp and varnishtest are
// found in the PATH. What is missing is a failure, never a skip. DETOUR_SOAK_CONNECTIONS says how many connections
// TestLeaks opens; 20,000 by default.
//
// Nothing here knows how the proxy works inside; see package proxy for tests that do.
package conformance

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/detour-dev/detour/api"
)

const (
	key      = "pr-1"            // leads to the preview
	servedBy = "shop/api-pr-1-0" // what the preview's answers say
)

// sidecar is a proxy process in front of an app.
type sidecar struct {
	addr   string // where it listens in the app's place
	admin  string
	app    uint16
	routes string // its file
	cmd    *exec.Cmd
	stderr *output
	exited chan struct{}
}

// startSidecar runs the proxy in front of the app with a table of these routes, and ends it with the test. Without any
// route it has an empty table.
func startSidecar(t testing.TB, app string, routes ...api.Route) *sidecar {
	t.Helper()
	s := newSidecar(t, app)
	s.routes = filepath.Join(t.TempDir(), "routes.json")
	version := s.publish(t, routes...)
	s.run(t, "-routes", s.routes)
	s.waitForTable(t, version)
	return s
}

// startSidecarWithoutTable runs the proxy as it is when it has never heard from a router.
func startSidecarWithoutTable(t testing.TB, app string) *sidecar {
	t.Helper()
	s := newSidecar(t, app)
	s.run(t)
	return s
}

func newSidecar(t testing.TB, app string) *sidecar {
	t.Helper()
	return &sidecar{app: netip.MustParseAddrPort(app).Port()}
}

func (s *sidecar) run(t testing.TB, args ...string) {
	t.Helper()
	program := os.Getenv("DETOUR_PROXY")
	if program == "" {
		t.Fatal("DETOUR_PROXY names no program; hack/conformance builds one and sets it")
	}
	// The program wants to be told its ports, and a free one may be taken before it gets there.
	for range 5 {
		listen, admin := freePort(t), freePort(t)
		s.addr, s.admin = fmt.Sprintf("127.0.0.1:%d", listen), fmt.Sprintf("127.0.0.1:%d", admin)
		s.stderr, s.exited = &output{}, make(chan struct{})
		s.cmd = exec.Command(program, args...)
		s.cmd.Env = append(os.Environ(),
			api.EnvPorts+"="+api.FormatPorts([]api.TakenPort{{Name: "http", Listen: listen, App: s.app}}),
			fmt.Sprintf("%s=%d", api.EnvAdminPort, admin),
			api.EnvPodIPs+"=127.0.0.1", api.EnvNamespace+"=shop", api.EnvPod+"=api-0")
		s.cmd.Stderr = s.stderr
		if err := s.cmd.Start(); err != nil {
			t.Fatal(err)
		}
		go func() {
			s.cmd.Wait()
			close(s.exited)
		}()
		if s.ready(t) {
			t.Cleanup(func() { s.stop(t) })
			return
		}
		<-s.exited
	}
	t.Fatalf("the proxy does not start:\n%s", s.stderr)
}

// ready waits until the proxy is; false means that it ended instead.
func (s *sidecar) ready(t testing.TB) bool {
	t.Helper()
	alive := true
	eventually(t, 10*time.Second, "the proxy is ready", func() error {
		select {
		case <-s.exited:
			alive = false
			return nil
		default:
		}
		_, err := get("http://" + s.admin + "/readyz")
		return err
	})
	return alive
}

// stop ends the proxy, which must have lived until now and end by itself.
func (s *sidecar) stop(t testing.TB) {
	s.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-s.exited:
	case <-time.After(15 * time.Second):
		s.cmd.Process.Kill()
		<-s.exited
		t.Error("the proxy did not end within 15 s of being told to")
	}
	if !s.cmd.ProcessState.Success() {
		t.Errorf("the proxy ended with %v", s.cmd.ProcessState)
	}
	if t.Failed() {
		t.Logf("the proxy said:\n%s", s.stderr)
	}
}

// publish replaces the routes file and says which version it has.
func (s *sidecar) publish(t testing.TB, routes ...api.Route) string {
	t.Helper()
	table := api.Table{Ports: []api.Port{{Port: s.app, Routes: routes}}}
	table.Version = table.Hash()
	b, err := json.Marshal(table)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(s.routes+".new", b, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(s.routes+".new", s.routes); err != nil {
		t.Fatal(err)
	}
	return table.Version
}

func (s *sidecar) waitForTable(t testing.TB, version string) {
	t.Helper()
	eventually(t, 5*time.Second, "table "+version+" is in force", func() error {
		metrics, err := get("http://" + s.admin + "/metrics")
		if err == nil && !strings.Contains(metrics, version) {
			err = errors.New("the metrics do not name it")
		}
		return err
	})
}

func (s *sidecar) url() string { return "http://" + s.addr }

// proc reads a file of the process in /proc.
func (s *sidecar) proc(name string) string {
	return filepath.Join("/proc", strconv.Itoa(s.cmd.Process.Pid), name)
}

// routeTo leads [key] to the preview at addr.
func routeTo(addr string) api.Route {
	return api.Route{Key: key, Preview: "deployment/api-pr-1",
		Endpoints: []api.Endpoint{{Pod: servedBy, Address: netip.MustParseAddrPort(addr)}}}
}

// otherRoutes are n routes of keys that no one uses, different for each generation.
func otherRoutes(n, generation int) []api.Route {
	routes := make([]api.Route, n)
	for i := range routes {
		routes[i] = api.Route{Key: fmt.Sprintf("other-%d-%d", generation, i), Preview: "deployment/other",
			Endpoints: []api.Endpoint{{Pod: "shop/other-0", Address: netip.MustParseAddrPort("127.0.0.3:9")}}}
	}
	return routes
}

// listenApp is where an app listens: at the Pod's own address.
func listenApp(t testing.TB) net.Listener { return listenAt(t, "127.0.0.1:0") }

// listenPreview is where a preview listens: at another address, since an endpoint at the Pod's own would be the app.
func listenPreview(t testing.TB) net.Listener { return listenAt(t, "127.0.0.2:0") }

func listenAt(t testing.TB, addr string) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// freePort is a port that nobody listened on a moment ago.
func freePort(t testing.TB) uint16 {
	t.Helper()
	l, err := net.Listen("tcp", ":0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return uint16(l.Addr().(*net.TCPAddr).Port)
}

// httpServer serves HTTP/1.1 and h2c until the test ends.
func httpServer(t testing.TB, l net.Listener, h http.Handler, settings ...*http.HTTP2Config) *http.Server {
	t.Helper()
	server := &http.Server{Handler: h, Protocols: new(http.Protocols), ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)}
	for _, s := range settings {
		server.HTTP2 = s
	}
	server.Protocols.SetHTTP1(true)
	server.Protocols.SetUnencryptedHTTP2(true)
	go server.Serve(l)
	t.Cleanup(func() { server.Close() })
	return server
}

// httpClient speaks HTTP/1.1, or h2c, and closes its connections when the test ends, idle or not.
func httpClient(t testing.TB, h2c bool) *http.Client {
	t.Helper()
	var mu sync.Mutex
	var conns []net.Conn
	t.Cleanup(func() {
		mu.Lock()
		defer mu.Unlock()
		for _, conn := range conns {
			conn.Close()
		}
	})
	transport := &http.Transport{Protocols: new(http.Protocols), DisableCompression: true}
	transport.Protocols.SetHTTP1(!h2c)
	transport.Protocols.SetUnencryptedHTTP2(h2c)
	transport.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := new(net.Dialer).DialContext(ctx, network, addr)
		if err == nil {
			mu.Lock()
			conns = append(conns, conn)
			mu.Unlock()
		}
		return conn, err
	}
	return &http.Client{Transport: transport, Timeout: time.Minute}
}

// get fetches a page that must be there.
func get(url string) (string, error) {
	client := http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Get(url)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", url, resp.Status)
	}
	return string(b), err
}

// dial connects and closes with the test. Nothing here may take longer than a minute.
func dial(t testing.TB, addr string) *net.TCPConn {
	t.Helper()
	conn, err := net.DialTimeout("tcp", addr, 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	conn.SetDeadline(time.Now().Add(time.Minute))
	t.Cleanup(func() { conn.Close() })
	return conn.(*net.TCPConn)
}

// eventually polls until check has nothing to complain of.
func eventually(t testing.TB, within time.Duration, what string, check func() error) {
	t.Helper()
	deadline := time.Now().Add(within)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for err := check(); err != nil; err = check() {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within %v: %v", what, within, err)
		}
		<-tick.C
	}
}

// receive waits for something to come.
func receive[T any](t testing.TB, c <-chan T, what string) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(20 * time.Second):
		t.Fatalf("%s: not within 20 s", what)
		panic("unreachable")
	}
}

// output collects what a process writes.
type output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}
