package conformance

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/summerwind/h2spec/config"
	"github.com/summerwind/h2spec/generic"
	"github.com/summerwind/h2spec/hpack"
	h2 "github.com/summerwind/h2spec/http2"
	"github.com/summerwind/h2spec/spec"
	"golang.org/x/net/http2"

	"github.com/detour-dev/detour/api"
)

// TestH2spec runs all of h2spec, its strict cases too, one subtest a case: without a table, with routes in force that
// the requests do not match, and with a key that leads every request to a preview.
func TestH2spec(t *testing.T) {
	app, preview := listenApp(t), listenPreview(t)
	var keyed atomic.Int64
	answer := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Context().Value(http.LocalAddrContextKey).(net.Addr).String() == preview.Addr().String() {
			keyed.Add(1)
		}
		io.Copy(io.Discard, r.Body)
		io.WriteString(w, "a body that is long enough for flow control to matter\n")
	})
	for _, l := range []net.Listener{app, preview} {
		strict := &handedOver{Listener: l, conns: make(chan net.Conn), done: make(chan struct{})}
		httpServer(t, strict, answer)
		go strict.acceptPrefaces()
	}

	t.Run("no table", func(t *testing.T) {
		t.Parallel()
		h2spec(t, startSidecarWithoutTable(t, app.Addr().String()).addr)
	})
	t.Run("routes", func(t *testing.T) {
		t.Parallel()
		routes := append(otherRoutes(50, 0), routeTo(preview.Addr().String()))
		h2spec(t, startSidecar(t, app.Addr().String(), routes...).addr)
	})
	t.Run("keyed", func(t *testing.T) {
		t.Parallel()
		routes := []api.Route{routeTo(preview.Addr().String())}
		h2spec(t, startKeyer(t, startSidecar(t, app.Addr().String(), routes...).addr))
		if n := keyed.Load(); n < 40 {
			t.Errorf("the preview has had %d requests, want 40 at least", n)
		}
	})
}

// acceptPrefaces hands connections over that begin with HTTP/2's preface and closes others, as a server does that speaks
// nothing else. Go's would answer them in HTTP/1.1, which passes through us and is not what h2spec wants to see.
func (h *handedOver) acceptPrefaces() {
	for {
		conn, err := h.Listener.Accept()
		if err != nil {
			return
		}
		go func() {
			r := bufio.NewReader(conn)
			for n := 1; n <= len(http2.ClientPreface); n++ {
				if got, err := r.Peek(n); err != nil || string(got) != http2.ClientPreface[:n] {
					conn.Close()
					return
				}
			}
			h.handOver(&peekedConn{conn.(*net.TCPConn), r})
		}()
	}
}

// h2spec runs the cases against the server at addr. A case that h2spec skips, because the server did not do what the
// case needs, has failed.
func h2spec(t *testing.T, addr string) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	number, err := strconv.Atoi(port)
	if err != nil {
		t.Fatal(err)
	}
	c := &config.Config{Host: host, Port: number, Path: "/", Timeout: 2 * time.Second, MaxHeaderLen: 4000, Strict: true}
	var cases int
	for _, group := range []*spec.TestGroup{generic.Spec(), h2.Spec(), hpack.Spec()} {
		cases += h2specGroup(t, c, group)
	}
	if cases < 145 {
		t.Errorf("h2spec has %d cases, want 145 at least", cases)
	}
}

func h2specGroup(t *testing.T, c *config.Config, group *spec.TestGroup) int {
	cases := append(group.Tests, group.StrictTests...)
	for i, tc := range cases {
		t.Run(group.ID()+"/"+strconv.Itoa(i+1), func(t *testing.T) {
			conn, err := spec.Dial(c)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if err := tc.Run(c, conn); errors.Is(err, spec.ErrSkipped) {
				t.Errorf("%s: skipped", tc.Desc)
			} else if err != nil {
				t.Errorf("%s: %s\n%v", tc.Desc, tc.Requirement, err)
			}
		})
	}
	n := len(cases)
	for _, g := range group.Groups {
		n += h2specGroup(t, c, g)
	}
	return n
}

// startKeyer stands between a client of HTTP/2 and the server at addr and adds the key to every request, changing no
// other byte: a literal field without indexing may follow any header block and leaves HPACK's state alone (RFC 7541,
// section 6.2.2). Frames that are too large already, or wrongly padded, go on as they are.
func startKeyer(t *testing.T, addr string) string {
	l := listenAt(t, "127.0.0.1:0")
	go func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			server, err := net.Dial("tcp", addr)
			if err != nil {
				client.Close()
				continue
			}
			go func() {
				io.Copy(client, server)
				client.Close()
			}()
			go func() {
				(&keyer{seen: map[uint32]bool{}}).copy(server, client)
				server.(*net.TCPConn).CloseWrite()
			}()
		}
	}()
	return l.Addr().String()
}

// keyer is one connection's.
type keyer struct {
	seen    map[uint32]bool // streams whose request has been given the key
	partial bool            // CONTINUATION is to come for a request
}

const (
	frameHeader    = 9
	maxFrame       = 16384
	typeHeaders    = 1
	typeContinue   = 9
	flagEndHeaders = 4
	flagPadded     = 8
)

func (k *keyer) copy(dst io.Writer, src io.Reader) {
	var preface bytes.Buffer
	io.CopyN(io.MultiWriter(dst, &preface), src, int64(len(http2.ClientPreface)))
	if preface.String() != http2.ClientPreface {
		io.Copy(dst, src)
		return
	}
	for {
		frame := make([]byte, frameHeader)
		n, err := io.ReadFull(src, frame)
		if err != nil {
			dst.Write(frame[:n])
			return
		}
		length := int(frame[0])<<16 | int(frame[1])<<8 | int(frame[2])
		if length > 4*maxFrame { // no frame at all
			dst.Write(frame)
			io.Copy(dst, src)
			return
		}
		frame = append(frame, make([]byte, length)...)
		n, err = io.ReadFull(src, frame[frameHeader:])
		if err == nil {
			frame = k.keyed(frame)
			n = len(frame) - frameHeader
		}
		if _, failed := dst.Write(frame[:frameHeader+n]); err != nil || failed != nil {
			return
		}
	}
}

// keyed is the frame with the key in it, if it is the last of a request's head.
func (k *keyer) keyed(frame []byte) []byte {
	stream := binary.BigEndian.Uint32(frame[5:9]) &^ (1 << 31)
	switch frame[3] {
	case typeHeaders:
		if k.seen[stream] { // trailers
			return frame
		}
		k.seen[stream], k.partial = true, true
	case typeContinue:
	default:
		return frame
	}
	if !k.partial || frame[4]&flagEndHeaders == 0 {
		return frame
	}
	k.partial = false
	field := literal(api.HeaderKey, key)
	payload := len(frame) - frameHeader
	end := len(frame)
	if frame[3] == typeHeaders && frame[4]&flagPadded != 0 {
		if payload < 1 || int(frame[frameHeader]) >= payload {
			return frame
		}
		end -= int(frame[frameHeader])
	}
	if payload+len(field) > maxFrame {
		return frame
	}
	length := payload + len(field)
	keyed := append([]byte{byte(length >> 16), byte(length >> 8), byte(length)}, frame[3:end]...)
	return append(append(keyed, field...), frame[end:]...)
}

// literal is a header field in HPACK, never indexed and not compressed.
func literal(name, value string) []byte {
	lower := strings.ToLower(name)
	field := append([]byte{0, byte(len(lower))}, lower...)
	return append(append(field, byte(len(value))), value...)
}
