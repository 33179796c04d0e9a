package proxy

import (
	"slices"
	"sync/atomic"
	"time"

	"github.com/detour-dev/detour/api"
)

// table is an [api.Table] made ready for looking things up. It does not change; the next one replaces it. A nil table
// stands for none, ever.
type table struct {
	version string
	ports   map[uint16]portRoutes
	matches bool              // a port has some, or mirrors
	mirrors bool              // a port has some
	tallies map[string]*tally // by preview
}

type portRoutes struct {
	protocol api.Protocol
	routes   map[string]*route // by key
	matches  []match
	mirrors  []match
	names    []string // of the headers that these look at
	draws    bool     // chance has a say in one of them
}

type route struct {
	key       string
	preview   string
	fallback  bool
	endpoints []endpoint
	tally     *tally
}

type endpoint struct {
	api.Endpoint
	own bool // this Pod: its app
}

// tally counts one preview's requests for as long as tables have it.
type tally struct {
	requests atomic.Uint64
	errors   atomic.Uint64
	last     atomic.Int64 // Unix time of the newest request
}

// count counts a request.
func (t *tally) count() {
	t.requests.Add(1)
	t.last.Store(time.Now().Unix())
}

func (t *tally) counters() api.Counters {
	c := api.Counters{Requests: t.requests.Load(), Errors: t.errors.Load()}
	if last := t.last.Load(); last != 0 {
		c.Last = time.Unix(last, 0).UTC()
	}
	return c
}

// compile makes t, which has been checked, ready for use by the Pod self, and goes on counting where the table before
// stopped.
func compile(t api.Table, self api.Sidecar, before *table) *table {
	c := &table{version: t.Version, ports: map[uint16]portRoutes{}, tallies: map[string]*tally{}}
	for _, p := range t.Ports {
		routes := make(map[string]*route, len(p.Routes))
		for _, r := range p.Routes {
			routes[r.Key] = &route{
				key:       r.Key,
				preview:   r.Preview,
				fallback:  r.Fallback,
				endpoints: endpoints(r.Endpoints, self),
				tally:     c.tally(r.Preview, before),
			}
		}
		matches, mirrors := compileMatches(p.Matches, routes), compileMatches(p.Mirrors, routes)
		all := slices.Concat(matches, mirrors)
		c.matches = c.matches || len(all) > 0
		names := namesIn(all)
		if len(mirrors) > 0 {
			c.mirrors = true
			names = append(names, carrierMirror)
		}
		c.ports[p.Port] = portRoutes{p.Protocol, routes, matches, mirrors, names, drawn(all)}
	}
	return c
}

// endpoints marks those that are the proxy's own Pod, so that no request goes in a circle.
func endpoints(of []api.Endpoint, self api.Sidecar) []endpoint {
	var es []endpoint
	for _, e := range of {
		own := e.Pod == self.Namespace+"/"+self.Pod || slices.Contains(self.PodIPs, e.Address.Addr())
		es = append(es, endpoint{e, own})
	}
	return es
}

func (t *table) tally(preview string, before *table) *tally {
	if t.tallies[preview] == nil {
		t.tallies[preview] = &tally{}
		if before != nil && before.tallies[preview] != nil {
			t.tallies[preview] = before.tallies[preview]
		}
	}
	return t.tallies[preview]
}

// route is that of the first of keys that has one on the app's port.
func (t *table) route(port uint16, keys []string) *route {
	routes := t.ports[port].routes
	for _, k := range keys {
		if r := routes[k]; r != nil {
			return r
		}
	}
	return nil
}

// protocol is what Services declare of the app's port.
func (t *table) protocol(port uint16) api.Protocol {
	if t == nil {
		return api.ProtocolSniff
	}
	return t.ports[port].protocol
}

func (t *table) ack() api.Ack {
	if t == nil {
		return api.Ack{}
	}
	a := api.Ack{Version: t.version, Previews: map[string]api.Counters{}, Knows: []string{api.KnowsMatches, api.KnowsShares, api.KnowsMirrors}}
	for preview, n := range t.tallies {
		a.Previews[preview] = n.counters()
	}
	return a
}
