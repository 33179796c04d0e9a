package proxy

import (
	"encoding/json"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/detour-dev/detour/api"
)

var self = api.Sidecar{Namespace: "shop", Pod: "api-0", PodIPs: []netip.Addr{netip.MustParseAddr("10.0.0.7")}}

func someEndpoint(pod, address string) api.Endpoint {
	return api.Endpoint{Pod: pod, Address: netip.MustParseAddrPort(address)}
}

func TestDecide(t *testing.T) {
	ready := []api.Endpoint{someEndpoint("shop/api-pr-1", "10.0.0.9:8080")}
	full := compile(api.Table{Ports: []api.Port{
		{Port: 8080, Routes: []api.Route{
			{Key: "ready", Endpoints: ready},
			{Key: "other", Endpoints: ready},
			{Key: "gone"},
			{Key: "falls-back", Fallback: true},
			{Key: "falls-back-ready", Fallback: true, Endpoints: ready},
		}},
		{Port: 9090, Protocol: api.ProtocolH2C},
	}}, self, nil)
	for name, c := range map[string]struct {
		table *table
		port  uint16
		keys  string
		want  verdict
		route string
	}{
		"no key":                      {full, 8080, "", toBaseline, ""},
		"no key, no table":            {nil, 8080, "", toBaseline, ""},
		"no table":                    {nil, 8080, "ready", withoutTable, ""},
		"empty table":                 {compile(api.Table{}, self, nil), 8080, "ready", toBaseline, ""},
		"match":                       {full, 8080, "ready", toPreview, "ready"},
		"key of another service":      {full, 8080, "foreign", toBaseline, ""},
		"first match wins":            {full, 8080, "foreign other ready", toPreview, "other"},
		"first match has no endpoint": {full, 8080, "gone ready", unavailable, "gone"},
		"no endpoint":                 {full, 8080, "gone", unavailable, "gone"},
		"fallback":                    {full, 8080, "falls-back", toBaseline, "falls-back"},
		"fallback with endpoint":      {full, 8080, "falls-back-ready", toPreview, "falls-back-ready"},
		"port without routes":         {full, 9090, "ready", toBaseline, ""},
		"port not in the table":       {full, 1, "ready", toBaseline, ""},
		"keys are case sensitive":     {full, 8080, "Ready", toBaseline, ""},
	} {
		got := decide(c.table, c.port, request{keys: strings.Fields(c.keys)})
		var route string
		if got.route != nil {
			route = got.route.key
		}
		if got.verdict != c.want || route != c.route {
			t.Errorf("%s: %s %q, want %s %q", name, got.verdict, route, c.want, c.route)
		}
	}
}

// FuzzDecide checks, for any table and request, that there is an answer and that it is one that may be given.
func FuzzDecide(f *testing.F) {
	f.Add(`{"ports":[{"port":80,"routes":[{"key":"a","endpoints":[{"pod":"x/y","address":"1.2.3.4:5"}]}]}]}`, uint16(80), "a", "")
	f.Add(`{"ports":[{"port":80,"protocol":"tcp","routes":[{"key":"a","fallback":true},{"key":"b"}]}]}`, uint16(80), "b a", "")
	f.Add(`{"ports":[{"port":80,"routes":[{"key":"a"}],"matches":[{"key":"a","conditions":[{"part":"header","name":"x","test":"regex","value":"^b+$"}]}]}]}`,
		uint16(80), "", "bb")
	f.Add(`{"ports":[{"port":80,"routes":[{"key":"a"}],"matches":[{"key":"a","conditions":[{"part":"path","test":"prefix","value":"/"},{"part":"cookie"}]}]}]}`,
		uint16(80), "c", "")
	f.Add(`{"ports":[{"port":80,"routes":[{"key":"a"}],"matches":[{"key":"a","conditions":[{"part":"share","name":"header x","test":"percent","value":"50"}]}]}]}`,
		uint16(80), "", "user")
	f.Add(`{"ports":[{"port":80,"routes":[{"key":"a","endpoints":[{"pod":"x/y","address":"1.2.3.4:5"}]}],"mirrors":[{"key":"a"}]}]}`, uint16(80), "b", "")
	f.Add(`null`, uint16(0), "", "x")
	f.Fuzz(func(t *testing.T, text string, port uint16, words, value string) {
		var in *table
		var from api.Table
		if json.Unmarshal([]byte(text), &from) == nil && from.Check() == nil {
			in = compile(from, self, nil)
		}
		keys := strings.Fields(words)
		d := decide(in, port, request{keys: keys, method: "GET", path: pathOf(value), fields: []field{{"x", value}}, draw: value})
		asked := d.route != nil && slices.Contains(keys, d.route.key)
		if d.route != nil && !asked && (!in.matching(port) || !d.fallback) {
			t.Errorf("led away without a key or a match, or to be refused: %+v", d)
		}
		if d.mirror != nil && (d.verdict != toBaseline || d.route != nil || len(d.mirror.endpoints) == 0) {
			t.Errorf("a copy by mistake: %+v", d)
		}
		switch d.verdict {
		case toBaseline:
			if d.route != nil && !d.fallback || len(keys) > 0 && in == nil {
				t.Errorf("baseline by mistake: %+v", d)
			}
		case toPreview:
			if len(d.route.endpoints) == 0 {
				t.Errorf("to a preview that is not there: %+v", d)
			}
		case unavailable:
			if d.route.fallback || len(d.route.endpoints) > 0 || !asked {
				t.Errorf("unavailable by mistake: %+v", d)
			}
		case withoutTable:
			if in != nil || len(keys) == 0 {
				t.Error("no table by mistake")
			}
		default:
			t.Errorf("no verdict: %d", d.verdict)
		}
	})
}

func TestCompileMarksItsOwnPod(t *testing.T) {
	c := compile(api.Table{Ports: []api.Port{{Port: 80, Routes: []api.Route{{Key: "a", Endpoints: []api.Endpoint{
		someEndpoint("shop/api-0", "10.0.0.8:80"),
		someEndpoint("shop/api-1", "10.0.0.7:80"),
		someEndpoint("other/api-0", "10.0.0.9:80"),
	}}}}}}, self, nil)
	var own []bool
	for _, e := range c.ports[80].routes["a"].endpoints {
		own = append(own, e.own)
	}
	if diff := cmp.Diff([]bool{true, true, false}, own); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}

func TestCountersOutliveTheTable(t *testing.T) {
	from := api.Table{Version: "1", Ports: []api.Port{
		{Port: 80, Routes: []api.Route{{Key: "a", Preview: "deployment/a"}, {Key: "b", Preview: "deployment/b"}}},
		{Port: 81, Routes: []api.Route{{Key: "a", Preview: "deployment/a"}}},
	}}
	first := compile(from, self, nil)
	first.route(80, []string{"a"}).tally.requests.Add(1)
	first.route(81, []string{"a"}).tally.errors.Add(1)
	from.Version = "2"
	from.Ports[0].Routes = from.Ports[0].Routes[:1]
	second := compile(from, self, first)
	first.route(80, []string{"a"}).tally.requests.Add(1) // of a request that was under way
	want := api.Ack{
		Version: "2", Previews: map[string]api.Counters{"deployment/a": {Requests: 2, Errors: 1}}, Knows: []string{api.KnowsMatches, api.KnowsShares, api.KnowsMirrors},
	}
	if diff := cmp.Diff(want, second.ack()); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	if diff := cmp.Diff(api.Ack{}, (*table)(nil).ack()); diff != "" {
		t.Errorf("no table: -want +got\n%s", diff)
	}
}
