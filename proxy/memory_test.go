package proxy

import (
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"testing"

	"github.com/detour-dev/detour/api"
)

// memory is a client's connection and all that belongs to it without a kernel: what would be read is fed, and what would
// be written is collected.
type memory struct {
	t       testing.TB
	proxy   *Proxy
	loop    *loop
	client  *wire
	dialled []*wire // in order; the first is the app's
	onDial  func(*wire)
}

// wire is a connection and the far end of it.
type wire struct {
	*socket
	m       *memory
	unfed   []byte // sent by the far end, not read yet
	ends    bool   // the far end sends no more
	got     []byte // what the far end has received
	gotEnd  bool
	closing bool // an end of both directions has been carried out
}

const memoryApp = 8080

var memoryPod = netip.MustParseAddr("10.0.0.1")

// newMemoryProxy is one that serves no port.
func newMemoryProxy(t testing.TB, routes ...api.Route) *Proxy {
	t.Helper()
	return newMatchingProxy(t, routes)
}

// newMatchingProxy is the same with matches.
func newMatchingProxy(t testing.TB, routes []api.Route, matches ...api.Match) *Proxy {
	t.Helper()
	cfg := Config{Sidecar: api.Sidecar{Namespace: "shop", Pod: "api-0", PodIPs: []netip.Addr{memoryPod}}}
	p := assemble(cfg.withDefaults())
	table := api.Table{Ports: []api.Port{{Port: memoryApp, Routes: routes, Matches: matches}}}
	if err := p.apply(table); err != nil {
		t.Fatal(err)
	}
	return p
}

// newMemory connects a client to p. onDial is called for the app's connection and for each to a preview.
func newMemory(t testing.TB, p *Proxy, onDial func(*wire)) *memory {
	m := &memory{t: t, proxy: p, onDial: onDial}
	m.loop = &loop{buffer: make([]byte, readBuffer), pairs: map[*pair]struct{}{}, connect: m.connect}
	pr := &pair{proxy: p, loop: m.loop, port: api.TakenPort{Name: "http", App: memoryApp}}
	h := &sniffing{pair: pr}
	pr.client = &socket{handler: h, loop: m.loop, fd: -1, remote: netip.MustParseAddrPort("10.0.0.9:999")}
	m.client = &wire{socket: pr.client, m: m}
	pr.app = pr.dialApp(h)
	m.loop.pairs[pr] = struct{}{}
	p.open.Add(1)
	m.run()
	return m
}

func (m *memory) connect(s *socket, to netip.AddrPort) error {
	w := &wire{socket: s, m: m}
	m.dialled = append(m.dialled, w)
	m.loop.after(0, func() {
		if !s.gone {
			s.dialling = false
			s.connected(s)
			s.touch()
		}
	})
	m.onDial(w)
	return nil
}

// run does all that there is to do.
func (m *memory) run() {
	for moved := true; moved; {
		m.loop.flush()
		m.loop.work()
		moved = len(m.loop.queued) > 0
		for _, w := range append([]*wire{m.client}, m.dialled...) {
			moved = w.move() || moved
		}
	}
}

// move feeds and collects what it can.
func (w *wire) move() (moved bool) {
	s := w.socket
	if !s.dialling && s.open() && (len(w.unfed) > 0 || w.ends && !s.eof) {
		w.feed()
		moved = true
	}
	if b := s.out.owned; len(b) > 0 && !s.dialling {
		w.got = append(w.got, b...)
		s.out.owned = nil
		moved = true
	}
	if s.out.size() == 0 && !s.dialling && !w.gotEnd && s.out.end != endNone {
		w.gotEnd = true
		moved = true
	}
	if s.out.end == endBoth && !w.closing && !s.gone {
		w.closing = true
		s.close()
		s.closed(s, nil)
		moved = true
	}
	return moved
}

func (w *wire) feed() {
	s := w.socket
	if len(w.unfed) == 0 {
		s.eof = true
		s.progress()
		w.m.loop.flush()
		return
	}
	before := copy(s.loop.buffer, s.in)
	n := copy(s.loop.buffer[before:], w.unfed)
	w.unfed = w.unfed[n:]
	s.received += uint64(n)
	s.offer(before + n)
}

// close ends all that is left.
func (m *memory) close() {
	for p := range m.loop.pairs {
		p.close()
	}
}

// conversationsInMemory is how many are held if nobody asks for another number.
const conversationsInMemory = 100_000

// TestDifferentialInMemory holds generated conversations through the state machines alone, in pieces of any size. That all
// requests are held against a match, which none meets, makes no difference, nor that those to the app are copied, with
// nobody to send the copies.
func TestDifferentialInMemory(t *testing.T) {
	t.Parallel()
	n := numberIn(t, "DETOUR_DIFFERENTIAL_MEMORY", conversationsInMemory)
	first := numberIn(t, "DETOUR_SEED", 1)
	p := newMatchingProxy(t, []api.Route{
		{Key: routedKey, Preview: "deployment/mine", Endpoints: []api.Endpoint{
			{Pod: previewPod, Address: netip.MustParseAddrPort("10.0.0.2:8080")},
		}},
		{Key: goneKey, Preview: "deployment/gone"},
	}, matchesOf(t, routedKey, "path prefix /\nheader x-nobody-sends present"))
	p.mirrorAll(memoryApp, routedKey)
	for seed, failed := first, 0; seed < first+n && failed < enough; seed++ {
		c := newConversation(uint64(seed))
		if c.greeting != nil && c.kind != plain {
			continue
		}
		if err := c.judgeAny(holdInMemory(t, p, c)); err != nil {
			failed++
			t.Errorf("DETOUR_SEED=%d DETOUR_DIFFERENTIAL_MEMORY=1: %v\n%v", seed, err, c)
		}
	}
	p.mirror.checkReleased(t)
}

// judgeAny is judge for ends of which nobody knows whether they were orderly.
func (c *conversation) judgeAny(got observed) (err error) {
	for _, client := range endsLike(got.client.end) {
		for _, app := range endsLike(got.app.end) {
			for _, preview := range endsLike(got.preview.end) {
				got.client.end, got.app.end, got.preview.end = client, app, preview
				if err = c.judge(got); err == nil {
					return nil
				}
			}
		}
	}
	return err
}

// closedSomehow is the end of a connection that was closed or reset.
const closedSomehow end = "closed"

func endsLike(e end) []end {
	if e == closedSomehow {
		return []end{byRST, atEOF}
	}
	return []end{e}
}

// playing is a conversation that is being held.
type playing struct {
	*memory
	c            *conversation
	app, preview *player
	resets       bool // the client has
}

// player is the far end of the connections to an app or to a preview.
type player struct {
	b     *backend
	wires []*wire
	ended bool // by itself
}

func holdInMemory(t testing.TB, p *Proxy, c *conversation) observed {
	play := &playing{c: c, app: &player{b: newBackend(c)}, preview: &player{b: newBackend(c)}}
	m := newMemory(t, p, func(w *wire) {
		who := play.preview
		if w.remote.Addr() == memoryPod {
			who = play.app
			if len(who.wires) == 0 {
				w.unfed = append(w.unfed, c.greeting...)
			}
		}
		who.wires = append(who.wires, w)
	})
	defer m.close()
	play.memory = m
	play.settle()
	pieces := rand.New(rand.NewPCG(c.seed, 7))
	for _, w := range c.writes {
		for rest := w.bytes; len(rest) > 0; {
			n := 1 + pieces.IntN(len(rest))
			m.client.unfed = append(m.client.unfed, rest[:n]...)
			rest = rest[n:]
			play.settle()
		}
	}
	play.leave()
	play.settle()
	return play.observed()
}

func (play *playing) leave() {
	switch client := play.client; play.c.leave {
	case byHalfClose:
		client.ends = true
	case byClose, byReset:
		play.resets = true
		client.fail(io.ErrClosedPipe)
	}
}

// settle goes on until nobody has anything to say.
func (play *playing) settle() {
	for moved := true; moved; {
		play.run()
		moved = play.app.answer() || play.preview.answer()
	}
}

// answer reports whether there was something to do.
func (p *player) answer() (moved bool) {
	for _, w := range p.wires {
		if p.ended || w.dialling {
			continue
		}
		if len(w.got) > 0 {
			out, next := p.b.take(w.got)
			w.got = nil
			w.unfed = append(w.unfed, out...)
			moved = true
			switch next {
			case halfCloses:
				w.ends = true
			case closes, resets:
				p.ended, w.ends = true, true
				if next == resets {
					w.unfed = append(w.unfed, out[:0]...)
				}
			}
		} else if (w.gotEnd || w.gone) && !w.ends { // an app closes when its client has
			w.ends, moved = true, true
		}
	}
	return moved
}

func (play *playing) observed() observed {
	o := observed{app: play.app.heard(), preview: play.preview.heard()}
	client := play.client
	o.client = heard{client.got, tooLate}
	switch {
	case play.resets:
		o.client.end = itself
	case client.gone && !client.gotEnd:
		o.client.end = closedSomehow
	case client.gotEnd:
		o.client.end = closedSomehow
	}
	return o
}

func (p *player) heard() heard {
	h := heard{p.b.log, none}
	for _, w := range p.wires {
		switch {
		case p.ended:
			h.end = itself
		case w.gotEnd, w.gone:
			h.end = closedSomehow
		default:
			h.end = tooLate
		}
	}
	return h
}

// anyAddr is of a preview that nobody dials for real.
var anyAddr = net.TCPAddr{IP: net.IPv4(10, 0, 0, 2), Port: 80}
