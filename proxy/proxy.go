// Package proxy is the data plane: the sidecar that stands in front of an app and sends each request either to it or
// to a preview.
//
// # The way of a request
//
// A connection comes in at a port that the proxy took over (listen.go). The app is dialled at once, and whichever
// side speaks first decides what the connection carries (sniff.go): a server that greets, TLS, and everything that is
// not HTTP is copied both ways (tcp.go). Otherwise the two connections are a pair (pair.go), and the client's requests
// are taken one by one (http.go): the keys that a request carries (carrier.go) are looked up in the table in force
// (table.go), and a pure function says where it goes (decide.go): to the app over the connection that was dialled for
// this client, to a preview over one that is opened when first needed (both upstream.go), or nowhere, with an answer
// that says why (refusal.go). A connection that upgrades becomes a tunnel (tunnel.go).
//
// The table comes from the router (router.go) or from a file (file.go). Without either everything goes to the app,
// except requests that carry a key: those are answered 503, since nobody can say whose they are.
//
// # How it is used
//
//	p, err := proxy.New(proxy.Config{Sidecar: sidecar, Log: log})
//	err = p.Run(ctx)
//
// # What it does not do yet
//
// HTTP is parsed and written by net/http and golang.org/x/net/http2. What an app or a client can see of that:
//
//   - HTTP/1.1 header names are written in canonical case and sorted, the reason phrase is the standard one, chunks are
//     cut anew and their extensions dropped, trailers of requests pass if announced only.
//   - A request that net/http cannot parse (Host missing or twice, a space before the colon, a bare CR, a path with a bad
//     percent sign, a head of more than 1 MiB) is answered 4xx by it, with a key or without. Only a connection that
//     begins with no HTTP at all is passed through. An unknown Expect is answered 417, and CONNECT 405 on a connection
//     that began with another method. A Content-Length beside Transfer-Encoding is dropped, and Transfer-Encoding of an
//     HTTP/1.0 request ignored.
//   - An HTTP/1.0 request or answer becomes one of HTTP/1.1. A Content-Length on a 304 is dropped; a POST without a body
//     gets Content-Length: 0.
//   - A client that closes its half of an HTTP/1 connection before its answer has come is taken to have left, and the
//     app's connection is closed (golang/go#18527). TCP connections and tunnels do half-close.
//   - The app's 100 Continue is waited for one second, then the body is asked for as net/http's own client does.
//   - The 408 or whatever else an app says on an idle HTTP/1 connection before it closes it is lost; the closing is not.
//   - HTTP/2 streams that the app or a preview resets are reset as INTERNAL_ERROR, whatever the code was, and framing,
//     flow control windows and SETTINGS are ours; cookie fields may be split or joined. A GOAWAY of the app becomes one
//     of ours with the next answer; requests that come in between go to a new connection. Extended CONNECT is off.
//
// No connection has a deadline of ours, except that an endpoint of a preview has three seconds to accept one.
package proxy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/detour-dev/detour/api"
)

// Config is what a [Proxy] is built from.
type Config struct {
	// Sidecar says which ports to take, where the app and the router are, and which Pod this is. A port to listen on
	// may be 0: the kernel picks one, see [Proxy.Addr].
	Sidecar api.Sidecar
	// RoutesFile is read instead of asking the router, and reread when it changes. It holds one [api.Table] as JSON,
	// whose version may be left out. An endpoint at one of Sidecar.PodIPs is the app, as always. None by default.
	RoutesFile string
	// TokenFile and CAFile are shown to and checked against the router. They are [api.TokenFile] and [api.CAFile] by
	// default, and need not exist yet.
	TokenFile, CAFile string
	// Grace is how long open connections may go on once Run's context is done; 5 s by default.
	Grace time.Duration
	// Log gets state changes at Info and single requests at Debug; nothing by default.
	Log *slog.Logger
}

func (c Config) withDefaults() Config {
	if c.TokenFile == "" {
		c.TokenFile = api.TokenFile
	}
	if c.CAFile == "" {
		c.CAFile = api.CAFile
	}
	if c.Grace == 0 {
		c.Grace = 5 * time.Second
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return c
}

func (c Config) check() error {
	switch {
	case len(c.Sidecar.Ports) == 0:
		return errors.New("there is no port to take over")
	case len(c.Sidecar.PodIPs) == 0:
		return errors.New("the Pod's addresses are missing")
	}
	return nil
}

// Proxy serves the ports of one Pod.
type Proxy struct {
	cfg    Config
	log    *slog.Logger
	meters *meters

	table atomic.Pointer[table] // nil until the first one has come
	ready atomic.Bool

	ports []port
	admin net.Listener
	pairs pairs

	http       *http.Server // serves the client's side of HTTP connections
	queue      *queue       // hands them to it
	transports transports   // the other side
}

// New binds all ports; [Proxy.Run] serves and closes them.
func New(cfg Config) (*Proxy, error) {
	cfg = cfg.withDefaults()
	if err := cfg.check(); err != nil {
		return nil, err
	}
	p := &Proxy{cfg: cfg, log: cfg.Log, queue: newQueue(), transports: newTransports()}
	p.meters = newMeters(&p.table)
	p.http = newServer(p.log)
	for _, taken := range cfg.Sidecar.Ports {
		l, err := listen(taken.Listen)
		if err != nil {
			p.closeListeners()
			return nil, fmt.Errorf("port %q: %w", taken.Name, err)
		}
		p.ports = append(p.ports, port{taken, l})
	}
	var err error
	if p.admin, err = listen(cfg.Sidecar.AdminPort); err != nil {
		p.closeListeners()
		return nil, fmt.Errorf("admin port: %w", err)
	}
	return p, nil
}

// Addr is where the proxy listens in place of the app's port; nil if it does not.
func (p *Proxy) Addr(app uint16) net.Addr {
	for _, port := range p.ports {
		if port.App == app {
			return port.listener.Addr()
		}
	}
	return nil
}

// AdminAddr is where probes and metrics are served.
func (p *Proxy) AdminAddr() net.Addr { return p.admin.Addr() }

// Run serves until ctx is done and open connections have ended or used up their grace. It may be called once.
func (p *Proxy) Run(ctx context.Context) error {
	hard, cut := context.WithCancel(context.WithoutCancel(ctx)) // ends what the grace leaves over
	defer cut()
	var background, accepting sync.WaitGroup
	admin := p.adminServer()
	background.Go(func() { p.serve(admin, p.admin) })
	background.Go(func() { p.serve(p.http, p.queue) })
	source := p.tableSource()
	background.Go(func() { source.run(ctx) })
	for _, port := range p.ports {
		accepting.Go(func() { p.accept(hard, port) })
		p.log.Info("port taken", "port", port.Name, "listen", port.listener.Addr().String(), "app", port.App)
	}
	p.ready.Store(true)
	<-ctx.Done()

	// The order of shutting down. A native sidecar is told to end after its app has, so little is left to be done.
	// 1. Connect no more, and let the accept loops end, so that no connection can appear behind our back.
	p.ready.Store(false)
	p.closeTaken()
	accepting.Wait()
	// 2. Close idle HTTP/1 connections, announce the end on HTTP/2, and give what is going on its grace.
	p.drain()
	// 3. Cut what is left: dialling, copying, requests.
	cut()
	p.pairs.closeAll()
	p.finish(p.http)
	// 4. Probes and metrics go last; the table's source has ended with ctx.
	p.finish(admin)
	background.Wait()
	return nil
}

func (p *Proxy) serve(s *http.Server, l net.Listener) {
	if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		p.log.Error("serving ended", "listen", l.Addr().String(), "error", err)
	}
}

func (p *Proxy) drain() {
	grace, cancel := context.WithTimeout(context.Background(), p.cfg.Grace)
	defer cancel()
	if err := p.http.Shutdown(grace); err != nil {
		p.log.Warn("requests outlast the grace", "grace", p.cfg.Grace)
	}
	if !p.pairs.wait(grace) {
		p.log.Warn("connections outlast the grace", "grace", p.cfg.Grace)
	}
}

// finish waits for handlers whose connections are closed already; one second is ample.
func (p *Proxy) finish(s *http.Server) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if s.Shutdown(ctx) != nil {
		s.Close()
	}
}

func (p *Proxy) closeTaken() {
	for _, port := range p.ports {
		port.listener.Close()
	}
}

func (p *Proxy) closeListeners() {
	p.closeTaken()
	if p.admin != nil {
		p.admin.Close()
	}
}

// source brings tables until ctx is done.
type source interface{ run(ctx context.Context) }

func (p *Proxy) tableSource() source {
	switch {
	case p.cfg.RoutesFile != "":
		return newRoutesFile(p.cfg.RoutesFile, p)
	case p.cfg.Sidecar.Router != "":
		return newRouter(p.cfg, p)
	}
	return noSource{}
}

// noSource stands for a proxy that was given no router: it passes everything on.
type noSource struct{}

func (noSource) run(ctx context.Context) { <-ctx.Done() }

// apply puts t in force, or says why it cannot be; then the one before stays. Only the table's source calls it.
func (p *Proxy) apply(t api.Table) error {
	if err := t.Check(); err != nil {
		p.meters.failed(reasonTableRefused)
		return fmt.Errorf("table %q: %w", t.Version, err)
	}
	old := p.table.Load()
	p.table.Store(compile(t, p.cfg.Sidecar, old))
	if old == nil || old.version != t.Version {
		p.log.Info("table in force", "version", t.Version, "ports", len(t.Ports))
	}
	return nil
}

// ack says which table is in force and what its previews were sent.
func (p *Proxy) ack() api.Ack { return p.table.Load().ack() }
