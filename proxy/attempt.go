package proxy

import (
	"net/netip"
	"slices"
	"time"

	"github.com/detour-dev/detour/api"
)

// attempt is an HTTP/1 request to a preview. Until its answer begins another endpoint may be tried.
type attempt struct {
	route     *route
	endpoints []endpoint // still to be tried
	fallback  bool       // the app is asked if none of them accepts
	pod       string     // of the one that is asked
	socket    *socket    // the connection to it
	info      head
	head      []byte // as it is sent
	timer     *timer // of dialling

	// For a connection that had been idle, and that the preview may have closed meanwhile:
	reused bool
	before uint64 // bytes that had been sent on it
	body   []byte // what has been sent of the body since
	lost   bool   // it was too much to keep
	again  bool   // this is the second time
	begun  bool   // the answer has begun
}

const (
	// previewDial bounds how long an endpoint may take to accept before the next one is tried.
	previewDial = 3 * time.Second
	// maxKept bounds the body that is kept to be sent again.
	maxKept = 64 << 10
)

// servedBy begins the line that is added to a preview's answers.
const servedBy = api.HeaderServedBy + ": "

// toPreview sends a request to one of its route's endpoints. No other request is being answered.
func (h *http1) toPreview(b []byte, head head, d decision) int {
	h.count(d)
	h.client.hold(holdWaiting)
	h.attempt = &attempt{
		route:     d.route,
		endpoints: d.route.candidates(),
		fallback:  d.fallback,
		info:      head,
		head:      slices.Clone(h.edited(b, head, true)),
	}
	h.try()
	return len(b)
}

// try asks the next endpoint.
func (h *http1) try() {
	a := h.attempt
	a.timer.stop()
	if len(a.endpoints) == 0 {
		h.exhausted()
		return
	}
	e := a.endpoints[0]
	a.endpoints, a.pod = a.endpoints[1:], e.Pod
	if e.own {
		h.askApp()
		return
	}
	if a.socket = h.idlePreview(e.Address); a.socket != nil {
		a.reused = true
		h.ask(a.socket)
		return
	}
	h.dialPreview(e.Address)
}

func (h *http1) dialPreview(to netip.AddrPort) {
	s := h.dial(to, h)
	h.previews = append(h.previews, s)
	h.attempt.socket = s
	h.attempt.timer = h.loop.after(previewDial, func() {
		s.close()
		h.try()
	})
}

// dials reports whether s is being dialled for this request.
func (a *attempt) dials(s *socket) bool { return a != nil && a.socket == s && s.dialling }

// pending reports whether the request has not been sent yet.
func (a *attempt) pending() bool { return a != nil && a.socket != nil && a.socket.dialling }

// idlePreview is an open connection to an endpoint that takes another request, as far as one can know.
func (h *http1) idlePreview(to netip.AddrPort) *socket {
	h.previews = slices.DeleteFunc(h.previews, func(s *socket) bool { return s.gone })
	for _, s := range h.previews {
		if s.remote == to && s.quiet() {
			return s
		}
	}
	return nil
}

// ask sends the request on a connection to a preview.
func (h *http1) ask(s *socket) {
	a := h.attempt
	a.timer.stop()
	a.before = s.sent + uint64(s.out.size())
	h.setFrom(s)
	s.send(a.head)
	if !a.again {
		h.client.release(holdWaiting)
		h.sentHead(a.info, s)
		return
	}
	s.send(a.body)
	h.asked = []asked{a.info.asked()}
	if h.inBody {
		h.dest = s
	}
	if h.inBody || a.info.asked()&askedUpgrade == 0 {
		h.client.release(holdWaiting)
	}
}

// askApp has the app answer instead.
func (h *http1) askApp() {
	a := h.attempt
	h.attempt = nil
	h.liveApp()
	h.setFrom(h.app)
	h.app.send(a.head)
	h.client.release(holdWaiting)
	h.sentHead(a.info, h.app)
}

// exhausted: no endpoint accepts a connection.
func (h *http1) exhausted() {
	a := h.attempt
	switch {
	case a.again:
		h.failed(nil)
	case a.fallback:
		h.askApp()
	default:
		a.route.tally.errors.Add(1)
		h.attempt = nil
		h.client.release(holdWaiting)
		h.reply(unreachable(a.route), a.info)
	}
}

// keep remembers what may have to be sent again.
func (a *attempt) keep(b []byte) {
	if a == nil || !a.reused || a.begun || a.lost {
		return
	}
	if a.lost = len(a.body)+len(b) > maxKept; a.lost {
		a.body = nil
		return
	}
	a.body = append(a.body, b...)
}

// begin notes that the answer has begun.
func (a *attempt) begin() {
	a.begun = true
	a.head, a.body = nil, nil
}

// again sends the request on a new connection, if the one that s was had been idle before, and either nothing of the
// request has reached the preview or it may be repeated.
func (h *http1) again(s *socket) bool {
	a := h.attempt
	if a == nil || a.begun || !a.reused || a.lost || a.again || a.socket != s {
		return false
	}
	if !a.info.repeatable && s.acknowledged() > a.before {
		return false
	}
	s.close()
	a.again, a.endpoints = true, nil
	h.asked, h.dest = nil, nil
	h.client.hold(holdWaiting)
	h.dialPreview(s.remote)
	return true
}
