package proxy

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"slices"
	"time"
)

// http1 takes the requests of an HTTP/1 connection one by one and sends each where it belongs, byte for byte. Answers come
// back in the order of the requests: as long as those go to the app they are passed on as they come, and before one goes
// elsewhere, or back, the answers to all before it have to be complete.
type http1 struct {
	*pair

	// The request that is being read.
	scanned int       // bytes of an incomplete head that have been looked at
	inBody  bool      // its head has been dealt with
	body    framing   // what is left of it
	dest    *socket   // where it goes; nil means that nobody wants it
	asking  bool      // it carries a key
	late    *timer    // the head must be complete by then
	draw    string    // what chance has given it
	copied  *gathered // what a preview is to be sent of it, if one is

	// The answer that is being read.
	from     *socket  // where the requests went that are being answered, or the last one if none is
	asked    []asked  // one for each of them
	inAnswer bool     // its head has been sent on
	answer   framing  // what is left of it
	ahead    int      // bytes of a line, or of a head, that the client has been sent before it was complete
	attempt  *attempt // the last request to a preview
	last     bool     // the connection ends with this answer

	clientEnded bool
	closing     bool // the last answer has been given; what is left of its request still goes on
	lingering   bool // that is done as well, and the client is given time to read
}

// asked is what has to be remembered of a request to understand its answer.
type asked uint8

const (
	askedHEAD asked = 1 << iota
	askedUpgrade
	askedExpect // it waits for 100 Continue before it sends its body
)

func newHTTP1(p *pair) handler { return &http1{pair: p, from: p.app} }

func (h *http1) data(s *socket, b []byte) int {
	if s == h.client {
		return h.requests(b)
	}
	return h.answers(s, b)
}

// requests deals with what the client sends, as far as it goes.
func (h *http1) requests(b []byte) (used int) {
	for used < len(b) && h.client.open() && h.client.handler == h {
		n := 0
		if h.inBody {
			n = h.readBody(b[used:])
		} else {
			n = h.request(b[used:])
		}
		if n == 0 {
			break
		}
		used += n
	}
	return used
}

// request deals with a request from its first byte on, and says how many were used. None means that more has to come,
// or that the client is held.
func (h *http1) request(b []byte) int {
	if h.lingering || h.last { // the client has been, or is being, told that there is no more (RFC 9112, section 9.6)
		return len(b)
	}
	end := headEnd(b, h.scanned)
	if end == 0 || end > maxHead {
		return h.incomplete(b)
	}
	h.scanned = 0
	h.late.stop()
	head := readRequest(b[:end])
	switch {
	case head.doubt != "":
		return h.doubtful(b, head.doubt)
	case head.carriers:
		return h.mayBeKeyed(b, end, head)
	}
	return h.keyless(b, end, head)
}

// keyless deals with a request, whose head ends at end, that carries no key. Whatever may be wrong with it, it is the
// app's to say so: none that is refused with a key is led to a preview by a match.
func (h *http1) keyless(b []byte, end int, head head) int {
	if head.connect {
		return h.doubtful(b, doubtConnect)
	}
	t := h.proxy.table.Load()
	if !t.matching(h.port.App) {
		return h.toApp(b[:end], head, decision{})
	}
	if _, wrong := beyondDoubt(head); wrong {
		return h.toApp(b[:end], head, decision{})
	}
	d := decide(t, h.port.App, h.read(t, b[:end], nil))
	if d.verdict == toBaseline {
		return h.toApp(b[:end], head, d)
	}
	if len(h.asked) > 0 {
		h.client.hold(holdWaiting)
		return 0
	}
	return h.toPreview(b[:end], head, d)
}

// headTime is how long a client whose connection has carried a key may take to send a head.
const headTime = time.Minute

// incomplete waits for the rest of a head, unless there can be none.
func (h *http1) incomplete(b []byte) int {
	if len(b) >= maxHead {
		return h.doubtful(b, doubtTooLong)
	}
	if carries, enough := classify(b); enough && carries != protocolHTTP1 {
		return h.doubtful(b, doubtNoHTTP) // its head may have no end
	}
	if h.keyed && h.scanned == 0 {
		h.late = h.loop.after(headTime, h.linger)
	}
	h.scanned = len(b)
	return 0
}

// doubtful deals with a request that can be read in two ways: with a key it is refused, and nothing of it has reached
// anyone; without one it goes to the app as it is, and so does all that follows.
func (h *http1) doubtful(b []byte, why doubt) int {
	if carriesKey(b) {
		h.carriesKey()
		return h.refuse(malformed(why), b, head{isHEAD: bytes.HasPrefix(b, []byte("HEAD "))})
	}
	if !h.waits(h.app) {
		h.pass(why)
	}
	return 0
}

// pass has the connection copied from now on.
func (h *http1) pass(why doubt) {
	h.proxy.meters.passed(why)
	h.debug("passed through from now on", "reason", string(why))
	h.copy(h.app)
}

// copy makes the connections of the client and up a tunnel. What else there was ends.
func (h *http1) copy(up *socket) {
	h.late.stop()
	if up == h.app {
		h.liveApp()
		h.app.in = h.app.in[min(h.ahead, len(h.app.in)):]
	} else {
		h.app.end()
	}
	for _, s := range h.previews {
		if s != up {
			s.end()
		}
	}
	h.become(&relay{pair: h.pair, a: h.client, b: up}, up)
}

// mayBeKeyed deals with a request, whose head ends at end, that has a carrier.
func (h *http1) mayBeKeyed(b []byte, end int, head head) int {
	head.fields = headFields(b[:end])
	keys := keysOf(head.fields)
	if len(keys) == 0 {
		return h.keyless(b, end, head)
	}
	h.carriesKey()
	if len(h.asked) > 0 { // nothing that happens to this request may harm those before it
		h.client.hold(holdWaiting)
		return 0
	}
	if refusal, refused := beyondDoubt(head); refused {
		return h.refuse(refusal, b[:end], head)
	}
	h.asking = true
	t := h.proxy.table.Load()
	d := decide(t, h.port.App, h.read(t, b[:end], keys))
	if refusal, refused := refuse(keys, d); refused {
		h.count(d)
		if d.route != nil {
			d.route.tally.errors.Add(1)
		}
		return h.refuse(refusal, b[:end], head)
	}
	if d.verdict == toPreview {
		return h.toPreview(b[:end], head, d)
	}
	return h.toApp(b[:end], head, d)
}

// read gives what decides about a request whose head is b. One that has to wait is read again, and must not be given
// another chance.
func (h *http1) read(t *table, b []byte, keys []string) request {
	r := t.read(h.port.App, b, keys)
	if h.draw == "" && t.draws(h.port.App) {
		h.draw = newDraw()
	}
	r.draw = h.draw
	return r
}

// beyondDoubt says what is wrong with a request that is to be routed, apart from how it is framed.
func beyondDoubt(head head) (refusal, bool) {
	switch {
	case head.connect:
		return connectRefused, true
	case names(head.fields, "connection", carrierKey), names(head.fields, "connection", carrierBaggage):
		return carrierHidden, true
	case head.hosts > 1, head.hosts == 0 && head.minor == 1:
		return malformed(doubtHost), true
	case head.fragment:
		return malformed(doubtFragment), true
	}
	return refusal{}, false
}

// waits reports whether something for up has to wait for the answers of somebody else, and if so holds the client.
func (h *http1) waits(up *socket) bool {
	if len(h.asked) == 0 || h.from == up {
		return false
	}
	h.client.hold(holdWaiting)
	return true
}

// toApp sends a request on to the app.
func (h *http1) toApp(b []byte, head head, d decision) int {
	if h.waits(h.app) {
		return 0
	}
	h.count(d)
	h.liveApp()
	h.setFrom(h.app)
	sent := h.edited(b, head, false)
	if d.mirror != nil && !head.upgrade {
		h.copied = h.gather(&gathered{to: d.mirror, head: slices.Clone(sent)}, len(sent))
	}
	h.app.send(sent)
	h.sentHead(head, h.app)
	return len(b)
}

// liveApp dials the app again, if it has closed its connection while only previews were asked.
func (h *http1) liveApp() {
	if h.app.gone {
		h.app = h.dialApp(h)
	}
}

// setFrom says who answers from now on. Only when no answer is outstanding may it be somebody else than before.
func (h *http1) setFrom(up *socket) {
	if h.from == up {
		return
	}
	h.from.release(holdClogged)
	h.from = up
	if h.client.clog {
		up.hold(holdClogged)
	}
}

// maxPipelined is how many requests may wait for their answers.
const maxPipelined = 1000

// sentHead notes a request whose head has been sent to up.
func (h *http1) sentHead(head head, up *socket) {
	h.asked = append(h.asked, head.asked())
	h.expectBody(head.framing, up)
}

func (h head) asked() (a asked) {
	if h.isHEAD {
		a |= askedHEAD
	}
	if h.upgrade {
		a |= askedUpgrade
	}
	if h.expect {
		a |= askedExpect
	}
	return a
}

// expectBody has the body that follows go to up.
func (h *http1) expectBody(body framing, up *socket) {
	h.dest, h.body, h.inBody = up, body, true
	if body.kind == bodyNone {
		h.complete()
	}
}

// complete is called when a request has been read to its end.
func (h *http1) complete() {
	if h.dest != nil && h.dest != h.app && h.dest.eof {
		h.dest.end()
	}
	h.sendGathered(h.copied)
	h.inBody, h.dest, h.asking, h.draw, h.copied = false, nil, false, "", nil
	if h.closing {
		h.linger()
		return
	}
	n := len(h.asked)
	// After an Upgrade, what follows may belong to another protocol.
	if n >= maxPipelined || n > 0 && h.asked[n-1]&askedUpgrade != 0 {
		h.client.hold(holdWaiting)
	}
}

// readBody passes on what has come of a request's body.
func (h *http1) readBody(b []byte) int {
	used, done, why := h.body.next(b)
	if h.dest != nil && used > 0 {
		h.dest.send(b[:used])
		h.attempt.keep(b[:used])
		h.copied = h.gatherBody(h.copied, b[:used])
		if n := len(h.asked); n > 0 {
			h.asked[n-1] &^= askedExpect
		}
	}
	switch {
	case why != "":
		h.doubtInBody(why)
	case done:
		h.complete()
	}
	return used
}

// doubtInBody: nobody knows where the body ends. At the app it goes on as it comes, unless the request has a key; otherwise
// whoever gets it must not take it for whole.
func (h *http1) doubtInBody(why doubt) {
	h.dropGathered(h.copied, dropIncomplete)
	h.copied = nil
	if !h.asking && h.dest == h.app {
		h.pass(why)
		return
	}
	if h.dest != nil {
		h.dest.reset()
	}
	switch {
	case h.inAnswer:
		h.abort(errBadBody) // so that the answer does not look complete
	case len(h.asked) == 0:
		h.linger() // it has been answered
	default:
		isHEAD := h.asked[0]&askedHEAD != 0
		h.asked = nil
		h.reply(malformed(why), head{isHEAD: isHEAD})
	}
}

var errBadBody = errors.New("the body of a routed request could be read in two ways")

// refuse answers a request itself, when its turn has come.
func (h *http1) refuse(f refusal, b []byte, head head) int {
	if len(h.asked) > 0 {
		h.client.hold(holdWaiting)
		return 0
	}
	h.reply(f, head)
	return len(b)
}

// reply writes an answer of our own. What follows the request's head is read and dropped; where its end is a guess, or
// the client might wait with it, the connection ends.
func (h *http1) reply(f refusal, head head) {
	h.proxy.meters.failed(f.reason)
	h.debug("refused", "reason", f.reason)
	ends := f.closes() || head.expect
	h.client.send(f.http1(head.isHEAD, ends))
	if ends {
		h.linger()
		return
	}
	h.expectBody(head.framing, nil)
}

// conclude ends the connection after the last answer.
func (h *http1) conclude() {
	if !h.inBody || h.dest == nil {
		h.linger()
		return
	}
	h.closing = true
	h.client.finish()
}

// lingerTime is how long a client may take to read our last words.
const lingerTime = 5 * time.Second

// linger ends the connection, but reads on for a while: closing it while there is something unread would reset it, and
// the client might never see what it was sent.
func (h *http1) linger() {
	if h.lingering || h.over {
		return
	}
	h.lingering = true
	h.inBody = false
	for _, s := range append(h.previews, h.app) {
		s.end()
	}
	h.client.finish()
	h.client.release(holdWaiting)
	h.client.release(holdClogged)
	if h.client.told {
		h.client.end()
	}
	h.hangUp(lingerTime)
}

// answers deals with what the app or a preview sends, as far as it goes.
func (h *http1) answers(s *socket, b []byte) (used int) {
	for used < len(b) && s.open() && s.handler == h {
		if s != h.from || len(h.asked) == 0 {
			return used + h.unasked(s, b[used:])
		}
		if s != h.app {
			h.attempt.begin()
		}
		n := 0
		if h.inAnswer {
			n = h.readAnswerBody(b[used:])
		} else {
			n = h.readAnswerHead(b[used:])
		}
		if n == 0 && h.answer.kind != bodyUntilEnd {
			h.giveAhead(s, b[used:])
			break
		}
		used += n
	}
	return used
}

// give passes on what an answer consists of.
func (h *http1) give(b []byte) {
	n := min(h.ahead, len(b))
	h.ahead -= n
	h.client.send(b[n:])
}

// giveAhead passes on what is not complete. What a preview says has to wait, since something is added to it, and so does
// any head while the proxy drains.
func (h *http1) giveAhead(s *socket, b []byte) {
	if s == h.app && s.handler == h && (h.inAnswer || !h.proxy.draining.Load()) {
		h.client.send(b[h.ahead:])
		h.ahead = len(b)
	}
}

// unasked deals with what nobody has asked for: on an idle connection a 408, as a rule. The client gets that of the app,
// unless it is not the app that it waits for.
func (h *http1) unasked(s *socket, b []byte) int {
	if s == h.app && h.from == h.app {
		h.pass(doubtUnasked)
		return 0
	}
	s.close()
	return len(b)
}

// readAnswerHead passes on the head of an answer.
func (h *http1) readAnswerHead(b []byte) int {
	end := headEnd(b, 0)
	if end == 0 || end > maxHead {
		const begin = "HTTP/1."
		if n := min(len(b), len(begin)); len(b) >= maxHead || string(b[:n]) != begin[:n] {
			return h.doubtfulAnswer(doubtStatusLine)
		}
		return 0
	}
	head := readAnswer(b[:end])
	head.answering(h.asked[0]&askedHEAD != 0)
	switch {
	case head.doubt != "":
		return h.doubtfulAnswer(head.doubt)
	case head.status == 101 && h.asked[0]&askedUpgrade == 0:
		return h.doubtfulAnswer(doubtSwitch)
	}
	h.sendAnswerHead(b[:end], head)
	switch {
	case head.status == 101:
		h.copy(h.from)
	case head.status/100 != 1:
		h.answer, h.inAnswer = head.framing, true
		if head.kind == bodyNone {
			h.answered()
		}
	}
	return end
}

// sendAnswerHead says of a preview's final answer who gave it, and of the last one of a connection that drains that it is.
func (h *http1) sendAnswerHead(b []byte, head head) {
	if h.parts(b, head) {
		b, h.last = withClose(b), true
	}
	if h.from == h.app || head.status/100 == 1 && head.status != 101 {
		h.give(b)
		return
	}
	h.client.send(b[:len(b)-2])
	h.client.send([]byte(servedBy + h.attempt.pod + "\r\n\r\n"))
	h.last = head.kind == bodyUntilEnd || endsConnection(head, headFields(b))
}

// parts reports whether an answer is to be the last one: while the proxy drains the next one is, unless another request has
// begun to come, which would be lost, or the connection ends or becomes a tunnel anyhow.
func (h *http1) parts(b []byte, head head) bool {
	return h.proxy.draining.Load() && head.status/100 != 1 && head.kind != bodyUntilEnd && h.ahead == 0 &&
		len(h.asked) == 1 && !h.inBody && h.client.quiet() && !endsConnection(head, headFields(b))
}

// endsConnection reports whether a message is the last one of its connection (RFC 9112, section 9.3).
func endsConnection(head head, fields []field) bool {
	if head.minor == 0 {
		return !names(fields, "connection", "keep-alive")
	}
	return names(fields, "connection", "close")
}

func (h *http1) readAnswerBody(b []byte) int {
	used, done, why := h.answer.next(b)
	h.give(b[:used])
	switch {
	case why != "":
		return used + h.doubtfulAnswer(why)
	case done:
		h.answered()
	}
	return used
}

// doubtfulAnswer: nobody knows where the answer ends. It is passed on to the end of its connection, and the client's ends
// with it.
func (h *http1) doubtfulAnswer(why doubt) int {
	if h.from == h.app {
		given := h.ahead
		h.ahead = 0
		h.pass(why)
		return given
	}
	h.proxy.meters.passed(why)
	h.answer, h.inAnswer, h.last = framing{kind: bodyUntilEnd}, true, true
	return 0
}

// answered is called when an answer has been passed on to its end.
func (h *http1) answered() {
	early := h.inBody && h.asked[0]&askedExpect != 0 // its body may never come
	h.asked = h.asked[:copy(h.asked, h.asked[1:])]
	h.inAnswer = false
	if len(h.asked) > 0 {
		return
	}
	switch {
	case h.from != h.app && (early || h.clientEnded), h.proxy.stopping.Load() && !h.inBody:
		h.linger()
	case h.last:
		h.conclude()
	default:
		h.client.release(holdWaiting)
	}
}

func (h *http1) connected(s *socket) {
	if s != h.app {
		h.ask(s)
	}
}

func (h *http1) clogged(s *socket, is bool) {
	source := h.client
	if s == h.client {
		source = h.from
	}
	if is {
		source.hold(holdClogged)
	} else {
		source.release(holdClogged)
	}
}

func (h *http1) ended(s *socket, rest []byte) {
	switch s {
	case h.client:
		h.endedClient(rest)
	case h.app:
		if h.from == h.app && !h.lingering {
			h.copy(h.app) // which hands on the end, and all that may still come from the client
		} else {
			h.app.close()
		}
	default:
		h.endedPreview(s, rest)
	}
}

// endedClient: the client sends no more, but may wait for its answers.
func (h *http1) endedClient(rest []byte) {
	switch {
	case h.lingering:
		h.client.end()
	case !h.inBody && carriesKey(rest):
		if h.refuse(malformed(doubtIncomplete), rest, head{}) == 0 {
			h.client.told = false // its turn will come
		}
	case h.inBody && h.dest == nil:
		h.client.end()
	case h.from == h.app:
		h.copy(h.app)
	case len(h.asked) == 0 && (h.inBody || len(rest) == 0):
		h.close()
	case len(h.asked) == 0:
		h.copy(h.app)
	default: // a body that breaks off cannot be taken for whole
		h.clientEnded = true
		h.from.finish()
	}
}

// endedPreview: if it is not in the middle of an answer, another connection will do for the next request.
func (h *http1) endedPreview(s *socket, rest []byte) {
	switch {
	case s == h.dest && len(h.asked) == 0: // it may still read
	case s != h.from || len(h.asked) == 0:
		s.close()
	case h.inAnswer && h.answer.kind == bodyUntilEnd:
		h.asked = nil
		h.conclude()
	case h.again(s):
	default:
		h.client.send(rest)
		h.failed(nil)
	}
}

func (h *http1) closed(s *socket, err error) {
	switch {
	case s == h.client:
		h.abort(err)
	case s == h.app:
		h.closedApp(err)
	case h.attempt.dials(s):
		h.try()
	case h.closing && s == h.from:
		h.linger()
	case s != h.from || len(h.asked) == 0 || h.lingering:
	case h.again(s):
	default:
		h.failed(err)
	}
}

func (h *http1) closedApp(err error) {
	if h.from != h.app || h.lingering {
		return // it is dialled again if need be
	}
	if h.app.dialling {
		h.proxy.meters.failed(reasonAppRefused)
	}
	h.abort(err)
}

// failed ends the connection after a preview has broken off, so that its answer cannot be taken for complete.
func (h *http1) failed(err error) {
	h.proxy.meters.failed(reasonAborted)
	h.debug("the preview broke off", "preview", h.attempt.route.preview, "error", err)
	if err != nil {
		h.abort(err)
		return
	}
	h.linger()
}

// drain ends the connection when nothing is going on. As long as the app serves that is left to the app: a request could be
// on its way.
func (h *http1) drain() {
	if h.proxy.stopping.Load() && len(h.asked) == 0 && !h.inBody && !h.attempt.pending() && len(h.client.in) == 0 {
		h.linger()
	}
}

// count notes where a request goes.
func (h *http1) count(d decision) {
	h.proxy.meters.requests[d.verdict].Inc()
	if d.route != nil {
		d.route.tally.count()
	}
}

func (h *http1) debug(what string, args ...any) {
	if h.proxy.log.Enabled(context.Background(), slog.LevelDebug) {
		h.proxy.log.Debug(what, append(args, "port", h.port.Name)...)
	}
}
