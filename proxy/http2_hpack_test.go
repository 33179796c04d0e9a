package proxy

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"golang.org/x/net/http2/hpack"
)

// decodings are what two decoders, ours and hpack's, make of the same blocks.
type decodings struct {
	t      testing.TB
	loop   loop
	ours   *h2Table
	theirs *hpack.Decoder
}

func newDecodings(t testing.TB) *decodings {
	return &decodings{t: t, ours: newH2Table(), theirs: hpack.NewDecoder(h2DefaultTable, nil)}
}

// compare reports whether both have read the block.
func (d *decodings) compare(block []byte) bool {
	d.t.Helper()
	theirs, err := d.theirs.DecodeFull(block)
	ok := d.loop.decode(d.ours, block)
	if ok != (err == nil) {
		// hpack takes a change of the table's size at some places where RFC 7541, section 4.2, does not have it, and longer
		// integers, but only one change of a table that is not empty.
		if ok && !strings.Contains(err.Error(), "table size update MUST") {
			d.t.Fatalf("%x is read, against: %v", block, err)
		}
		return false
	}
	h := d.loop.head
	if !ok || h.long() {
		return false
	}
	var a, b strings.Builder
	for i, f := range h.fields {
		fmt.Fprintf(&a, "%q %q %v\n", f.name, f.value, h.never[i])
	}
	for _, f := range theirs {
		fmt.Fprintf(&b, "%q %q %v\n", f.Name, f.Value, f.Sensitive)
	}
	if a.String() != b.String() {
		d.t.Fatalf("%x: got\n%s, want\n%s", block, &a, &b)
	}
	return true
}

func TestHPACK(t *testing.T) {
	d := newDecodings(t)
	var b bytes.Buffer
	e := hpack.NewEncoder(&b)
	all := make([]byte, 256)
	for i := range all {
		all[i] = byte(i)
	}
	for i := range 300 {
		b.Reset()
		for _, f := range []hpack.HeaderField{
			{Name: ":method", Value: "GET"}, {Name: ":path", Value: fmt.Sprintf("/%d", i)}, {Name: "same", Value: "always"},
			{Name: "all", Value: string(all[:i%256])}, {Name: "secret", Value: "x", Sensitive: true}, {Name: fmt.Sprintf("name-%d", i%40), Value: ""},
		} {
			e.WriteField(f)
		}
		if i%50 == 49 {
			e.SetMaxDynamicTableSize(uint32(i * 10))
		}
		if !d.compare(b.Bytes()) {
			t.Fatalf("block %d, %x, is not read", i, b.Bytes())
		}
		// What we encode ourselves means the same, to anyone.
		h := d.loop.head
		again, err := hpack.NewDecoder(0, nil).DecodeFull(h.encode())
		if err != nil || len(again) != len(h.fields) || again[3].Value != h.fields[3].value || !again[4].Sensitive {
			t.Fatalf("block %d: encoded anew it is %v, %v", i, again, err)
		}
	}
}

func TestMalformedHeads(t *testing.T) {
	good := []string{":method", "GET", ":scheme", "http", ":path", "/"}
	for name, c := range map[string]struct {
		fields   []string
		request  bool
		trailers bool
	}{
		"good":                  {good, true, false},
		"with a field":          {append(good, "a", "b", "te", "trailers", "content-length", "7"), true, false},
		"nothing":               {nil, false, true},
		"a field":               {[]string{"a", "b"}, false, true},
		"upper case":            {append(good, "Abc", "b"), false, false},
		"space in a name":       {append(good, "a b", "b"), false, false},
		"colon in a name":       {append(good, "a:", "b"), false, false},
		"empty name":            {append(good, "", "b"), false, false},
		"line end in a value":   {append(good, "a", "b\r\nc: d"), false, false},
		"NUL in a value":        {append(good, "a", "b\x00"), false, false},
		"connection":            {append(good, "connection", "close"), false, false},
		"te":                    {append(good, "te", "gzip"), false, false},
		"unknown pseudo-header": {append(good, ":x", "y"), false, false},
		"status":                {append(good, ":status", "200"), false, false},
		"twice":                 {append(good, ":path", "/"), false, false},
		"too late":              {append([]string{"a", "b"}, good...), false, false},
		"no path":               {good[:4], false, false},
		"empty path":            {append(good[:4:4], ":path", ""), false, false},
		"two lengths":           {append(good, "content-length", "1", "content-length", "2"), false, false},
		"signed length":         {append(good, "content-length", "+1"), false, false},
		"CONNECT":               {[]string{":method", "CONNECT", ":authority", "x:1"}, true, false},
		"CONNECT with a path":   {[]string{":method", "CONNECT", ":authority", "x:1", ":path", "/"}, false, false},
		"extended CONNECT":      {[]string{":method", "CONNECT", ":protocol", "websocket", ":scheme", "http", ":path", "/", ":authority", "x"}, false, false},
	} {
		var l loop
		if !l.decode(newH2Table(), encode(c.fields...)) {
			t.Errorf("%s cannot be read", name)
		}
		if got := l.head.isRequest(false); got != c.request {
			t.Errorf("%s: a request: %v", name, got)
		}
		if got := l.head.isTrailers(); got != c.trailers {
			t.Errorf("%s: trailers: %v", name, got)
		}
	}
}

// FuzzHPACK compares two decoders, block by block.
func FuzzHPACK(f *testing.F) {
	f.Add(encode(requestFields...), encode("a", "b", "c", strings.Repeat("d", 200)))
	f.Add([]byte{0x20, 0x3f, 0xe1, 0x1f, 0x82}, []byte{0x41, 0x8c, 0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4, 0xff, 0xbe})
	f.Fuzz(func(t *testing.T, first, second []byte) {
		d := newDecodings(t)
		for _, block := range [][]byte{first, second, second, first} {
			if !d.compare(block) {
				return
			}
		}
	})
}
