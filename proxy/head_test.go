package proxy

import (
	"bufio"
	"bytes"
	"encoding/json"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/detour-dev/detour/api"
)

func TestHeadEnd(t *testing.T) {
	for b, want := range map[string]int{
		"":                               0,
		"GET / HTTP/1.1\r\n":             0,
		"GET / HTTP/1.1\r\n\r":           0,
		"GET / HTTP/1.1\r\n\r\n":         18,
		"GET / HTTP/1.1\r\n\r\nX":        18,
		"GET / HTTP/1.1\n\n":             16,
		"GET / HTTP/1.1\n\r\n":           17,
		"GET / HTTP/1.1\r\r\n\r\r\n":     20,
		"GET / HTTP/1.1\r\r":             0, // a LF may follow
		"GET / HTTP/1.1\r\rX":            16,
		"GET / HTTP/1.1\r\nA: b\r\r\r\n": 0,
	} {
		for from := range len(b) + 1 {
			if headEnd([]byte(b[:from]), 0) > 0 {
				break // it would not have been asked again
			}
			if got := headEnd([]byte(b), from); got != want {
				t.Errorf("%q, looked at up to %d: %d, want %d", b, from, got, want)
			}
		}
	}
}

// FuzzRequestHead checks that what is beyond doubt is read by net/http in the same way, if it takes it at all.
func FuzzRequestHead(f *testing.F) {
	for _, h := range hazards {
		f.Add([]byte(strings.Replace(h.request, "KEY", "", 1)))
		f.Add([]byte(strings.Replace(h.request, "KEY", "Detour-Key: a\r\n", 1)))
		f.Add([]byte(strings.Replace(h.request, "KEY", "X-User:\talice \r\n", 1)))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		end := headEnd(b, 0)
		carriesKey(b)
		classify(b)
		if end == 0 {
			return
		}
		h := readRequest(b[:end])
		if h.doubt != "" {
			return
		}
		edit{h2c: true, upgrade: true, member: "detour-key=a", host: "y"}.apply(b[:end], nil)
		r, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(b[:end])))
		if err != nil {
			return
		}
		chunked := slices.Equal(r.TransferEncoding, []string{"chunked"})
		if chunked != (h.kind == bodyChunked) || !chunked && r.ContentLength != h.left {
			t.Errorf("net/http reads length %d, coding %v, we %+v", r.ContentLength, r.TransferEncoding, h.framing)
		}
		if r.ProtoMinor != int(h.minor) || (r.Method == http.MethodHead) != h.isHEAD {
			t.Errorf("net/http reads %s %s, we %+v", r.Method, r.Proto, h)
		}
		if got := len(keysOf(headFields(b[:end]))) > 0; got && !h.carriers {
			t.Error("a key was overlooked")
		}
		if _, wrong := beyondDoubt(h); !wrong {
			got := matchingTable.read(80, b[:end], nil)
			if got.method != r.Method || got.path != "" && got.path[0] != '/' || got.path != "/" && !strings.Contains(r.RequestURI, got.path) {
				t.Errorf("net/http reads %s %s, we %s %s", r.Method, r.RequestURI, got.method, got.path)
			}
			if lines := r.Header.Values("X-User"); len(lines) != len(got.fields) {
				t.Errorf("net/http reads x-user %q, we %q", lines, got.fields)
			}
		}
	})
}

// FuzzAnswerHead checks the same of answers.
func FuzzAnswerHead(f *testing.F) {
	for _, s := range []string{ok, "HTTP/1.1 200\r\n\r\n", "HTTP/1.0 304 x y\r\nTransfer-Encoding: chunked\r\n\r\n", "HTTP/1.1 103 \r\nLink: x\r\n\r\n"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		end := headEnd(b, 0)
		if end == 0 {
			return
		}
		h := readAnswer(b[:end])
		if h.doubt != "" {
			return
		}
		h.answering(false)
		r, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(b[:end])), nil)
		if err != nil {
			return
		}
		length := map[bodyKind]int64{bodyNone: 0, bodyLength: h.left, bodyChunked: -1, bodyUntilEnd: -1}[h.kind]
		if r.StatusCode != h.status || r.ContentLength != length && r.StatusCode/100 != 1 && r.StatusCode != 304 && r.StatusCode != 204 {
			t.Errorf("net/http reads status %d, length %d, we %+v", r.StatusCode, r.ContentLength, h)
		}
	})
}

// FuzzChunks checks that a body ends at the same byte however it is cut.
func FuzzChunks(f *testing.F) {
	for _, s := range []string{"0\r\n\r\n", "3;a=b\r\nabc\r\n0\r\nX: y\r\n\r\nGET", "fffffffffffffff\r\n", "1\r\na\n0\r\n\r\n", "00\r\n\r\r\n"} {
		f.Add([]byte(s), uint64(1))
	}
	f.Fuzz(func(t *testing.T, b []byte, seed uint64) {
		whole := framing{kind: bodyChunked}
		want, wantDone, wantWhy := whole.next(b)
		pieces := rand.New(rand.NewPCG(seed, 1))
		piecewise := framing{kind: bodyChunked}
		used, done, why := 0, false, doubt("")
		for end := 0; end < len(b) && !done && why == ""; {
			end += 1 + pieces.IntN(len(b)-end)
			for {
				var n int
				n, done, why = piecewise.next(b[used:end])
				used += n
				if n == 0 || done || why != "" {
					break
				}
			}
		}
		if used != want || done != wantDone || (why == "") != (wantWhy == "") {
			t.Errorf("in pieces: %d, %v, %q, as a whole: %d, %v, %q", used, done, why, want, wantDone, wantWhy)
		}
	})
}

// FuzzConnection has a client, an app and a preview say anything at all.
func FuzzConnection(f *testing.F) {
	f.Add([]byte("GET / HTTP/1.1\r\nHost: x\r\nDetour-Key: a\r\n\r\n"), []byte(ok), []byte(ok), uint64(1))
	f.Add([]byte(preface+"\x00\x00\x00\x04\x00\x00\x00\x00\x00"), []byte("\x00\x00\x00\x04\x00\x00\x00\x00\x00"), []byte(""), uint64(2))
	f.Add([]byte("GET / HTTP/1.1\r\nHost: x\r\nUpgrade: a\r\n\r\nxyz"), []byte("HTTP/1.1 101 x\r\n\r\nabc"), []byte(ok), uint64(3))
	f.Add([]byte(aliceRequest+"POST / HTTP/1.1\r\nHost: x\r\nX-User: b\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\nx"), []byte(ok), []byte(ok), uint64(4))
	f.Fuzz(func(t *testing.T, fromClient, fromApp, fromPreview []byte, seed uint64) {
		p := newMatchingProxy(t, []api.Route{{Key: "a", Endpoints: []api.Endpoint{endpointOf("x", &anyAddr)}}, {Key: "gone"}},
			matchesOf(t, "a", "header x-user regex ^(al|b)"))
		m := newMemory(t, p, func(w *wire) {
			w.unfed = fromPreview
			if w.remote.Addr() == memoryPod {
				w.unfed = fromApp
			}
		})
		pieces := rand.New(rand.NewPCG(seed, 1))
		for rest := fromClient; len(rest) > 0; {
			n := 1 + pieces.IntN(len(rest))
			m.client.unfed = append(m.client.unfed, rest[:n]...)
			rest = rest[n:]
			m.run()
		}
		for _, w := range append([]*wire{m.client}, m.dialled...) {
			switch pieces.IntN(3) {
			case 0:
				w.ends = true
			case 1:
				w.fail(http.ErrAbortHandler)
			}
			m.run()
		}
		m.close()
		if len(m.loop.pairs) > 0 {
			t.Error("the connection is still there")
		}
	})
}

// FuzzTable checks that whatever a router or a file says is refused or can be used.
func FuzzTable(f *testing.F) {
	f.Add([]byte(`{"ports":[{"port":8080,"protocol":"h2c","routes":[{"key":"a","preview":"deployment/a","endpoints":[{"pod":"shop/a","address":"10.0.0.2:80"}]}]}]}`), "a")
	f.Add([]byte(`{"ports":[{"port":8080,"routes":[{"key":"a"}],"matches":[{"key":"a","conditions":[{"part":"header","name":"x","test":"regex","value":"a|b"}]}]}]}`), "b")
	f.Fuzz(func(t *testing.T, b []byte, key string) {
		var table api.Table
		if json.Unmarshal(b, &table) != nil {
			return
		}
		p := newMemoryProxy(t)
		if p.apply(table) != nil {
			return
		}
		for _, port := range table.Ports {
			d := decide(p.table.Load(), port.Port, request{keys: []string{key}, fields: []field{{"x", key}}})
			if d.verdict == toPreview && len(d.route.candidates()) == 0 {
				t.Error("a preview without an endpoint")
			}
		}
	})
}
