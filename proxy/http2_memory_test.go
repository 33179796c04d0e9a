package proxy

import (
	"bytes"
	"container/heap"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/net/http2"

	"github.com/detour-dev/detour/api"
)

// h2memory is an HTTP/2 connection with all its peers in h2memory: what they send is fed to the handlers, what they would be
// sent is read from the sockets.
type h2memory struct {
	t           testing.TB
	h           *h2
	client, app *peer
	previews    []*peer // in the order in which they were dialled
	refuse      bool    // whether previews that are dialled refuse
}

// peer is one end.
type peer struct {
	m      *h2memory
	socket *socket
	framer *http2.Framer // writes to out, reads from in
	in     bytes.Buffer
	out    bytes.Buffer
}

var pod = api.Sidecar{Namespace: "shop", Pod: "api-0", PodIPs: []netip.Addr{loopback}}

// newH2Memory has the routes a, to one Pod, two, to two of them, gone, to none, and spare, to a Pod or the app.
func newH2Memory(t testing.TB) *h2memory {
	p := assemble(Config{Sidecar: pod}.withDefaults())
	at := func(port uint16) api.Endpoint {
		return api.Endpoint{Pod: fmt.Sprintf("shop/x-%d", port), Address: netip.AddrPortFrom(away, port)}
	}
	routes := []api.Route{
		{Key: "a", Preview: "deployment/a", Endpoints: []api.Endpoint{at(1)}},
		{Key: "two", Preview: "deployment/two", Endpoints: []api.Endpoint{at(2), at(3)}},
		{Key: "gone", Preview: "deployment/gone"},
		{Key: "spare", Preview: "deployment/spare", Fallback: true, Endpoints: []api.Endpoint{at(4)}},
	}
	p.table.Store(compile(api.Table{Ports: []api.Port{{Port: 80, Routes: routes}}}, pod, nil))
	m := &h2memory{t: t}
	l := &loop{buffer: make([]byte, readBuffer), pairs: map[*pair]struct{}{}}
	l.connect = func(s *socket, to netip.AddrPort) error {
		if m.refuse {
			return syscall.ECONNREFUSED
		}
		m.previews = append(m.previews, m.newPeer(s))
		return nil
	}
	pr := &pair{proxy: p, loop: l, port: api.TakenPort{App: 80}}
	p.open.Add(1)
	m.client = m.newPeer(&socket{loop: l, fd: -1})
	m.app = m.newPeer(&socket{loop: l, fd: -1, remote: netip.AddrPortFrom(loopback, 80)})
	pr.client, pr.app = m.client.socket, m.app.socket
	m.h = newHTTP2(pr).(*h2)
	pr.client.handler, pr.app.handler = m.h, m.h
	return m
}

func (m *h2memory) newPeer(s *socket) *peer {
	p := &peer{m: m, socket: s}
	p.framer = newFramer(struct {
		io.Reader
		io.Writer
	}{&p.in, &p.out})
	return p
}

// opened is one on which client and app have exchanged SETTINGS.
func opened(t testing.TB, settings ...http2.Setting) *h2memory {
	m := newH2Memory(t)
	m.client.out.WriteString(http2.ClientPreface)
	m.client.framer.WriteSettings()
	m.client.send()
	m.app.framer.WriteSettings(settings...)
	m.app.framer.WriteSettingsAck()
	m.app.send()
	m.client.framer.WriteSettingsAck()
	m.client.send()
	m.client.got()
	m.app.got()
	return m
}

// send feeds what was written to the handler.
func (p *peer) send() { p.feed(p.out.Next(p.out.Len())) }

func (p *peer) feed(b []byte) {
	s, l := p.socket, p.m.h.loop
	for len(b) > 0 && !s.gone {
		before := copy(l.buffer, s.in)
		n := copy(l.buffer[before:], b)
		b = b[n:]
		s.offer(before + n)
		p.m.run()
	}
}

// run does what the loop would have done by now, but for time that has to pass.
func (m *h2memory) run() {
	l := m.h.loop
	l.flush()
	for len(l.timers) > 0 && m.refuse && !l.timers[0].at.After(time.Now()) {
		heap.Pop(&l.timers).(*timer).f()
		l.flush()
	}
	l.queued = nil
}

// accept has the preview accept the connection and send its SETTINGS.
func (p *peer) accept(settings ...http2.Setting) {
	p.socket.dialling = false
	p.socket.connected(p.socket)
	p.framer.WriteSettings(settings...)
	p.send()
}

// take takes what the peer was sent.
func (p *peer) take() []byte {
	p.socket.out.own()
	b := p.socket.out.owned
	p.socket.out.owned = nil
	return b
}

// got describes the frames that the peer was sent.
func (p *peer) got() []string {
	b := p.take()
	p.in.Write(bytes.TrimPrefix(b, []byte(preface)))
	var got []string
	for p.in.Len() > 0 {
		f, err := p.framer.ReadFrame()
		if err != nil {
			p.m.t.Fatalf("reading what was sent: %v", err)
		}
		got = append(got, describe(f))
	}
	return got
}

func describe(f http2.Frame) string {
	h := f.Header()
	var b strings.Builder
	fmt.Fprintf(&b, "%v %d", h.Type, h.StreamID)
	switch f := f.(type) {
	case *http2.MetaHeadersFrame:
		for _, field := range f.Fields {
			fmt.Fprintf(&b, " %s=%s", field.Name, field.Value)
		}
		if f.StreamEnded() {
			b.WriteString(" END")
		}
		return b.String()
	case *http2.DataFrame:
		if data := f.Data(); len(data) < 100 {
			fmt.Fprintf(&b, " %q", data)
		} else {
			fmt.Fprintf(&b, " %d bytes", len(data))
		}
		if f.StreamEnded() {
			b.WriteString(" END")
		}
	case *http2.SettingsFrame:
		f.ForeachSetting(func(s http2.Setting) error {
			fmt.Fprintf(&b, " %v=%d", s.ID, s.Val)
			return nil
		})
		if f.IsAck() {
			b.WriteString(" ACK")
		}
	case *http2.WindowUpdateFrame:
		fmt.Fprintf(&b, " %d", f.Increment)
	case *http2.RSTStreamFrame:
		fmt.Fprintf(&b, " %v", f.ErrCode)
	case *http2.GoAwayFrame:
		fmt.Fprintf(&b, " %d %v", f.LastStreamID, f.ErrCode)
	case *http2.PingFrame:
		fmt.Fprintf(&b, " %q", f.Data[:])
		if f.IsAck() {
			b.WriteString(" ACK")
		}
	}
	return b.String()
}

// expect compares what the peer was sent.
func (p *peer) expect(want ...string) {
	p.m.t.Helper()
	if diff := cmp.Diff(want, p.got()); diff != "" {
		p.m.t.Errorf("-want +got\n%s", diff)
	}
}

var requestFields = []string{":method", "POST", ":scheme", "http", ":path", "/", ":authority", "x"}

const requestText = " :method=POST :scheme=http :path=/ :authority=x"

// request sends the head of one, with more fields, given as name, value.
func (p *peer) request(stream uint32, end bool, more ...string) {
	p.head(stream, end, append(requestFields[:len(requestFields):len(requestFields)], more...)...)
}

func (p *peer) head(stream uint32, end bool, fields ...string) {
	p.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: encode(fields...), EndHeaders: true, EndStream: end})
	p.send()
}

func (p *peer) content(stream uint32, end bool, b []byte) {
	for len(b) > maxFrame {
		p.framer.WriteData(stream, false, b[:maxFrame])
		b = b[maxFrame:]
	}
	p.framer.WriteData(stream, end, b)
	p.send()
}

func (p *peer) window(stream, n uint32) {
	p.framer.WriteWindowUpdate(stream, n)
	p.send()
}

func TestH2TermsOfBothSides(t *testing.T) {
	m := newH2Memory(t)
	m.client.out.WriteString(http2.ClientPreface)
	m.client.framer.WriteSettings(http2.Setting{ID: http2.SettingHeaderTableSize, Val: 8192}, http2.Setting{ID: http2.SettingMaxFrameSize, Val: 1 << 20},
		http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 20}, http2.Setting{ID: 99, Val: 7})
	m.client.send()
	m.app.expect("SETTINGS 0 HEADER_TABLE_SIZE=0 MAX_FRAME_SIZE=16384 INITIAL_WINDOW_SIZE=1048576 UNKNOWN_SETTING_99=7")
	m.client.expect()
	m.app.framer.WriteSettings(http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: 100}, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 20},
		http2.Setting{ID: http2.SettingMaxFrameSize, Val: 1 << 20}, http2.Setting{ID: http2.SettingMaxHeaderListSize, Val: 8000})
	m.app.framer.WriteSettingsAck()
	m.app.send()
	m.client.expect("SETTINGS 0 MAX_CONCURRENT_STREAMS=100 INITIAL_WINDOW_SIZE=65535 MAX_FRAME_SIZE=16384 MAX_HEADER_LIST_SIZE=8000",
		"SETTINGS 0 ACK")
	m.client.framer.WriteSettingsAck()
	m.client.framer.WritePing(false, [8]byte{1})
	m.client.send()
	m.app.expect("SETTINGS 0 ACK", `PING 0 "\x01\x00\x00\x00\x00\x00\x00\x00"`)
	m.app.framer.WritePing(true, [8]byte{1})
	m.app.framer.WritePing(false, [8]byte{2})
	m.app.send()
	m.client.expect(`PING 0 "\x01\x00\x00\x00\x00\x00\x00\x00" ACK`, `PING 0 "\x02\x00\x00\x00\x00\x00\x00\x00"`)
}

// TestH2FramesPassUnchanged compares bytes, as long as every stream goes to the app.
func TestH2FramesPassUnchanged(t *testing.T) {
	m := opened(t)
	var b bytes.Buffer
	f := newFramer(&b)
	f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: encode(append(requestFields, "a", "b")...), EndHeaders: true, PadLength: 3,
		Priority: http2.PriorityParam{StreamDep: 0, Weight: 7}})
	f.WriteData(1, false, []byte("hello"))
	f.WriteDataPadded(1, false, []byte("padded"), make([]byte, 9))
	block := encode(append(requestFields, "c", "d")...)
	f.WriteHeaders(http2.HeadersFrameParam{StreamID: 3, BlockFragment: block[:5]})
	f.WriteContinuation(3, false, block[5:9])
	f.WriteContinuation(3, true, block[9:])
	f.WritePriority(3, http2.PriorityParam{StreamDep: 1, Weight: 2})
	f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: encode("trailer", "x"), EndHeaders: true, EndStream: true})
	f.WriteRawFrame(0x77, 0xff, 3, []byte("extension"))
	f.WriteWindowUpdate(0, 10)
	f.WriteWindowUpdate(3, 10)
	f.WriteRSTStream(3, http2.ErrCodeNo)
	sent := bytes.Clone(b.Bytes())
	for _, c := range sent { // byte by byte
		m.client.feed([]byte{c})
	}
	if got := m.app.take(); !bytes.Equal(got, sent) {
		t.Errorf("the app got\n%x, want\n%x", got, sent)
	}
	m.client.request(5, true)
	m.app.take()
	b.Reset()
	f.WriteHeaders(http2.HeadersFrameParam{StreamID: 5, BlockFragment: encode(":status", "103", "link", "x"), EndHeaders: true})
	f.WriteHeaders(http2.HeadersFrameParam{StreamID: 5, BlockFragment: encode(":status", "200"), EndHeaders: true})
	f.WriteDataPadded(5, false, []byte("padded"), make([]byte, 9))
	f.WriteHeaders(http2.HeadersFrameParam{StreamID: 5, BlockFragment: encode("grpc-status", "0"), EndHeaders: true, EndStream: true})
	f.WriteRawFrame(0x77, 0xff, 0, []byte("extension"))
	sent = bytes.Clone(b.Bytes())
	m.app.feed(sent)
	if got := m.client.take(); !bytes.Equal(got, sent) {
		t.Errorf("the client got\n%x, want\n%x", got, sent)
	}
	if n := len(m.h.streams); n != 1 {
		t.Errorf("%d streams are left, want that of the first request", n)
	}
}

// TestH2HeadsAfterADetour: the app's decoder has not seen one, and what follows must not depend on it.
func TestH2HeadsAfterADetour(t *testing.T) {
	m := opened(t)
	m.client.request(1, true, "indexed", "by both")
	m.app.expect("HEADERS 1" + requestText + " indexed=by both END")
	m.client.request(3, false, "detour-key", "a", "missed", "by the app")
	m.client.request(5, true, "missed", "by the app")
	m.app.expect("HEADERS 5" + requestText + " missed=by the app END")
	if len(m.previews) != 1 {
		t.Fatalf("%d previews were dialled", len(m.previews))
	}
	preview := m.previews[0]
	m.client.content(3, false, []byte("early"))
	preview.expect("SETTINGS 0 HEADER_TABLE_SIZE=0 ENABLE_PUSH=0 INITIAL_WINDOW_SIZE=65535")
	preview.accept()
	preview.expect("SETTINGS 0 ACK", "HEADERS 1"+requestText+" detour-key=a missed=by the app baggage=detour-key=a", `DATA 1 "early"`)
	m.client.head(3, true, "trailer", "x")
	preview.expect("HEADERS 1 trailer=x END")
	preview.head(1, false, ":status", "103")
	preview.head(1, false, ":status", "200", "x", "y")
	preview.content(1, false, []byte("answer"))
	preview.head(1, true, "grpc-status", "0")
	m.client.expect("HEADERS 3 :status=103", "HEADERS 3 :status=200 x=y detour-served-by=shop/x-1", `DATA 3 "answer"`, "HEADERS 3 grpc-status=0 END")
	m.client.request(7, true, "detour-key", "a")
	preview.expect("HEADERS 3" + requestText + " detour-key=a baggage=detour-key=a END")
	preview.framer.WriteRSTStream(3, http2.ErrCodeRefusedStream)
	preview.send()
	m.client.expect("RST_STREAM 7 REFUSED_STREAM")
}

func TestH2Refusals(t *testing.T) {
	m := opened(t)
	m.client.request(1, false, "detour-key", "gone", "content-type", "application/grpc")
	got := m.client.got()
	if len(got) != 2 || !strings.HasPrefix(got[0], "HEADERS 1 :status=200 content-type=application/grpc grpc-status=14 grpc-message=Detour: Key") || got[1] != "RST_STREAM 1 NO_ERROR" {
		t.Errorf("got %q", got)
	}
	m.client.content(1, false, []byte("under way"))
	m.client.expect()
	m.client.head(3, true, ":method", "HEAD", ":scheme", "http", ":path", "/", "detour-key", "gone")
	if got := m.client.got(); len(got) != 1 || !strings.Contains(got[0], " content-length=2") || !strings.HasSuffix(got[0], " END") {
		t.Errorf("got %q", got)
	}
	m.client.head(5, false, ":method", "CONNECT", ":authority", "x", "detour-key", "a")
	if got := m.client.got(); len(got) != 3 || !strings.Contains(got[0], "detour-error=connect") {
		t.Errorf("got %q", got)
	}
	m.refuse = true
	m.client.request(7, true, "detour-key", "two")
	if got := m.client.got(); len(got) != 2 || !strings.Contains(got[0], "detour-error=unreachable") || !strings.HasPrefix(got[1], "DATA 7 ") {
		t.Errorf("got %q", got)
	}
	m.client.request(9, true, "detour-key", "spare")
	m.app.expect("HEADERS 9" + requestText + " detour-key=spare baggage=detour-key=spare END")
	if n := len(m.h.streams); n != 1 || m.h.away != 0 {
		t.Errorf("%d streams are left, %d away", n, m.h.away)
	}
}

// TestH2LateFallback: a later stream was opened at the app meanwhile, so this one needs a connection of its own.
func TestH2LateFallback(t *testing.T) {
	m := opened(t)
	m.client.request(1, true, "detour-key", "spare")
	m.client.request(3, true)
	m.app.got()
	m.previews[0].socket.fail(syscall.ECONNREFUSED)
	m.run()
	if len(m.previews) != 2 || m.previews[1].socket.remote != m.app.socket.remote {
		t.Fatalf("dialled: %d", len(m.previews))
	}
	m.previews[1].accept()
	m.previews[1].got()
	m.previews[1].head(1, true, ":status", "200")
	m.client.expect("HEADERS 1 :status=200 END")
}

// TestH2SlowPreview takes nothing: other streams go on, and what is held is bounded.
func TestH2SlowPreview(t *testing.T) {
	m := opened(t)
	m.client.request(1, false, "detour-key", "a")
	m.client.request(3, false)
	preview := m.previews[0]
	preview.accept(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 10})
	m.client.content(1, false, make([]byte, 60_000))
	preview.got()
	m.app.got()
	if m.h.held != 60_000-10 {
		t.Errorf("%d bytes are held", m.h.held)
	}
	m.client.expect("WINDOW_UPDATE 0 60000")
	m.client.content(3, true, make([]byte, 60_000))
	m.app.expect("DATA 3 16384 bytes", "DATA 3 16384 bytes", "DATA 3 16384 bytes", "DATA 3 10848 bytes END")
	m.app.window(0, 60_000)
	m.client.expect("WINDOW_UPDATE 0 60000")
	preview.window(1, 50_000)
	preview.expect("DATA 1 16384 bytes", "DATA 1 16384 bytes", "DATA 1 16384 bytes", `DATA 1 848 bytes`)
	m.client.expect() // it may send 5,535 bytes, and 9,990 are held
	preview.window(1, 50_000)
	preview.got()
	m.client.expect("WINDOW_UPDATE 1 34475") // now it may send what the preview takes: 40,010
	m.client.content(1, true, make([]byte, 40_010))
	if n := m.h.held; n != 40_010-5535 {
		t.Errorf("%d bytes are held, because of the connection's window", n)
	}
	preview.got()
	preview.window(0, 60_000)
	preview.expect("DATA 1 16384 bytes", "DATA 1 16384 bytes", "DATA 1 1707 bytes END")
	if m.h.held != 0 {
		t.Errorf("%d bytes are held", m.h.held)
	}
}

func TestH2ClientThatExceedsWindows(t *testing.T) {
	m := opened(t)
	m.client.request(1, false)
	m.client.content(1, false, make([]byte, 65535))
	m.client.got()
	m.client.content(1, false, []byte{0})
	m.client.expect("GOAWAY 0 1 FLOW_CONTROL_ERROR")

	m = opened(t, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 100})
	m.client.request(1, false)
	m.client.content(1, false, make([]byte, 101))
	m.client.expect("RST_STREAM 1 FLOW_CONTROL_ERROR")
}

// TestH2ClientThatTakesNothing: what previews send beyond its window is queued, and the app's comes behind it.
func TestH2ClientThatTakesNothing(t *testing.T) {
	m := opened(t)
	m.client.request(1, true, "detour-key", "a")
	m.client.request(3, true)
	m.client.request(5, true, "detour-key", "a")
	m.client.window(1, 1<<20)
	m.client.window(5, 1<<20)
	m.client.window(3, 1<<20)
	preview := m.previews[0]
	preview.accept()
	preview.got()
	preview.head(1, false, ":status", "200")
	preview.head(3, false, ":status", "200")
	m.app.head(3, false, ":status", "200")
	preview.content(1, false, make([]byte, 60_000))
	preview.content(3, true, make([]byte, 5_000))
	m.client.got()
	preview.content(1, true, make([]byte, 10_000))
	m.app.content(3, true, []byte("the app's"))
	m.client.expect(`DATA 1 535 bytes`)
	if len(m.h.queue) == 0 {
		t.Error("nothing is queued")
	}
	m.client.window(0, 5_000)
	m.client.expect("DATA 1 5000 bytes")
	m.client.window(0, 100_000)
	m.client.expect("DATA 1 4465 bytes END", `DATA 3 "the app's" END`)
	m.app.got()
	m.client.window(0, 100_000)
	m.app.expect("WINDOW_UPDATE 0 95535") // less the 4,465 bytes of a preview that were not given back before
}

func TestH2GoAwayOfTheApp(t *testing.T) {
	m := opened(t)
	m.client.request(1, true)
	m.client.request(3, true)
	m.client.request(5, true, "detour-key", "a")
	m.client.request(7, true)
	preview := m.previews[0]
	preview.accept()
	preview.got()
	m.app.framer.WriteGoAway(1, http2.ErrCodeNo, nil)
	m.app.send()
	m.client.expect("GOAWAY 0 5 NO_ERROR", "RST_STREAM 3 REFUSED_STREAM")
	m.client.request(9, true, "detour-key", "a")
	preview.expect()
	m.app.head(1, true, ":status", "200")
	m.client.expect("HEADERS 1 :status=200 END")
	m.h.ended(m.app.socket, nil)
	if m.client.socket.out.end != endNone {
		t.Error("the client's connection ends although a preview has not answered")
	}
	preview.head(1, true, ":status", "200")
	m.client.expect("HEADERS 5 :status=200 detour-served-by=shop/x-1 END")
	if m.client.socket.out.end == endNone {
		t.Error("the client's connection goes on")
	}
}

func TestH2GoAwayOfAPreview(t *testing.T) {
	m := opened(t)
	for id := uint32(1); id <= 7; id += 2 {
		m.client.request(id, id != 5, "detour-key", "a")
	}
	preview := m.previews[0]
	preview.accept()
	m.client.content(5, false, []byte("cannot be sent again"))
	preview.got()
	preview.framer.WriteGoAway(3, http2.ErrCodeNo, nil)
	preview.send()
	m.client.expect("RST_STREAM 5 REFUSED_STREAM")
	if len(m.previews) != 2 {
		t.Fatal("the preview is not dialled again")
	}
	m.previews[1].accept()
	if got := m.previews[1].got(); len(got) != 3 || !strings.HasPrefix(got[2], "HEADERS 1") {
		t.Errorf("got %q", got)
	}
	m.previews[1].head(1, true, ":status", "204")
	preview.head(1, true, ":status", "200")
	m.client.expect("HEADERS 7 :status=204 detour-served-by=shop/x-1 END", "HEADERS 1 :status=200 detour-served-by=shop/x-1 END")
	preview.socket.fail(syscall.ECONNRESET) // with stream 3 open
	m.run()
	m.client.expect("RST_STREAM 3 INTERNAL_ERROR")
}

// TestH2PreviewIsFull: more streams than it takes wait for their turn.
func TestH2PreviewIsFull(t *testing.T) {
	m := opened(t)
	m.client.request(1, true, "detour-key", "a")
	m.client.request(3, true, "detour-key", "a")
	m.client.request(5, true, "detour-key", "a")
	preview := m.previews[0]
	preview.accept(http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: 1})
	if got := preview.got(); len(got) != 3 {
		t.Errorf("got %q", got)
	}
	m.client.framer.WriteRSTStream(3, http2.ErrCodeCancel)
	m.client.send()
	preview.expect()
	preview.head(1, true, ":status", "200")
	if got := preview.got(); len(got) != 1 || !strings.HasPrefix(got[0], "HEADERS 3") {
		t.Errorf("got %q", got)
	}
	preview.head(3, true, ":status", "200")
	m.client.expect("HEADERS 1 :status=200 detour-served-by=shop/x-1 END", "HEADERS 5 :status=200 detour-served-by=shop/x-1 END")
}

func TestH2Drain(t *testing.T) {
	m := opened(t)
	m.client.request(1, true)
	m.h.drain()
	m.run()
	m.client.expect("GOAWAY 0 2147483647 NO_ERROR", `PING 0 "detour\r\n"`)
	m.client.request(3, true) // under way
	m.client.framer.WritePing(true, [8]byte([]byte(drainPing)))
	m.client.send()
	m.client.request(5, true) // as well
	m.client.expect()
	heap.Pop(&m.h.loop.timers).(*timer).f()
	m.client.expect("GOAWAY 0 5 NO_ERROR")
	m.client.request(7, true)
	m.app.got()
	m.app.head(1, true, ":status", "200")
	if m.client.socket.out.end != endNone {
		t.Error("it ends too early")
	}
	m.app.head(3, true, ":status", "200")
	m.app.head(5, true, ":status", "200")
	m.client.expect("HEADERS 1 :status=200 END", "HEADERS 3 :status=200 END", "HEADERS 5 :status=200 END")
	if m.client.socket.out.end == endNone {
		t.Error("it does not end")
	}
}

// TestH2Floods are answered before they are served.
func TestH2Floods(t *testing.T) {
	const frames = 40_000
	head := encode(requestFields...)
	for name, flood := range map[string]func(f *http2.Framer, i int){
		"rapid reset": func(f *http2.Framer, i int) {
			id := uint32(2*i + 3)
			f.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: head, EndHeaders: true})
			f.WriteRSTStream(id, http2.ErrCodeCancel)
		},
		"provoked resets": func(f *http2.Framer, i int) {
			id := uint32(2*i + 3)
			f.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: head, EndHeaders: true})
			f.WriteRawFrame(http2.FrameWindowUpdate, 0, id, []byte{0, 0, 0, 0})
		},
		"malformed requests": func(f *http2.Framer, i int) {
			f.WriteHeaders(http2.HeadersFrameParam{StreamID: uint32(2*i + 3), BlockFragment: encode("a", "b"), EndHeaders: true})
		},
		"SETTINGS":      func(f *http2.Framer, i int) { f.WriteSettings() },
		"SETTINGS ACK":  func(f *http2.Framer, i int) { f.WriteSettingsAck() },
		"PING":          func(f *http2.Framer, i int) { f.WritePing(false, [8]byte{}) },
		"empty DATA":    func(f *http2.Framer, i int) { f.WriteData(1, false, nil) },
		"PRIORITY":      func(f *http2.Framer, i int) { f.WritePriority(5, http2.PriorityParam{}) },
		"WINDOW_UPDATE": func(f *http2.Framer, i int) { f.WriteWindowUpdate(1, 1) },
		"unknown":       func(f *http2.Framer, i int) { f.WriteRawFrame(0x99, 0, 0, nil) },
		"closed stream": func(f *http2.Framer, i int) { f.WriteRSTStream(1, http2.ErrCodeCancel) },
		"CONTINUATION": func(f *http2.Framer, i int) {
			if i == 0 {
				f.WriteHeaders(http2.HeadersFrameParam{StreamID: 3})
			}
			f.WriteContinuation(3, false, nil)
		},
	} {
		t.Run(name, func(t *testing.T) {
			m := opened(t)
			m.client.request(1, false)
			for i := 0; i < frames && !m.h.dead; i++ {
				flood(m.client.framer, i)
				m.client.send()
				m.app.take()
			}
			got := m.client.take()
			if !m.h.dead || !bytes.HasSuffix(got, []byte{0, 0, 0, byte(http2.ErrCodeEnhanceYourCalm)}) {
				t.Error("the client may go on")
			}
			if n := m.h.loop.timers; len(n) > 3 {
				t.Errorf("%d timers", len(n))
			}
		})
	}
}

// TestH2BusyClient does what floods are made of, and works.
func TestH2BusyClient(t *testing.T) {
	m := opened(t)
	for i := range 50_000 {
		id := uint32(2*i + 1)
		m.client.request(id, true)
		m.client.framer.WritePriority(id, http2.PriorityParam{})
		m.client.framer.WritePing(false, [8]byte{})
		m.client.send()
		m.app.head(id, false, ":status", "200")
		m.app.content(id, i%2 == 0, []byte("x"))
		m.client.framer.WriteWindowUpdate(0, 1)
		if i%2 == 1 {
			m.client.framer.WriteRSTStream(id, http2.ErrCodeCancel)
		}
		m.client.send()
		m.client.take()
		m.app.take()
	}
	if m.h.dead {
		t.Error("it was told to calm down")
	}
}

func TestH2HeaderBombs(t *testing.T) {
	m := opened(t)
	m.client.request(1, true, "bomb", strings.Repeat("x", 3900))
	m.app.got()
	// The bomb is the newest entry of the table, number 62.
	block := append(encode(requestFields...), bytes.Repeat([]byte{0x80 | 62}, 10_000)...)
	m.client.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 3, BlockFragment: block, EndHeaders: true, EndStream: true})
	m.client.send()
	m.app.expect()
	if got := m.client.got(); len(got) == 0 || !strings.Contains(got[0], "ENHANCE_YOUR_CALM") && !strings.Contains(got[0], "COMPRESSION") {
		t.Errorf("got %q", got)
	}
}

// TestH2AppThatSpeaksSomethingElse is heard by the client.
func TestH2AppThatSpeaksSomethingElse(t *testing.T) {
	m := newH2Memory(t)
	m.client.out.WriteString(http2.ClientPreface)
	m.client.framer.WriteSettings()
	m.client.send()
	const answer = "HTTP/1.1 400 Bad Request\r\n\r\n"
	m.app.feed([]byte(answer))
	m.app.feed([]byte("x"))
	if got := string(m.client.take()); got != answer+"x" {
		t.Errorf("the client got %q", got)
	}
}

// FuzzH2 lets all sides say anything, well framed or not. Whatever it is, what we keep is bounded.
func FuzzH2(f *testing.F) {
	f.Add([]byte("\x00\x01\x04\x05\x01\x01\x00\x00\x05\x20\x81\x02\x01\x05\x01\x01\x00\x05\x05\x40"))
	f.Add([]byte("\x02\x00\x01\x01\x80\x02\x03\x00\x01\x08\x02\x07\x00\x00\x01\x01\x07\x00\x00\x01\x08\x01\x05\x00\x00"))
	f.Fuzz(func(t *testing.T, script []byte) {
		m := opened(t)
		m.h.proxy.mirrorAll(80, "a")
		m.client.request(1, false)
		m.client.request(3, false, "detour-key", "a")
		m.previews[0].accept()
		for len(script) >= 5 && !m.h.over {
			op := [5]byte(script)
			script = script[len(op):]
			m.fuzz(op)
			m.check()
		}
		m.h.pair.close()
		m.h.proxy.mirror.checkReleased(t)
	})
}

var fuzzBlocks = [][]byte{
	encode(requestFields...),
	encode(append(requestFields, "detour-key", "a")...),
	encode(append(requestFields, "detour-key", "two", "content-length", "10")...),
	encode(append(requestFields, "detour-key", "spare", "baggage", "a=b")...),
	encode(":status", "200", "x", "y"),
	encode("trailer", "x"),
	encode(":status", "103"),
	{0xff, 0x80},
}

// fuzz has one of the peers do something: op says who, the frame's type, its flags, its stream, and what is in it.
func (m *h2memory) fuzz(op [5]byte) {
	peers := append([]*peer{m.client, m.app}, m.previews...)
	p := peers[int(op[0]&7)%len(peers)]
	s := p.socket
	switch {
	case s.gone || s.handler == nil:
	case s.dialling && op[0]&8 == 0:
		p.accept()
	case op[0]&0xf8 == 0xf8:
		s.fail(syscall.ECONNRESET)
	case op[0]&0xf8 == 0xf0:
		s.ended(s, nil)
	case op[0]&0xf8 == 0xe8:
		s.clog = !s.clog
		s.clogged(s, s.clog)
	case op[0]&0xf8 == 0xe0:
		p.feed(op[1:])
	case op[0]&0xf8 == 0xd8:
		m.h.drain()
	default:
		p.feed(fuzzFrame(op))
	}
	m.run()
	for _, p := range peers {
		p.take()
	}
}

func fuzzFrame(op [5]byte) []byte {
	kind := h2Type(op[1] % 12)
	payload := bytes.Repeat(op[4:], int(op[4])*64)
	switch kind {
	case h2Headers, h2Continuation, h2PushPromise:
		payload = fuzzBlocks[int(op[4])%len(fuzzBlocks)]
	case h2ResetStream, h2WindowUpdate:
		payload = []byte{0, op[4] & 0x7f, 0, op[4] >> 7}
	case h2Settings:
		payload = []byte{0, op[3], 0, 0, op[4], 0}
	case h2Ping, h2GoAway:
		payload = []byte{0, 0, 0, op[4], 0, 0, 0, 0}
	case h2Priority:
		payload = payload[:min(5, len(payload))]
	}
	payload = payload[:min(len(payload), maxFrame)]
	b := make([]byte, frameHeader+len(payload))
	putHeader(b, len(payload), kind, op[2]&^(h2Padded|h2HasPriority)|op[2]>>4&op[2]&h2Padded, uint32(op[3]%16))
	copy(b[frameHeader:], payload)
	return b
}

// check says what must always hold.
func (m *h2memory) check() {
	h, away := m.h, 0
	for id, st := range h.streams {
		if st.id != id || st.up == nil {
			m.t.Fatalf("stream %d: %+v", id, st)
		}
		if st.detour != nil {
			away++
		}
	}
	if away != h.away || h.held > maxHeld || h.queued > maxQueue+readBuffer || len(h.streams) > maxStreams {
		m.t.Fatalf("%d away (%d), %d held, %d queued, %d streams", h.away, away, h.held, h.queued, len(h.streams))
	}
	if h.receives > h.base.window {
		m.t.Fatalf("the client may send %d, the app takes %d", h.receives, h.base.window)
	}
	for _, u := range h.detours {
		for id, st := range u.streams {
			if st.upID != id || st.up != u || h.streams[st.id] != st {
				m.t.Fatalf("stream %d of the preview: %+v", id, st)
			}
		}
	}
}

// TestH2ExtendedConnect is WebSocket over HTTP/2 (RFC 8441): it goes wherever it is offered.
func TestH2ExtendedConnect(t *testing.T) {
	offer := http2.Setting{ID: http2.SettingEnableConnectProtocol, Val: 1}
	fields := []string{":method", "CONNECT", ":protocol", "websocket", ":scheme", "http", ":path", "/", ":authority", "x"}
	const text = " :method=CONNECT :protocol=websocket :scheme=http :path=/ :authority=x"
	keyed := func(key string) []string {
		return append(fields[:len(fields):len(fields)], "baggage", "detour-key="+key)
	}
	m := opened(t, offer)
	m.client.head(1, false, fields...)
	m.client.content(1, false, []byte("to the app"))
	m.app.expect("HEADERS 1"+text, `DATA 1 "to the app"`)

	m.client.head(3, false, keyed("a")...)
	offering := m.previews[0]
	offering.accept(offer)
	m.client.content(3, false, []byte("to the preview"))
	offering.take()
	offering.head(1, false, ":status", "200")
	m.client.expect("HEADERS 3 :status=200 detour-served-by=shop/x-1")

	m.client.head(5, false, keyed("spare")...)
	m.previews[1].accept()
	if got := m.client.got(); len(got) == 0 || !strings.HasPrefix(got[0], "HEADERS 5 :status=405") {
		t.Errorf("a preview that does not offer it: got %q", got)
	}
}

// TestH2WindowGrowsWithItsAcknowledgement: until the client has that, it goes by the window that it had.
func TestH2WindowGrowsWithItsAcknowledgement(t *testing.T) {
	const window = "SETTINGS 0 INITIAL_WINDOW_SIZE="
	m := opened(t)
	initial := func(n uint32) {
		m.client.framer.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: n})
		m.client.send()
		m.app.take()
	}
	ack := func() {
		m.app.framer.WriteSettingsAck()
		m.app.send()
		m.client.expect("SETTINGS 0 ACK")
	}
	initial(1 << 20)
	m.client.request(1, true, "baggage", "detour-key=a")
	preview := m.previews[0]
	preview.expect("SETTINGS 0 HEADER_TABLE_SIZE=0 ENABLE_PUSH=0 INITIAL_WINDOW_SIZE=65535") // as if nothing had been said
	preview.accept()
	preview.take()
	ack()
	preview.expect(window + "1048576")
	initial(1) // less is told at once
	preview.expect(window + "1")
	initial(100)
	preview.expect()
	ack()
	ack()
	preview.expect(window + "100")
}
