package proxy

import (
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/detour-dev/detour/api"
)

// matchesOf has key lead where the conditions, as an annotation has them, are met.
func matchesOf(t testing.TB, key, text string) api.Match {
	t.Helper()
	conditions, err := api.ParseConditions(text)
	if err != nil {
		t.Fatal(err)
	}
	return api.Match{Key: key, Conditions: conditions}
}

// matchingTable looks at the header x-user on port 80.
var matchingTable = compile(api.Table{Ports: []api.Port{{
	Port: 80, Routes: []api.Route{{Key: "a"}},
	Matches: []api.Match{{Key: "a", Conditions: []api.Condition{{Part: api.PartHeader, Name: "x-user", Test: api.TestPresent}}}},
}}}, self, nil)

// TestMatches holds requests, as HTTP/1 has them, against one set of conditions each.
func TestMatches(t *testing.T) {
	long := strings.Repeat("x", maxLooked)
	for name, c := range map[string]struct {
		conditions, request string
		met                 bool
	}{
		"exact":                    {"header X-User exact alice", "GET / HTTP/1.1\r\nx-uSER:\talice \r\n", true},
		"not exact":                {"header x-user exact alice", "GET / HTTP/1.1\r\nx-user: Alice\r\n", false},
		"another header":           {"header x-user exact alice", "GET / HTTP/1.1\r\nx-users: alice\r\n", false},
		"second line":              {"header x-user exact alice", "GET / HTTP/1.1\r\nx-user: bob\r\nX-User: alice\r\n", true},
		"lines are not joined":     {"header x-user exact alice", "GET / HTTP/1.1\r\nx-user: bob, alice\r\n", false},
		"prefix":                   {"header x-user prefix al", "GET / HTTP/1.1\r\nx-user: alice\r\n", true},
		"not prefix":               {"header x-user prefix li", "GET / HTTP/1.1\r\nx-user: alice\r\n", false},
		"regex":                    {"header x-user regex l.c", "GET / HTTP/1.1\r\nx-user: alice\r\n", true},
		"not regex":                {"header x-user regex ^l.c", "GET / HTTP/1.1\r\nx-user: alice\r\n", false},
		"present":                  {"header x-user present", "GET / HTTP/1.1\r\nx-user:\r\n", true},
		"absent":                   {"header x-user present", "GET / HTTP/1.1\r\n", false},
		"path":                     {"path prefix /api/", "GET /api/x?y HTTP/1.1\r\n", true},
		"the query is no path":     {"path exact /api", "GET /api?x=/y HTTP/1.1\r\n", true},
		"not the path":             {"path prefix /api/", "GET /x?/api/ HTTP/1.1\r\n", false},
		"path of a URL":            {"path exact /api", "GET http://y/api?http://z HTTP/1.1\r\n", true},
		"path that a URL lacks":    {"path exact /", "GET http://y?z HTTP/1.1\r\n", true},
		"a URL in the query":       {"path exact /a", "GET /a?b=http://y/c HTTP/1.1\r\n", true},
		"a target that is neither": {"path regex .", "GET y:z HTTP/1.1\r\n", false},
		"bytes as they came":       {"path exact /a%2Fb", "GET /a%2Fb HTTP/1.1\r\n", true},
		"no path":                  {"path prefix /", "OPTIONS * HTTP/1.1\r\n", false},
		"method":                   {"method exact POST", "POST / HTTP/1.1\r\n", true},
		"another method":           {"method exact POST", "GET / HTTP/1.1\r\n", false},
		"host":                     {"header host exact x", "GET / HTTP/1.1\r\nHost: x\r\n", true},
		"host of a URL":            {"header host exact y", "GET http://y/ HTTP/1.1\r\nHost: x\r\n", true},
		"all":                      {"header x-user present\npath prefix /api/\nmethod exact GET", "GET /api/ HTTP/1.1\r\nx-user: a\r\n", true},
		"not all":                  {"header x-user present\npath prefix /api/\nmethod exact PUT", "GET /api/ HTTP/1.1\r\nx-user: a\r\n", false},
		"too long to look at":      {"header x-user prefix x", "GET / HTTP/1.1\r\nx-user: x" + long + "\r\n", false},
		"behind what is looked at": {"header x-user exact a", "GET / HTTP/1.1\r\nx-user: " + long + "\r\nx-user: a\r\n", false},
	} {
		table := compile(api.Table{Ports: []api.Port{{
			Port: 80, Routes: []api.Route{{Key: "a", Endpoints: []api.Endpoint{someEndpoint("shop/a", "10.0.0.9:80")}}},
			Matches: []api.Match{matchesOf(t, "a", c.conditions)},
		}}}, self, nil)
		d := decide(table, 80, table.read(80, []byte(c.request+"\r\n"), nil))
		if got := d.verdict == toPreview; got != c.met {
			t.Errorf("%s: met: %v", name, got)
		}
	}
}

// TestPrecedence: keys before matches, matches in their order, and nobody is refused who has no key.
func TestPrecedence(t *testing.T) {
	ready := []api.Endpoint{someEndpoint("shop/x", "10.0.0.9:80")}
	table := compile(api.Table{Ports: []api.Port{{
		Port: 80,
		Routes: []api.Route{
			{Key: "first", Endpoints: ready}, {Key: "second", Endpoints: ready}, {Key: "gone"}, {Key: "later", Endpoints: ready},
		},
		Matches: []api.Match{
			{Key: "later", Conditions: []api.Condition{
				{Part: api.PartHeader, Name: "x", Test: api.TestPresent}, {Part: "weather", Test: "sunny"},
			}},
			matchesOf(t, "gone", "header x exact gone"),
			matchesOf(t, "second", "header x prefix b"),
			matchesOf(t, "first", "header x present"),
		},
	}, {Port: 81, Routes: []api.Route{{Key: "first", Endpoints: ready}}}}}, self, nil)
	for name, c := range map[string]struct {
		port  uint16
		keys  string
		x     string
		want  verdict
		route string
	}{
		"the first that is met":           {80, "", "bob", toPreview, "second"},
		"the next":                        {80, "", "alice", toPreview, "first"},
		"a key counts more":               {80, "first", "bob", toPreview, "first"},
		"even one without an endpoint":    {80, "gone", "bob", unavailable, "gone"},
		"a key of another service":        {80, "foreign", "bob", toPreview, "second"},
		"without an endpoint":             {80, "", "gone", toBaseline, "gone"},
		"the same with a foreign key":     {80, "foreign", "gone", toBaseline, "gone"},
		"a port without matches":          {81, "", "bob", toBaseline, ""},
		"a port that is not in the table": {82, "", "bob", toBaseline, ""},
	} {
		got := decide(table, c.port, request{keys: strings.Fields(c.keys), fields: []field{{"x", c.x}}})
		var route string
		if got.route != nil {
			route = got.route.key
		}
		if got.verdict != c.want || route != c.route {
			t.Errorf("%s: %s %q, want %s %q", name, got.verdict, route, c.want, c.route)
		}
	}
	connect := request{method: "CONNECT", fields: []field{{"x", "bob"}}}
	if d := decide(table, 80, connect); d.route != nil {
		t.Errorf("CONNECT is led to %s", d.route.key)
	}
	if d := decide(nil, 80, request{fields: []field{{"x", "bob"}}}); d != (decision{}) {
		t.Errorf("without a table: %+v", d)
	}
}

// TestHostileRegex: what the limits allow takes no time that others would notice.
func TestHostileRegex(t *testing.T) {
	const patience = time.Second // with much to spare: on a busy machine too
	for _, expression := range []string{`(a*)*$`, `(a|a|aa)+b`, `([a-z]+){9}!`, `(.*a){15}c`, `(\w+\s?){20}!`, `^(([a-z])+.)+[A-Z]([a-z])+$`} {
		table := compile(api.Table{Ports: []api.Port{{
			Port: 80, Routes: []api.Route{{Key: "a"}}, Matches: []api.Match{matchesOf(t, "a", "header x regex "+expression)},
		}}}, self, nil)
		var fields []field
		for range 64 {
			fields = append(fields, field{"x", strings.Repeat("a", 1024)})
		}
		began := time.Now()
		decide(table, 80, request{fields: fields})
		if took := time.Since(began); took > patience {
			t.Errorf("%s: %s", expression, took)
		}
	}
}

const aliceRequest = "GET / HTTP/1.1\r\nHost: x\r\nX-User: alice\r\n\r\n"

// newMatchingMemory has a client whose requests with "X-User: alice" lead to the preview a, "gone" to one without a Pod.
func newMatchingMemory(t *testing.T) (m *memory, app, preview func() *wire) {
	p := newMatchingProxy(t, []api.Route{
		{Key: "a", Preview: "deployment/a", Endpoints: []api.Endpoint{endpointOf("a-1", &anyAddr)}}, {Key: "gone"},
	}, matchesOf(t, "a", "header x-user exact alice"), matchesOf(t, "gone", "header x-user exact gone"))
	m = newMemory(t, p, func(*wire) {})
	t.Cleanup(m.close)
	wireAt := func(i int) func() *wire {
		return func() *wire {
			if len(m.dialled) <= i {
				t.Fatalf("%d connections were dialled", len(m.dialled))
			}
			return m.dialled[i]
		}
	}
	return m, wireAt(0), wireAt(1)
}

// says sends bytes, and has everyone take what there is.
func (w *wire) says(text string) {
	w.unfed = append(w.unfed, text...)
	w.m.run()
}

// hears compares what the far end has got since it was asked last.
func (w *wire) hears(want string) {
	w.m.t.Helper()
	if diff := cmp.Diff(want, string(w.got)); diff != "" {
		w.m.t.Errorf("-want +got\n%s", diff)
	}
	w.got = nil
}

func TestMatchedRequest(t *testing.T) {
	m, app, preview := newMatchingMemory(t)
	plain := strings.Replace(aliceRequest, "alice", "bob", 1)
	m.client.says(plain + aliceRequest + plain)
	app().hears(plain)
	app().says(ok)
	preview().hears(aliceRequest) // as it came: there is no key to be carried on
	app().hears("")
	preview().says(ok)
	app().hears(plain)
	app().says(ok)
	m.client.hears(ok + strings.Replace(ok, "\r\n\r\n", "\r\nDetour-Served-By: shop/a-1\r\n\r\n", 1) + ok)

	gone := strings.Replace(aliceRequest, "alice", "gone", 1)
	m.client.says(gone)
	app().hears(gone)
	if keyed := m.client.handler.(*http1).keyed; keyed {
		t.Error("a connection without a key has deadlines of ours")
	}
}

// TestMatchedRequestIsNotRefused shows what a key would be refused for.
func TestMatchedRequestIsNotRefused(t *testing.T) {
	for name, request := range map[string]string{
		"two Hosts":             "GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\nX-User: alice\r\n\r\n",
		"no Host":               "GET / HTTP/1.1\r\nX-User: alice\r\n\r\n",
		"fragment":              "GET /#f HTTP/1.1\r\nHost: x\r\nX-User: alice\r\n\r\n",
		"CONNECT":               "CONNECT x:1 HTTP/1.1\r\nHost: x\r\nX-User: alice\r\n\r\n",
		"doubt":                 "GET / HTTP/1.1\r\nHost : x\r\nX-User: alice\r\n\r\n",
		"carrier without a key": "GET / HTTP/1.1\r\nBaggage: detour-key=\r\nConnection: baggage\r\nHost: x\r\nX-User: alice\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			m, app, _ := newMatchingMemory(t)
			const first = "GET / HTTP/1.1\r\nHost: x\r\n\r\n"
			m.client.says(first)
			app().hears(first)
			app().says(ok)
			m.client.hears(ok)
			m.client.says(request)
			app().hears(request)
			m.client.hears("")
		})
	}
}

// TestMatchedRequestFallsBack finds no preview that accepts.
func TestMatchedRequestFallsBack(t *testing.T) {
	m, app, _ := newMatchingMemory(t)
	refuses := m.loop.connect
	m.loop.connect = func(s *socket, to netip.AddrPort) error {
		if to.Addr() != memoryPod {
			return syscall.ECONNREFUSED
		}
		return refuses(s, to)
	}
	m.client.says(aliceRequest)
	m.run() // what followed from the refusal
	app().hears(aliceRequest)
	app().says(ok)
	m.client.hears(ok)
}

// TestDoubtInMatchedBody: what has gone to the preview cannot be taken back, and must not be taken for whole.
func TestDoubtInMatchedBody(t *testing.T) {
	m, app, preview := newMatchingMemory(t)
	m.client.says("POST / HTTP/1.1\r\nHost: x\r\nX-User: alice\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n")
	m.client.says("nonsense\r\n")
	if !preview().gone || strings.Contains(string(preview().got), "nonsense") {
		t.Errorf("the preview has got %q, and is still there: %v", preview().got, !preview().gone)
	}
	app().hears("")
	if got := string(m.client.got); !strings.HasPrefix(got, "HTTP/1.1 400 ") || !strings.Contains(got, "Detour-Error: malformed") {
		t.Errorf("the client got %q", got)
	}
}

// TestH2Matched is the same of HTTP/2.
func TestH2Matched(t *testing.T) {
	m := opened(t)
	table := api.Table{Ports: []api.Port{{Port: 80, Routes: []api.Route{
		{Key: "a", Preview: "deployment/a", Endpoints: []api.Endpoint{{Pod: "shop/x-1", Address: netip.AddrPortFrom(away, 1)}}}, {Key: "gone"},
	}, Matches: []api.Match{
		matchesOf(t, "a", "header x-user exact alice\nheader host exact x\npath prefix /\nmethod regex ^(POST|CONNECT)$"),
		matchesOf(t, "gone", "header x-user exact gone"),
	}}}}
	if err := m.h.proxy.apply(table); err != nil {
		t.Fatal(err)
	}
	m.client.request(1, true, "x-user", "bob")
	m.app.expect("HEADERS 1" + requestText + " x-user=bob END")
	m.client.request(3, true, "x-user", "gone")
	m.app.expect("HEADERS 3" + requestText + " x-user=gone END")
	m.client.head(5, false, ":method", "CONNECT", ":authority", "x", "x-user", "alice")
	m.app.expect("HEADERS 5 :method=CONNECT :authority=x x-user=alice")
	m.client.request(7, true, "x-user", "alice")
	m.app.expect()
	preview := m.previews[0]
	preview.accept()
	preview.expect("SETTINGS 0 HEADER_TABLE_SIZE=0 ENABLE_PUSH=0 INITIAL_WINDOW_SIZE=65535", "SETTINGS 0 ACK",
		"HEADERS 1"+requestText+" x-user=alice END")
	preview.head(1, true, ":status", "200")
	m.client.expect("HEADERS 7 :status=200 detour-served-by=shop/x-1 END")
	if m.h.keyed {
		t.Error("a connection without a key has deadlines of ours")
	}
}

// TestH2MatchedFallsBack finds no preview that accepts.
func TestH2MatchedFallsBack(t *testing.T) {
	m := opened(t)
	table := api.Table{Ports: []api.Port{{Port: 80, Routes: []api.Route{
		{Key: "a", Endpoints: []api.Endpoint{{Pod: "shop/x-1", Address: netip.AddrPortFrom(away, 1)}}},
	}, Matches: []api.Match{matchesOf(t, "a", "header x-user present")}}}}
	if err := m.h.proxy.apply(table); err != nil {
		t.Fatal(err)
	}
	m.refuse = true
	m.client.request(1, true, "x-user", "alice")
	m.app.expect("HEADERS 1" + requestText + " x-user=alice END")
}
