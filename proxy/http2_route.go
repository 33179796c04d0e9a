package proxy

import (
	"context"
	"log/slog"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
)

// h2Detour is what a stream that does not go to the app needs besides.
type h2Detour struct {
	route    *route
	rest     []endpoint // to be tried if this one cannot be reached
	to       netip.AddrPort
	servedBy string // what is added to the answer
	fallback bool   // the app is asked if none can be reached
	fellBack bool

	block    []byte // the request's head, for any decoder
	bodiless bool
	extended bool // extended CONNECT
	safe     bool // it may be sent again (RFC 9110, section 9.2.2)
	grpc     bool
	head     bool
	began    bool // some of its content has been sent
	tries    int
}

// maxTries bounds how often a request is sent again because a connection was about to end.
const maxTries = 3

// count notes a request.
func (h *h2) count(keys []string, d decision) {
	h.proxy.meters.requests[d.verdict].Inc()
	if log := h.proxy.log; log.Enabled(context.Background(), slog.LevelDebug) {
		log.Debug("request", "port", h.port.Name, "verdict", d.verdict.String(), "keys", keys)
	}
	if d.route != nil {
		d.route.tally.count()
	}
	if len(keys) > 0 {
		h.carriesKey()
	}
}

// route sends a request that may carry a key, or meet a match, where it belongs. Its fields may have been edited already.
func (h *h2) route(st *h2Stream, f *h2Frame, edited bool) h2Fault {
	head := h.loop.head
	keys := keysOf(head.fields)
	t, r := h.proxy.table.Load(), head.request(keys)
	if t.draws(h.port.App) {
		r.draw = newDraw()
	}
	d := decide(t, h.port.App, r)
	h.count(keys, d)
	carried, fits := head.carryOn()
	if !fits {
		h.proxy.meters.failed(reasonBaggageFull)
	}
	if d.verdict == toBaseline {
		h.ask(st, f, edited || carried)
		h.gatherHead(st, d)
		return h2Fault{}
	}
	h.diverted = st.id
	h.reencode = true
	why, refused := refuse(keys, d)
	if head.method == http.MethodConnect && head.pseudo&pseudoProtocol == 0 {
		why, refused = connectRefused, true
	}
	st.detour = h.newDetour(st, d)
	h.away++
	switch {
	case refused:
		h.refuse(st, d.route, why)
	case h.maxOpen > 0 && len(h.streams) > int(h.maxOpen):
		return streamFault(h2RefusedStream)
	default:
		st.detour.block = append([]byte(nil), head.encode()...)
		st.detour.rest = d.route.candidates()
		h.try(st)
	}
	return h2Fault{}
}

// gatherHead begins a copy of the request that was just sent to the app, if it is to have one.
func (h *h2) gatherHead(st *h2Stream, d decision) {
	if d.mirror == nil {
		return
	}
	head := h.loop.head
	st.copied = h.gather(&gathered{to: d.mirror, fields: slices.Clone(head.fields)}, head.size)
	if st.clientEnded {
		h.sendGathered(st.copied)
		st.copied = nil
	}
}

func (h *h2) newDetour(st *h2Stream, d decision) *h2Detour {
	head := h.loop.head
	safe := head.method == http.MethodGet || head.method == http.MethodHead || head.method == http.MethodOptions
	return &h2Detour{
		route:    d.route,
		fallback: d.fallback,
		bodiless: st.clientEnded,
		extended: head.method == http.MethodConnect,
		safe:     safe && st.clientEnded,
		grpc:     isGRPC(head.value("content-type")),
		head:     head.method == http.MethodHead,
	}
}

// ask sends a request to the app, as it came if its fields were not edited.
func (h *h2) ask(st *h2Stream, f *h2Frame, edited bool) {
	h.toBase(st)
	if edited {
		h.reencode = true
	}
	if h.reencode {
		h.app.send(h.loop.blockFrames(st.id, f.flags&h2EndStream, f.priority, h.loop.head.encode()))
	} else {
		h.app.send(f.whole)
	}
}

// toBase makes the app the upstream of a stream.
func (h *h2) toBase(st *h2Stream) {
	st.up, st.upID, st.upWindow = h.base, st.id, h.base.initial
	h.base.last = st.id
}

// try sends a stream to the next endpoint of its route.
func (h *h2) try(st *h2Stream) {
	d := st.detour
	if len(d.rest) > 0 {
		e := d.rest[0]
		d.rest = d.rest[1:]
		if e.own {
			h.fallBack(st)
			return
		}
		d.to, d.servedBy = e.Address, e.Pod
		h.upstream(d.to).take(st)
		return
	}
	if d.fallback && !d.fellBack {
		h.fallBack(st)
		return
	}
	h.refuse(st, d.route, unreachable(d.route))
}

// fallBack sends a stream to the app after all: over the app's connection if no later one has been opened there, because
// numbers only grow, and over another one otherwise.
func (h *h2) fallBack(st *h2Stream) {
	d := st.detour
	d.fellBack, d.rest, d.servedBy = true, nil, ""
	if st.id < h.base.last || h.partings&(appEnded|appBroke) != 0 {
		d.to = h.app.remote
		h.upstream(d.to).take(st)
		return
	}
	h.toBase(st)
	st.detour = nil
	h.away--
	h.app.send(h.loop.blockFrames(st.id, endFlag(d.bodiless), nil, d.block))
	if more := st.sends - h.initial; more > 0 {
		h.app.send(h.loop.windowFrame(st.id, more))
	}
	if !d.bodiless {
		h.push(st)
	}
}

// again sends a stream that was provably not processed, or does no harm twice, to the same endpoint once more.
func (h *h2) again(st *h2Stream) {
	d := st.detour
	if st.upID != 0 {
		delete(st.up.streams, st.upID)
		st.upID = 0
	}
	if d.tries++; d.tries > maxTries {
		h.deliver(h.loop.resetFrame(st.id, h2RefusedStream))
		h.remove(st)
		return
	}
	h.upstream(d.to).take(st)
}

// repeatable reports whether all that an upstream was sent of a request can be sent again.
func (st *h2Stream) repeatable() bool { return st.detour != nil && !st.answered && !st.detour.began }

// refuse answers a request ourselves.
func (h *h2) refuse(st *h2Stream, r *route, why refusal) {
	h.proxy.meters.failed(why.reason)
	if r != nil {
		r.tally.errors.Add(1)
	}
	status, fields, body := why.status, why.fields(), why.body()
	switch {
	case st.detour.grpc:
		status, fields, body = http.StatusOK, why.grpcFields(), ""
	case st.detour.head:
		body = ""
	case int64(len(body)) > st.sends:
		fields, body = withoutLength(fields), ""
	}
	block := appendField(nil, field{":status", strconv.Itoa(status)}, false)
	for _, f := range fields {
		block = appendField(block, f, false)
	}
	h.deliver(h.loop.blockFrames(st.id, endFlag(body == ""), nil, block))
	if body != "" {
		h.borrowed += int64(len(body)) // the app does not know of it
		h.deliverFlow(h2Queued{h.loop.dataFrame(st.id, []byte(body), true), int64(len(body)), nil})
	}
	if !st.clientEnded {
		h.deliver(h.loop.resetFrame(st.id, h2NoError))
	}
	h.remove(st)
}

func withoutLength(fields []field) []field {
	var kept []field
	for _, f := range fields {
		if f.name != "content-length" {
			kept = append(kept, f)
		}
	}
	return kept
}
