package proxy

import (
	"context"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/detour-dev/detour/api"
)

// fakeRouter is a router that sends the lines it is given to whoever shows its token.
type fakeRouter struct {
	*httptest.Server
	dir string // of the sidecar's token and CA

	mu      sync.Mutex
	token   string
	lines   []string      // for each stream, from its beginning
	changed chan struct{} // closed when lines change or streams are cut
	cut     int           // streams up to this one are cut
	streams int
	protos  []string
	acks    []api.Ack
}

func newFakeRouter(t *testing.T) *fakeRouter {
	f := &fakeRouter{dir: t.TempDir(), token: "secret", changed: make(chan struct{})}
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+api.PathRoutes, f.stream)
	mux.HandleFunc("POST "+api.PathAcks, f.ack)
	f.Server = httptest.NewTLSServer(mux)
	t.Cleanup(f.Close)
	return f
}

func (f *fakeRouter) update(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
	close(f.changed)
	f.changed = make(chan struct{})
}

func (f *fakeRouter) send(line string) { f.update(func() { f.lines = append(f.lines, line) }) }

func (f *fakeRouter) allowed(w http.ResponseWriter, r *http.Request) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.protos = append(f.protos, r.Proto)
	ok := r.Header.Get("Authorization") == "Bearer "+f.token
	if !ok {
		http.Error(w, "this token is not for me", http.StatusUnauthorized)
	}
	return ok
}

func (f *fakeRouter) stream(w http.ResponseWriter, r *http.Request) {
	if !f.allowed(w, r) {
		return
	}
	f.mu.Lock()
	f.streams++
	me := f.streams
	f.mu.Unlock()
	for sent := 0; ; {
		f.mu.Lock()
		lines, changed, cut := f.lines[sent:], f.changed, f.cut >= me
		f.mu.Unlock()
		if cut {
			panic(http.ErrAbortHandler)
		}
		for _, line := range lines {
			fmt.Fprintln(w, line)
		}
		sent += len(lines)
		http.NewResponseController(w).Flush()
		select {
		case <-changed:
		case <-r.Context().Done():
			return
		}
	}
}

func (f *fakeRouter) ack(w http.ResponseWriter, r *http.Request) {
	if !f.allowed(w, r) {
		return
	}
	var a api.Ack
	if err := json.NewDecoder(r.Body).Decode(&a); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.acks = append(f.acks, a)
}

// acked reports whether want is the newest ack.
func (f *fakeRouter) acked(want api.Ack) func() bool {
	return func() bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		return len(f.acks) > 0 && cmp.Equal(want, f.acks[len(f.acks)-1])
	}
}

func (f *fakeRouter) tokenFile() string { return filepath.Join(f.dir, "token") }
func (f *fakeRouter) caFile() string    { return filepath.Join(f.dir, "ca.crt") }

func (f *fakeRouter) writeToken(t *testing.T, token string) {
	t.Helper()
	if err := os.WriteFile(f.tokenFile(), []byte(token+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
}

func (f *fakeRouter) writeCA(t *testing.T) {
	t.Helper()
	b := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: f.Certificate().Raw})
	if err := os.WriteFile(f.caFile(), b, 0o600); err != nil {
		t.Fatal(err)
	}
}

func tableLine(port uint16, key string, endpoints ...api.Endpoint) string {
	t := api.Table{Ports: []api.Port{{Port: port, Routes: []api.Route{{Key: key, Preview: "deployment/" + key, Endpoints: endpoints}}}}}
	t.Version = "version of " + key
	b, err := json.Marshal(t)
	if err != nil {
		panic(err)
	}
	return string(b)
}

// TestRouter follows a proxy from its start without any credentials through what can happen to its router.
func TestRouter(t *testing.T) {
	f := newFakeRouter(t)
	preview := endpointOf("x", serveHTTP(t, named("preview")))
	p := start(t, serveHTTP(t, named("baseline")), func(c *Config) {
		c.Sidecar.Router, c.TokenFile, c.CAFile = f.URL, f.tokenFile(), f.caFile()
	})
	c := client(t)
	answer := func(key string) string {
		resp, body := get(t, c, p.url("/"), "Detour-Key: "+key)
		if resp.StatusCode != http.StatusOK {
			return resp.Header.Get(api.HeaderError)
		}
		return body
	}
	answers := func(key, want string) func() bool { return func() bool { return answer(key) == want } }

	// Nothing is there yet: ready, and the app is served.
	const lost = "no table stream from the router"
	eventually(t, "the missing CA is logged", func() bool { return p.logs.count(lost) == 1 })
	if resp, _ := get(t, c, "http://"+local(p.AdminAddr())+"/readyz"); resp.StatusCode != http.StatusOK {
		t.Error("not ready without a router")
	}
	if _, body := get(t, c, p.url("/")); body != "baseline" {
		t.Errorf("got %q", body)
	}
	if got := answer("a"); got != "no-table" {
		t.Errorf("got %q", got)
	}
	f.writeCA(t)
	eventually(t, "the missing token is logged", func() bool { return p.logs.count(lost) == 2 })
	f.writeToken(t, "wrong")
	eventually(t, "the 401 is logged", func() bool { return p.logs.count("401 Unauthorized") > 0 })

	// The right token, and a table.
	f.send("")
	f.send(tableLine(p.port, "a", preview))
	f.writeToken(t, "secret")
	eventually(t, "the table is in force", answers("a", "preview"))
	eventually(t, "the table is acknowledged", func() bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		return len(f.acks) > 0 && f.acks[0].Version == "version of a"
	})
	if p.meters.routerConnected.Get() != 1 {
		t.Error("the gauge says that the router is not connected")
	}

	// A table that cannot be used is not taken, and not acknowledged as if it were; the next one is.
	f.send(`{"version":"bad","ports":[{"port":0}]}`)
	f.send(tableLine(p.port, "b"))
	eventually(t, "the next table is in force", answers("b", "no-endpoint"))
	f.send(tableLine(p.port, "c", preview))
	eventually(t, "the newest table is in force", answers("c", "preview"))
	f.mu.Lock()
	for _, a := range f.acks {
		if a.Version == "bad" {
			t.Error("a table that was refused has been acknowledged")
		}
	}
	f.mu.Unlock()

	// The stream breaks: the last table stays, and the proxy comes back with the token as it is by then.
	f.update(func() {
		f.token = "renewed"
		f.lines = append(f.lines, tableLine(p.port, "d", preview))
		f.cut = f.streams
	})
	eventually(t, "the loss is noticed", func() bool { return p.meters.routerConnected.Get() == 0 })
	if got := answer("c"); got != "preview" {
		t.Errorf("without a router the last table is not in force: %q", got)
	}
	f.writeToken(t, "renewed")
	eventually(t, "the proxy is back", answers("d", "preview"))
	before := p.ack().Previews["deployment/d"].Requests
	if before == 0 {
		t.Error("the request was not counted")
	}
	for _, proto := range f.protos {
		if proto != "HTTP/1.1" {
			t.Errorf("the router was asked over %s", proto)
		}
	}
}

// fakeSink keeps the versions that it was given.
type fakeSink struct {
	mu       sync.Mutex
	versions []string
}

func (s *fakeSink) apply(t api.Table) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.versions = append(s.versions, t.Version)
	return t.Check()
}

func (s *fakeSink) ack() api.Ack {
	s.mu.Lock()
	defer s.mu.Unlock()
	a := api.Ack{Previews: map[string]api.Counters{"deployment/a": {Requests: uint64(len(s.versions))}}}
	if len(s.versions) > 0 {
		a.Version = s.versions[len(s.versions)-1]
	}
	return a
}

func (s *fakeSink) seen() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.versions)
}

// startRouterClient runs the client alone, with a clock of its own.
func startRouterClient(t *testing.T, f *fakeRouter, keepAlive, ackEvery time.Duration) (*fakeSink, *logs) {
	t.Helper()
	f.writeCA(t)
	f.writeToken(t, "secret")
	l := &logs{}
	sink := &fakeSink{}
	r := newRouter(Config{
		Sidecar: api.Sidecar{Router: f.URL + "/"}, TokenFile: f.tokenFile(), CAFile: f.caFile(), Log: l.logger(),
	}, &Proxy{meters: newMeters(nil)})
	r.to, r.keepAlive, r.ackEvery = sink, keepAlive, ackEvery
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		r.run(ctx)
	}()
	t.Cleanup(func() {
		stop()
		<-ended
	})
	return sink, l
}

func TestRouterThatFallsSilent(t *testing.T) {
	f := newFakeRouter(t)
	f.send(tableLine(1, "a"))
	sink, l := startRouterClient(t, f, 20*time.Millisecond, time.Hour)
	eventually(t, "the proxy connects again and again", func() bool { return sink.seen() >= 3 })
	if l.count("nothing heard for 60ms") == 0 {
		t.Error("the log does not say why")
	}
}

func TestRouterThatKeepsAlive(t *testing.T) {
	f := newFakeRouter(t)
	f.send(tableLine(1, "a"))
	sink, _ := startRouterClient(t, f, 200*time.Millisecond, time.Hour)
	eventually(t, "the table", func() bool { return sink.seen() == 1 })
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for range 50 { // for longer than silence would be borne
		<-tick.C
		f.send("")
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.streams != 1 {
		t.Errorf("%d streams, want 1", f.streams)
	}
}

func TestAcksGoOnWithoutTables(t *testing.T) {
	f := newFakeRouter(t)
	f.send(tableLine(1, "a"))
	startRouterClient(t, f, time.Hour, 10*time.Millisecond)
	eventually(t, "several acks", func() bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		return len(f.acks) >= 5
	})
	eventually(t, "the counters", f.acked(api.Ack{
		Version: "version of a", Previews: map[string]api.Counters{"deployment/a": {Requests: 1}},
	}))
}

func TestStreamThatIsNoTable(t *testing.T) {
	for name, line := range map[string]string{
		"no JSON":  "hello",
		"too long": `{"version":"` + string(make([]byte, maxTable)) + `"}`,
	} {
		t.Run(name, func(t *testing.T) {
			f := newFakeRouter(t)
			f.send(tableLine(1, "a"))
			f.send(line)
			sink, _ := startRouterClient(t, f, time.Hour, time.Hour)
			eventually(t, "the proxy connects again", func() bool { return sink.seen() >= 2 })
		})
	}
}

func TestRouterThatIsNotTrusted(t *testing.T) {
	f := newFakeRouter(t)
	f.send(tableLine(1, "a"))
	f.writeToken(t, "secret")
	other := pemOfAnotherCA(t)
	r := newRouter(Config{Sidecar: api.Sidecar{Router: f.URL}, TokenFile: f.tokenFile(), CAFile: f.caFile()}.withDefaults(),
		&Proxy{meters: newMeters(nil)})
	r.to = &fakeSink{}
	for name, ca := range map[string][]byte{"no certificate": []byte("hello"), "another CA": other} {
		if err := os.WriteFile(f.caFile(), ca, 0o600); err != nil {
			t.Fatal(err)
		}
		if heard, err := r.session(t.Context()); heard || err == nil {
			t.Errorf("%s: the router was believed: %v", name, err)
		}
	}
}

// pemOfAnotherCA is a certificate that has nothing to do with that of httptest.
func pemOfAnotherCA(t *testing.T) []byte {
	t.Helper()
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	ca := &x509.Certificate{SerialNumber: big.NewInt(1), IsCA: true, BasicConstraintsValid: true, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(nil, ca, ca, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}
