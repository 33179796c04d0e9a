package proxy

import (
	"context"
	"net"
	"net/netip"
	"sync"

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

// connectApp begins HTTP on the app's connection, and watches from then on whether the app ends it.
func (p *pair) connectApp(ctx context.Context) error {
	c := p.app
	c.ended = func(err error) { p.ended(c, err) }
	up, err := p.proxy.transports.begin(ctx, p.protocol, c)
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
