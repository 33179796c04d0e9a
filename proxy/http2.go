package proxy

import (
	"errors"
	"time"
)

// h2 is a client's connection that speaks HTTP/2 with prior knowledge, and the connections that belong to it: one to the
// app, and one to each Pod of a preview that a stream went to (http2_upstream.go). Streams are routed one by one, when
// their head has come (http2_route.go). Frames are passed on as they came, as far as they can be:
//
//   - As long as every stream has gone to the app, its heads go there as they are. The first that goes elsewhere is missing
//     from what the app's decoder has seen, so from then on heads are encoded anew, in a form that refers to nothing.
//   - Streams have the client's numbers at the app, and others at previews.
//   - SETTINGS, PING and GOAWAY are exchanged between client and app; with previews we exchange our own. Once a stream has
//     gone to one, we answer the client's PING as well.
//   - Both sides are told that our HPACK table for answers is empty, so that each answer's head stands for itself, and that a
//     frame has 16 KiB at most (http2_settings.go).
//   - Windows of streams are those of its upstream, and that of the connection is the app's (http2_flow.go).
//
// What a client sends is checked, and answered, as RFC 9113 demands (http2_client.go). An answer is as good as the app
// or the preview made it (http2_answer.go).
type h2 struct {
	*pair
	base    *h2Upstream   // the app
	detours []*h2Upstream // previews
	streams map[uint32]*h2Stream
	free    []*h2Stream // to be used again

	decoder  *h2Table // of the client's header blocks
	reencode bool     // heads for the app are encoded anew

	prefaced bool // the client's preface has come
	opened   bool // and its first SETTINGS
	greeted  bool // the client has had SETTINGS
	dead     bool // the client has been told that the connection is over: it is not listened to any more
	partings uint8

	last     uint32 // the highest stream that the client has opened
	limit    uint32 // the highest that it may open, after a GOAWAY
	diverted uint32 // the highest that did not go to the app
	away     int    // how many streams are not at the app
	pushed   uint32 // the highest that the app has promised
	recent   h2Recent

	h2Windows
	h2Terms
	calm h2Calm
}

// h2Stream is a request and its answer.
type h2Stream struct {
	id     uint32
	upID   uint32 // its number at the upstream; 0 as long as it waits for it
	up     *h2Upstream
	detour *h2Detour // if it does not go to the app

	receives int64 // what the client may send
	upWindow int64 // what may be sent to the upstream
	sends    int64 // what may be sent to the client
	length   int64 // what content-length says is still to come, or -1

	held     []byte // content that the upstream does not take yet
	owes     h2Owed // what follows it
	trailers []byte

	copied *gathered // what a preview is to be sent of it, if one is

	clientEnded bool
	upEnded     bool
	answered    bool // the head of the final answer has come
}

// h2Owed is what is to be sent to an upstream after what is held.
type h2Owed uint8

const (
	owesNothing h2Owed = iota
	owesEnd
	owesTrailers
)

// maxStreams bounds what a connection may have open if the app sets no limit of its own.
const maxStreams = 8192

var errAppBroke = errors.New("the app's connection broke")

func newHTTP2(p *pair) handler {
	h := &h2{
		pair:      p,
		streams:   map[uint32]*h2Stream{},
		limit:     h2MaxStream,
		h2Windows: newH2Windows(),
		h2Terms:   h2Terms{told: h2DefaultWindow, initial: h2DefaultWindow, granted: h2DefaultWindow},
		calm:      newH2Calm(),
	}
	h.base = newH2Upstream(h, p.app)
	return h
}

func (h *h2) connected(*socket) {}

func (h *h2) data(s *socket, b []byte) int {
	if s == h.client {
		return h.fromClient(b)
	}
	return h.base.data(s, b)
}

// clogged keeps what a side does not take from being read. What a preview does not take is held stream by stream.
func (h *h2) clogged(s *socket, is bool) {
	if s == h.app {
		setHold(h.client, holdClogged, is)
		return
	}
	h.holdUpstreams(holdClogged, is)
}

func (h *h2) holdUpstreams(why hold, is bool) {
	setHold(h.app, why, is)
	for _, u := range h.detours {
		setHold(u.socket, why, is)
	}
}

func setHold(s *socket, why hold, is bool) {
	if is {
		s.hold(why)
	} else {
		s.release(why)
	}
}

// Partings are what has ended. What is left is brought to its end, and the connections with it.
const (
	clientEnded uint8 = 1 << iota
	appEnded
	appBroke
	draining // we are going to say, or have said, that no more streams are taken
	drained  // the client knows
)

func (h *h2) ended(s *socket, _ []byte) {
	switch {
	case h.dead:
		h.pair.close()
	case s == h.client:
		h.partings |= clientEnded
		h.app.finish()
		h.part()
	default:
		h.appLeft(appEnded)
	}
}

func (h *h2) closed(s *socket, err error) {
	switch {
	case h.over || h.dead && s == h.app:
	case s == h.client:
		h.abort(err)
	case err == nil:
		h.part()
	default:
		if h.app.dialling {
			h.proxy.meters.failed(reasonAppRefused)
			h.proxy.log.Debug("dialling the app", "port", h.port.Name, "error", err)
		}
		h.appLeft(appBroke)
	}
}

// appLeft lets streams at previews come to their end when the app is no more; it may not take back what they were
// promised.
func (h *h2) appLeft(how uint8) {
	h.partings |= how
	if h.away > 0 && h.limit == h2MaxStream {
		h.announce(h.last)
	}
	if h.away > 0 {
		for _, st := range h.streams {
			if st.up == h.base {
				h.deliver(h.loop.resetFrame(st.id, h2InternalError))
				h.remove(st)
			}
		}
	}
	h.part()
}

// part ends what there is no more use for.
func (h *h2) part() {
	switch {
	case h.over || h.dead || h.away > 0 || len(h.queue) > 0:
	case h.partings&appBroke != 0:
		h.abort(errAppBroke)
	case h.partings&drained != 0 && len(h.streams) == 0:
		h.linger()
	case h.partings&appEnded != 0:
		h.client.finish()
		if h.partings&clientEnded != 0 {
			h.client.end()
			h.app.end()
		}
	}
	if h.partings&clientEnded != 0 {
		h.endIdle()
	}
}

// drain announces the end twice: streams that were under way when the client heard of it for the first time are served.
// As long as the app serves, a connection waits with it until it has been used: a client that comes back in vain would
// come again at once. It also waits for the app to speak HTTP/2.
func (h *h2) drain() {
	fresh := h.last == 0 || !h.greeted
	if h.dead || h.partings&draining != 0 || fresh && !h.proxy.stopping.Load() {
		return
	}
	h.partings |= draining
	h.toClient(h.loop.goAwayFrame(h.limit, h2NoError))
	ping := h.loop.frame(len(drainPing), h2Ping, 0, 0)
	copy(ping[frameHeader:], drainPing)
	h.toClient(ping)
	h.loop.after(drainWait, h.drainNow)
}

// mayDrain drains a connection that has come, or has been used for the first time, while the proxy drains.
func (h *h2) mayDrain() {
	if h.proxy.draining.Load() {
		h.drain()
	}
}

const (
	// drainPing is answered once the client has read the first announcement.
	drainPing = "detour\r\n"
	// drainWait is for those that do not answer.
	drainWait = time.Second
	// drainSettle is for a stream that the client had opened before, but writes behind its answer, as Go's may.
	drainSettle = 100 * time.Millisecond
)

func (h *h2) drainNow() {
	if h.over || h.dead || h.partings&drained != 0 {
		return
	}
	h.partings |= drained
	h.announce(h.last)
	h.part()
}

// announce tells the client that no stream above last is taken.
func (h *h2) announce(last uint32) {
	h.limit = min(h.limit, last)
	h.toClient(h.loop.goAwayFrame(h.limit, h2NoError))
}

// fail ends the connection because of an error of the client.
func (h *h2) fail(code h2Code) {
	h.toClient(h.loop.goAwayFrame(min(h.last, h.limit), code))
	h.proxy.log.Debug("connection ended", "port", h.port.Name, "code", code)
	h.linger()
}

// linger ends all connections, the client's last: were it closed while the client still sends, it would be reset, and
// that can overtake what the client has been told.
func (h *h2) linger() {
	h.dead = true
	h.app.end()
	for _, u := range h.detours {
		u.socket.end()
	}
	if h.partings&clientEnded != 0 {
		h.client.end()
		return
	}
	h.client.finish()
	h.hangUp(lingering)
}

// lingering is how long a client may take to hang up that was told that the connection is over.
const lingering = time.Second

// toClient sends a frame that is part of no stream, or has nothing to wait for.
func (h *h2) toClient(b []byte) {
	if !h.greeted {
		h.greet()
	}
	h.client.send(b)
}

// newStream makes the stream that the client has just opened.
func (h *h2) newStream(id uint32) *h2Stream {
	var st *h2Stream
	if n := len(h.free); n > 0 {
		st, h.free = h.free[n-1], h.free[:n-1]
	} else {
		st = &h2Stream{}
	}
	*st = h2Stream{id: id, receives: h.told, sends: h.initial, length: -1}
	h.streams[id] = st
	return st
}

// maxFree bounds the streams that are kept to be used again.
const maxFree = 32

// remove forgets a stream that has come to its end. How, has been told to all that have to know.
func (h *h2) remove(st *h2Stream) {
	delete(h.streams, st.id)
	if st.clientEnded {
		h.recent.add(st.id, true)
	}
	h.held -= len(st.held)
	h.dropGathered(st.copied, dropIncomplete)
	up, away := st.up, st.detour != nil
	if away {
		h.away--
	}
	if away && up != nil {
		up.forget(st)
	}
	*st = h2Stream{}
	if len(h.free) < maxFree {
		h.free = append(h.free, st)
	}
	if h.partings != 0 {
		h.part()
	}
	if away && up != nil {
		up.admit()
	}
}

// upstreamEnded: the upstream has said all of a stream.
func (h *h2) upstreamEnded(st *h2Stream) {
	h.calm.gain(calmAnswer)
	st.upEnded = true
	if !st.clientEnded {
		return
	}
	if st.owes != owesNothing {
		st.up.reset(st, h2NoError)
	}
	h.remove(st)
}

// reset ends a stream on our own account, at both ends.
func (h *h2) reset(id uint32, code h2Code) {
	h.deliver(h.loop.resetFrame(id, code))
	if st := h.streams[id]; st != nil {
		if st.up != nil {
			st.up.reset(st, h2Cancel)
		}
		h.remove(st)
	}
}

// h2Recent remembers streams that the client itself has ended, so that what it sends on them even so can be told from
// what was under way when a stream was reset.
type h2Recent struct {
	ids  [8]uint32
	ends [8]bool // with END_STREAM, not RST_STREAM
	at   uint8
}

func (r *h2Recent) add(id uint32, ended bool) {
	r.ids[r.at], r.ends[r.at] = id, ended
	r.at = (r.at + 1) % uint8(len(r.ids))
}

// fault is that of a frame on a stream that is no more. What is not remembered is none.
func (r *h2Recent) fault(id uint32) h2Fault {
	for i, recent := range r.ids {
		if recent == id && r.ends[i] {
			return connectionFault(h2StreamClosed)
		}
		if recent == id {
			return streamFault(h2StreamClosed)
		}
	}
	return h2Fault{}
}

// h2Calm bounds what a client makes us do without moving anything, such as opening streams and resetting them
// (CVE-2023-44487), having them reset by its own errors (CVE-2025-8671), asking for echoes, changing SETTINGS. Each such
// frame has a price; time and answers pay.
type h2Calm struct {
	left int
	at   time.Time // when it was paid for time
}

const (
	calmBurst = 16384 // what a connection begins with and can have
	calmRate  = 1000  // paid for each second

	calmAnswer = 8  // paid for each answer that has come to its end
	calmData   = 4  // for each frame of content for the client, which may be followed by WINDOW_UPDATE for the stream and the connection, and by a PING
	calmAsked  = 32 // for each frame of the app that the client has to answer

	priceAny      = 1 // of frames that cost little
	priceReset    = 2 // of ending a stream
	pricePing     = 4
	priceError    = 8 // of an error on a stream
	priceSettings = 32
)

func newH2Calm() h2Calm { return h2Calm{calmBurst, time.Now()} }

func (c *h2Calm) gain(n int) { c.left = min(c.left+n, calmBurst) }

// spend is a fault once there is nothing left.
func (c *h2Calm) spend(n int) h2Fault {
	if c.left -= n; c.left >= 0 {
		return h2Fault{}
	}
	now := time.Now()
	c.gain(int(now.Sub(c.at).Seconds() * calmRate))
	c.at = now
	if c.left < 0 {
		return connectionFault(h2EnhanceYourCalm)
	}
	return h2Fault{}
}
