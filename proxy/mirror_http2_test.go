package proxy

import (
	"bytes"
	"io"
	"testing"
)

// TestReadMirrored has previews answer, and not, in as many ways as HTTP/2 has.
func TestReadMirrored(t *testing.T) {
	headers := func(flags uint8) []byte { return appendBlock(nil, flags, []field{{":status", "200"}}) }
	data := func(size int, flags uint8) []byte {
		return appendFrame(nil, h2Data, flags, mirrorStream, make([]byte, size))
	}
	settings := appendFrame(nil, h2Settings, 0, 0, nil)
	reset := appendFrame(nil, h2ResetStream, 0, mirrorStream, make([]byte, 4))
	endless := bytes.Repeat(data(maxFrame, 0), maxMirrorAnswer/maxFrame+1)
	for name, c := range map[string]struct {
		said     []byte
		answered bool
		acks     int
	}{
		"an answer":               {join(settings, headers(0), data(10, h2EndStream)), true, 1},
		"without a body":          {headers(h2EndStream), true, 0},
		"more than is read of it": {join(headers(0), endless), true, 0},
		"broken off":              {join(headers(0), data(10, 0)), true, 0},
		"reset after it began":    {join(headers(0), reset), true, 0},
		"reset":                   {join(settings, reset), false, 1},
		"nothing":                 {settings, false, 1},
		"a body alone":            {data(10, h2EndStream), false, 0},
		"a ping":                  {join(appendFrame(nil, h2Ping, 0, 0, make([]byte, 8)), headers(h2EndStream)), true, 1},
		"an acknowledgement":      {join(appendFrame(nil, h2Settings, h2Ack, 0, nil), headers(h2EndStream)), true, 0},
		"HTTP/1.1":                {[]byte("HTTP/1.1 400 Bad Request\r\n\r\n"), false, 0},
	} {
		t.Run(name, func(t *testing.T) {
			var sent bytes.Buffer
			err := readMirrored(dialogue{bytes.NewReader(c.said), &sent})
			if (err == nil) != c.answered {
				t.Errorf("error %v, want an answer: %v", err, c.answered)
			}
			acks := 0
			for b := sent.Bytes(); len(b) > 0; acks++ {
				f, fault := cutFrame(b)
				if fault.scope != h2NoFault || len(f.whole) == 0 || !f.has(h2Ack) {
					t.Fatalf("%x is no acknowledgement", b)
				}
				b = b[len(f.whole):]
			}
			if acks != c.acks {
				t.Errorf("%d acknowledgements, want %d", acks, c.acks)
			}
		})
	}
}

// dialogue is what a preview says, and a place for what it is told.
type dialogue struct {
	io.Reader
	io.Writer
}

func join(frames ...[]byte) []byte { return bytes.Join(frames, nil) }

// FuzzReadMirrored has no preview crash a proxy, whatever it answers.
func FuzzReadMirrored(f *testing.F) {
	f.Add(appendBlock(appendFrame(nil, h2Settings, 0, 0, nil), h2EndStream, []field{{":status", "200"}}))
	f.Add(appendFrame(nil, h2Data, h2Padded, mirrorStream, []byte{9}))
	f.Fuzz(func(t *testing.T, said []byte) {
		_ = readMirrored(dialogue{bytes.NewReader(said), io.Discard})
	})
}
