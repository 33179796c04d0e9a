package proxy

import "encoding/binary"

// h2Type is the type of a frame (RFC 9113, section 6).
type h2Type uint8

const (
	h2Data h2Type = iota
	h2Headers
	h2Priority
	h2ResetStream
	h2Settings
	h2PushPromise
	h2Ping
	h2GoAway
	h2WindowUpdate
	h2Continuation
)

// Flags of frames.
const (
	h2EndStream   = 0x1
	h2Ack         = 0x1
	h2EndHeaders  = 0x4
	h2Padded      = 0x8
	h2HasPriority = 0x20
)

// h2Code says why a stream or a connection ends (RFC 9113, section 7).
type h2Code uint32

const (
	h2NoError          h2Code = 0x0
	h2ProtocolError    h2Code = 0x1
	h2InternalError    h2Code = 0x2
	h2FlowControlError h2Code = 0x3
	h2StreamClosed     h2Code = 0x5
	h2FrameSizeError   h2Code = 0x6
	h2RefusedStream    h2Code = 0x7
	h2Cancel           h2Code = 0x8
	h2CompressionError h2Code = 0x9
	h2EnhanceYourCalm  h2Code = 0xb
)

// Parameters of SETTINGS (RFC 9113, section 6.5.2).
const (
	h2HeaderTableSize   = 1
	h2EnablePush        = 2
	h2MaxConcurrent     = 3
	h2InitialWindowSize = 4
	h2MaxFrameSize      = 5
	h2MaxHeaderListSize = 6
	h2ConnectProtocol   = 8 // RFC 8441
	h2SettingSize       = 6
)

const (
	h2DefaultWindow        = 65535
	h2MaxWindow            = 1<<31 - 1
	h2MaxStream     uint32 = 1<<31 - 1
	h2DefaultTable         = 4096
)

const (
	// maxFrame is the size that every peer has to take. Nobody is offered more, so that frames pass as they are.
	maxFrame = 16 << 10
	// maxBlock bounds a header block as it is sent, and what it says once it is decoded.
	maxBlock = 64 << 10
	// maxContinuations is more than a block of that size needs.
	maxContinuations = 32
)

// h2Fault is a peer's error. Its zero value is none.
type h2Fault struct {
	scope h2Scope
	code  h2Code
}

// h2Scope is what ends because of a fault.
type h2Scope uint8

const (
	h2NoFault h2Scope = iota
	h2OfStream
	h2OfConnection
)

func streamFault(code h2Code) h2Fault     { return h2Fault{h2OfStream, code} }
func connectionFault(code h2Code) h2Fault { return h2Fault{h2OfConnection, code} }

// h2Frame is a frame as it came. One that begins a header block includes the frames that continue it.
type h2Frame struct {
	kind     h2Type
	flags    uint8
	stream   uint32
	whole    []byte // empty while it is not all there
	payload  []byte // of the first frame
	block    []byte // the header block of HEADERS, without padding
	priority []byte // and its priority, if it has one
}

func (f *h2Frame) has(flag uint8) bool { return f.flags&flag != 0 }

// cutFrame takes the first frame off b. In it nothing is checked but what delimits it.
func cutFrame(b []byte) (f h2Frame, fault h2Fault) {
	if len(b) < frameHeader {
		return f, fault
	}
	n := int(b[0])<<16 | int(b[1])<<8 | int(b[2])
	f.kind, f.flags, f.stream = h2Type(b[3]), b[4], binary.BigEndian.Uint32(b[5:])&h2MaxStream
	if n > maxFrame {
		return f, connectionFault(h2FrameSizeError)
	}
	if n += frameHeader; len(b) < n {
		return f, fault
	}
	f.payload = b[frameHeader:n]
	switch f.kind {
	case h2Headers:
		if fault = f.cutBlock(); fault.scope != h2NoFault {
			f.whole = b[:n]
			return f, fault
		}
	case h2PushPromise:
	default:
		f.whole = b[:n]
		return f, fault
	}
	if f.has(h2EndHeaders) {
		f.whole = b[:n]
		return f, fault
	}
	return f, f.join(b, n)
}

// cutBlock finds the header block in the payload of a HEADERS frame.
func (f *h2Frame) cutBlock() h2Fault {
	body, ok := f.unpadded()
	if !ok {
		return connectionFault(h2ProtocolError)
	}
	if f.has(h2HasPriority) {
		if len(body) < 5 {
			return connectionFault(h2FrameSizeError)
		}
		f.priority, body = body[:5], body[5:]
	}
	f.block = body
	return h2Fault{}
}

// join adds the frames from b[n:] that continue the header block of f, once all of them are there.
func (f *h2Frame) join(b []byte, n int) h2Fault {
	ends := make([]int, 0, maxContinuations)
	for at := n; ; {
		if len(b)-at < frameHeader {
			return f.bounded(at, len(ends))
		}
		size := int(b[at])<<16 | int(b[at+1])<<8 | int(b[at+2])
		if size > maxFrame {
			return connectionFault(h2FrameSizeError)
		}
		if h2Type(b[at+3]) != h2Continuation || binary.BigEndian.Uint32(b[at+5:])&h2MaxStream != f.stream {
			return connectionFault(h2ProtocolError)
		}
		end := at + frameHeader + size
		if fault := f.bounded(end, len(ends)); fault.scope != h2NoFault || len(b) < end {
			return fault
		}
		ends = append(ends, end)
		if b[at+4]&h2EndHeaders != 0 {
			f.whole = b[:end]
			break
		}
		at = end
	}
	block := append(make([]byte, 0, len(f.whole)), f.block...)
	for _, end := range ends {
		block = append(block, b[n+frameHeader:end]...)
		n = end
	}
	f.block = block
	return h2Fault{}
}

// bounded says whether a header block may have so many bytes and continuations.
func (f *h2Frame) bounded(size, continuations int) h2Fault {
	if size > maxBlock || continuations >= maxContinuations {
		return connectionFault(h2EnhanceYourCalm)
	}
	return h2Fault{}
}

// unpadded is the payload of a DATA or HEADERS frame without its padding.
func (f *h2Frame) unpadded() (body []byte, ok bool) {
	if !f.has(h2Padded) {
		return f.payload, true
	}
	if len(f.payload) == 0 || int(f.payload[0]) >= len(f.payload) {
		return nil, false
	}
	return f.payload[1 : len(f.payload)-int(f.payload[0])], true
}

// number is the payload of a RST_STREAM or WINDOW_UPDATE frame.
func (f *h2Frame) number() uint32 { return binary.BigEndian.Uint32(f.payload) }

// putStream gives a frame another stream.
func putStream(frame []byte, stream uint32) { binary.BigEndian.PutUint32(frame[5:], stream) }

// putHeader writes the header of a frame.
func putHeader(b []byte, size int, kind h2Type, flags uint8, stream uint32) {
	b[0], b[1], b[2], b[3], b[4] = byte(size>>16), byte(size>>8), byte(size), byte(kind), flags
	putStream(b, stream)
}

// frame is a new frame, whose payload is to be filled in.
func (l *loop) frame(size int, kind h2Type, flags uint8, stream uint32) []byte {
	b := l.room(frameHeader + size)
	putHeader(b, size, kind, flags, stream)
	return b
}

func (l *loop) numberFrame(kind h2Type, stream, number uint32) []byte {
	b := l.frame(4, kind, 0, stream)
	binary.BigEndian.PutUint32(b[frameHeader:], number)
	return b
}

func (l *loop) windowFrame(stream uint32, n int64) []byte {
	return l.numberFrame(h2WindowUpdate, stream, uint32(n))
}

func (l *loop) resetFrame(stream uint32, code h2Code) []byte {
	return l.numberFrame(h2ResetStream, stream, uint32(code))
}

func (l *loop) goAwayFrame(last uint32, code h2Code) []byte {
	b := l.frame(8, h2GoAway, 0, 0)
	binary.BigEndian.PutUint32(b[frameHeader:], last)
	binary.BigEndian.PutUint32(b[frameHeader+4:], uint32(code))
	return b
}

// dataFrame copies body.
func (l *loop) dataFrame(stream uint32, body []byte, end bool) []byte {
	b := l.frame(len(body), h2Data, endFlag(end), stream)
	copy(b[frameHeader:], body)
	return b
}

func endFlag(end bool) uint8 {
	if end {
		return h2EndStream
	}
	return 0
}

// blockFrames is a header block in as many frames as it needs.
func (l *loop) blockFrames(stream uint32, flags uint8, priority, block []byte) []byte {
	if priority != nil {
		flags |= h2HasPriority
	}
	pieces := max(1, (len(priority)+len(block)+maxFrame-1)/maxFrame)
	b := l.room(pieces*frameHeader + len(priority) + len(block))
	for kind, at := h2Headers, 0; ; kind, flags, priority = h2Continuation, 0, nil {
		n := min(len(block), maxFrame-len(priority))
		if n == len(block) {
			flags |= h2EndHeaders
		}
		putHeader(b[at:], len(priority)+n, kind, flags, stream)
		at += frameHeader
		at += copy(b[at:], priority)
		at += copy(b[at:], block[:n])
		if block = block[n:]; len(block) == 0 {
			return b
		}
	}
}

// h2Setting is one parameter of a SETTINGS frame.
type h2Setting struct {
	id    uint16
	value uint32
}

// settingsFrame makes room for one of n parameters.
func (l *loop) settingsFrame(settings ...h2Setting) []byte {
	b := l.frame(len(settings)*h2SettingSize, h2Settings, 0, 0)
	for i, s := range settings {
		s.put(b[frameHeader+i*h2SettingSize:])
	}
	return b
}

func (s h2Setting) put(b []byte) {
	binary.BigEndian.PutUint16(b, s.id)
	binary.BigEndian.PutUint32(b[2:], s.value)
}

// cutSetting takes the first parameter off a SETTINGS frame's payload.
func cutSetting(b []byte) (s h2Setting, rest []byte) {
	return h2Setting{binary.BigEndian.Uint16(b), binary.BigEndian.Uint32(b[2:])}, b[h2SettingSize:]
}
