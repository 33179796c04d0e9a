package proxy

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/detour-dev/detour/api"
)

// percentOf has key lead a share of the requests away.
func percentOf(t testing.TB, key, text string) api.Match {
	t.Helper()
	share, err := api.ParsePercent(text)
	if err != nil {
		t.Fatal(err)
	}
	return api.Match{Key: key, Conditions: []api.Condition{share}}
}

// sharing is a table of port 80 whose keys all have an endpoint.
func sharing(matches ...api.Match) *table {
	port := api.Port{Port: 80, Matches: matches}
	for _, m := range matches {
		port.Routes = append(port.Routes, api.Route{Key: m.Key, Endpoints: []api.Endpoint{someEndpoint("shop/x", "10.0.0.9:80")}})
	}
	return compile(api.Table{Ports: []api.Port{port}}, self, nil)
}

// keyOf is the key that a decision leads by.
func keyOf(d decision) string {
	if d.route == nil {
		return ""
	}
	return d.route.key
}

// TestToldApartBy holds requests against a share that one of these users is in, and another is not.
func TestToldApartBy(t *testing.T) {
	in, out := "", ""
	for i := 0; in == "" || out == ""; i++ {
		if user := fmt.Sprint("u-", i); lot("a", user) < 3000 {
			in = user
		} else {
			out = user
		}
	}
	for name, c := range map[string]struct {
		percent, lines string
		met            bool
	}{
		"header":                     {"30 by header X-User", "x-uSER:  " + in + " \r\n", true},
		"another user":               {"30 by header x-user", "x-user: " + out + "\r\n", false},
		"no header":                  {"100 by header x-user", "x-users: " + in + "\r\n", false},
		"an empty one":               {"100 by header x-user", "x-user: \r\n", false},
		"the first line counts":      {"30 by header x-user", "x-user: " + in + "\r\nx-user: " + out + "\r\n", true},
		"and no other":               {"30 by header x-user", "x-user: " + out + "\r\nx-user: " + in + "\r\n", false},
		"cookie":                     {"30 by cookie session", "cookie: a=b; session=" + in + "\r\n", true},
		"in a line of its own":       {"30 by cookie session", "Cookie: a=b\r\nCookie: session=" + in + "\r\n", true},
		"another user's":             {"30 by cookie session", "Cookie: session=" + out + "\r\n", false},
		"the name of another cookie": {"30 by cookie session", "Cookie: Session=" + in + "; session2=" + in + "\r\n", false},
		"no cookie":                  {"100 by cookie session", "Cookie: a=b; session\r\n", false},
		"too long to look at":        {"100 by header x-user", "x-user: " + strings.Repeat("x", maxLooked+1) + "\r\n", false},
		"all":                        {"100 by header x-user", "x-user: " + out + "\r\n", true},
		"none":                       {"0 by header x-user", "x-user: " + in + "\r\n", false},
	} {
		table := sharing(percentOf(t, "a", c.percent))
		d := decide(table, 80, table.read(80, []byte("GET / HTTP/1.1\r\nHost: x\r\n"+c.lines+"\r\n"), nil))
		if got := d.verdict == toPreview; got != c.met {
			t.Errorf("%s: met: %v", name, got)
		}
	}
}

// TestLotsStay: users must not change sides because of a new version.
func TestLotsStay(t *testing.T) {
	for value, want := range map[string]uint64{"alice": 2243, "bob": 247, "": 5720} {
		if got := lot("pr-42", value); got != want {
			t.Errorf("%q: %d, want %d", value, got, want)
		}
	}
}

// TestShares draws for many requests, and compares with what chance would have to be very unkind for.
func TestShares(t *testing.T) {
	const n = 100_000
	chance := func(i int) request { return request{draw: fmt.Sprint("draw-", i)} }
	user := func(i int) request { return request{fields: []field{{"x-user", fmt.Sprint("user-", i)}}} }
	for name, c := range map[string]struct {
		matches []api.Match
		request func(int) request
		want    map[string]float64
	}{
		"chance":           {[]api.Match{percentOf(t, "a", "10")}, chance, map[string]float64{"a": .1, "": .9}},
		"hardly any":       {[]api.Match{percentOf(t, "a", "0.25")}, chance, map[string]float64{"a": .0025, "": .9975}},
		"none":             {[]api.Match{percentOf(t, "a", "0")}, chance, map[string]float64{"a": 0, "": 1}},
		"all":              {[]api.Match{percentOf(t, "a", "100")}, chance, map[string]float64{"a": 1, "": 0}},
		"of what is left":  {[]api.Match{percentOf(t, "a", "50"), percentOf(t, "b", "50")}, chance, map[string]float64{"a": .5, "b": .25, "": .25}},
		"users":            {[]api.Match{percentOf(t, "a", "10 by header x-user")}, user, map[string]float64{"a": .1, "": .9}},
		"of users left":    {[]api.Match{percentOf(t, "a", "20 by header x-user"), percentOf(t, "b", "50 by header x-user")}, user, map[string]float64{"a": .2, "b": .4, "": .4}},
		"without a lot":    {[]api.Match{percentOf(t, "a", "50")}, user, map[string]float64{"a": 0, "": 1}},
		"users, nobody is": {[]api.Match{percentOf(t, "a", "50 by header x-user")}, chance, map[string]float64{"a": 0, "": 1}},
	} {
		table := sharing(c.matches...)
		got := map[string]float64{}
		for i := range n {
			got[keyOf(decide(table, 80, c.request(i)))]++
		}
		for key, want := range c.want {
			if share := got[key] / n; share < want-.01 || share > want+.01 {
				t.Errorf("%s: %q has %.4f of all, want %.4f", name, key, share, want)
			}
		}
	}
}

// TestOneDrawARequest: a request that has to wait for its turn is looked at twice, and has no second chance. If it had,
// fewer than half of the requests behind others would go to the preview.
func TestOneDrawARequest(t *testing.T) {
	const n = 2000
	p := newMatchingProxy(t, []api.Route{{Key: "a", Preview: "deployment/a", Endpoints: []api.Endpoint{endpointOf("a-1", &anyAddr)}}},
		percentOf(t, "a", "50"))
	m := newMemory(t, p, func(*wire) {})
	t.Cleanup(m.close)
	const request = "GET / HTTP/1.1\r\nHost: x\r\n\r\n"
	m.client.says(strings.Repeat(request, n))
	for answered := 0; answered < n; {
		m.run() // what has been dialled may not be connected yet
		for _, w := range m.dialled {
			if asked := strings.Count(string(w.got), request); asked > 0 {
				w.got = w.got[asked*len(request):] // the next may be there in part
				answered += asked
				w.says(strings.Repeat(ok, asked))
			}
		}
	}
	if got := p.meters.requests[toPreview].Get(); got < n*45/100 || got > n*55/100 {
		t.Errorf("%d of %d requests went to the preview", got, n)
	}
}

// clients are those of both versions.
var clients = map[string]func(*testing.T) *http.Client{"http1": client, "h2c": clientH2C}

// TestPercent sends 10,000 requests through sockets, of which chance leads a fifth to one preview, and 100 users of whom a
// third has another.
func TestPercent(t *testing.T) {
	const n, users = 10_000, 100
	sticky := percentOf(t, "users", "30 by cookie session")
	sticky.Conditions = append(sticky.Conditions, matchesOf(t, "users", "path exact /users").Conditions...)
	chance := percentOf(t, "chance", "20")
	chance.Conditions = append(chance.Conditions, matchesOf(t, "chance", "path exact /chance").Conditions...)
	for name, newClient := range clients {
		t.Run(name, func(t *testing.T) {
			drawn, theirs := endpointOf("c", serveHTTP(t, named("chance"))), endpointOf("u", serveHTTP(t, named("users")))
			p := start(t, serveHTTP(t, named("baseline")))
			p.put(t, api.Port{Port: p.port, Matches: []api.Match{sticky, chance}, Routes: []api.Route{
				{Key: "chance", Preview: "deployment/chance", Endpoints: []api.Endpoint{drawn}},
				{Key: "users", Preview: "deployment/users", Endpoints: []api.Endpoint{theirs}},
			}})
			var mu sync.Mutex
			byCopy, byUser := map[string]int{}, map[string]string{}
			var asking sync.WaitGroup
			for range 4 {
				c := newClient(t)
				asking.Go(func() {
					for range n / 4 {
						user, path := "", "/chance"
						if rand.N(2) == 0 {
							user, path = fmt.Sprint("u-", rand.N(users)), "/users"
						}
						copyOf, err := bodyFor(c, p.url(path), "session="+user)
						mu.Lock()
						if before := byUser[user]; err != nil || user != "" && before != "" && before != copyOf {
							t.Errorf("%s, who was at %q, is at %q: %v", user, before, copyOf, err)
						}
						if user == "" {
							byCopy[copyOf]++
						} else {
							byUser[user] = copyOf
						}
						mu.Unlock()
					}
				})
			}
			asking.Wait()
			share := float64(byCopy["chance"]) / float64(byCopy["chance"]+byCopy["baseline"])
			if share < .17 || share > .23 || len(byCopy) != 2 {
				t.Errorf("chance has led %.3f away: %v", share, byCopy)
			}
			want := map[string]string{}
			for user := range byUser {
				want[user] = "baseline"
				if lot("users", user) < 3000 {
					want[user] = "users"
				}
			}
			if diff := cmp.Diff(want, byUser); diff != "" {
				t.Errorf("-want +got\n%s", diff)
			}
		})
	}
}

// bodyFor is what is answered to whoever has a cookie.
func bodyFor(c *http.Client, url, cookie string) (string, error) {
	req, err := http.NewRequest(http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	req.Header.Set("Cookie", cookie)
	resp, err := c.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return string(body), err
}

// TestH2Share is told apart by a cookie that is in several fields, as in RFC 9113, section 8.2.3.
func TestH2Share(t *testing.T) {
	m := opened(t)
	table := api.Table{Ports: []api.Port{{Port: 80, Routes: []api.Route{
		{Key: "a", Preview: "deployment/a", Endpoints: []api.Endpoint{{Pod: "shop/x-1", Address: netip.MustParseAddrPort("127.0.0.2:1")}}},
	}, Matches: []api.Match{percentOf(t, "a", "100 by cookie s")}}}}
	if err := m.h.proxy.apply(table); err != nil {
		t.Fatal(err)
	}
	m.client.request(1, true, "cookie", "x=y")
	m.app.expect("HEADERS 1" + requestText + " cookie=x=y END")
	m.client.request(3, true, "cookie", "x=y", "cookie", "s=1")
	m.app.expect()
	if len(m.previews) != 1 {
		t.Fatalf("%d connections to previews", len(m.previews))
	}
}
