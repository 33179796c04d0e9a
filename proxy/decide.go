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
	// route is the one that the request's key leads to; nil if none does. A route that falls back has one and goes
	// to the baseline.
	route *route
}

// decide says where a request to a port of the app goes that carries keys. The first key that the port has a route for
// counts. In every other case it is the baseline, so that nobody is affected who did not ask for a preview.
func decide(t *table, port uint16, keys []string) decision {
	if len(keys) == 0 {
		return decision{}
	}
	if t == nil {
		return decision{verdict: withoutTable}
	}
	r := t.route(port, keys)
	switch {
	case r == nil:
		return decision{}
	case len(r.endpoints) > 0:
		return decision{toPreview, r}
	case r.fallback:
		return decision{toBaseline, r}
	}
	return decision{unavailable, r}
}

// candidates are the endpoints in the order in which they are to be tried: they take turns, request by request.
func (r *route) candidates() []endpoint {
	turn := int(r.tally.requests.Load() % uint64(len(r.endpoints)))
	return append(r.endpoints[turn:len(r.endpoints):len(r.endpoints)], r.endpoints[:turn]...)
}
