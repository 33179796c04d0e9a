package proxy

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/detour-dev/detour/api"
)

// connectionsHTTP2 are made if nobody asks for another number.
const connectionsHTTP2 = 400

// TestDifferentialHTTP2 makes generated calls on connections to the app and to the proxy, and compares the messages that
// everyone got, stream by stream. DETOUR_DIFFERENTIAL_HTTP2 is how many connections there are, DETOUR_SEED the seed of the
// first.
func TestDifferentialHTTP2(t *testing.T) {
	t.Parallel()
	n, first := numberIn(t, "DETOUR_DIFFERENTIAL_HTTP2", connectionsHTTP2), numberIn(t, "DETOUR_SEED", 1)
	for i := range min(n, stages) {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			t.Parallel()
			s := newStageHTTP2(t)
			for seed, failed := first+i, 0; seed < first+n && failed < enough; seed += stages {
				if err := s.try(uint64(seed)); err != nil {
					failed++
					t.Errorf("DETOUR_SEED=%d DETOUR_DIFFERENTIAL_HTTP2=1: %v", seed, err)
				}
			}
		})
	}
}

// call is a request and its answer, as messages.
type call struct {
	mark    string // its field x-mark
	fate    fate   // forwarded, previewed or refused
	request message2
	answer  message2
	early   bool // the answer's head and half of its data do not wait for the end of the request
	member  string
}

// message2 is what one side gets on one stream of HTTP/2.
type message2 struct {
	Interim  []string // heads of 1xx, each as one text
	Head     []string // "name: value", in order
	Data     string
	Trailers []string
	Ended    bool
	Reset    string // the code
}

// complete reports whether nothing can follow.
func (m *message2) complete() bool { return m.Ended || m.Reset != "" }

// generatorHTTP2 makes calls and decides how they are cut into frames.
type generatorHTTP2 struct{ *generator }

func newGeneratorHTTP2(seed uint64) generatorHTTP2 {
	return generatorHTTP2{&generator{Rand: rand.New(rand.NewPCG(seed, 4))}}
}

func (g generatorHTTP2) calls() []*call {
	var calls []*call
	for range 1 + g.IntN(8) {
		calls = append(calls, g.call())
	}
	return calls
}

func (g generatorHTTP2) call() *call {
	c := &call{mark: g.mark(), early: g.chance(30)}
	method := pick(g.generator, "GET", "POST", "POST", "HEAD", "PUT", "X-ODD")
	c.request.Head = g.requestHead(method)
	switch n := g.IntN(100); {
	case n < 30:
		c.fate, c.member = previewed, "detour-key=mine"
		c.request.Head = append(c.request.Head, "detour-key: "+routedKey)
	case n < 40:
		c.fate, c.member = forwarded, "detour-key=other"
		c.request.Head = append(c.request.Head, "detour-key: "+unroutedKey)
	case n < 50:
		c.fate = refused
		c.request.Head = append(c.request.Head, "baggage: detour-key="+goneKey)
	}
	c.request.Head = append(c.request.Head, "x-mark: "+c.mark)
	c.request.Ended = true
	if method != "GET" && method != "HEAD" {
		c.request.Data, c.request.Trailers = g.data(), g.trailers()
	}
	c.answer = g.answer(method)
	if c.fate != refused && g.chance(8) {
		c.early, c.request.Ended, c.request.Trailers = true, false, nil
		c.request.Reset = pick(g.generator, http2.ErrCodeCancel, http2.ErrCodeInternal, http2.ErrCode(0x42)).String()
	}
	return c
}

func (g generatorHTTP2) requestHead(method string) []string {
	head := []string{":method: " + method, ":scheme: http", ":path: " + pick(g.generator, "/", "/a?b;c", "//x/%zz", "/"+strings.Repeat("p", 3000))}
	host := []string{"host: shop"}
	if g.chance(80) {
		head, host = append(head, ":authority: shop"), nil
	}
	g.Shuffle(len(head), func(i, j int) { head[i], head[j] = head[j], head[i] })
	return slices.Concat(head, host, g.fields())
}

// fields are some of those that a message may have.
func (g generatorHTTP2) fields() []string {
	var fields []string
	for range g.IntN(8) {
		fields = append(fields, pick(g.generator,
			"cookie: a=b", "cookie: c=d", "x-empty: ", "x-latin: caf\xe9", "x-a: 1", "x-a: 2", "content-type: x/y", "grpc-timeout: 5S",
			"accept-encoding: br", "user-agent: (", "x_under: 1", "x!#$%&'*+-.^_`|~9: token", "x-comma: a, b,, c", "via: 2 me", "date: today",
			"x-long: "+strings.Repeat("long ", 100)+"x", "traceparent: 00-x", secret+"authorization: Basic x"))
	}
	if g.chance(5) {
		fields = append(fields, "x-very-long: "+strings.Repeat("y", 20_000))
	}
	return fields
}

// secret marks a field that must never be indexed (RFC 7541, section 6.2.3).
const secret = "(never indexed) "

func (g generatorHTTP2) data() string {
	switch g.IntN(5) {
	case 0:
		return ""
	case 1:
		return string(g.junk(1 + g.IntN(6000)))
	}
	return "data " + string(g.junk(g.IntN(100)))
}

func (g generatorHTTP2) trailers() []string {
	return pick(g.generator, nil, nil, []string{"x-sum: 7"}, []string{"grpc-status: 0", "grpc-message: caf\xe9", "x-empty: "})
}

func (g generatorHTTP2) answer(method string) message2 {
	var m message2
	for g.chance(15) {
		m.Interim = append(m.Interim, pick(g.generator, ":status: 103\nlink: </a>\nlink: </b>", ":status: 100", ":status: 199\nx: y"))
	}
	status := pick(g.generator, "200", "200", "204", "304", "404", "500", "599")
	m.Head = append([]string{":status: " + status}, g.fields()...)
	if method != "HEAD" && status != "204" && status != "304" {
		m.Data, m.Trailers = g.data(), g.trailers()
	}
	if m.Ended = g.chance(90); !m.Ended {
		m.Trailers = nil
		m.Reset = pick(g.generator, http2.ErrCodeInternal, http2.ErrCodeCancel, http2.ErrCodeEnhanceYourCalm, http2.ErrCode(0x4242)).String()
	}
	return m
}

// What is expected.

// judge says what is wrong with what was said on a call.
func (c *call) judge(r *record) error {
	app, preview, client := r.app[c.mark], r.preview[c.mark], r.client[c.mark]
	switch c.fate {
	case previewed:
		return cmp.Or(
			differentMessage("app", message2{}, app),
			differentMessage("preview", c.request, c.withoutMember(preview)),
			differentMessage("client", c.wanted(), withoutSignature(client)))
	case refused:
		return cmp.Or(
			differentMessage("app", message2{}, app),
			differentMessage("preview", message2{}, preview),
			judgeRefusal(client))
	}
	return cmp.Or(
		differentMessage("app", c.request, c.withoutMember(app)),
		differentMessage("preview", message2{}, preview),
		differentMessage("client", c.wanted(), client))
}

// judgeDirect is judge for a connection to the app.
func (c *call) judgeDirect(r *record) error {
	return cmp.Or(
		differentMessage("app", c.request, r.app[c.mark]),
		differentMessage("client", c.wanted(), r.client[c.mark]))
}

// wanted is the answer that the client gets. One that resets its request does so when it has the head.
func (c *call) wanted() message2 {
	m := c.answer
	if c.request.Reset != "" {
		m.Data, m.Trailers, m.Ended, m.Reset = firstHalf(m.Data), nil, false, ""
	}
	return m
}

func firstHalf(data string) string { return data[:len(data)/2] }

func differentMessage(who string, want message2, got *message2) error {
	if got == nil {
		got = &message2{}
	}
	if diff := gocmp.Diff(want, *got); diff != "" {
		return fmt.Errorf("the %s: -want +got\n%s", who, diff)
	}
	return nil
}

// withoutMember takes out what must have been added to the request, once.
func (c *call) withoutMember(m *message2) *message2 {
	if m == nil || c.member == "" {
		return m
	}
	return m.without("baggage: " + c.member)
}

func withoutSignature(m *message2) *message2 {
	if m == nil {
		return nil
	}
	return m.without("detour-served-by: " + previewPod)
}

// without is the message with one field less; one that lacks it is marked.
func (m *message2) without(field string) *message2 {
	less := *m
	less.Head = slices.Clone(m.Head)
	i := slices.Index(less.Head, field)
	if i < 0 {
		less.Head = append(less.Head, "(there is no "+field+")")
		return &less
	}
	less.Head = slices.Delete(less.Head, i, i+1)
	return &less
}

func judgeRefusal(m *message2) error {
	if m == nil || !m.Ended || !slices.Contains(m.Head, "detour-error: no-endpoint") || !slices.Contains(m.Head, ":status: 503") {
		return fmt.Errorf("want a refusal 503, got %+v", m)
	}
	return nil
}

// Who speaks.

// record is what everyone got, by mark.
type record struct {
	mu                   sync.Mutex
	more                 *sync.Cond
	app, preview, client map[string]*message2
	acks                 int // of PINGs of the client
	err                  error
}

func newRecord() *record {
	r := &record{app: map[string]*message2{}, preview: map[string]*message2{}, client: map[string]*message2{}}
	r.more = sync.NewCond(&r.mu)
	return r
}

// change makes a change and tells everyone who waits.
func (r *record) change(f func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f()
	r.more.Broadcast()
}

// wait returns once ok holds, or something has failed.
func (r *record) wait(ok func() bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for r.err == nil && !ok() {
		r.more.Wait()
	}
}

// speaker writes messages as frames, cut in ways that do not matter, and reads those of the other side.
type speaker struct {
	generatorHTTP2
	record *record
	got    map[string]*message2 // its part of the record

	reading *http2.Framer
	marks   map[uint32]string // of its streams

	writing sync.Mutex // what is below
	framer  *http2.Framer
	encoder *hpack.Encoder
	block   bytes.Buffer
}

func newSpeaker(c io.ReadWriter, seed uint64, r *record, got map[string]*message2) *speaker {
	s := &speaker{generatorHTTP2: newGeneratorHTTP2(seed), record: r, got: got, marks: map[uint32]string{}}
	s.reading, s.framer = newFramer(c), http2.NewFramer(c, nil)
	s.framer.AllowIllegalWrites = true // of unknown frames
	s.encoder = hpack.NewEncoder(&s.block)
	return s
}

// write lets f write frames that must not be interrupted.
func (s *speaker) write(f func(*http2.Framer)) {
	s.writing.Lock()
	defer s.writing.Unlock()
	f(s.framer)
}

// head writes fields as HEADERS and any number of CONTINUATION.
func (s *speaker) head(stream uint32, fields []string, end bool) {
	s.write(func(f *http2.Framer) {
		s.block.Reset()
		for _, field := range fields {
			field, never := strings.CutPrefix(field, secret)
			i := 1 + strings.Index(field[1:], ":")
			s.encoder.WriteField(hpack.HeaderField{Name: field[:i], Value: field[i+2:], Sensitive: never})
		}
		block := s.block.Bytes()
		first := s.piece(len(block))
		p := http2.HeadersFrameParam{StreamID: stream, BlockFragment: block[:first], EndStream: end, EndHeaders: first == len(block)}
		if s.chance(20) {
			p.PadLength = uint8(s.IntN(256))
		}
		if s.chance(20) {
			p.Priority = http2.PriorityParam{Weight: 7, Exclusive: s.chance(50)}
		}
		f.WriteHeaders(p)
		for block = block[first:]; len(block) > 0; {
			n := s.piece(len(block))
			f.WriteContinuation(stream, n == len(block), block[:n])
			block = block[n:]
		}
	})
}

// piece is how much of n bytes comes next.
func (s *speaker) piece(n int) int {
	if s.chance(70) || n < 2 {
		return min(n, 16_000)
	}
	return min(1+s.IntN(n-1), 16_000)
}

// data writes DATA, which may be empty and padded.
func (s *speaker) data(stream uint32, data string, end bool) {
	s.write(func(f *http2.Framer) {
		for {
			n := s.piece(len(data))
			var padding []byte
			if s.chance(20) {
				padding = make([]byte, s.IntN(256))
			}
			f.WriteDataPadded(stream, end && n == len(data), []byte(data[:n]), padding)
			if data = data[n:]; data == "" {
				return
			}
		}
	})
}

// rest writes data and the message's trailers, or its reset if it has one.
func (s *speaker) rest(stream uint32, m message2, data string) {
	if data != "" || m.Ended && m.Trailers == nil {
		s.data(stream, data, m.Ended && m.Trailers == nil)
	}
	if m.Trailers != nil {
		s.head(stream, m.Trailers, true)
	}
	if m.Reset != "" {
		s.write(func(f *http2.Framer) { f.WriteRSTStream(stream, codeOf(m.Reset)) })
	}
}

// codeOf is the code that reads so.
func codeOf(s string) http2.ErrCode {
	for c := http2.ErrCode(0); c < 0x5000; c++ {
		if c.String() == s {
			return c
		}
	}
	panic("no code " + s)
}

// read reads one frame. It reports the stream that went on, if one did.
func (s *speaker) read() (stream uint32, err error) {
	frame, err := s.reading.ReadFrame()
	if err != nil {
		return 0, err
	}
	switch f := frame.(type) {
	case *http2.SettingsFrame:
		if !f.IsAck() {
			s.write(func(w *http2.Framer) { w.WriteSettingsAck() })
		}
	case *http2.PingFrame:
		if !f.IsAck() {
			s.write(func(w *http2.Framer) { w.WritePing(true, f.Data) })
			break
		}
		s.record.change(func() { s.record.acks++ })
	case *http2.GoAwayFrame:
		if f.ErrCode != http2.ErrCodeNo {
			return 0, fmt.Errorf("GOAWAY %v %q", f.ErrCode, f.DebugData())
		}
	case *http2.MetaHeadersFrame, *http2.DataFrame, *http2.RSTStreamFrame:
		stream = frame.Header().StreamID
		s.record.change(func() { s.note(frame) })
	}
	return stream, nil
}

// note adds a frame to the message it belongs to.
func (s *speaker) note(frame http2.Frame) {
	stream := frame.Header().StreamID
	m := s.got[s.marks[stream]]
	switch f := frame.(type) {
	case *http2.MetaHeadersFrame:
		fields := linesOf(f)
		if m == nil {
			m = s.begun(stream, f)
		}
		switch {
		case f.PseudoValue("status") != "" && f.PseudoValue("status")[0] == '1':
			m.Interim = append(m.Interim, strings.Join(fields, "\n"))
		case m.Head == nil:
			m.Head = fields
		default:
			m.Trailers = fields
		}
		m.Ended = f.StreamEnded()
	case *http2.DataFrame:
		if m == nil {
			return
		}
		m.Data += string(f.Data())
		m.Ended = f.StreamEnded()
		if n := f.Length; n > 0 {
			s.write(func(w *http2.Framer) { w.WriteWindowUpdate(0, n) })
		}
	case *http2.RSTStreamFrame:
		if m != nil && (!m.Ended || f.ErrCode != http2.ErrCodeNo) {
			m.Reset = f.ErrCode.String()
		}
	}
}

// begun is the message of a stream that begins with f.
func (s *speaker) begun(stream uint32, f *http2.MetaHeadersFrame) *message2 {
	for _, field := range f.Fields {
		if field.Name == "x-mark" {
			s.marks[stream] = field.Value
		}
	}
	m := &message2{}
	s.got[s.marks[stream]] = m
	return m
}

func linesOf(f *http2.MetaHeadersFrame) []string {
	var fields []string
	for _, field := range f.Fields {
		line := field.Name + ": " + field.Value
		if field.Sensitive {
			line = secret + line
		}
		fields = append(fields, line)
	}
	return fields
}

// stageHTTP2 is a proxy with its app and a preview.
type stageHTTP2 struct {
	proxy, direct string
	app, preview  *standHTTP2
}

// standHTTP2 answers the calls that are made at the time.
type standHTTP2 struct {
	net.Addr
	mu    sync.Mutex
	serve func(*net.TCPConn)
}

func newStandHTTP2(t *testing.T) *standHTTP2 {
	s := &standHTTP2{}
	s.Addr = serveTCP(t, func(c *net.TCPConn) {
		s.mu.Lock()
		serve := s.serve
		s.mu.Unlock()
		serve(c)
	})
	return s
}

func newStageHTTP2(t *testing.T) *stageHTTP2 {
	s := &stageHTTP2{app: newStandHTTP2(t), preview: newStandHTTP2(t)}
	p := start(t, s.app.Addr)
	p.put(t, api.Port{Port: p.port, Routes: []api.Route{
		{Key: routedKey, Preview: "deployment/mine", Endpoints: []api.Endpoint{endpointOf("preview", s.preview.Addr)}},
		{Key: goneKey, Preview: "deployment/gone"},
		{Key: "copied", Preview: "deployment/dead", Endpoints: []api.Endpoint{endpointOf("dead", refusing(t))}},
	}, Mirrors: []api.Match{{Key: "copied"}}})
	s.proxy, s.direct = p.addr(), local(s.app.Addr)
	return s
}

// try makes the calls of a seed directly and through the proxy, and says what is wrong.
func (s *stageHTTP2) try(seed uint64) error {
	calls := newGeneratorHTTP2(seed).calls()
	r, err := s.play(calls, seed, s.direct)
	if err = cmp.Or(r.judge(calls, (*call).judgeDirect), err); err != nil {
		return fmt.Errorf("the test is wrong about direct connections: %w", err)
	}
	r, err = s.play(calls, seed, s.proxy)
	return cmp.Or(r.judge(calls, (*call).judge), err)
}

// judge says what is wrong with the first call of which something is.
func (r *record) judge(calls []*call, judge func(*call, *record) error) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i, c := range calls {
		if err := judge(c, r); err != nil {
			return fmt.Errorf("call %d of %d, which is %s: %w\nthe connection: %v", i+1, len(calls), c.fate, err, r.err)
		}
	}
	return nil
}

// play makes the calls on one connection to addr.
func (s *stageHTTP2) play(calls []*call, seed uint64, addr string) (*record, error) {
	r := newRecord()
	s.app.begin(calls, seed, r, r.app)
	s.preview.begin(calls, seed+1, r, r.preview)
	c, err := net.Dial("tcp", addr)
	if err != nil {
		return r, err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(patience))
	io.WriteString(c, http2.ClientPreface)
	client := newSpeaker(c, seed+2, r, r.client)
	var reading sync.WaitGroup
	reading.Go(func() { client.listen(func(uint32) {}) })
	client.makeCalls(calls)
	r.mu.Lock()
	err = r.err
	r.mu.Unlock()
	c.Close()
	reading.Wait()
	return r, err
}

// listen reads frames until the connection ends.
func (s *speaker) listen(goneOn func(stream uint32)) {
	for {
		stream, err := s.read()
		if err != nil {
			s.record.change(func() { s.record.err = cmp.Or(s.record.err, err) })
			return
		}
		if stream != 0 {
			goneOn(stream)
		}
	}
}

// step is one thing that a client does for a call.
type step func(stream uint32)

// makeCalls interleaves the calls, and returns when everyone has got everything.
func (s *speaker) makeCalls(calls []*call) {
	s.write(func(f *http2.Framer) { f.WriteSettings(http2.Setting{ID: http2.SettingEnablePush, Val: 0}) })
	left := make([][]step, len(calls))
	streams := make([]uint32, len(calls))
	for i, c := range calls {
		left[i] = s.steps(c)
	}
	pings := 0
	for next := uint32(1); slices.ContainsFunc(left, func(l []step) bool { return len(l) > 0 }); {
		i := s.IntN(len(left))
		if len(left[i]) == 0 {
			continue
		}
		if streams[i] == 0 {
			streams[i], next = next, next+2
		}
		left[i][0](streams[i])
		left[i] = left[i][1:]
		pings += s.distract(next)
	}
	s.record.wait(func() bool {
		return s.record.acks == pings && !slices.ContainsFunc(calls, func(c *call) bool { return !s.record.done(c) })
	})
}

// done reports whether everyone has got all of a call.
func (r *record) done(c *call) bool {
	if c.request.Reset == "" {
		m := r.client[c.mark]
		return m != nil && m.complete()
	}
	app, preview := r.app[c.mark], r.preview[c.mark]
	return app != nil && app.complete() || preview != nil && preview.complete()
}

func (s *speaker) steps(c *call) []step {
	m := c.request
	headEnds := m.Ended && m.Data == "" && m.Trailers == nil && s.chance(70)
	steps := []step{func(stream uint32) {
		s.record.change(func() {
			s.marks[stream], s.got[c.mark] = c.mark, &message2{}
		})
		s.head(stream, m.Head, headEnds)
	}}
	if headEnds {
		return steps
	}
	data := m.Data
	for len(data) > 100 && s.chance(50) {
		n := s.piece(len(data) - 1)
		now := data[:n]
		steps, data = append(steps, func(stream uint32) { s.data(stream, now, false) }), data[n:]
	}
	return append(steps, func(stream uint32) {
		if m.Reset != "" {
			s.data(stream, data, false)
			s.waitForHalf(c)
			s.rest(stream, m, "")
			return
		}
		s.rest(stream, m, data)
	})
}

// waitForHalf waits for everything that comes before the request ends, at both sides.
func (s *speaker) waitForHalf(c *call) {
	s.record.wait(func() bool {
		m := s.got[c.mark]
		arrived := func(r *message2) bool { return r != nil && len(r.Data) == len(c.request.Data) }
		return m.Head != nil && len(m.Data) == len(firstHalf(c.answer.Data)) &&
			(arrived(s.record.app[c.mark]) || arrived(s.record.preview[c.mark]))
	})
}

// distract writes frames that belong to no message, and returns how many PINGs are among them.
func (s *speaker) distract(next uint32) (pings int) {
	s.write(func(f *http2.Framer) {
		switch s.IntN(20) {
		case 0:
			pings++
			f.WritePing(false, [8]byte{1})
		case 1:
			f.WritePriority(next, http2.PriorityParam{StreamDep: next + 2, Weight: 3})
		case 2:
			f.WriteWindowUpdate(0, 1000)
		case 3:
			f.WriteRawFrame(0x42, 0xff, 0, []byte("unknown"))
		}
	})
	return pings
}

func (s *standHTTP2) begin(calls []*call, seed uint64, r *record, got map[string]*message2) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.serve = func(c *net.TCPConn) {
		c.SetDeadline(time.Now().Add(patience))
		b := newSpeaker(c, seed, r, got)
		if err := b.serveCalls(c, calls); !errors.Is(err, io.EOF) {
			r.change(func() { r.err = cmp.Or(r.err, err) })
		}
	}
}

// serveCalls answers calls until the client ends the connection.
func (s *speaker) serveCalls(c io.Reader, calls []*call) error {
	if _, err := io.ReadFull(c, make([]byte, len(http2.ClientPreface))); err != nil {
		return err
	}
	s.write(func(f *http2.Framer) { f.WriteSettings() })
	begun := map[string]bool{}
	for {
		stream, err := s.read()
		if err != nil {
			return err
		}
		if i := slices.IndexFunc(calls, func(c *call) bool { return c.mark == s.marks[stream] }); stream != 0 && i >= 0 {
			s.reply(stream, calls[i], begun)
		}
	}
}

// reply says what is due: half of an early answer once the request has begun, the rest once it has ended.
func (s *speaker) reply(stream uint32, c *call, begun map[string]bool) {
	s.record.mu.Lock()
	ended, reset := s.got[c.mark].Ended, s.got[c.mark].Reset != ""
	s.record.mu.Unlock()
	if reset || !ended && (!c.early || begun[c.mark]) {
		return
	}
	m := c.answer
	data := m.Data
	bare := ended && !begun[c.mark] && m.Ended && data == "" && m.Trailers == nil && s.chance(50)
	if !begun[c.mark] {
		begun[c.mark] = true
		for _, head := range m.Interim {
			s.head(stream, strings.Split(head, "\n"), false)
		}
		s.head(stream, m.Head, bare)
	} else {
		data = strings.TrimPrefix(data, firstHalf(data))
	}
	switch {
	case bare:
	case ended:
		s.rest(stream, m, data)
	case firstHalf(data) != "":
		s.data(stream, firstHalf(data), false)
	}
}
