package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/detour-dev/detour/api"
)

// manyRequests are sent by each protocol.
const manyRequests = 10_000

// testRules gives a preview a share of the requests, and then copies of them, and says how long requests take beside a
// mirror that answers and one that is dead.
func testRules(t *testing.T) {
	kubectl(t, "create", "serviceaccount", "counter", "-n", "shop")
	kubectl(t, "create", "rolebinding", "counter", "-n", "shop", "--clusterrole=view", "--serviceaccount=shop:counter")
	kubectl(t, "annotate", "service", "-n", "shop", "identity", "detour.dev/allow=percent,mirror")
	address := serviceAddress(t, "shop", "identity")
	asks := map[string]ask{"http1": askHTTP(t, address, "http1"), "grpc": askGRPC(t, address)}
	for protocol, ask := range asks {
		_, took := askVersions(t, ask, protocol)
		t.Logf("%s without a rule: %s", protocol, took)
	}

	apply(t, "test/e2e/testdata/identity-share.yaml")
	waitForState(t, "shop", "deployment/identity-share", api.StateRouted)
	for protocol, ask := range asks {
		versions, _ := askVersions(t, ask, protocol)
		t.Logf("%s, a share of 10 %%: %v", protocol, versions)
		if n := versions["share"]; n < manyRequests*9/100 || n > manyRequests*11/100 {
			t.Errorf("%s: %d of %d went to the preview, want a tenth", protocol, n, manyRequests)
		}
	}

	kubectl(t, "annotate", "deployment", "-n", "shop", "identity-share", "detour.dev/percent-", "detour.dev/mode=mirror")
	eventually(t, 30*time.Second, "no answer is the preview's", func() (bool, string) {
		versions, _ := askSome(t, asks["http1"], "http1", 100)
		return versions["share"] == 0, fmt.Sprint(versions)
	})
	waitForState(t, "shop", "deployment/identity-share", api.StateRouted)
	before := toldCopies(t) // and what the preview was sent of the share
	for protocol, ask := range asks {
		versions, took := askVersions(t, ask, protocol)
		t.Logf("%s with a mirror: %s", protocol, took)
		if versions["baseline"] != manyRequests {
			t.Errorf("%s with a mirror: %v, want the baseline alone", protocol, versions)
		}
	}
	after := toldCopies(t)
	copies, unanswered, requests := after.Requests-before.Requests, after.Errors-before.Errors, uint64(manyRequests*len(asks))
	t.Logf("the preview was sent copies of %d of %d requests, and has not answered %d", copies, requests, unanswered)
	if copies > requests || copies < requests/10 || unanswered > copies/100 { // a mirror drops what two full cores cannot bear
		t.Errorf("%d copies of %d requests, %d unanswered", copies, requests, unanswered)
	}

	const few = 250 // of each protocol may wait together
	for protocol, ask := range asks {
		askSome(t, ask, protocol, few)
	}
	if n := toldCopies(t).Requests - after.Requests; n != uint64(few*len(asks)) {
		t.Errorf("of %d requests that a mirror can bear it was sent %d", few*len(asks), n)
	}

	// Its Pod is ready without a probe, and nothing listens.
	kubectl(t, "set", "env", "deployment/identity-share", "-n", "shop", "LISTEN=:9999")
	kubectl(t, "rollout", "status", "deployment/identity-share", "-n", "shop", "--timeout=1m")
	for protocol, ask := range asks {
		versions, took := askVersions(t, ask, protocol)
		t.Logf("%s with a dead mirror: %s", protocol, took)
		if versions["baseline"] != manyRequests {
			t.Errorf("%s with a dead mirror: %v, want the baseline alone", protocol, versions)
		}
	}
	kubectl(t, "delete", "deployment", "-n", "shop", "identity-share")
	kubectl(t, "annotate", "service", "-n", "shop", "identity", "detour.dev/allow-")
}

// testOtherNamespace has another namespace's copy answer, for as long as the Service consents.
func testOtherNamespace(t *testing.T) {
	const name = "team-b/deployment/api-team-b"
	ask := askHTTP(t, serviceAddress(t, "shop", "frontend"), "http1")
	answeredBy := func(want string) func() (bool, string) {
		return func() (bool, string) {
			r, err := ask(t.Context(), "team-b")
			if err != nil || len(r.ServedBy) < 2 {
				return false, fmt.Sprintf("%+v, %v", r, err)
			}
			return r.ServedBy[1].Version == want, fmt.Sprintf("%+v", r.ServedBy)
		}
	}

	apply(t, "test/e2e/testdata/api-team-b.yaml")
	rollOut(t, "team-b")
	if p, _ := waitForState(t, "shop", name, api.StateInvalid); p.Problem == nil || !strings.Contains(p.Problem.Message, "detour.dev/allow") {
		t.Errorf("without consent its status says %+v, want what to do", p.Problem)
	}
	eventually(t, 0, "without consent the baseline answers", answeredBy("baseline"))
	kubectl(t, "annotate", "service", "-n", "shop", "api", "detour.dev/allow=namespace/team-b")
	waitForState(t, "shop", name, api.StateRouted)
	eventually(t, 0, "once it is routed the other namespace's copy answers", answeredBy("team-b"))
	kubectl(t, "annotate", "service", "-n", "shop", "api", "detour.dev/allow-")
	waitForState(t, "shop", name, api.StateInvalid)
	eventually(t, 10*time.Second, "without consent again the baseline answers", answeredBy("baseline"))
	kubectl(t, "delete", "namespace", "team-b")
}

// askVersions counts who answered requests without a key, and how long they took.
func askVersions(t *testing.T, ask ask, protocol string) (map[string]int, string) {
	t.Helper()
	versions, took := askSome(t, ask, protocol, manyRequests)
	slices.Sort(took)
	return versions, fmt.Sprintf("median %v, 99th percentile %v", took[len(took)/2].Round(time.Microsecond), took[len(took)*99/100].Round(time.Microsecond))
}

func askSome(t *testing.T, ask ask, protocol string, requests int) (map[string]int, []time.Duration) {
	t.Helper()
	var mu sync.Mutex
	versions, took := map[string]int{}, []time.Duration{}
	askMany(t, requests, 4, func(ctx context.Context) error {
		start := time.Now()
		r, err := ask(ctx, "")
		if err != nil {
			return err
		}
		mu.Lock()
		defer mu.Unlock()
		versions[r.ServedBy[0].Version]++
		took = append(took, time.Since(start))
		return nil
	})
	if len(took) != requests {
		t.Fatalf("%s: %d of %d requests were answered", protocol, len(took), requests)
	}
	return versions, took
}

// toldWithin is how long proxies may take to tell routers what they have counted, and those to tell each other.
const toldWithin = 20 * time.Second

// toldCopies is what the preview has been sent, once no more is told of.
func toldCopies(t *testing.T) api.Counters {
	t.Helper()
	last, since := copiesOf(t, "share"), time.Now()
	for time.Since(since) < toldWithin {
		time.Sleep(time.Second)
		if n := copiesOf(t, "share"); n != last {
			last, since = n, time.Now()
		}
	}
	return last
}

// copiesOf is what a preview has been sent, by the router's API.
func copiesOf(t *testing.T, key string) api.Counters {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+serviceAddress(t, "detour-system", "detour-router")+api.PathStatus+"shop", nil)
	if err != nil {
		t.Fatal(err)
	}
	token := strings.TrimSpace(kubectl(t, "create", "token", "counter", "-n", "shop", "--audience", api.Audience))
	req.Header.Set("Authorization", "Bearer "+token)
	resp, err := toRouter.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var s api.Status
	if err := json.NewDecoder(resp.Body).Decode(&s); err != nil {
		t.Fatalf("%s: %v", resp.Status, err)
	}
	for _, p := range s.Previews {
		if p.Key == key && p.Traffic != nil {
			return *p.Traffic
		}
	}
	return api.Counters{}
}
