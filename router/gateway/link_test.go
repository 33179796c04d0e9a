package gateway

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"

	"github.com/detour-dev/detour/api"
)

// fakeReviewer takes a token for the name of its user; alice may list Pods in the namespace shop.
type fakeReviewer struct{}

func (fakeReviewer) User(r *http.Request) (authenticationv1.UserInfo, error) {
	_, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	switch token {
	case "":
		return authenticationv1.UserInfo{}, fmt.Errorf("%w: show a token", ErrUnauthorized)
	case "api-server-away":
		return authenticationv1.UserInfo{}, errors.New("a secret of the API server's")
	}
	return authenticationv1.UserInfo{Username: token}, nil
}

func (fakeReviewer) MayListPods(_ context.Context, user authenticationv1.UserInfo, namespace string) (bool, error) {
	if user.Username == "away-later" {
		return false, errors.New("a secret of the API server's")
	}
	return user.Username == "alice" && namespace == "shop", nil
}

const own = "http://detour.preview.test"

// ask asks for a link.
func ask(t *testing.T, c *http.Client, token, body string) (*http.Response, string) {
	t.Helper()
	return send(t, c, request(t, "POST", own+"/v1/links", strings.NewReader(body), "Authorization", "Bearer "+token))
}

func TestLinks(t *testing.T) {
	cfg := withKeys(signingKey, "another-key-that-is-long-enough-for-it")
	cfg.Namespace = "shop"
	f := start(t, cfg, echo)
	c := f.client(t, (*http.Protocols).SetHTTP1)
	short := api.HostName{Key: "PR_1", Service: "api", Namespace: "shop"}
	for name, q := range map[string]struct {
		token, body string
		status      int
		want        string // the URL before its signature, or what the error says
	}{
		"a host":                       {"alice", `{"host": "` + host + `", "seconds": 7200}`, 200, "http://" + host + "/"},
		"a host with its port":         {"alice", `{"host": "PR-42--api--shop.preview.test.:8080"}`, 200, "http://" + host + "/"},
		"a host of the namespace":      {"alice", `{"host": "pr-42--api.preview.test"}`, 200, "http://pr-42--api.preview.test/"},
		"what it is made of":           {"alice", `{"key": "pr-42", "service": "api", "namespace": "shop"}`, 200, "http://" + host + "/"},
		"one that is not there yet":    {"alice", `{"key": "PR_1", "service": "api", "namespace": "shop"}`, 200, "http://" + short.Label() + ".preview.test/"},
		"the page of a namespace":      {"alice", `{"namespace": "shop"}`, 200, own + "/namespaces/shop"},
		"no token":                     {"", `{"host": "` + host + `"}`, 401, "show a token"},
		"another's namespace":          {"mallory", `{"host": "` + host + `"}`, 403, "mallory may not list pods in namespace shop"},
		"another namespace":            {"alice", `{"key": "pr-42", "service": "api", "namespace": "bank"}`, 403, "namespace bank"},
		"another namespace's page":     {"alice", `{"namespace": "bank"}`, 403, "namespace bank"},
		"a short host that is unknown": {"alice", `{"host": "` + short.Label() + `.preview.test"}`, 400, "short form of a preview that exists"},
		"another domain":               {"alice", `{"host": "pr-42--api--shop.example.com"}`, 400, "is not <key>--<service>--<namespace>.preview.test"},
		"the gateway's own host":       {"alice", `{"host": "detour.preview.test"}`, 400, "is not <key>"},
		"a page as a host":             {"alice", `{"host": "detour.preview.test/namespaces/bank"}`, 400, "is not <key>"},
		"a path as a namespace":        {"alice", `{"namespace": "shop/../bank"}`, 400, `"shop/../bank" is not the name of a namespace`},
		"nothing":                      {"alice", `{}`, 400, "not the name of a namespace"},
		"a key alone":                  {"alice", `{"key": "pr-42", "namespace": "shop"}`, 400, `"" is not the name of a Service`},
		"no key":                       {"alice", `{"key": "a b", "service": "api", "namespace": "shop"}`, 400, `"a b" cannot be a key`},
		"both":                         {"alice", `{"host": "` + host + `", "namespace": "shop"}`, 400, "leave one of them out"},
		"for too long":                 {"alice", `{"namespace": "shop", "seconds": 2592001}`, 400, "ask for 1 to 2592000"},
		"for less than nothing":        {"alice", `{"namespace": "shop", "seconds": -1}`, 400, "ask for 1 to"},
		"a field that is misspelt":     {"alice", `{"namespace": "shop", "secs": 1}`, 400, "unknown field"},
		"no JSON":                      {"alice", `host=x`, 400, "send {"},
		"two":                          {"alice", `{"namespace": "shop"}{}`, 400, "more than one"},
		"too much":                     {"alice", `{"namespace": "` + strings.Repeat("a", 5000) + `"}`, 400, "too large"},
		"no API server":                {"api-server-away", `{"namespace": "shop"}`, 503, "try again"},
		"no API server any more":       {"away-later", `{"namespace": "shop"}`, 503, "try again"},
	} {
		answer, body := ask(t, c, q.token, q.body)
		var got struct {
			api.Link
			Error string `json:"error"`
		}
		if err := json.Unmarshal([]byte(body), &got); err != nil || answer.Header.Get("Content-Type") != "application/json" {
			t.Errorf("%s: %v: %s", name, err, body)
			continue
		}
		url, signature, _ := strings.Cut(got.URL, "?detour-signature=")
		if answer.StatusCode != q.status || q.status == 200 && url != q.want || q.status != 200 && !strings.Contains(got.Error, q.want) {
			t.Errorf("%s: %s %s, want %d %s", name, answer.Status, body, q.status, q.want)
		}
		if strings.Contains(body, "secret") || answer.Header.Get("Cache-Control") != "no-store" || (answer.Header.Get("Detour-Error") == "") != (q.status == 200) {
			t.Errorf("%s: %s %v", name, body, answer.Header)
		}
		if q.status != 200 {
			continue
		}
		signed := strings.TrimSuffix(strings.TrimPrefix(url, "http://"), "/")
		expires, err := api.CheckSignature(keysOf(signingKey)(), signed, signature, time.Now())
		if err != nil || !expires.Equal(got.Expires) {
			t.Errorf("%s: %s is signed for %s until %v, says %v: %v", name, got.URL, signed, expires, got.Expires, err)
		}
	}
}

func TestLinkLasts(t *testing.T) {
	f := start(t, withKeys(signingKey), echo)
	c := f.client(t, (*http.Protocols).SetHTTP1)
	for seconds, want := range map[string]time.Duration{"": 24 * time.Hour, `, "seconds": 7200`: 2 * time.Hour, `, "seconds": 2592000`: api.MaxLinkTime} {
		_, body := ask(t, c, "alice", `{"host": "`+host+`"`+seconds+`}`)
		var link api.Link
		if err := json.Unmarshal([]byte(body), &link); err != nil {
			t.Fatal(err)
		}
		if left := time.Until(link.Expires); left > want || left < want-time.Minute {
			t.Errorf("%q: it lasts %v, want %v", seconds, left, want)
		}
		if answer, seen := send(t, c, request(t, "GET", link.URL, nil)); answer.StatusCode != 200 || strings.Contains(seen, "signature") {
			t.Errorf("%s opens with %s: %s", link.URL, answer.Status, seen)
		}
	}
}

// TestLinksAreForPrograms: what a page of another site can have a browser send gets no link.
func TestLinksAreForPrograms(t *testing.T) {
	f := start(t, withKeys(signingKey), echo)
	c := f.client(t, (*http.Protocols).SetHTTP1)
	for method, header := range map[string][]string{
		"GET": nil, "PUT": {"Authorization", "Bearer alice"}, "OPTIONS": {"Origin", "http://x", "Access-Control-Request-Headers", "authorization"},
	} {
		answer, _ := send(t, c, request(t, method, own+"/v1/links", nil, header...))
		if answer.StatusCode != http.StatusMethodNotAllowed || answer.Header.Get("Allow") != "POST" || answer.Header.Get("Access-Control-Allow-Origin") != "" {
			t.Errorf("%s: %s %v", method, answer.Status, answer.Header)
		}
	}
	signature := signed(signingKey, api.NamespacePage("preview.test", "shop"), time.Hour)
	answer, _ := send(t, c, request(t, "POST", own+"/v1/links", strings.NewReader(`{"namespace": "shop"}`), "Cookie", "detour-signature="+signature))
	if answer.StatusCode != http.StatusUnauthorized {
		t.Errorf("with a cookie: %s", answer.Status)
	}
}

func TestLinksAreLimited(t *testing.T) {
	f := start(t, withKeys(signingKey), echo)
	f.gateway.reviews.SetLimit(0)
	f.gateway.reviews.SetBurst(1)
	c := f.client(t, (*http.Protocols).SetHTTP1)
	for _, want := range []int{200, 429} {
		if answer, body := ask(t, c, "alice", `{"namespace": "shop"}`); answer.StatusCode != want || (answer.Header.Get("Retry-After") != "") != (want == 429) {
			t.Errorf("%s %s, want %d", answer.Status, body, want)
		}
	}
}

func TestLinksOfAnOpenGateway(t *testing.T) {
	f := start(t, Config{}, echo)
	_, body := ask(t, f.client(t, (*http.Protocols).SetHTTP1), "", `{"host": "`+host+`"}`)
	if want := `{"url":"http://` + host + `/"}` + "\n"; body != want {
		t.Errorf("%s, want %s", body, want)
	}
}

func TestLinksWithoutKeys(t *testing.T) {
	f := start(t, withKeys(), echo)
	answer, body := ask(t, f.client(t, (*http.Protocols).SetHTTP1), "alice", `{"host": "`+host+`"}`)
	if answer.StatusCode != 503 || answer.Header.Get("Detour-Error") != "no-signing-key" {
		t.Errorf("%s %s", answer.Status, body)
	}
}
