package proxy

import (
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/detour-dev/detour/api"
)

// mirror sends previews copies of requests that went to the app. The loops only gather what passes them anyhow (gather.go)
// and hand it over when a request is complete; what follows is done by a few goroutines with clients of their own, so
// that nothing that a preview does or fails to do reaches the request itself. Where that is too much for them, or for the
// memory that there is, copies are dropped, and counted by their reason.
type mirror struct {
	log    *slog.Logger
	meters *meters
	wanted chan struct{} // closed when a table has mirrors for the first time
	once   sync.Once
	queue  chan *gathered
	held   atomic.Int64 // bytes of copies, from their first to when they are answered or dropped

	dial  dialFunc
	http1 *http.Transport
}

const (
	// maxMirrors bounds what copies hold at a time, in bytes.
	maxMirrors = 8 << 20
	// maxMirrored bounds the body of one, in bytes. As much can be sent of a new HTTP/2 stream without being asked.
	maxMirrored = h2DefaultWindow
	// mirrorQueue is how many may wait to be sent, and mirrorSenders how many are sent at a time.
	mirrorQueue   = 512
	mirrorSenders = 32
	// mirrorTime is for all of an exchange with a preview.
	mirrorTime = 10 * time.Second
	// maxMirrorAnswer is how much of an answer is read, so that the connection can be used again.
	maxMirrorAnswer = 256 << 10
	mirrorIdle      = 30 * time.Second
)

// Reasons why a copy was dropped.
const (
	dropTooLarge   = "too-large"  // its body
	dropMemory     = "memory"     // there are too many
	dropQueue      = "queue"      // too many wait to be sent
	dropIncomplete = "incomplete" // the request did not come to its end, or nobody can say where that is
	dropUnanswered = "unanswered" // the preview did not accept it, or not answer in time
)

func newMirror(cfg Config, m *meters) *mirror {
	dial := (&net.Dialer{Timeout: dialTimeout}).DialContext
	if cfg.Sidecar.ClientAddress == api.ClientProxyProtocol {
		dial = introduced(dial)
	}
	return &mirror{
		log:    cfg.Log,
		meters: m,
		wanted: make(chan struct{}),
		queue:  make(chan *gathered, mirrorQueue),
		dial:   dial,
		http1: &http.Transport{
			DialContext:            dial,
			DisableCompression:     true,
			MaxIdleConnsPerHost:    mirrorSenders,
			IdleConnTimeout:        mirrorIdle,
			MaxResponseHeaderBytes: maxHead,
		},
	}
}

// dialFunc is that of [http.Transport].
type dialFunc func(ctx context.Context, network, address string) (net.Conn, error)

// introduced begins each connection as those to an app begin that wants the PROXY protocol. It is shared by the requests of
// many clients, so all that can be told is our own address.
func introduced(dial dialFunc) dialFunc {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		c, err := dial(ctx, network, address)
		if err != nil {
			return nil, err
		}
		from, to := c.LocalAddr().(*net.TCPAddr), c.RemoteAddr().(*net.TCPAddr)
		if _, err := c.Write(proxyHeader(from.AddrPort(), to.AddrPort())); err != nil {
			c.Close()
			return nil, err
		}
		return c, nil
	}
}

// want has run begin.
func (m *mirror) want() { m.once.Do(func() { close(m.wanted) }) }

// run sends copies, once they are wanted, until ctx is done.
func (m *mirror) run(ctx context.Context) {
	select {
	case <-m.wanted:
	case <-ctx.Done():
		return
	}
	var sending sync.WaitGroup
	for range mirrorSenders {
		sending.Go(func() { m.sendAll(ctx) })
	}
	sending.Wait()
	m.http1.CloseIdleConnections()
}

func (m *mirror) sendAll(ctx context.Context) {
	for {
		select {
		case g := <-m.queue:
			m.send(ctx, g)
		case <-ctx.Done():
			return
		}
	}
}

// send sends a copy, which counts as a request of the preview from then on.
func (m *mirror) send(ctx context.Context, g *gathered) {
	defer m.release(g)
	g.to.tally.count()
	if err := m.exchange(ctx, g); err != nil {
		g.to.tally.errors.Add(1)
		m.meters.dropped(dropUnanswered)
		m.log.Debug("a copy was not answered", "preview", g.to.preview, "error", err)
		return
	}
	m.meters.mirrored.Inc()
}

// exchange sends a copy and reads its answer, which nobody wants.
func (m *mirror) exchange(ctx context.Context, g *gathered) error {
	ctx, cancel := context.WithTimeout(ctx, mirrorTime)
	defer cancel()
	if g.fields != nil {
		return m.exchangeHTTP2(ctx, g)
	}
	req, err := g.request()
	if err != nil {
		return err
	}
	resp, err := m.http1.RoundTrip(req.WithContext(ctx))
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	_, _ = io.CopyN(io.Discard, resp.Body, maxMirrorAnswer) // it has been answered, however that ends
	return nil
}

// reserve takes memory for n more bytes of g, if there is as much.
func (m *mirror) reserve(g *gathered, n int) bool {
	if m.held.Add(int64(n)) > maxMirrors {
		m.held.Add(int64(-n))
		return false
	}
	g.size += n
	return true
}

func (m *mirror) release(g *gathered) {
	m.held.Add(int64(-g.size))
	g.size = 0
}

func (m *mirror) drop(g *gathered, why string) {
	m.release(g)
	m.meters.dropped(why)
}

// hand gives a copy that is complete to those who send it.
func (m *mirror) hand(g *gathered) {
	select {
	case m.queue <- g:
	default:
		m.drop(g, dropQueue)
	}
}
