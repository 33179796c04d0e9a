package proxy

// h2Windows are the windows of the client's connection, both ways, and what waits for them.
//
// What the client may send. The window of a stream at the client is never wider than that of its upstream, less what we
// hold for it; so a slow upstream slows its streams down, and no other. It begins with no more than the default, and is
// widened once half of it is used: up to what the app takes, or what we want to hold for a preview, which may take less in
// all than it does of each stream. The window of the connection is the app's: content for previews is given back at
// once, and bounded by the streams' windows and maxHeld.
//
// What the client may be sent. Streams' windows are between the client and the upstream. That of the connection is
// between the client and the app as well, and previews borrow from it: the app may believe that it is wider than it is, by
// what they have borrowed, and each preview has 65,535 bytes of its own on the way. So there may be more than the client
// takes: that is queued in the order in which it came. What the client gives back pays what was borrowed first. Nothing
// less would do: many clients give nothing back before half of a window of megabytes is used up. A client that leaves
// more than maxQueue waiting keeps all upstreams from being read.
type h2Windows struct {
	receives int64 // what the client may send
	sends    int64 // what may be sent to the client
	held     int   // what is held of content for upstreams
	queue    []h2Queued
	queued   int   // bytes of it
	borrowed int64 // what previews have sent, and the client has not given back
}

// h2Queued is a frame, or those of a header block, that waits for the client's window or for others that do.
type h2Queued struct {
	frames []byte
	flow   int64
	of     *h2Upstream // the preview that is to have its window back; nil for the app
}

const (
	// maxTold is the widest window that the client's streams begin with.
	maxTold = h2DefaultWindow
	// maxAhead is how much of a stream a client may send ahead of a preview, as long as little is held.
	maxAhead = 256 << 10
	// littleHeld is how much of the connection that is.
	littleHeld = 1 << 20
	// maxHeld bounds what a connection has waiting for upstreams. Below it every stream away from the app may wait with
	// heldEach, which is what it was told at first. A stream that goes beyond is reset: the connection must not stall.
	maxHeld  = 32 << 20
	heldMore = 4 << 20
	heldEach = h2DefaultWindow
	// maxQueue stops reading from upstreams.
	maxQueue = 1 << 20
	// replenishAt is how much is given back at a time, to the client and to previews.
	replenishAt = 8 << 10
)

func newH2Windows() h2Windows { return h2Windows{receives: h2DefaultWindow, sends: h2DefaultWindow} }

// forward sends f, a DATA frame with body in it, on, or keeps what is in it until the upstream takes it.
func (h *h2) forward(st *h2Stream, f *h2Frame, body []byte) h2Fault {
	n, up := int64(len(f.payload)), st.up
	if st.upID == 0 || st.owes != owesNothing || len(st.held) > 0 || n > st.upWindow || n > up.window || up.clog() {
		return h.hold(st, body, f.has(h2EndStream))
	}
	st.upWindow -= n
	up.window -= n
	st.began()
	putStream(f.whole, st.upID)
	up.socket.send(f.whole)
	if st.receives < maxTold/2 {
		h.widen(st)
	}
	return h2Fault{}
}

// began: content was sent, which is not kept.
func (st *h2Stream) began() {
	if st.detour != nil {
		st.detour.began = true
	}
}

func (h *h2) hold(st *h2Stream, body []byte, end bool) h2Fault {
	if h.held += len(body); h.held > min(maxHeld, heldMore+h.away*heldEach) {
		h.held -= len(body)
		return streamFault(h2EnhanceYourCalm)
	}
	st.held = append(st.held, body...)
	if end {
		st.owes = owesEnd
	}
	h.push(st)
	return h2Fault{}
}

// push sends what the upstream takes of what is held.
func (h *h2) push(st *h2Stream) {
	up := st.up
	if st.upID == 0 || up.clog() {
		return
	}
	for len(st.held) > 0 {
		n := int(min(int64(len(st.held)), maxFrame, st.upWindow, up.window))
		if n <= 0 {
			return
		}
		end := n == len(st.held) && st.owes == owesEnd
		up.socket.send(h.loop.dataFrame(st.upID, st.held[:n], end))
		st.upWindow -= int64(n)
		up.window -= int64(n)
		h.held -= n
		if st.held = st.held[n:]; end {
			st.owes = owesNothing
		}
		st.began()
	}
	st.held = nil
	if st.owes != owesNothing {
		st.began()
	}
	switch st.owes {
	case owesEnd:
		up.socket.send(h.loop.dataFrame(st.upID, nil, true))
	case owesTrailers:
		up.socket.send(h.loop.blockFrames(st.upID, h2EndStream, nil, st.trailers))
	}
	st.owes, st.trailers = owesNothing, nil
	h.widen(st)
}

// widen lets the client send as much on a stream as its upstream takes, within bounds.
func (h *h2) widen(st *h2Stream) {
	most := st.upWindow
	if st.detour != nil && h.held < littleHeld {
		most = min(most, maxAhead)
	} else if st.detour != nil {
		most = min(most, maxTold)
	}
	n := most - int64(len(st.held)) - st.receives
	if n > 0 && !st.clientEnded {
		st.receives += n
		h.toClient(h.loop.windowFrame(st.id, n))
	}
}

// replenish lets the client send as much on the connection as the app takes.
func (h *h2) replenish(atLeast int64) {
	if n := h.base.window - h.receives; n > 0 && n >= min(atLeast, h.base.window/2) {
		h.receives += n
		h.toClient(h.loop.windowFrame(0, n))
	}
}

// credited: an upstream takes n more bytes, of a stream or in all.
func (u *h2Upstream) credited(f *h2Frame, st *h2Stream) h2Fault {
	h, n := u.h, int64(f.number()&h2MaxStream)
	switch {
	case f.stream == 0:
		if u.window += n; u.window > h2MaxWindow {
			return connectionFault(h2FlowControlError)
		}
		if u == h.base {
			h.replenish(1)
		}
		u.pushAll()
	case st != nil:
		if st.upWindow += n; st.upWindow > h2MaxWindow {
			return connectionFault(h2FlowControlError)
		}
		h.push(st)
		if len(st.held) == 0 {
			h.widen(st)
		}
	}
	return h2Fault{}
}

// deliver sends frames of a stream to the client that count for nothing in its windows.
func (h *h2) deliver(frames []byte) { h.deliverFlow(h2Queued{frames: frames}) }

// deliverFlow sends frames of a stream to the client, unless its window keeps them or others back.
func (h *h2) deliverFlow(q h2Queued) {
	// With nothing borrowed the window is between the app and the client.
	if len(h.queue) == 0 && (q.flow <= h.sends || q.of == nil && h.borrowed == 0) {
		h.pass(q)
		return
	}
	q.frames = append([]byte(nil), q.frames...)
	h.queue = append(h.queue, q)
	if q.of != nil {
		q.of.queued += q.flow
	}
	if h.queued += len(q.frames); h.queued > maxQueue {
		h.holdUpstreams(holdWaiting, true)
	}
	if len(h.queue) == 1 {
		h.split(&h.queue[0])
	}
}

// pass sends what the client takes, and gives a preview its window back.
func (h *h2) pass(q h2Queued) {
	h.sends -= q.flow
	h.toClient(q.frames)
	if q.of == nil || q.flow == 0 {
		return
	}
	h.borrowed += q.flow
	if q.of.debt += q.flow; q.of.debt >= replenishAt {
		q.of.socket.send(h.loop.windowFrame(0, q.of.debt))
		q.of.debt = 0
	}
}

// unqueue sends what the client takes of what is queued.
func (h *h2) unqueue() {
	for len(h.queue) > 0 && h.queue[0].flow <= h.sends {
		q := h.queue[0]
		h.queue = h.queue[1:]
		h.dequeued(q)
	}
	if len(h.queue) > 0 {
		h.split(&h.queue[0])
	} else {
		h.queue = nil
	}
	if h.queued <= maxQueue {
		h.holdUpstreams(holdWaiting, false)
	}
	if h.partings != 0 {
		h.part()
	}
}

func (h *h2) dequeued(q h2Queued) {
	h.queued -= len(q.frames)
	if q.of != nil {
		q.of.queued -= q.flow
	}
	h.pass(q)
}

// split sends the part of a queued DATA frame that the client takes, and gives the rest a header of its own.
func (h *h2) split(q *h2Queued) {
	f, _ := cutFrame(q.frames)
	if h.sends <= 0 || f.has(h2Padded) {
		return
	}
	n := int(h.sends)
	h.queued += frameHeader
	h.dequeued(h2Queued{h.loop.dataFrame(f.stream, f.payload[:n], false), h.sends, q.of})
	q.flow -= int64(n)
	q.frames = q.frames[n:]
	putHeader(q.frames, len(f.payload)-n, h2Data, f.flags, f.stream)
}

// repaid: the client takes n more bytes on the connection.
func (h *h2) repaid(f *h2Frame) h2Fault {
	n := int64(f.number() & h2MaxStream)
	if h.sends += n; h.sends > h2MaxWindow {
		return connectionFault(h2FlowControlError)
	}
	part := min(h.borrowed, n)
	h.borrowed -= part
	switch {
	case part == 0:
		h.app.send(f.whole)
	case part < n:
		h.app.send(h.loop.windowFrame(0, n-part))
	}
	if len(h.queue) > 0 {
		h.unqueue()
	}
	return h2Fault{}
}
