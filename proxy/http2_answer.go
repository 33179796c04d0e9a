package proxy

import (
	"encoding/binary"
	"strings"

	"github.com/detour-dev/detour/api"
)

// data deals with what the app or a preview sends.
func (u *h2Upstream) data(_ *socket, b []byte) (used int) {
	h := u.h
	if h.dead || u.over {
		return len(b)
	}
	if u == h.base && !u.opened && !h.greeted && len(b) >= frameHeader && !isSettings(b) {
		h.passThrough()
		return 0
	}
	for !h.over && !h.dead && !u.over {
		f, fault := cutFrame(b[used:])
		if fault.scope == h2NoFault {
			if len(f.whole) == 0 {
				return used
			}
			used += len(f.whole)
			fault = u.frame(&f)
		}
		if fault.scope == h2NoFault {
			continue
		}
		if u == h.base {
			h.appErred(fault.code)
		} else {
			u.fault(fault.code)
		}
	}
	return len(b)
}

// passThrough is for an app that turns out not to speak HTTP/2: the client is told what it says.
func (h *h2) passThrough() { h.become(&relay{pair: h.pair, a: h.client, b: h.app}, h.app) }

// appErred ends everything because of what the app sent: nothing that follows it can be read.
func (h *h2) appErred(code h2Code) {
	h.proxy.meters.failed(reasonAborted)
	h.app.send(h.loop.goAwayFrame(0, code))
	h.fail(h2InternalError)
}

func (u *h2Upstream) frame(f *h2Frame) h2Fault {
	if !u.opened && (f.kind != h2Settings || f.has(h2Ack)) {
		return connectionFault(h2ProtocolError)
	}
	if fault := f.checkSize(); fault.scope != h2NoFault {
		return fault
	}
	if u == u.h.base {
		return u.h.appFrame(f)
	}
	return u.previewFrame(f)
}

// checkSize checks the frames whose content we read.
func (f *h2Frame) checkSize() h2Fault {
	ok := true
	switch f.kind {
	case h2ResetStream, h2WindowUpdate:
		ok = len(f.payload) == 4
	case h2Ping:
		ok = len(f.payload) == 8
	case h2GoAway:
		ok = len(f.payload) >= 8
	case h2Settings:
		ok = len(f.payload)%h2SettingSize == 0
	}
	if !ok {
		return connectionFault(h2FrameSizeError)
	}
	return h2Fault{}
}

// appFrame passes a frame of the app on.
func (h *h2) appFrame(f *h2Frame) h2Fault {
	st := h.streams[f.stream]
	if st != nil && st.up != h.base {
		st = nil
	}
	switch f.kind {
	case h2Settings:
		h.base.opened = true
		return h.appSettings(f)
	case h2GoAway:
		h.appGoesAway(f)
		return h2Fault{}
	case h2Ping:
		h.calm.gain(calmAsked)
		h.toClient(f.whole)
		return h2Fault{}
	case h2WindowUpdate:
		return h.base.credited(f, st)
	case h2PushPromise:
		return h.promised(f)
	}
	switch {
	case st != nil:
		h.appAnswers(st, f)
	case f.stream != 0 && f.stream%2 == 0 && f.stream <= h.pushed, f.stream == 0, f.kind > h2Continuation:
		h.deliverFlow(h2Queued{f.whole, f.flow(), nil})
	default:
		h.base.dropped(f)
	}
	return h2Fault{}
}

// flow is what a frame counts for in windows.
func (f *h2Frame) flow() int64 {
	if f.kind == h2Data {
		return int64(len(f.payload))
	}
	return 0
}

// dropped gives back what the client will never see, of a stream that is no more.
func (u *h2Upstream) dropped(f *h2Frame) {
	if n := f.flow(); n > 0 {
		u.socket.send(u.h.loop.windowFrame(0, n))
	}
}

// appAnswers passes on a frame of a stream.
func (h *h2) appAnswers(st *h2Stream, f *h2Frame) {
	st.sends -= f.flow()
	h.deliverFlow(h2Queued{f.whole, f.flow(), nil})
	switch f.kind {
	case h2Data:
		h.calm.gain(calmData)
	case h2Headers:
		st.answered = true
	case h2ResetStream:
		h.remove(st)
		return
	default:
		return
	}
	if f.has(h2EndStream) {
		h.upstreamEnded(st)
	}
}

func (h *h2) promised(f *h2Frame) h2Fault {
	body, ok := f.unpadded()
	if !ok || len(body) < 4 {
		return connectionFault(h2ProtocolError)
	}
	h.pushed = max(h.pushed, binary.BigEndian.Uint32(body)&h2MaxStream)
	h.deliver(f.whole)
	return h2Fault{}
}

// appGoesAway passes on that the app takes no more streams. Those that previews were sent are not taken back: the ones
// of the app below them, which it has not processed, are reset one by one in a way that says so.
func (h *h2) appGoesAway(f *h2Frame) {
	last := binary.BigEndian.Uint32(f.payload) & h2MaxStream
	limit := min(h.limit, max(last, h.diverted)) // it never rises (RFC 9113, section 6.8)
	binary.BigEndian.PutUint32(f.payload, limit)
	h.limit = limit
	h.toClient(f.whole)
	if last >= h.last {
		return
	}
	for id, st := range h.streams {
		if id <= last || st.up != h.base {
			continue
		}
		if id <= limit {
			h.deliver(h.loop.resetFrame(id, h2RefusedStream))
		}
		h.remove(st)
	}
}

// previewFrame passes on what belongs to streams, and answers the rest.
func (u *h2Upstream) previewFrame(f *h2Frame) h2Fault {
	h, st := u.h, u.streams[f.stream]
	switch f.kind {
	case h2Settings:
		return u.settings(f)
	case h2Ping:
		if !f.has(h2Ack) {
			putHeader(f.whole, len(f.payload), h2Ping, h2Ack, 0)
			u.socket.send(f.whole)
		}
	case h2GoAway:
		u.goesAway(binary.BigEndian.Uint32(f.payload) & h2MaxStream)
	case h2WindowUpdate:
		return u.credited(f, st)
	case h2PushPromise, h2Continuation:
		return connectionFault(h2ProtocolError)
	case h2Headers:
		return u.answerHead(st, f)
	case h2Data:
		return u.answerData(st, f)
	case h2ResetStream:
		if st != nil {
			putStream(f.whole, st.id)
			h.deliver(f.whole)
			h.remove(st)
		}
	}
	return h2Fault{}
}

func (u *h2Upstream) settings(f *h2Frame) h2Fault {
	if f.has(h2Ack) {
		return h2Fault{}
	}
	for rest := f.payload; len(rest) > 0; {
		var s h2Setting
		switch s, rest = cutSetting(rest); s.id {
		case h2MaxConcurrent:
			u.limit = int(min(s.value, maxStreams))
		case h2ConnectProtocol:
			u.extended = s.value == 1
		case h2InitialWindowSize:
			if s.value > h2MaxWindow {
				return connectionFault(h2FlowControlError)
			}
			u.begin(int64(s.value))
		}
	}
	u.opened = true
	u.socket.send(u.h.loop.frame(0, h2Settings, h2Ack, 0))
	u.admit()
	u.pushAll()
	return h2Fault{}
}

// goesAway: the preview takes no streams above last. They were not processed, so those are sent once more whose request
// we still have.
func (u *h2Upstream) goesAway(last uint32) {
	h := u.h
	u.leaving = true
	for _, st := range u.above(last) {
		if st.repeatable() {
			h.again(st)
			continue
		}
		h.deliver(h.loop.resetFrame(st.id, h2RefusedStream))
		h.remove(st)
	}
	waiting := u.waiting
	u.waiting = nil
	for _, st := range waiting {
		h.again(st)
	}
	if len(u.streams) == 0 && !u.over {
		u.socket.end()
	}
}

// answerHead passes on a header block of an answer, in a form that the client's decoder need not be in step for, and says
// which Pod it is of.
func (u *h2Upstream) answerHead(st *h2Stream, f *h2Frame) h2Fault {
	h := u.h
	if u.decoder == nil {
		u.decoder = newH2Table()
	}
	if !h.loop.decode(u.decoder, f.block) {
		return connectionFault(h2CompressionError)
	}
	if st == nil {
		return h2Fault{}
	}
	u.worked = true
	head := h.loop.head
	if head.long() {
		h.proxy.meters.failed(reasonAborted)
		h.reset(st.id, h2InternalError)
		return h2Fault{}
	}
	if !head.informational() && !st.answered {
		st.answered = true
		st.detour.block = nil
		if st.detour.servedBy != "" {
			head.append(servedByField, st.detour.servedBy)
		}
	}
	h.deliver(h.loop.blockFrames(st.id, f.flags&h2EndStream, nil, head.encode()))
	if f.has(h2EndStream) {
		h.upstreamEnded(st)
	}
	return h2Fault{}
}

func (u *h2Upstream) answerData(st *h2Stream, f *h2Frame) h2Fault {
	h, n := u.h, f.flow()
	if st == nil {
		u.dropped(f)
		return h2Fault{}
	}
	if u.debt+u.queued+n > h2DefaultWindow || n > st.sends {
		return connectionFault(h2FlowControlError)
	}
	st.sends -= n
	putStream(f.whole, st.id)
	h.deliverFlow(h2Queued{f.whole, n, u})
	h.calm.gain(calmData)
	if f.has(h2EndStream) {
		h.upstreamEnded(st)
	}
	return h2Fault{}
}

var servedByField = strings.ToLower(api.HeaderServedBy)
