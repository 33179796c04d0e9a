package main

import "encoding/binary"

const preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

// Frame types and flags, RFC 9113 section 6.
const (
	frameData         = 0x0
	frameHeaders      = 0x1
	frameSettings     = 0x4
	framePing         = 0x6
	frameWindowUpdate = 0x8

	flagAck        = 0x1
	flagEndStream  = 0x1
	flagEndHeaders = 0x4

	status200 = 0x88 // of HPACK's static table

	headerLen = 9
	window    = 65535 // what either side may send before it is told of more
)

// hello is the server's side of the preface: a thousand streams, and credit for 2 GiB of requests, which no connection
// here comes near, so that none is ever given again.
var hello = append(
	frame(frameSettings, 0, 0, []byte{0, 3, 0, 0, 0x03, 0xe8}),
	frame(frameWindowUpdate, 0, 0, binary.BigEndian.AppendUint32(nil, 1<<31-1-window))...)

// http2 answers every stream the same. It never looks into a header block, so it keeps no HPACK state: all it answers
// with is literal.
type http2 struct {
	answer  []byte   // the frames of an answer, whose streams are to be filled in
	streams []int    // where
	cost    int      // of the connection's window
	credit  int      // left of it
	waiting []uint32 // streams that are owed an answer until there is more
}

func newHTTP2(message []byte) *http2 {
	body := append([]byte{0, 0, 0, 0, byte(len(message) - 5)}, message[5:]...) // gRPC's prefix of a message
	frames := [][]byte{
		frame(frameHeaders, flagEndHeaders, 0, append([]byte{status200}, literals("content-type", "application/grpc")...)),
		frame(frameData, 0, 0, body),
		frame(frameHeaders, flagEndHeaders|flagEndStream, 0, literals("grpc-status", "0", "grpc-message", "")),
	}
	h := &http2{cost: len(body), credit: window}
	for _, f := range frames {
		h.streams = append(h.streams, len(h.answer)+5)
		h.answer = append(h.answer, f...)
	}
	return h
}

// literals is a header block of names and values in turn, none of which the table is to keep (RFC 7541 section 6.2.2).
func literals(fields ...string) []byte {
	var b []byte
	for i := 0; i < len(fields); i += 2 {
		b = append(b, 0, byte(len(fields[i])))
		b = append(b, fields[i]...)
		b = append(b, byte(len(fields[i+1])))
		b = append(b, fields[i+1]...)
	}
	return b
}

func frame(kind, flags byte, stream uint32, payload []byte) []byte {
	n := len(payload)
	b := []byte{byte(n >> 16), byte(n >> 8), byte(n), kind, flags}
	return append(binary.BigEndian.AppendUint32(b, stream), payload...)
}

func (h *http2) serve(in, out []byte) ([]byte, []byte) {
	for len(in) >= headerLen {
		end := headerLen + int(in[0])<<16 + int(in[1])<<8 + int(in[2])
		if len(in) < end {
			break
		}
		out = h.frame(in[:end], out)
		in = in[end:]
	}
	return in, out
}

// frame acts on one frame, and appends what it calls for.
func (h *http2) frame(f, out []byte) []byte {
	flags, stream, payload := f[4], binary.BigEndian.Uint32(f[5:]), f[headerLen:]
	switch f[3] {
	case frameData, frameHeaders:
		if flags&flagEndStream != 0 {
			h.waiting = append(h.waiting, stream)
		}
	case frameSettings:
		if flags&flagAck == 0 {
			out = append(out, frame(frameSettings, flagAck, 0, nil)...)
		}
	case framePing:
		if flags&flagAck == 0 {
			out = append(out, frame(framePing, flagAck, 0, payload)...)
		}
	case frameWindowUpdate:
		if stream == 0 {
			h.credit += int(binary.BigEndian.Uint32(payload))
		}
	}
	return h.reply(out)
}

// reply answers the streams that the window has room for.
func (h *http2) reply(out []byte) []byte {
	for len(h.waiting) > 0 && h.credit >= h.cost {
		h.credit -= h.cost
		start := len(out)
		out = append(out, h.answer...)
		for _, at := range h.streams {
			binary.BigEndian.PutUint32(out[start+at:], h.waiting[0])
		}
		h.waiting = append(h.waiting[:0], h.waiting[1:]...)
	}
	return out
}
