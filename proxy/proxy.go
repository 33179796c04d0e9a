// Package proxy is the data plane: the sidecar that stands in front of an app and sends each request either to it or
// to a preview.
//
// # The way of a request
//
// A few loops share the connections that come in at the ports which the proxy took over (listen.go). A loop (loop.go) is
// a thread's worth of sockets that never block (socket.go); whatever happens to one of them is told to its handler,
// which takes bytes and leaves bytes and does no input or output of its own. For each client the app is dialled at once,
// and the two are a pair (pair.go). Whichever side speaks first decides what the pair carries (sniff.go): a server that
// greets, TLS, and everything that is not HTTP is copied both ways (tcp.go).
//
// HTTP/1 (http1.go) is forwarded byte for byte: its heads (head.go) and bodies (body.go) are read only to know where a
// request begins and ends. HTTP/2 (http2.go) is forwarded frame by frame. In both, the keys that a request carries
// (carrier.go) are looked up in the table in force (table.go). Where it has none of them, the request is held against the
// table's matches (match.go, share.go), if there are any. A pure function says where it goes (decide.go): to the app on the
// connection that was dialled for this client; to a preview (attempt.go, http2_upstream.go) on one that is opened when
// first needed; or nowhere, with an answer that says why (refusal.go). What is changed on the way is in edit.go and
// http2_fields.go, and in docs/transparency.md for those who use it.
//
// Of a request to the app a preview may be sent a copy, by others than the loops (gather.go, mirror.go).
//
// Probes and metrics are served by the same loops (admin.go, metrics.go).
//
// The table comes from the router (router.go) or from a file (file.go). Without either everything goes to the app,
// except requests that carry a key: those are answered 503, since nobody can say whose they are.
//
// # In doubt, pass through
//
// An HTTP/1 request whose head could be read in two ways and that carries no key goes to the app as it is, and its
// connection is copied from then on: just what would happen without a proxy. With a key in any reading it is refused, and
// nothing of it has reached anyone. A match leads no such request to a preview, and leads others to the app if no
// endpoint of the preview can be reached: who merely meets one has not asked for anything.
//
// # When the Pod ends
//
// The sidecar's preStop hook asks for draining (drain.go): everything goes on, new connections too, but HTTP clients are
// told to go elsewhere, in the ways that cost no request. The context of [Proxy.Run] is done once the app has ended.
//
// # How it is used
//
//	p, err := proxy.New(proxy.Config{Sidecar: sidecar, Log: log})
//	err = p.Run(ctx)
//
// It runs on Linux only.
package proxy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

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
	// Grace is how long open connections may go on once Run's context is done. By default they have what is left of
	// Sidecar.Grace since the proxy was asked to drain, but for a second, or 5 s where the Pod's grace is not known.
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
	mirror *mirror

	table     atomic.Pointer[table] // nil until the first one has come
	ready     atomic.Bool
	draining  atomic.Bool // clients are asked to go elsewhere (drain.go)
	stopping  atomic.Bool // Run's context is done
	drainOnce sync.Once
	began     time.Time // when draining did

	ports  []port
	admin  port
	loops  []*loop
	open   sync.WaitGroup // the pairs of all loops
	routed atomic.Int64   // those whose requests are looked at
}

// maxLoops is enough: one serves tens of thousands of requests a second.
const maxLoops = 4

// New binds all ports; [Proxy.Run] serves and closes them.
func New(cfg Config) (*Proxy, error) {
	cfg = cfg.withDefaults()
	if err := cfg.check(); err != nil {
		return nil, err
	}
	p := assemble(cfg)
	if err := p.bind(); err != nil {
		p.unbind()
		return nil, err
	}
	return p, nil
}

// assemble makes a proxy that serves no port yet.
func assemble(cfg Config) *Proxy {
	p := &Proxy{cfg: cfg, log: cfg.Log}
	p.meters = newMeters(&p.table)
	p.mirror = newMirror(cfg, p.meters)
	return p
}

func (p *Proxy) bind() error {
	for _, taken := range p.cfg.Sidecar.Ports {
		port, err := bind(taken)
		if err != nil {
			return err
		}
		p.ports = append(p.ports, port)
	}
	for range min(maxLoops, runtime.GOMAXPROCS(0)) {
		l, err := newLoop()
		if err != nil {
			return err
		}
		p.loops = append(p.loops, l)
	}
	admin, err := bind(api.TakenPort{Name: "admin", Listen: p.cfg.Sidecar.AdminPort})
	if err != nil {
		return err
	}
	p.admin = admin
	return nil
}

// unbind undoes bind, as far as it has come.
func (p *Proxy) unbind() {
	p.closePorts()
	if p.admin.fd > 0 {
		unix.Close(p.admin.fd)
	}
	for _, l := range p.loops {
		l.close()
	}
}

func (p *Proxy) closePorts() {
	for _, port := range p.ports {
		unix.Close(port.fd)
	}
}

// Addr is where the proxy listens in place of the app's port; nil if it does not.
func (p *Proxy) Addr(app uint16) net.Addr {
	for _, port := range p.ports {
		if port.App == app {
			return port.address()
		}
	}
	return nil
}

// AdminAddr is where probes and metrics are served.
func (p *Proxy) AdminAddr() net.Addr { return p.admin.address() }

// Run serves until ctx is done and open connections have ended or used up their grace. It may be called once. An error
// means that it could not go on.
func (p *Proxy) Run(ctx context.Context) error {
	stopped, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	var background, looping sync.WaitGroup
	source := p.tableSource()
	background.Go(func() { source.run(ctx) })
	background.Go(func() { p.mirror.run(stopped) })
	broken := make(chan error, len(p.loops))
	for _, l := range p.loops {
		looping.Go(func() {
			if err := p.serve(stopped, l); err != nil {
				broken <- err
			}
		})
	}
	p.ready.Store(true)
	select {
	case <-ctx.Done():
	case err := <-broken:
		return err
	}

	// The order of shutting down. A native sidecar is told to end after its app has, and has drained since the Pod began
	// to end, so little is left to be done.
	// 1. Accept no more, close idle HTTP/1 connections, and announce the end on HTTP/2.
	p.ready.Store(false)
	p.stopping.Store(true)
	p.startDraining()
	for _, l := range p.loops {
		l.call(func() { p.drain(l) })
	}
	p.closePorts()
	// 2. Give what is going on its grace, then cut it.
	if grace := p.grace(); !p.wait(grace) {
		p.log.Warn("connections outlast the grace", "grace", grace)
		for _, l := range p.loops {
			l.call(l.cut)
		}
	}
	stop()
	looping.Wait()
	// 3. Probes, metrics and what copies requests have gone with the loops, and the table's source with ctx.
	unix.Close(p.admin.fd)
	background.Wait()
	return nil
}

// serve is one loop's life.
func (p *Proxy) serve(ctx context.Context, l *loop) error {
	for _, port := range append(p.ports[:len(p.ports):len(p.ports)], p.admin) {
		a := &acceptor{proxy: p, loop: l, port: port}
		if err := a.start(); err != nil {
			return fmt.Errorf("accepting on port %q: %w", port.Name, err)
		}
		l.acceptors = append(l.acceptors, a)
	}
	return l.run(ctx)
}

// drain has l accept no more and lets its connections come to their end.
func (p *Proxy) drain(l *loop) {
	for _, a := range l.acceptors {
		if a.port.fd != p.admin.fd {
			a.stop()
		}
	}
	l.drain()
}

const (
	// unknownGrace is given to connections where nobody says how long the Pod has.
	unknownGrace = 5 * time.Second
	// lastSecond of the Pod's grace is for cutting what is left, before the kubelet kills the proxy.
	lastSecond = time.Second
)

// grace is how long open connections may go on, once draining has begun. With the app gone, these are streams at previews.
func (p *Proxy) grace() time.Duration {
	switch pod := p.cfg.Sidecar.Grace; {
	case p.cfg.Grace != 0:
		return p.cfg.Grace
	case pod != 0:
		return time.Until(p.began.Add(pod - lastSecond))
	}
	return unknownGrace
}

// cut closes what is open.
func (l *loop) cut() {
	for p := range l.pairs {
		p.close()
	}
}

// wait reports whether all connections have ended within d.
func (p *Proxy) wait(d time.Duration) bool {
	ended := make(chan struct{})
	go func() { // ends at the latest with cut
		p.open.Wait()
		close(ended)
	}()
	select {
	case <-ended:
		return true
	case <-time.After(d):
		return false
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
	next := compile(t, p.cfg.Sidecar, old)
	p.table.Store(next)
	if next.mirrors {
		p.mirror.want()
	}
	if old == nil || old.version != t.Version {
		p.log.Info("table in force", "version", t.Version, "ports", len(t.Ports))
	}
	return nil
}

// ack says which table is in force and what its previews were sent.
func (p *Proxy) ack() api.Ack { return p.table.Load().ack() }
