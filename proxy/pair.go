package proxy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"sync"
	"time"

	"golang.org/x/net/http2"

	"github.com/detour-dev/detour/api"
)

// pair is a client's connection and what belongs to it alone: the app's connection, dialled when the client's was
// accepted, and connections to previews, opened when first needed. No connection is shared between clients, so that an
// app's limits, timeouts and its own closing work as without us. When either of the two ends, so does the other.
//
// To the HTTP server it is the client's connection.
type pair struct {
	*conn    // the client's
	proxy    *Proxy
	port     api.TakenPort
	host     string   // the app's address
	protocol protocol // once it is known

	mu       sync.Mutex
	app      *conn
	toApp    upstream
	others   []other
	busy     int  // requests being answered
	appEnded bool // the app has ended its connection
	counted  bool // as an active connection
	closed   bool

	dialling sync.Mutex // held while an upstream is replaced or added, so that concurrent requests share it
}

// other is an upstream other than the one to the app: an endpoint of a preview, or what was the app's until it
// announced its end.
type other struct {
	upstream
	address netip.AddrPort // of an endpoint
}

func newPair(p *Proxy, port api.TakenPort, client, app *conn) *pair {
	return &pair{conn: client, proxy: p, port: port, host: app.RemoteAddr().String(), app: app}
}

// carry notes what the connection carries.
func (p *pair) carry(protocol protocol) protocol {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.protocol = protocol
	if !p.closed {
		p.counted = true
		p.proxy.meters.opened(protocol)
	}
	return protocol
}

// upstream is a connection that takes requests.
type upstream interface {
	http.RoundTripper
	usable() bool // for another request
	Close() error
}

type http1Upstream struct{ *http.ClientConn }

func (u http1Upstream) usable() bool { return u.Err() == nil }

type http2Upstream struct{ *http2.ClientConn }

func (u http2Upstream) usable() bool { return u.CanTakeNewRequest() }

type connKey struct{}

func newHTTP1() *http.Transport {
	return &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return ctx.Value(connKey{}).(*conn), nil
		},
		DisableCompression:    true,
		ExpectContinueTimeout: time.Second,
	}
}

func newHTTP2() *http2.Transport {
	return &http2.Transport{
		AllowHTTP:                  true,
		DisableCompression:         true,
		StrictMaxConcurrentStreams: true,
	}
}

// upstream begins HTTP of the client's version on c, which belongs to the upstream from then on.
func (p *pair) upstream(ctx context.Context, c *conn) (upstream, error) {
	if p.protocol == protocolHTTP2 {
		cc, err := p.proxy.http2.NewClientConn(c)
		if err != nil {
			return nil, err
		}
		return http2Upstream{cc}, nil
	}
	cc, err := p.proxy.http1.NewClientConn(context.WithValue(ctx, connKey{}, c), "http", c.RemoteAddr().String())
	if err != nil {
		return nil, err
	}
	return http1Upstream{cc}, nil
}

// connectApp begins HTTP on the app's connection, and watches from then on whether the app ends it.
func (p *pair) connectApp(ctx context.Context) error {
	c := p.app
	c.ended = func(err error) { p.ended(c, err) }
	up, err := p.upstream(ctx, c)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.toApp = up
	return err
}

// ended is called when the app has closed or reset its connection: the client's ends with it, after the answer that is
// under way. If an HTTP/2 app has announced that with GOAWAY, another connection may have taken its place.
func (p *pair) ended(app *conn, err error) {
	p.mu.Lock()
	idle := p.busy == 0
	current := p.app == app
	p.appEnded = p.appEnded || current
	p.mu.Unlock()
	if idle && current {
		p.abort(err)
	}
}

// appUpstream is the connection to the app. An HTTP/2 app that has announced the end of it is dialled again, so that
// no request is lost that the client sent before it could know.
func (p *pair) appUpstream(ctx context.Context) (upstream, error) {
	p.mu.Lock()
	up := p.toApp
	p.mu.Unlock()
	if p.protocol != protocolHTTP2 || up.usable() {
		return up, nil
	}
	p.dialling.Lock()
	defer p.dialling.Unlock()
	if p.toApp.usable() { // somebody else has dialled meanwhile
		return p.toApp, nil
	}
	c, err := p.proxy.dialApp(ctx, p.conn, p.port.App)
	if err != nil {
		return nil, err
	}
	c.ended = func(err error) { p.ended(c, err) }
	return p.keep(ctx, c, func(up upstream) {
		p.others = append(p.others, other{upstream: p.toApp}) // streams may still be open on it
		p.app, p.toApp, p.appEnded = c, up, false
	})
}

// previewDial bounds how long an endpoint may take to accept before the next one is tried. Only requests with a key
// wait for it.
const previewDial = 3 * time.Second

// previewUpstream is a connection to an endpoint, and whether it has been used before.
func (p *pair) previewUpstream(ctx context.Context, to netip.AddrPort) (up upstream, reused bool, err error) {
	p.dialling.Lock()
	defer p.dialling.Unlock()
	if up := p.openUpstream(to); up != nil {
		return up, true, nil
	}
	limited, cancel := context.WithTimeout(ctx, previewDial)
	defer cancel()
	c, err := dial(limited, to)
	if err != nil {
		return nil, false, err
	}
	up, err = p.keep(ctx, c, func(up upstream) {
		// One that takes no more requests closes itself after its last stream.
		p.others = slices.DeleteFunc(p.others, func(o other) bool { return !o.usable() })
		p.others = append(p.others, other{up, to})
	})
	return up, false, err
}

func (p *pair) openUpstream(to netip.AddrPort) upstream {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, o := range p.others {
		if o.address == to && o.usable() {
			return o.upstream
		}
	}
	return nil
}

// keep begins HTTP on c and lets store note it, unless the pair has been closed meanwhile.
func (p *pair) keep(ctx context.Context, c *conn, store func(upstream)) (upstream, error) {
	up, err := p.upstream(context.WithoutCancel(ctx), c)
	if err != nil {
		c.Close()
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		up.Close()
		return nil, net.ErrClosed
	}
	store(up)
	return up, nil
}

// begin and done count the requests being answered.
func (p *pair) begin() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.busy++
}

func (p *pair) done() {
	p.mu.Lock()
	p.busy--
	ended := p.appEnded && p.busy == 0
	p.mu.Unlock()
	if ended && p.protocol == protocolHTTP1 {
		p.Close()
	}
}

// Close ends everything that belongs to the client's connection.
func (p *pair) Close() error {
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return net.ErrClosed
	}
	p.closed = true
	upstreams := p.others
	if p.toApp != nil {
		upstreams = append(upstreams, other{upstream: p.toApp})
	}
	p.mu.Unlock()
	for _, u := range upstreams {
		u.Close()
	}
	p.app.Close()
	err := p.conn.Close()
	if p.counted {
		p.proxy.meters.closed(p.protocol)
	}
	p.proxy.pairs.remove(p)
	return err
}

// abort closes, or resets if what caused it was a reset.
func (p *pair) abort(cause error) {
	if broken(cause) {
		p.conn.tcp().SetLinger(0)
	}
	p.Close()
}

// errUnreachable is returned when no endpoint of a route accepts a connection.
type errUnreachable struct{ last error }

func (e errUnreachable) Error() string {
	return fmt.Sprintf("no endpoint accepts a connection: %v", e.last)
}

// roundTrip sends a request where it was decided to go and says which Pod of a preview answered; none means the app.
func (p *pair) roundTrip(r *http.Request, d decision) (resp *http.Response, servedBy string, err error) {
	if d.verdict != toPreview {
		resp, err = p.askApp(r)
		return resp, "", err
	}
	// Endpoints take turns, request by request; one that cannot be reached passes its turn on.
	turn := int(d.route.tally.requests.Load() % uint64(len(d.route.endpoints)))
	for i := range d.route.endpoints {
		e := d.route.endpoints[(turn+i)%len(d.route.endpoints)]
		if e.own {
			resp, err = p.askApp(r)
			return resp, "", err
		}
		resp, err = p.askPreview(r, e.Address)
		if unreached := (errUnreachable{}); !errors.As(err, &unreached) {
			return resp, e.Pod, err
		}
	}
	if d.route.fallback {
		resp, err = p.askApp(r)
		return resp, "", err
	}
	return nil, "", err
}

func (p *pair) askApp(r *http.Request) (*http.Response, error) {
	up, err := p.appUpstream(r.Context())
	if err != nil {
		return nil, err
	}
	return up.RoundTrip(r)
}

func (p *pair) askPreview(r *http.Request, to netip.AddrPort) (*http.Response, error) {
	for {
		up, reused, err := p.previewUpstream(r.Context(), to)
		switch {
		case r.Context().Err() != nil: // the client has left
			return nil, r.Context().Err()
		case err != nil:
			return nil, errUnreachable{err}
		}
		resp, err := up.RoundTrip(r)
		// A connection that was idle may have been closed while the request was on its way.
		if err == nil || !reused || up.usable() || !repeatable(r) || r.Context().Err() != nil {
			return resp, err
		}
	}
}

// repeatable reports whether a request may be sent again (RFC 9110, section 9.2.2) and can be.
func repeatable(r *http.Request) bool {
	return r.ContentLength == 0 && (r.Method == http.MethodGet || r.Method == http.MethodHead || r.Method == http.MethodOptions)
}

// pairs are the connections that are open.
type pairs struct {
	running sync.WaitGroup // one for each open pair, and for each goroutine that may add one

	mu     sync.Mutex
	open   map[*pair]struct{}
	closed bool
}

// add reports false when the proxy is ending.
func (ps *pairs) add(p *pair) bool {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	if ps.closed {
		return false
	}
	if ps.open == nil {
		ps.open = map[*pair]struct{}{}
	}
	ps.open[p] = struct{}{}
	ps.running.Add(1)
	return true
}

func (ps *pairs) remove(p *pair) {
	ps.mu.Lock()
	_, open := ps.open[p]
	delete(ps.open, p)
	ps.mu.Unlock()
	if open {
		ps.running.Done()
	}
}

// wait reports whether all have ended before ctx is done.
func (ps *pairs) wait(ctx context.Context) bool {
	ended := make(chan struct{})
	go func() { // ends at the latest with closeAll
		ps.running.Wait()
		close(ended)
	}()
	select {
	case <-ended:
		return true
	case <-ctx.Done():
		return false
	}
}

// closeAll closes what is open and waits for it to end.
func (ps *pairs) closeAll() {
	ps.mu.Lock()
	ps.closed = true
	open := make([]*pair, 0, len(ps.open))
	for p := range ps.open {
		open = append(open, p)
	}
	ps.mu.Unlock()
	for _, p := range open {
		p.Close()
	}
	ps.running.Wait()
}
