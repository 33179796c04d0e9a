package proxy

import (
	"encoding/binary"
	"net/http"
)

// fromClient deals with what the client sends.
func (h *h2) fromClient(b []byte) (used int) {
	if h.dead {
		return len(b)
	}
	if !h.prefaced {
		if len(b) < len(preface) {
			return 0
		}
		h.prefaced = true
		used = len(preface)
		h.app.send(b[:used])
	}
	for !h.over {
		f, fault := cutFrame(b[used:])
		if fault.scope == h2NoFault {
			if len(f.whole) == 0 {
				break
			}
			used += len(f.whole)
			fault = h.clientFrame(&f)
		}
		if fault.scope == h2OfStream {
			fault = h.clientErred(f.stream, fault.code)
		}
		if fault.scope == h2OfConnection {
			h.proxy.meters.failed(reasonMalformed)
			h.fail(fault.code)
			return len(b)
		}
	}
	h.replenish(replenishAt)
	return used
}

// clientErred ends a stream because of an error of the client.
func (h *h2) clientErred(stream uint32, code h2Code) h2Fault {
	h.proxy.meters.failed(reasonMalformed)
	h.reset(stream, code)
	return h.calm.spend(priceError)
}

func (h *h2) clientFrame(f *h2Frame) h2Fault {
	if !h.opened && (f.kind != h2Settings || f.has(h2Ack)) {
		return connectionFault(h2ProtocolError)
	}
	switch f.kind {
	case h2Data:
		return h.clientData(f)
	case h2Headers:
		return h.clientHeaders(f)
	case h2Priority:
		return h.clientPriority(f)
	case h2ResetStream:
		return h.clientReset(f)
	case h2Settings:
		return h.clientSettings(f)
	case h2Ping:
		return h.clientPing(f)
	case h2GoAway:
		return h.clientGoAway(f)
	case h2WindowUpdate:
		return h.clientWindowUpdate(f)
	case h2PushPromise, h2Continuation:
		return connectionFault(h2ProtocolError)
	}
	h.app.send(f.whole) // an extension is between the client and the app
	return h.calm.spend(priceAny)
}

// idle reports whether nobody has opened a stream yet.
func (h *h2) idle(stream uint32) bool {
	if stream%2 == 0 {
		return stream > h.pushed
	}
	return stream > h.last
}

func (h *h2) clientData(f *h2Frame) h2Fault {
	n := int64(len(f.payload))
	body, ok := f.unpadded()
	switch {
	case f.stream%2 == 0 || h.idle(f.stream) || !ok:
		return connectionFault(h2ProtocolError)
	case n > h.receives:
		return connectionFault(h2FlowControlError)
	}
	h.receives -= n
	st := h.streams[f.stream]
	if st == nil {
		return h.late(f)
	}
	if st.clientEnded {
		return streamFault(h2StreamClosed)
	}
	if n > st.receives {
		return streamFault(h2FlowControlError)
	}
	st.receives -= n
	if fault := st.counted(len(body), f.has(h2EndStream)); fault.scope != h2NoFault {
		return fault
	}
	if fault := h.forward(st, f, body); fault.scope != h2NoFault {
		return fault
	}
	st.copied = h.gatherBody(st.copied, body)
	if f.has(h2EndStream) {
		h.clientDone(st)
	} else if len(body) == 0 {
		return h.calm.spend(priceAny)
	}
	return h2Fault{}
}

// counted checks content against content-length.
func (st *h2Stream) counted(n int, end bool) h2Fault {
	if st.length < 0 {
		return h2Fault{}
	}
	if st.length -= int64(n); st.length < 0 || end && st.length > 0 {
		return streamFault(h2ProtocolError)
	}
	return h2Fault{}
}

// late is a frame on a stream that is no more. It may have been sent before the client knew.
func (h *h2) late(f *h2Frame) h2Fault {
	if fault := h.recent.fault(f.stream); fault.scope != h2NoFault {
		return fault
	}
	return h.calm.spend(priceAny)
}

// clientDone: the client has said all of a stream.
func (h *h2) clientDone(st *h2Stream) {
	st.clientEnded = true
	h.sendGathered(st.copied)
	st.copied = nil
	if st.upEnded {
		if st.owes != owesNothing {
			st.up.reset(st, h2NoError)
		}
		h.remove(st)
	}
}

// clientHeaders takes the head of a request, or its trailers.
func (h *h2) clientHeaders(f *h2Frame) h2Fault {
	if f.stream%2 == 0 {
		return connectionFault(h2ProtocolError)
	}
	if h.decoder == nil {
		h.decoder = newH2Table()
	}
	if !h.loop.decode(h.decoder, f.block) {
		return connectionFault(h2CompressionError)
	}
	fresh := f.stream > h.last
	fault := h.checkHeaders(f, fresh)
	st := h.streams[f.stream]
	switch {
	case fault.scope != h2NoFault:
	case fresh && f.stream <= h.limit:
		return h.request(f)
	case st != nil:
		return h.requestTrailers(st, f)
	}
	// The app must not get what this means, so it does not get this.
	h.reencode = true
	return fault
}

// checkHeaders says what is wrong with a header block that could be decoded.
func (h *h2) checkHeaders(f *h2Frame, fresh bool) h2Fault {
	head := h.loop.head
	if fresh {
		h.last = f.stream
	} else if st := h.streams[f.stream]; st == nil {
		fault := h.late(f)
		if fault.scope == h2NoFault && head.pseudo != 0 {
			return connectionFault(h2ProtocolError) // not trailers that were under way, but a request out of order
		}
		return fault
	} else if st.clientEnded {
		return streamFault(h2StreamClosed)
	}
	switch {
	case fresh && f.stream > h.limit:
		return h.calm.spend(priceAny) // the client has been told that it will not be answered
	case f.priority != nil && dependency(f.priority) == f.stream:
		return streamFault(h2ProtocolError)
	case head.long():
		return streamFault(h2EnhanceYourCalm)
	case fresh && !head.isRequest(h.extended), !fresh && (!head.isTrailers() || !f.has(h2EndStream)):
		return streamFault(h2ProtocolError)
	case fresh && f.has(h2EndStream) && head.length > 0:
		return streamFault(h2ProtocolError)
	case fresh && len(h.streams) >= maxStreams:
		return streamFault(h2RefusedStream)
	}
	return h2Fault{}
}

func dependency(priority []byte) uint32 { return binary.BigEndian.Uint32(priority) & h2MaxStream }

func (h *h2) requestTrailers(st *h2Stream, f *h2Frame) h2Fault {
	if fault := st.counted(0, true); fault.scope != h2NoFault {
		h.reencode = true
		return fault
	}
	switch {
	case st.up == h.base && !h.reencode && len(st.held) == 0:
		h.app.send(f.whole)
	case st.upID != 0 && len(st.held) == 0:
		st.up.socket.send(h.loop.blockFrames(st.upID, h2EndStream, nil, h.loop.head.encode()))
	default:
		h.reencode = true
		st.trailers = append([]byte(nil), h.loop.head.encode()...)
		st.owes = owesTrailers
	}
	st.copied = h.gatherTrailers(st.copied, h.loop.head.fields, h.loop.head.size)
	h.clientDone(st)
	return h2Fault{}
}

func (h *h2) clientPriority(f *h2Frame) h2Fault {
	if f.stream == 0 {
		return connectionFault(h2ProtocolError)
	}
	erred := connectionFault
	if !h.idle(f.stream) {
		erred = streamFault
	}
	switch {
	case len(f.payload) != 5:
		return erred(h2FrameSizeError)
	case dependency(f.payload) == f.stream:
		return erred(h2ProtocolError)
	}
	if st := h.streams[f.stream]; st == nil || st.detour == nil {
		h.app.send(f.whole)
	}
	return h.calm.spend(priceAny)
}

func (h *h2) clientReset(f *h2Frame) h2Fault {
	switch {
	case len(f.payload) != 4:
		return connectionFault(h2FrameSizeError)
	case f.stream == 0 || h.idle(f.stream):
		return connectionFault(h2ProtocolError)
	case f.stream%2 == 0:
		h.app.send(f.whole)
		return h.calm.spend(priceReset)
	}
	st := h.streams[f.stream]
	if st == nil {
		return h.calm.spend(priceAny)
	}
	if st.up == h.base {
		h.app.send(f.whole)
	} else {
		st.up.reset(st, h2Code(f.number()))
	}
	price := priceReset
	if st.answered {
		price = 0
	}
	h.recent.add(st.id, false)
	h.remove(st)
	return h.calm.spend(price)
}

func (h *h2) clientPing(f *h2Frame) h2Fault {
	switch {
	case len(f.payload) != 8:
		return connectionFault(h2FrameSizeError)
	case f.stream != 0:
		return connectionFault(h2ProtocolError)
	case f.has(h2Ack) && h.partings&draining != 0 && string(f.payload) == drainPing:
		h.loop.after(drainSettle, h.drainNow)
		return h2Fault{}
	case !f.has(h2Ack) && h.diverted > 0:
		// gRPC's clients ask with the content that they get. An app that sends little of it, because previews send the
		// rest, would take that for a flood.
		pong := h.loop.frame(len(f.payload), h2Ping, h2Ack, 0)
		copy(pong[frameHeader:], f.payload)
		h.toClient(pong)
	default:
		h.app.send(f.whole)
	}
	return h.calm.spend(pricePing)
}

func (h *h2) clientGoAway(f *h2Frame) h2Fault {
	switch {
	case f.stream != 0:
		return connectionFault(h2ProtocolError)
	case len(f.payload) < 8:
		return connectionFault(h2FrameSizeError)
	}
	h.app.send(f.whole)
	return h.calm.spend(priceAny)
}

func (h *h2) clientWindowUpdate(f *h2Frame) h2Fault {
	if len(f.payload) != 4 {
		return connectionFault(h2FrameSizeError)
	}
	n := int64(f.number() & h2MaxStream)
	st := h.streams[f.stream]
	switch {
	case f.stream == 0 && n == 0, f.stream != 0 && h.idle(f.stream):
		return connectionFault(h2ProtocolError)
	case f.stream == 0:
		if fault := h.repaid(f); fault.scope != h2NoFault {
			return fault
		}
	case f.stream%2 == 0:
		h.app.send(f.whole)
	case st == nil:
	case n == 0:
		return streamFault(h2ProtocolError)
	case st.sends+n > h2MaxWindow:
		return streamFault(h2FlowControlError)
	default:
		st.sends += n
		if st.upID != 0 {
			putStream(f.whole, st.upID)
			st.up.socket.send(f.whole)
		}
	}
	return h.calm.spend(priceAny)
}

// request routes what the client has just asked for.
func (h *h2) request(f *h2Frame) h2Fault {
	st, head := h.newStream(f.stream), h.loop.head
	h.mayDrain()
	st.clientEnded = f.has(h2EndStream)
	if head.method != http.MethodConnect {
		st.length = head.length
	}
	told := h.tellClient()
	if !head.carrier && !h.proxy.table.Load().matching(h.port.App) {
		h.count(nil, decision{})
		h.ask(st, f, told)
		return h2Fault{}
	}
	return h.route(st, f, told)
}

// tellClient adds the client's address to a request, if it is to be told, and reports whether it is.
func (h *h2) tellClient() bool {
	if !h.forwards() {
		return false
	}
	for _, f := range forwardedFields(h.client.remote.Addr()) {
		h.loop.head.append(f.name, f.value)
	}
	return true
}
