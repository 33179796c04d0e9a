package proxy

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"
)

// exchangeHTTP2 sends a copy of an HTTP/2 request and reads its answer, on a connection of its own. The HTTP/2 of net/http is
// left out of the sidecar (hack/proxy), and ours belongs to the loops. A copy is never larger than the window that a new
// stream has, so it is sent in one go.
func (m *mirror) exchangeHTTP2(ctx context.Context, g *gathered) error {
	conn, err := m.dial(ctx, "tcp", g.to.elsewhere().Address.String())
	if err != nil {
		return err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if _, err := conn.Write(g.frames()); err != nil {
		return err
	}
	return readMirrored(conn)
}

// mirrorStream is the only one of its connection.
const mirrorStream = 1

// frames are all that is sent but for acknowledgements. They offer as large a window as is read of an answer.
func (g *gathered) frames() []byte {
	b := []byte(preface)
	var window [h2SettingSize]byte
	h2Setting{h2InitialWindowSize, maxMirrorAnswer}.put(window[:])
	b = appendFrame(b, h2Settings, 0, 0, window[:])
	b = appendFrame(b, h2WindowUpdate, 0, 0, binary.BigEndian.AppendUint32(nil, maxMirrorAnswer-h2DefaultWindow))

	ends := len(g.trailers) == 0
	b = appendBlock(b, endFlag(ends && len(g.body) == 0), g.copiedFields())
	for body := g.body; len(body) > 0; {
		n := min(len(body), maxFrame)
		b = appendFrame(b, h2Data, endFlag(ends && n == len(body)), mirrorStream, body[:n])
		body = body[n:]
	}
	if !ends {
		b = appendBlock(b, h2EndStream, g.trailers)
	}
	return b
}

func (g *gathered) copiedFields() []field {
	fields := make([]field, 0, len(g.fields)+1)
	for _, f := range g.fields {
		if f.name != "expect" { // all of it is here
			fields = append(fields, f)
		}
	}
	return append(fields, field{carrierMirror, g.to.key})
}

// appendFrame appends a whole frame.
func appendFrame(b []byte, kind h2Type, flags uint8, stream uint32, payload []byte) []byte {
	var header [frameHeader]byte
	putHeader(header[:], len(payload), kind, flags, stream)
	return append(append(b, header[:]...), payload...)
}

// appendBlock appends a header block in as many frames as it needs.
func appendBlock(b []byte, flags uint8, fields []field) []byte {
	var block []byte
	for _, f := range fields {
		block = appendField(block, f, false)
	}
	for kind := h2Headers; ; kind, flags = h2Continuation, 0 {
		n := min(len(block), maxFrame)
		if n == len(block) {
			flags |= h2EndHeaders
		}
		b = appendFrame(b, kind, flags, mirrorStream, block[:n])
		if block = block[n:]; len(block) == 0 {
			return b
		}
	}
}

var errMirrorUnanswered = errors.New("the stream ended without an answer")

// readMirrored reads frames until the answer ends, or as much of it has come as is read of one. Once it has begun it counts as
// an answer, however it ends.
func readMirrored(conn io.ReadWriter) error {
	buffer := make([]byte, 0, maxFrame)
	for begun, data := false, 0; ; {
		f, rest, err := nextFrame(conn, buffer)
		if err != nil {
			return unlessBegun(begun, err)
		}
		begun = begun || f.kind == h2Headers
		switch f.kind {
		case h2Settings, h2Ping:
			if !f.has(h2Ack) {
				err = acknowledge(conn, f)
			}
		case h2Data:
			data += len(f.payload)
		case h2ResetStream:
			return unlessBegun(begun, errMirrorUnanswered)
		}
		ended := (f.kind == h2Headers || f.kind == h2Data) && f.has(h2EndStream)
		switch {
		case ended, data >= maxMirrorAnswer:
			return unlessBegun(begun, errMirrorUnanswered)
		case err != nil:
			return unlessBegun(begun, err)
		}
		buffer = rest
	}
}

func unlessBegun(begun bool, err error) error {
	if begun {
		return nil
	}
	return err
}

// nextFrame reads until there is a whole frame, and returns what has come after it.
func nextFrame(conn io.Reader, b []byte) (f h2Frame, rest []byte, err error) {
	for {
		f, fault := cutFrame(b)
		switch {
		case fault.scope != h2NoFault:
			return f, nil, fmt.Errorf("%w (error code %d)", errPreviewFrames, fault.code)
		case len(f.whole) > 0:
			return f, b[len(f.whole):], nil
		}
		if len(b) == cap(b) {
			b = append(make([]byte, 0, 2*len(b)+maxFrame), b...)
		}
		n, err := conn.Read(b[len(b):cap(b)])
		if b = b[:len(b)+n]; n == 0 && err != nil {
			return f, nil, err
		}
	}
}

// acknowledge answers SETTINGS and PING.
func acknowledge(w io.Writer, f h2Frame) error {
	payload := f.payload
	if f.kind == h2Settings {
		payload = nil
	}
	_, err := w.Write(appendFrame(nil, f.kind, h2Ack, 0, payload))
	return err
}
