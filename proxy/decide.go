package proxy

// verdict is the kind of place that a request goes to.
type verdict int

const (
	toBaseline   verdict = iota // the app
	toPreview                   // one of a route's endpoints
	unavailable                 // nowhere: its route has no endpoint
	withoutTable                // nowhere: it carries a key, and there never was a table to look it up in
	verdicts
)

func (v verdict) String() string {
	return [...]string{"baseline", "preview", "unavailable", "no-table"}[v]
}

// decision says where one request goes.
type decision struct {
	verdict verdict
	// route is the one that the request's key, or a match, leads to; nil if none does. A route that falls back has one
	// and goes to the baseline.
	route *route
	// fallback sends the request to the baseline if no endpoint can be reached.
	fallback bool
	// mirror is the one whose preview gets a copy; nil if none does. Only requests to the baseline without a route have one.
	mirror *route
}

// decide says where a request to a port of the app goes. The first key that the port has a route for counts, and if none
// has, the first match that it meets. In every other case it is the baseline, so that nobody is affected who did not ask
// for a preview. Who merely meets a match has not asked, and so is never refused. What no route is for may be copied: for the
// first mirror that it meets.
func decide(t *table, port uint16, r request) decision {
	if t == nil && len(r.keys) > 0 {
		return decision{verdict: withoutTable}
	}
	if t == nil {
		return decision{}
	}
	if found := t.route(port, r.keys); found != nil {
		return found.decision(found.fallback)
	}
	if found := t.match(port, r); found != nil {
		return found.decision(true)
	}
	return decision{mirror: t.mirror(port, r)}
}

func (r *route) decision(fallback bool) decision {
	d := decision{verdict: toPreview, route: r, fallback: fallback}
	switch {
	case len(r.endpoints) > 0:
	case fallback:
		d.verdict = toBaseline
	default:
		d.verdict = unavailable
	}
	return d
}

// candidates are the endpoints in the order in which they are to be tried: they take turns, request by request.
func (r *route) candidates() []endpoint {
	turn := int(r.tally.requests.Load() % uint64(len(r.endpoints)))
	return append(r.endpoints[turn:len(r.endpoints):len(r.endpoints)], r.endpoints[:turn]...)
}
