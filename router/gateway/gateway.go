// Package gateway makes previews reachable by URL: whoever opens
//
//	http://<key>--<service>--<namespace>.<domain>/
//
// reaches the Service, with the key in the request. The Service need not be the key's target: the frontend's host with a
// key shows the whole application with that preview inside.
//
// # The story
//
// A request needs a signature of its host, in its URL, a header or a cookie, unless the gateway is open. Who may see a
// namespace gets links that have one at the gateway's own host, "detour.<domain>", where the dashboard is, too.
//
// A request's host names a key and a Service ([api.HostName]). The gateway looks both up in the router's newest views,
// so that it leads nowhere but to Services of namespaces that take part. Where the preview is not ready it says so
// itself, with what the status says. Otherwise it takes everything out of the request that could carry a key, puts the
// host's in, and hands it to [httputil.ReverseProxy], which sends it to the Service's cluster address; from there on it
// is a request like any other. In the answer it sees to it that redirects and cookies stay on the preview's host.
//
// # Use
//
//	g, err := gateway.New(gateway.Config{URL: "https://preview.example.com", Keys: keys, Reviewer: reviewer}, look, registry)
//	err = g.Run(ctx)
//
// # What it does not do
//
// It asks nobody with a link who they are: a link can be passed on. It makes, keeps and reads no keys; its user does. It
// speaks no TLS, which is for the proxy or load balancer in front of it. It looks into no body.
package gateway

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/time/rate"

	"github.com/detour-dev/detour/router/view"
)

// Config is the gateway's configuration. URL is required, and without Open Keys and Reviewer are.
type Config struct {
	// URL is where previews are, as clients see it: a scheme, the domain that follows the first label of every preview's
	// host, and a port where it is not the scheme's own. A wildcard record leads *.<domain> here.
	URL string
	// Listen is the address, HTTP; default ":8082".
	Listen string
	// Namespace is that of hosts which name none, "<key>--<service>"; there are no such hosts when it is empty.
	Namespace string
	// PlainHosts are the hosts, with a port where it is not the scheme's own, by which Services are known outside:
	// redirects to them stay within the preview. None when empty.
	PlainHosts map[string]ServiceName
	// TrustForwarded has the X-Forwarded-… headers of whoever connects handed on to the app. They are replaced when it
	// is false. Set it where a proxy that sets them itself is the only one to reach the gateway.
	TrustForwarded bool

	// Open lets everyone in, so that whoever reaches the port reaches the Services of every namespace that takes part.
	// Without it requests need a signature ([api.SignHost]).
	Open bool
	// Keys returns the keys that may have signed, of which the first signs links. It is asked for each request. While
	// there are none, nobody is let in.
	Keys func() [][]byte
	// Reviewer says who may have links.
	Reviewer Reviewer
	// Dashboard serves GET and HEAD of the gateway's own host but for links; no such paths exist when it is nil. Requests
	// for "/namespaces/<namespace>" and below come with a signature for that namespace, unless Open, all others do not.
	Dashboard http.Handler

	Log *slog.Logger // default slog.Default()
}

// ServiceName names a Service.
type ServiceName struct{ Namespace, Name string }

// AddPlainHost adds "<host>=<namespace>/<service>" to PlainHosts.
func (c *Config) AddPlainHost(s string) error {
	host, service, found := strings.Cut(s, "=")
	namespace, name, separated := strings.Cut(service, "/")
	if !found || !separated || host == "" || namespace == "" || name == "" {
		return fmt.Errorf("%q: want <host>=<namespace>/<service>", s)
	}
	if c.PlainHosts == nil {
		c.PlainHosts = map[string]ServiceName{}
	}
	c.PlainHosts[strings.ToLower(host)] = ServiceName{namespace, name}
	return nil
}

func (c Config) withDefaults() Config {
	c.Listen = cmp.Or(c.Listen, ":8082")
	c.Log = cmp.Or(c.Log, slog.Default())
	return c
}

func (c Config) check() error {
	if !c.Open && (c.Keys == nil || c.Reviewer == nil) {
		return errors.New("Config.Keys and Config.Reviewer are missing: set them, or Open")
	}
	return nil
}

// Views are the router's newest views by namespace, nil while caches fill, and a channel that is closed when there are
// newer ones.
type Views func() (views map[string]*view.View, newer <-chan struct{})

// Gateway is an [http.Handler] that sends requests to the Services that their hosts name.
type Gateway struct {
	cfg     Config
	base    base
	views   Views
	metrics metrics
	http1   *http.Transport
	http2   *http.Transport
	hold    time.Duration // how long a request waits for routes that are on their way
	linger  time.Duration // how long a gateway that stops goes on accepting

	reviews *rate.Limiter // of what makes work for the API server

	open sync.WaitGroup // connections and requests
}

// New returns a gateway that counts in registry.
func New(cfg Config, views Views, registry prometheus.Registerer) (*Gateway, error) {
	cfg = cfg.withDefaults()
	if err := cfg.check(); err != nil {
		return nil, err
	}
	base, err := parseBase(cfg.URL)
	if err != nil {
		return nil, fmt.Errorf("Config.URL: %w", err)
	}
	return &Gateway{
		cfg: cfg, base: base, views: views, metrics: newMetrics(registry),
		http1: newTransport((*http.Protocols).SetHTTP1),
		http2: newTransport((*http.Protocols).SetUnencryptedHTTP2),
		hold:  3 * time.Second, linger: 2 * time.Second,
		reviews: rate.NewLimiter(linksPerSecond, linksAtOnce),
	}, nil
}

// URL is where previews are, in the form in which [api.Status] tells it.
func (g *Gateway) URL() string { return g.base.String() }

// IsOpen reports whether everyone is let in.
func (g *Gateway) IsOpen() bool { return g.cfg.Open }

// Limits. There is none on how long a request or an answer takes, nor on its size: uploads, downloads, streams and
// WebSockets may last.
const (
	readHeaderTimeout = 10 * time.Second // from a request's first byte to the end of its head
	idleTimeout       = 2 * time.Minute  // between two requests of a connection
	pingAfter         = 30 * time.Second // of silence, on an HTTP/2 connection, whose other end may be gone
	pingTimeout       = 15 * time.Second
	maxHeaderBytes    = 64 << 10
	maxStreams        = 250 // of one HTTP/2 connection at the same time
	stopTimeout       = 5 * time.Second
)

// Run serves until ctx is done, and returns nil then. Nothing of it is left running when it returns.
func (g *Gateway) Run(ctx context.Context) error {
	listener, err := net.Listen("tcp", g.cfg.Listen)
	if err != nil {
		return fmt.Errorf("listening on %s: %w", g.cfg.Listen, err)
	}
	g.cfg.Log.Info("serving previews by URL", "address", listener.Addr().String(), "url", g.URL(), "open", g.cfg.Open)
	return g.serve(ctx, listener)
}

// serve stops like this:
//
//  1. connections are still accepted for a while, because clients learn late that this replica goes; each is closed
//     after its next answer
//  2. the listener is closed, and requests have a while to end
//  3. what is left is cut off, upgraded connections among it, and every handler is waited for
func (g *Gateway) serve(ctx context.Context, listener net.Listener) error {
	requests, cutOff := context.WithCancel(context.WithoutCancel(ctx))
	defer cutOff()
	srv := g.server(requests)
	failed := make(chan error, 1)
	go func() { failed <- srv.Serve(listener) }()
	var err error
	select {
	case err = <-failed:
	case <-ctx.Done():
		srv.SetKeepAlivesEnabled(false)
		time.Sleep(g.linger) // 1
		stopping, cancel := context.WithTimeout(requests, stopTimeout)
		defer cancel()
		_ = srv.Shutdown(stopping) // 2; what it did not wait for is cut off
		err = <-failed
	}
	cutOff() // 3
	_ = srv.Close()
	g.open.Wait()
	g.http1.CloseIdleConnections()
	g.http2.CloseIdleConnections()
	if !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serving: %w", err)
	}
	return nil
}

func (g *Gateway) server(requests context.Context) *http.Server {
	srv := &http.Server{
		Handler:           g,
		BaseContext:       func(net.Listener) context.Context { return requests },
		ConnState:         g.count,
		ReadHeaderTimeout: readHeaderTimeout, IdleTimeout: idleTimeout, MaxHeaderBytes: maxHeaderBytes,
		HTTP2:     &http.HTTP2Config{MaxConcurrentStreams: maxStreams, SendPingTimeout: pingAfter, PingTimeout: pingTimeout},
		Protocols: &http.Protocols{},
		ErrorLog:  slog.NewLogLogger(g.cfg.Log.Handler(), slog.LevelDebug),
	}
	srv.Protocols.SetHTTP1(true)
	srv.Protocols.SetUnencryptedHTTP2(true)
	return srv
}

// count has the end of the gateway wait for connections: one of them may be about to begin a request.
func (g *Gateway) count(_ net.Conn, state http.ConnState) {
	switch state {
	case http.StateNew:
		g.open.Add(1)
	case http.StateHijacked, http.StateClosed:
		g.open.Done()
	}
}

// ServeHTTP sends a request where its host says, or says why it cannot.
func (g *Gateway) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	g.open.Add(1)
	defer g.open.Done()
	g.metrics.inFlight.Inc()
	defer g.metrics.inFlight.Dec()
	if why := unfit(r); why != nil {
		g.refuse(w, r, why)
		return
	}
	host := hostname(r.Host)
	if host == g.base.ownHost() {
		g.serveOwn(w, r)
		return
	}
	if !g.admit(w, r, host, "/") {
		return
	}
	t, why := g.find(r.Context(), r.Host)
	if why != nil {
		g.refuse(w, r, why)
		return
	}
	g.metrics.requests.WithLabelValues(resultForwarded).Inc()
	g.forward(w, r, t)
}

// unfit says what keeps a request from being sent anywhere, whatever its host.
func unfit(r *http.Request) *refusal {
	switch {
	case r.Method == http.MethodConnect:
		return &refusal{http.StatusMethodNotAllowed, "connect", "the gateway opens no tunnels: CONNECT is not answered", false}
	case r.URL.Opaque != "":
		return &refusal{http.StatusBadRequest, "malformed", "the request's target is neither a path nor a whole URL", false}
	case cameThrough(r):
		return &refusal{http.StatusLoopDetected, "loop", "the request has come through this gateway already: the Service that it names leads back here", false}
	}
	return nil
}

// metrics are the gateway's own, in the router's registry.
type metrics struct {
	requests *prometheus.CounterVec
	inFlight prometheus.Gauge
}

// Results that are no reasons of refusals.
const (
	resultForwarded = "forwarded"
	resultSignedIn  = "signed-in" // a browser was told to come again with a cookie
	resultLinked    = "linked"
	resultDashboard = "dashboard"
)

func newMetrics(registry prometheus.Registerer) metrics {
	m := metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "detour_gateway_requests_total", Help: "Requests by result: forwarded, signed-in, linked, dashboard, or the reason that Detour-Error gave.",
		}, []string{"result"}),
		inFlight: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "detour_gateway_requests_in_flight", Help: "Requests, streams and upgraded connections that are open now.",
		}),
	}
	registry.MustRegister(m.requests, m.inFlight)
	return m
}
