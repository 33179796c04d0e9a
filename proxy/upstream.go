//lint:file-ignore SA1019 see transports

package proxy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/net/http2"
)

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

// transports begin HTTP on connections; they dial nothing and keep nothing.
//
// For HTTP/2 this is the module's own transport, because its connections tell one that is full, for which a request has
// to wait, from one that was told to go away; those of net/http say the same of both.
type transports struct {
	http1 *http.Transport
	http2 *http2.Transport
}

func newTransports() transports {
	return transports{
		http1: &http.Transport{
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return ctx.Value(connKey{}).(*conn), nil
			},
			DisableCompression:    true,
			ExpectContinueTimeout: time.Second,
		},
		http2: &http2.Transport{
			AllowHTTP:                  true,
			DisableCompression:         true,
			StrictMaxConcurrentStreams: true,
		},
	}
}

type connKey struct{}

// begin speaks HTTP of a client's version on c, which belongs to the upstream from then on.
func (t transports) begin(ctx context.Context, version protocol, c *conn) (upstream, error) {
	if version == protocolHTTP2 {
		cc, err := t.http2.NewClientConn(c)
		if err != nil {
			return nil, err
		}
		return http2Upstream{cc}, nil
	}
	cc, err := t.http1.NewClientConn(context.WithValue(ctx, connKey{}, c), "http", c.RemoteAddr().String())
	if err != nil {
		return nil, err
	}
	return http1Upstream{cc}, nil
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
	up, err := p.proxy.transports.begin(context.WithoutCancel(ctx), p.protocol, c)
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
