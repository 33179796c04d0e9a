package proxy

import (
	"errors"
	"net/netip"
	"os"
	"slices"
	"time"
)

// h2Upstream is a connection to the app or to a Pod of a preview.
type h2Upstream struct {
	h      *h2
	socket *socket

	opened  bool   // its SETTINGS have come
	window  int64  // what it takes in all
	initial int64  // what it takes of a new stream
	last    uint32 // the highest stream that it was sent

	// Of previews.
	to       netip.AddrPort
	streams  map[uint32]*h2Stream // by its own numbers
	waiting  []*h2Stream
	limit    int  // how many streams may be open
	extended bool // it takes extended CONNECT
	leaving  bool // it takes no new streams
	over     bool
	worked   bool  // it has answered
	debt     int64 // what the client was sent of it and it was not given back
	queued   int64 // what the client is still to be sent
	decoder  *h2Table
	timer    *timer
}

var errPreviewFrames = errors.New("it does not keep to HTTP/2")

// h2PreviewDial bounds how long an endpoint may take to accept before the next one is tried. Only requests with a key
// wait for it.
const h2PreviewDial = 3 * time.Second

func newH2Upstream(h *h2, s *socket) *h2Upstream {
	return &h2Upstream{h: h, socket: s, window: h2DefaultWindow, initial: h2DefaultWindow}
}

// upstream is the connection to a preview's Pod that new streams may use.
func (h *h2) upstream(to netip.AddrPort) *h2Upstream {
	for _, u := range h.detours {
		if u.to == to && !u.leaving {
			return u
		}
	}
	u := newH2Upstream(h, nil)
	u.to, u.streams, u.limit = to, map[uint32]*h2Stream{}, maxStreams
	u.socket = h.loop.dial(to, u)
	u.timer = h.loop.after(h2PreviewDial, u.late)
	h.detours = append(h.detours, u)
	h.pair.previews = append(h.pair.previews, u.socket)
	u.socket.send([]byte(preface))
	u.socket.send(h.loop.settingsFrame(h.forPreviews()...))
	setHold(u.socket, holdClogged, h.client.clog)
	return u
}

func (u *h2Upstream) late() {
	if u.socket.dialling && !u.over {
		u.socket.fail(os.ErrDeadlineExceeded)
	}
}

func (u *h2Upstream) connected(*socket) { u.timer.stop() }

// clogged: what a preview's socket does not take is held as if its window were closed.
func (u *h2Upstream) clogged(_ *socket, is bool) {
	if !is {
		u.pushAll()
	}
}

func (u *h2Upstream) clog() bool { return u != u.h.base && u.socket.clog }

func (u *h2Upstream) pushAll() {
	streams := u.streams
	if u == u.h.base {
		streams = u.h.streams
	}
	for _, st := range streams {
		if st.up == u && (len(st.held) > 0 || st.owes != owesNothing) {
			u.h.push(st)
		}
	}
}

// begin changes the window that streams begin with.
func (u *h2Upstream) begin(initial int64) {
	more := initial - u.initial
	u.initial = initial
	streams := u.streams
	if u == u.h.base {
		streams = u.h.streams
	}
	for _, st := range streams {
		if st.up == u {
			st.upWindow += more
		}
	}
}

// take has a stream opened as soon as that is possible.
func (u *h2Upstream) take(st *h2Stream) {
	st.up = u
	u.waiting = append(u.waiting, st)
	u.admit()
}

// admit opens streams that wait for it.
func (u *h2Upstream) admit() {
	for len(u.waiting) > 0 && u.opened && !u.leaving && !u.over && len(u.streams) < u.limit {
		st := u.waiting[0]
		u.waiting = u.waiting[1:]
		u.open(st)
	}
}

func (u *h2Upstream) open(st *h2Stream) {
	h, d := u.h, st.detour
	if d.extended && !u.extended {
		h.refuse(st, d.route, connectRefused)
		return
	}
	st.upID = (u.last + 1) | 1
	u.last = st.upID
	u.leaving = u.leaving || u.last == h2MaxStream
	u.streams[st.upID] = st
	st.upWindow = u.initial
	u.socket.send(h.loop.blockFrames(st.upID, endFlag(d.bodiless), nil, d.block))
	if more := st.sends - h.initial; more > 0 {
		u.socket.send(h.loop.windowFrame(st.upID, more))
	}
	if !d.bodiless {
		h.push(st)
	}
}

// forget takes out a stream that is over.
func (u *h2Upstream) forget(st *h2Stream) {
	if st.upID != 0 {
		delete(u.streams, st.upID)
	} else if i := slices.Index(u.waiting, st); i >= 0 {
		u.waiting = slices.Delete(u.waiting, i, i+1)
	}
	if u.leaving && len(u.streams) == 0 && !u.over {
		u.socket.end()
	}
}

// reset ends a stream there.
func (u *h2Upstream) reset(st *h2Stream, code h2Code) {
	if st.upID != 0 && !u.over {
		u.socket.send(u.h.loop.resetFrame(st.upID, code))
	}
}

func (u *h2Upstream) ended(*socket, []byte) { u.lost(nil) }

func (u *h2Upstream) closed(s *socket, err error) {
	u.lost(err)
	u.h.pair.previews = slices.DeleteFunc(u.h.pair.previews, func(o *socket) bool { return o == s })
}

// lost deals with the end of a preview's connection. It is one of its own streams only.
func (u *h2Upstream) lost(err error) {
	h := u.h
	if u.over || h.over || h.dead {
		return
	}
	u.over, u.leaving = true, true
	u.timer.stop()
	u.socket.end()
	h.detours = slices.DeleteFunc(h.detours, func(o *h2Upstream) bool { return o == u })
	h.proxy.log.Debug("preview's connection ended", "port", h.port.Name, "address", u.to, "error", err)
	for _, st := range u.above(0) {
		u.broken(st)
	}
	waiting := u.waiting
	u.waiting = nil
	for _, st := range waiting {
		if u.opened {
			h.again(st)
		} else {
			h.try(st)
		}
	}
}

// above are the open streams with a higher number than id, in order.
func (u *h2Upstream) above(id uint32) []*h2Stream {
	var above []*h2Stream
	for number, st := range u.streams {
		if number > id {
			above = append(above, st)
		}
	}
	slices.SortFunc(above, func(a, b *h2Stream) int { return int(a.upID) - int(b.upID) })
	return above
}

// broken: the connection has ended in the middle of a stream. What does no harm twice is asked again if the connection
// was an old one, which may have been about to end before.
func (u *h2Upstream) broken(st *h2Stream) {
	if u.worked && st.detour.safe && st.repeatable() {
		u.h.again(st)
		return
	}
	u.h.proxy.meters.failed(reasonAborted)
	u.h.deliver(u.h.loop.resetFrame(st.id, h2InternalError))
	u.h.remove(st)
}

// fault ends the connection to a preview that does not keep to HTTP/2.
func (u *h2Upstream) fault(code h2Code) {
	u.socket.send(u.h.loop.goAwayFrame(0, code))
	u.lost(errPreviewFrames)
}

// endIdle closes connections to previews that have nothing to do, once the client asks for nothing more.
func (h *h2) endIdle() {
	for _, u := range h.detours {
		if u.leaving = true; len(u.streams) == 0 && len(u.waiting) == 0 {
			u.socket.end()
		}
	}
}
