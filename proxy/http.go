package proxy

import (
	"context"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"net/url"
	"slices"
	"strings"
	"sync"

	"golang.org/x/net/http/httpguts"

	"github.com/detour-dev/detour/api"
)

// maxStreams is what we allow a client on one HTTP/2 connection. The app's own limit is waited for, so this one only
// has to be out of the way.
const maxStreams = 10_000

type pairKey struct{}

// newServer is the client's side of HTTP connections.
func newServer(log *slog.Logger) *http.Server {
	s := &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			r.Context().Value(pairKey{}).(*pair).ServeHTTP(w, r)
		}),
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			return context.WithValue(ctx, pairKey{}, c)
		},
		ConnState: func(c net.Conn, state http.ConnState) {
			// HTTP/1 only: the answer has been written to its end.
			if p := c.(*pair); state == http.StateIdle && p.protocol == protocolHTTP1 {
				p.done()
			}
		},
		DisableGeneralOptionsHandler: true,
		Protocols:                    new(http.Protocols),
		HTTP2: &http.HTTP2Config{
			MaxConcurrentStreams: maxStreams,
			// One stream that the app does not read must not use up the connection's window.
			MaxReceiveBufferPerStream:     256 << 10,
			MaxReceiveBufferPerConnection: 16 << 20,
		},
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	s.Protocols.SetHTTP1(true)
	s.Protocols.SetUnencryptedHTTP2(true)
	return s
}

// queue hands connections to the HTTP server: it is the listener that it serves.
type queue struct {
	pairs chan *pair
	done  chan struct{}
	close sync.Once
}

func newQueue() *queue { return &queue{pairs: make(chan *pair), done: make(chan struct{})} }

// push reports false once the server is ending.
func (q *queue) push(p *pair) bool {
	select {
	case q.pairs <- p:
		return true
	case <-q.done:
		return false
	}
}

func (q *queue) Accept() (net.Conn, error) {
	select {
	case p := <-q.pairs:
		return p, nil
	case <-q.done:
		return nil, net.ErrClosed
	}
}

func (q *queue) Close() error {
	q.close.Do(func() { close(q.done) })
	return nil
}

func (q *queue) Addr() net.Addr { return &net.TCPAddr{} }

// ServeHTTP answers one request of the client.
func (p *pair) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.begin()
	if p.protocol == protocolHTTP2 {
		defer p.done()
	}
	// An answer may begin, and a tunnel speak, before the request has ended.
	http.NewResponseController(w).EnableFullDuplex()
	keys := keysOf(r.Header)
	d := decide(p.proxy.table.Load(), p.port.App, keys)
	p.proxy.meters.requests[d.verdict].Inc()
	p.proxy.log.Debug("request", "port", p.port.Name, "verdict", d.verdict.String(), "keys", keys)
	if d.route != nil {
		d.route.tally.requests.Add(1)
	}
	if refusal, refused := refuse(r, keys, d); refused {
		p.refuse(w, r, d, refusal)
		return
	}
	p.forward(w, r, d)
}

// refuse writes an answer of our own.
func (p *pair) refuse(w http.ResponseWriter, r *http.Request, d decision, why refusal) {
	if d.route != nil {
		d.route.tally.errors.Add(1)
	}
	p.proxy.meters.failed(why.reason)
	why.write(w, r)
}

// forward sends the request on and its answer back.
func (p *pair) forward(w http.ResponseWriter, r *http.Request, d decision) {
	early := &informer{to: w}
	out := p.outgoing(r, early)
	resp, servedBy, err := p.roundTrip(out, d)
	early.stop()
	if err != nil {
		p.fail(w, r, d, err)
		return
	}
	defer resp.Body.Close()
	if servedBy != "" {
		resp.Header.Set(api.HeaderServedBy, servedBy)
	}
	if resp.StatusCode == http.StatusSwitchingProtocols {
		p.tunnel(w, r, resp)
		return
	}
	if err := p.answer(w, r, resp); err != nil {
		p.giveUp(r, err)
	}
}

// fail deals with a request that got no answer. For a preview that nobody could reach we say so; everything else
// looks as it would without us.
func (p *pair) fail(w http.ResponseWriter, r *http.Request, d decision, err error) {
	if _, ok := err.(errUnreachable); ok {
		p.proxy.log.Debug("no answer", "port", p.port.Name, "preview", d.route.preview, "error", err)
		p.refuse(w, r, d, unreachable(d.route))
		return
	}
	p.giveUp(r, err)
}

// giveUp ends the request, and with HTTP/1 the connection, so that it cannot be taken for complete.
func (p *pair) giveUp(r *http.Request, err error) {
	if r.Context().Err() == nil { // otherwise the client has left
		p.proxy.meters.failed(reasonAborted)
	}
	p.proxy.log.Debug("request cut short", "port", p.port.Name, "error", err)
	if p.protocol == protocolHTTP1 {
		p.abort(err)
	}
	panic(http.ErrAbortHandler)
}

// outgoing is the request as the app or a preview gets it: as it came, except for what carries keys on and what
// would escape routing. Connections are paired, so what is said about the connection stays in it.
func (p *pair) outgoing(r *http.Request, early *informer) *http.Request {
	out := r.WithContext(httptrace.WithClientTrace(r.Context(), &httptrace.ClientTrace{Got1xxResponse: early.tell}))
	out.RequestURI = ""
	out.URL = target(r, p.host)
	out.Header = maps.Clone(r.Header)
	if _, ok := out.Header["User-Agent"]; !ok {
		out.Header["User-Agent"] = nil // otherwise net/http adds its own
	}
	dropH2C(out.Header)
	if !carryOn(out.Header) {
		p.proxy.meters.failed(reasonBaggageFull)
	}
	return out
}

// target keeps the request's target byte for byte. The one that begins with two slashes is left to net/url, which
// would take it for a host otherwise.
func target(r *http.Request, host string) *url.URL {
	if strings.HasPrefix(r.RequestURI, "//") {
		u := *r.URL
		u.Scheme, u.Host = "http", host
		return &u
	}
	return &url.URL{Scheme: "http", Host: host, Opaque: r.RequestURI}
}

// dropH2C takes out an offer to go on in HTTP/2 (RFC 7540, section 3.2): what follows could not be routed.
func dropH2C(h http.Header) {
	if !httpguts.HeaderValuesContainsToken(h["Upgrade"], "h2c") {
		return
	}
	delete(h, "Upgrade")
	delete(h, "Http2-Settings")
	var rest []string
	for option := range elements(h["Connection"]) {
		if !strings.EqualFold(option, "upgrade") && !strings.EqualFold(option, "http2-settings") {
			rest = append(rest, option)
		}
	}
	delete(h, "Connection")
	if len(rest) > 0 {
		h["Connection"] = []string{strings.Join(rest, ", ")}
	}
}

// informer hands informational answers (1xx) on until the final one has come.
type informer struct {
	mu      sync.Mutex
	to      http.ResponseWriter
	stopped bool
}

func (i *informer) tell(code int, h textproto.MIMEHeader) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	if !i.stopped {
		maps.Copy(i.to.Header(), http.Header(h))
		i.to.WriteHeader(code)
		clear(i.to.Header())
	}
	return nil
}

func (i *informer) stop() {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.stopped = true
}

// answer writes what the app or a preview said. The error says what broke it off.
func (p *pair) answer(w http.ResponseWriter, r *http.Request, resp *http.Response) error {
	announced := slices.Sorted(maps.Keys(resp.Trailer))
	p.writeHead(w, r, resp, announced)
	if err := copyBody(w, resp); err != nil {
		return err
	}
	for name, values := range resp.Trailer {
		if !slices.Contains(announced, name) {
			name = http.TrailerPrefix + name
		}
		w.Header()[name] = values
	}
	return nil
}

func (p *pair) writeHead(w http.ResponseWriter, r *http.Request, resp *http.Response, announced []string) {
	h := w.Header()
	maps.Copy(h, resp.Header)
	for _, name := range []string{"Date", "Content-Type", "Content-Length"} {
		if _, ok := h[name]; !ok {
			h[name] = nil // otherwise net/http adds its own
		}
	}
	if len(announced) > 0 {
		h["Trailer"] = []string{strings.Join(announced, ", ")}
	}
	if p.ending(resp) {
		h["Connection"] = []string{"close"} // with HTTP/2 it stands for GOAWAY
	}
	endsWithConnection := resp.ContentLength < 0 && len(resp.TransferEncoding) == 0 && resp.ProtoMajor == 1
	if endsWithConnection && resp.Body != http.NoBody && r.ProtoAtLeast(1, 1) {
		h["Transfer-Encoding"] = []string{"identity"} // tells net/http not to cut chunks; it is not sent
	}
	w.WriteHeader(resp.StatusCode)
}

// ending reports whether the connection ends after this answer.
func (p *pair) ending(resp *http.Response) bool {
	if p.protocol == protocolHTTP1 {
		return resp.Close
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return !p.toApp.usable()
}

// copyBody passes on what comes as it comes, the head before the first of it. Without a body the head is not sent ahead,
// so that with HTTP/2 it can end the stream: gRPC takes a status for one only then.
func copyBody(w http.ResponseWriter, resp *http.Response) error {
	flush := http.NewResponseController(w).Flush
	buf := buffers.Get().(*buffer)
	defer buffers.Put(buf)
	if resp.ContentLength != 0 {
		flush() // an error is one of the next write as well
	}
	for {
		n, err := resp.Body.Read(buf[:])
		if n > 0 {
			if _, err := w.Write(buf[:n]); err != nil {
				return err
			}
			flush()
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}
