package proxy

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/detour-dev/detour/api"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// The proxy and its app share one address, as in a Pod; previews have another.
var (
	loopback = netip.MustParseAddr("127.0.0.1")
	away     = netip.MustParseAddr("127.0.0.2")
)

// deadline bounds every wait of the tests.
const deadline = 10 * time.Second

// eventually polls until ok holds.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(deadline); !ok(); <-tick.C {
		if time.Now().After(end) {
			t.Fatalf("timed out: %s", what)
		}
	}
}

// running is a proxy under test in front of one app.
type running struct {
	*Proxy
	port uint16 // of the app
	logs *logs
}

// connections counts those that are open.
func (r *running) connections() (n int) {
	for _, l := range r.loops {
		l.call(func() { n += len(l.pairs) })
	}
	return n
}

// addr is where clients connect.
func (r *running) addr() string { return local(r.Addr(r.port)) }

func (r *running) url(path string) string { return "http://" + r.addr() + path }

// local is the loopback address of a listener on all addresses.
func local(a net.Addr) string {
	return netip.AddrPortFrom(loopback, a.(*net.TCPAddr).AddrPort().Port()).String()
}

// start runs a proxy in front of the app at addr until the test ends.
func start(t *testing.T, app net.Addr, change ...func(*Config)) *running {
	t.Helper()
	r := &running{port: app.(*net.TCPAddr).AddrPort().Port(), logs: &logs{}}
	cfg := Config{
		Sidecar: api.Sidecar{
			Ports:     []api.TakenPort{{Name: "http", App: r.port}},
			Namespace: "shop",
			Pod:       "api-0",
			PodIPs:    []netip.Addr{loopback},
		},
		Grace: 100 * time.Millisecond,
		Log:   r.logs.logger(),
	}
	for _, c := range change {
		c(&cfg)
	}
	var err error
	if r.Proxy, err = New(cfg); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- r.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-ended:
			if err != nil {
				t.Errorf("Run: %v", err)
			}
		case <-time.After(deadline):
			t.Error("Run does not end")
		}
		for p := range protocols {
			if n := r.meters.active[p].Get(); n != 0 {
				t.Errorf("%v %s connections are still counted as active", n, p)
			}
		}
	})
	return r
}

// route puts a table in force that leads key to endpoints. None of them means that the preview is not ready.
func (r *running) route(t *testing.T, key string, endpoints ...api.Endpoint) {
	t.Helper()
	r.tables(t, api.Route{Key: key, Preview: "deployment/" + key, Endpoints: endpoints})
}

func (r *running) tables(t *testing.T, routes ...api.Route) {
	t.Helper()
	r.put(t, api.Port{Port: r.port, Routes: routes})
}

func (r *running) put(t *testing.T, port api.Port) {
	t.Helper()
	table := api.Table{Ports: []api.Port{port}}
	table.Version = table.Hash()
	if err := r.apply(table); err != nil {
		t.Fatal(err)
	}
}

// endpointOf is a Pod of a preview.
func endpointOf(pod string, addr net.Addr) api.Endpoint {
	return api.Endpoint{Pod: "shop/" + pod, Address: netip.AddrPortFrom(away, addr.(*net.TCPAddr).AddrPort().Port())}
}

// refusing is an address where nobody listens.
func refusing(t *testing.T) net.Addr {
	t.Helper()
	l := listenLocal(t)
	l.Close()
	return l.Addr()
}

func listenLocal(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp4", ":0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// serveHTTP runs an app that speaks HTTP/1.1 and h2c.
func serveHTTP(t *testing.T, h http.HandlerFunc) net.Addr {
	t.Helper()
	return newHTTP(t, h).Listener.Addr()
}

func newHTTP(t *testing.T, h http.HandlerFunc) *httptest.Server {
	t.Helper()
	s := &httptest.Server{Listener: listenLocal(t), Config: &http.Server{Handler: h}}
	s.Config.Protocols = new(http.Protocols)
	s.Config.Protocols.SetHTTP1(true)
	s.Config.Protocols.SetUnencryptedHTTP2(true)
	s.Start()
	t.Cleanup(s.Close)
	return s
}

// named answers with its name.
func named(name string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		io.WriteString(w, name)
	}
}

// serveTCP runs an app that handles each connection with f, in a goroutine that the test waits for.
func serveTCP(t *testing.T, f func(*net.TCPConn)) net.Addr {
	t.Helper()
	l := listenLocal(t)
	var running sync.WaitGroup
	running.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			running.Go(func() {
				defer c.Close()
				c.SetDeadline(time.Now().Add(deadline))
				f(c.(*net.TCPConn))
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		running.Wait()
	})
	return l.Addr()
}

func dialTCP(t *testing.T, addr string) *net.TCPConn {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(deadline))
	return c.(*net.TCPConn)
}

// client is an HTTP/1.1 client with connections of its own.
func client(t *testing.T) *http.Client {
	tr := &http.Transport{DisableCompression: true}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: deadline}
}

// get asks for url with header lines "Name: value" and returns the answer with its body read.
func get(t *testing.T, c *http.Client, url string, lines ...string) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequest(http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	return do(t, c, req, lines...)
}

func do(t *testing.T, c *http.Client, req *http.Request, lines ...string) (*http.Response, string) {
	t.Helper()
	for _, line := range lines {
		name, value, _ := strings.Cut(line, ": ")
		req.Header.Add(name, value)
	}
	resp, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatalf("reading the answer: %v", err)
	}
	return resp, string(body)
}

// logs is what the proxy logged.
type logs struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logs) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logs) logger() *slog.Logger {
	return slog.New(slog.NewJSONHandler(l, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

func (l *logs) count(s string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.b.String(), s)
}

func TestAdmin(t *testing.T) {
	p := start(t, serveHTTP(t, named("baseline")))
	admin := "http://" + local(p.AdminAddr())
	c := client(t)
	for _, path := range []string{"/healthz", "/readyz"} {
		eventually(t, path, func() bool {
			resp, _ := get(t, c, admin+path)
			return resp.StatusCode == http.StatusOK
		})
	}
	p.route(t, "pr-42")
	get(t, c, p.url("/"))
	get(t, c, p.url("/"), "Detour-Key: pr-42")
	_, text := get(t, c, admin+"/metrics")
	for _, line := range []string{
		`detour_proxy_requests_total{route="baseline"} 1`,
		`detour_proxy_requests_total{route="preview"} 0`,
		`detour_proxy_requests_total{route="unavailable"} 1`,
		`detour_proxy_requests_total{route="no-table"} 0`,
		`detour_proxy_connections_total{protocol="http1"} 1`,
		`detour_proxy_connections_active{protocol="http1"} 1`,
		`detour_proxy_errors_total{reason="no-endpoint"} 1`,
		`detour_proxy_bytes_total{direction="received"} `,
		`detour_proxy_bytes_total{direction="sent"} `,
		`detour_proxy_table_info{version="` + p.table.Load().version + `"} 1`,
		`detour_proxy_router_connected 0`,
		`process_resident_memory_bytes `,
	} {
		if !strings.Contains(text, line) {
			t.Errorf("metrics lack %s", line)
		}
	}
}

func TestAdminRefuses(t *testing.T) {
	p := start(t, serveHTTP(t, named("baseline")))
	for request, want := range map[string]string{
		"GET /x HTTP/1.1\r\nHost: x\r\n\r\n":            "HTTP/1.1 404 Not Found\r\n",
		"POST /metrics HTTP/1.1\r\nHost: x\r\n\r\n":     "HTTP/1.1 405 Method Not Allowed\r\n",
		"GET /metrics\r\n\r\n":                          "HTTP/1.1 400 Bad Request\r\n",
		"GET /" + strings.Repeat("x", adminHead):        "HTTP/1.1 400 Bad Request\r\n",
		"GET /healthz?verbose HTTP/1.0\r\nX: y\r\n\r\n": "HTTP/1.1 200 OK\r\n",
	} {
		if got := exchange(t, local(p.AdminAddr()), request, ""); !strings.HasPrefix(got, want) {
			t.Errorf("%.40q: got %q", request, got)
		}
	}
}

func TestNewSaysWhatIsMissing(t *testing.T) {
	taken := listenLocal(t)
	port := taken.Addr().(*net.TCPAddr).AddrPort().Port()
	good := api.Sidecar{Ports: []api.TakenPort{{Name: "http", App: 8080}}, PodIPs: []netip.Addr{loopback}}
	for name, c := range map[string]struct {
		change func(*api.Sidecar)
		want   string
	}{
		"no port":      {func(s *api.Sidecar) { s.Ports = nil }, "no port"},
		"no address":   {func(s *api.Sidecar) { s.PodIPs = nil }, "addresses"},
		"port in use":  {func(s *api.Sidecar) { s.Ports = []api.TakenPort{{Name: "http", Listen: port, App: 1}} }, `port "http": listening on`},
		"admin in use": {func(s *api.Sidecar) { s.AdminPort = port }, `port "admin": listening on`},
	} {
		s := good
		c.change(&s)
		if _, err := New(Config{Sidecar: s}); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want one with %q", name, err, c.want)
		}
	}
}

// TestStop has an idle and a busy HTTP connection, a silent one and a TCP one open when the proxy is told to end.
func TestStop(t *testing.T) {
	reached, release := make(chan struct{}), make(chan struct{})
	app := serveHTTP(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			close(reached)
			<-release
		}
		io.WriteString(w, "served")
	})
	cfg := Config{
		Sidecar: api.Sidecar{
			Ports:  []api.TakenPort{{Name: "http", App: app.(*net.TCPAddr).AddrPort().Port()}},
			PodIPs: []netip.Addr{loopback},
		},
		Grace: deadline,
	}
	p, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- p.Run(ctx) }()
	addr := local(p.Addr(cfg.Sidecar.Ports[0].App))

	idle := client(t)
	get(t, idle, "http://"+addr+"/")
	answer := make(chan string, 1)
	go func() {
		_, body := get(t, client(t), "http://"+addr+"/slow")
		answer <- body
	}()
	<-reached
	cancel()
	eventually(t, "the port is closed", func() bool {
		c, err := net.Dial("tcp", addr)
		if err == nil {
			c.Close()
		}
		return err != nil
	})
	close(release)
	if got := <-answer; got != "served" {
		t.Errorf("the request under way got %q", got)
	}
	select {
	case err := <-ended:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(deadline / 2):
		t.Error("Run uses up the grace although nothing is left to do")
	}
}

func TestStopCutsWhatOutlastsTheGrace(t *testing.T) {
	app := serveTCP(t, func(c *net.TCPConn) { io.Copy(io.Discard, c) })
	var silent, speaking *net.TCPConn
	t.Run("", func(t *testing.T) {
		p := start(t, app)
		silent, speaking = dialTCP(t, p.addr()), dialTCP(t, p.addr())
		io.WriteString(speaking, "\x00")
		eventually(t, "both connections", func() bool { return p.connections() == 2 })
	}) // the proxy ends with this subtest, and start checks that it does
	for _, c := range []*net.TCPConn{silent, speaking} {
		if _, err := c.Read(make([]byte, 1)); err == nil || os.IsTimeout(err) {
			t.Errorf("the connection is still open: %v", err)
		}
	}
}

// TestGrace is what connections have once the proxy is told to end.
func TestGrace(t *testing.T) {
	for name, tc := range map[string]struct {
		pod, own, drained, want time.Duration
	}{
		"not known":             {want: 5 * time.Second},
		"the rest of the Pod's": {pod: 30 * time.Second, drained: 8 * time.Second, want: 21 * time.Second},
		"never asked to drain":  {pod: 30 * time.Second, want: 29 * time.Second},
		"none is left":          {pod: 5 * time.Second, drained: 8 * time.Second, want: -4 * time.Second},
		"its own":               {own: time.Second, pod: 30 * time.Second, want: time.Second},
	} {
		synctest.Test(t, func(t *testing.T) {
			p := &Proxy{cfg: Config{Grace: tc.own, Sidecar: api.Sidecar{Grace: tc.pod}}, began: time.Now()}
			time.Sleep(tc.drained)
			if got := p.grace(); got != tc.want {
				t.Errorf("%s: %v, want %v", name, got, tc.want)
			}
		})
	}
}

// nowPlus is a point in time.
func nowPlus(d string) time.Time {
	parsed, err := time.ParseDuration(d)
	if err != nil {
		panic(err)
	}
	return time.Now().Add(parsed)
}
