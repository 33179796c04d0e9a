package proxy

import "slices"

// h2Terms are what client and app have told each other in SETTINGS, as far as it matters to us.
type h2Terms struct {
	// Of the app, as the client goes by it.
	told     int64  // INITIAL_WINDOW_SIZE
	lowered  int64  // by how much it is less once the client has acknowledged all
	due      int    // how many of the app's SETTINGS the client has not acknowledged
	ownDue   int    // how many of ours, which came before those
	maxOpen  uint32 // MAX_CONCURRENT_STREAMS, 0 for any
	extended bool   // extended CONNECT is offered
	// Of the client.
	initial  int64   // INITIAL_WINDOW_SIZE
	unacked  []int64 // what it was with each of the client's SETTINGS that the app has not acknowledged
	granted  int64   // what previews go by: more only once the client has its acknowledgement
	listSize uint32  // MAX_HEADER_LIST_SIZE, 0 for any
}

// greet tells the client something before the app has.
func (h *h2) greet() {
	h.greeted = true
	h.ownDue++
	h.client.send(h.loop.settingsFrame(h2Setting{h2MaxHeaderListSize, maxBlock}))
}

// appSettings passes the app's SETTINGS on, as far as we can live up to them.
func (h *h2) appSettings(f *h2Frame) h2Fault {
	switch {
	case f.stream != 0:
		return connectionFault(h2ProtocolError)
	case f.has(h2Ack):
		h.toClient(f.whole)
		h.appAcked()
		return h2Fault{}
	case len(f.payload)%h2SettingSize != 0:
		return connectionFault(h2FrameSizeError)
	}
	h.calm.gain(calmAsked)
	out, at := h.loop.settingsFrom(f, h2Setting{h2MaxHeaderListSize, maxBlock}, !h.greeted)
	for rest := f.payload; len(rest) > 0; at = at[h2SettingSize:] {
		var s h2Setting
		s, rest = cutSetting(rest)
		s, fault := h.appSetting(s)
		if fault.scope != h2NoFault {
			return fault
		}
		s.put(at)
	}
	h.greeted = true
	h.due++
	h.client.send(out)
	h.mayDrain()
	return h2Fault{}
}

// settingsFrom begins a SETTINGS frame to be made of f, with room for its parameters. If it is the first one of a side, ours
// is in it unless f has one of its kind: some servers take no parameter twice.
func (l *loop) settingsFrom(f *h2Frame, ours h2Setting, first bool) (out, room []byte) {
	for rest := f.payload; len(rest) > 0 && first; {
		var s h2Setting
		s, rest = cutSetting(rest)
		first = s.id != ours.id
	}
	if !first {
		out = l.frame(len(f.payload), h2Settings, 0, 0)
		return out, out[frameHeader:]
	}
	out = l.frame(h2SettingSize+len(f.payload), h2Settings, 0, 0)
	ours.put(out[frameHeader:])
	return out, out[frameHeader+h2SettingSize:]
}

// withoutTwice leaves of each parameter of a SETTINGS frame that we made the last value, which is the one that counts: some
// servers take none twice, though a client may send it so (RFC 9113, section 6.5.3).
func withoutTwice(frame []byte) []byte {
	const many = frameHeader + 64*h2SettingSize // nobody has so many to say
	if len(frame) > many {
		return frame
	}
	kept := frame[:frameHeader]
	for rest := frame[frameHeader:]; len(rest) > 0; {
		var s h2Setting
		one := rest[:h2SettingSize]
		if s, rest = cutSetting(rest); !hasSetting(rest, s.id) {
			kept = append(kept, one...)
		}
	}
	putHeader(kept, len(kept)-frameHeader, h2Settings, 0, 0)
	return kept
}

func hasSetting(parameters []byte, id uint16) bool {
	for len(parameters) > 0 {
		var s h2Setting
		if s, parameters = cutSetting(parameters); s.id == id {
			return true
		}
	}
	return false
}

// appSetting notes a parameter, and says what the client is told of it.
func (h *h2) appSetting(s h2Setting) (told h2Setting, fault h2Fault) {
	switch s.id {
	case h2HeaderTableSize:
		s.value = min(s.value, h2DefaultTable)
	case h2MaxFrameSize:
		s.value = maxFrame
	case h2MaxHeaderListSize:
		s.value = min(s.value, maxBlock)
	case h2MaxConcurrent:
		h.maxOpen = s.value
	case h2ConnectProtocol:
		h.extended = s.value == 1
	case h2InitialWindowSize:
		if s.value > h2MaxWindow {
			return s, connectionFault(h2FlowControlError)
		}
		h.base.begin(int64(s.value))
		s.value = min(s.value, maxTold)
		h.tell(int64(s.value))
	}
	return s, h2Fault{}
}

// tell changes what the client's streams may send. Less counts only once the client knows.
func (h *h2) tell(initial int64) {
	more := initial - (h.told - h.lowered)
	if more < 0 {
		h.lowered -= more
		return
	}
	undone := min(more, h.lowered)
	h.lowered -= undone
	h.allow(more - undone)
}

func (h *h2) allow(more int64) {
	h.told += more
	for _, st := range h.streams {
		st.receives += more
	}
}

// clientAcked: the client goes by what it has been told.
func (h *h2) clientAcked(f *h2Frame) h2Fault {
	switch {
	case h.ownDue > 0:
		h.ownDue--
	case h.due > 0:
		h.due--
		h.app.send(f.whole)
		if h.due == 0 && h.lowered > 0 {
			h.allow(-h.lowered)
			h.lowered = 0
		}
	}
	return h.calm.spend(priceAny)
}

// clientSettings passes the client's SETTINGS on to the app, and those that matter to previews. The client has its
// acknowledgement once the app has sent it.
func (h *h2) clientSettings(f *h2Frame) h2Fault {
	switch {
	case f.stream != 0:
		return connectionFault(h2ProtocolError)
	case f.has(h2Ack) && len(f.payload) > 0, len(f.payload)%h2SettingSize != 0:
		return connectionFault(h2FrameSizeError)
	case f.has(h2Ack):
		return h.clientAcked(f)
	}
	// The answers' heads must not depend on each other.
	out, at := h.loop.settingsFrom(f, h2Setting{h2HeaderTableSize, 0}, !h.opened)
	for rest := f.payload; len(rest) > 0; at = at[h2SettingSize:] {
		var s h2Setting
		s, rest = cutSetting(rest)
		s, fault := h.clientSetting(s)
		if fault.scope != h2NoFault {
			return fault
		}
		s.put(at)
	}
	h.opened = true
	h.app.send(withoutTwice(out))
	h.unacked = append(h.unacked, h.initial)
	if h.initial < h.granted {
		h.granted = h.initial
		h.tellPreviews()
	}
	return h.calm.spend(priceSettings + len(h.streams)/calmStreams)
}

// calmStreams is how many streams can be gone through at the price of one.
const calmStreams = 64

// clientSetting checks and notes a parameter, and says what the app is told of it.
func (h *h2) clientSetting(s h2Setting) (told h2Setting, fault h2Fault) {
	switch s.id {
	case h2HeaderTableSize:
		s.value = 0
	case h2EnablePush:
		if s.value > 1 {
			return s, connectionFault(h2ProtocolError)
		}
	case h2MaxFrameSize:
		if s.value < maxFrame || s.value > 1<<24-1 {
			return s, connectionFault(h2ProtocolError)
		}
		s.value = maxFrame
	case h2MaxHeaderListSize:
		h.listSize = s.value
	case h2InitialWindowSize:
		return s, h.clientWindow(int64(s.value))
	}
	return s, h2Fault{}
}

func (h *h2) clientWindow(initial int64) h2Fault {
	if initial > h2MaxWindow {
		return connectionFault(h2FlowControlError)
	}
	more := initial - h.initial
	h.initial = initial
	for _, st := range h.streams {
		if st.sends += more; st.sends > h2MaxWindow {
			return connectionFault(h2FlowControlError)
		}
	}
	return h2Fault{}
}

// appAcked: the client goes by what it has said from now on. Content that a preview sent by a larger window before would
// have come too early for it.
func (h *h2) appAcked() {
	if len(h.unacked) == 0 {
		return
	}
	granted := slices.Min(h.unacked)
	h.unacked = h.unacked[1:]
	if granted != h.granted {
		h.granted = granted
		h.tellPreviews()
	}
}

// tellPreviews repeats nothing else: Go's servers take a table size badly while they are writing a head.
func (h *h2) tellPreviews() {
	for _, u := range h.detours {
		u.socket.send(h.loop.settingsFrame(h2Setting{h2InitialWindowSize, uint32(h.granted)}))
	}
}

// forPreviews are the client's terms, and ours, as a connection to a preview begins.
func (h *h2) forPreviews() []h2Setting {
	s := []h2Setting{{h2HeaderTableSize, 0}, {h2EnablePush, 0}, {h2InitialWindowSize, uint32(h.granted)}}
	if h.listSize > 0 {
		s = append(s, h2Setting{h2MaxHeaderListSize, h.listSize})
	}
	return s
}
