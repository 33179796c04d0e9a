package gateway

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/detour-dev/detour/api"
)

const signingKey = "0123456789abcdef0123456789abcdef"

// keysOf are fixed.
func keysOf(keys ...string) func() [][]byte {
	all := make([][]byte, len(keys))
	for i, key := range keys {
		all[i] = []byte(key)
	}
	return func() [][]byte { return all }
}

// withKeys is the configuration of a gateway that asks for signatures.
func withKeys(keys ...string) Config { return Config{Keys: keysOf(keys...), Reviewer: fakeReviewer{}} }

func signed(key, host string, lasts time.Duration) string {
	return api.SignHost([]byte(key), host, time.Now().Add(lasts))
}

func TestAdmit(t *testing.T) {
	f := start(t, withKeys("a-new-key-that-is-long-enough-for-it", signingKey), echo)
	c := f.client(t, (*http.Protocols).SetHTTP1)
	good, old := signed(signingKey, host, time.Hour), signed(signingKey, host, -time.Second)
	for name, q := range map[string]struct {
		method, query string
		header        []string
		want          string // the Detour-Error
	}{
		"a URL":                   {"GET", "?detour-signature=" + good, nil, ""},
		"a URL of a form":         {"POST", "?detour-signature=" + good, []string{"Accept", "text/html"}, ""},
		"a header":                {"GET", "", []string{"Detour-Signature", good}, ""},
		"a cookie":                {"GET", "", []string{"Cookie", "a=1; detour-signature=" + good}, ""},
		"an old one and a good":   {"GET", "?detour-signature=" + old, []string{"Cookie", "a=1; detour-signature=" + good}, ""},
		"another of the keys":     {"GET", "", []string{"Detour-Signature", signed("a-new-key-that-is-long-enough-for-it", host, time.Hour)}, ""},
		"nothing":                 {"GET", "", nil, "not-signed"},
		"an old one":              {"GET", "?detour-signature=" + old, nil, "expired"},
		"an old cookie":           {"GET", "", []string{"Cookie", "detour-signature=" + old}, "expired"},
		"one for another host":    {"GET", "", []string{"Detour-Signature", signed(signingKey, "pr-43--api--shop.preview.test", time.Hour)}, "not-signed"},
		"one by somebody else":    {"GET", "", []string{"Detour-Signature", signed("x"+signingKey, host, time.Hour)}, "not-signed"},
		"a preflight without any": {"OPTIONS", "", []string{"Origin", "http://x", "Access-Control-Request-Method", "PUT"}, "not-signed"},
	} {
		separator := "?"
		if q.query != "" {
			separator = "&"
		}
		r := request(t, q.method, "http://"+host+"/x"+q.query+separator+"b=;c", nil, q.header...)
		answer, body := send(t, c, r)
		if got := answer.Header.Get(api.HeaderError); got != q.want {
			t.Errorf("%s: %s %q, want %q", name, answer.Status, got, q.want)
		}
		if q.want != "" && answer.StatusCode != http.StatusForbidden {
			t.Errorf("%s: %s", name, answer.Status)
		}
		if q.want == "" && (strings.Contains(strings.ToLower(body), "signature") || !strings.Contains(body, `"/x?b=;c"`)) {
			t.Errorf("%s: the app sees %s", name, body)
		}
	}
	answer, _ := send(t, c, request(t, "GET", "http://pr-1--nothing--here.preview.test", nil))
	if got := answer.Header.Get(api.HeaderError); got != "not-signed" {
		t.Errorf("a stranger learns of a name that does not exist: %s", got)
	}
	answer, page := send(t, c, request(t, "GET", "http://"+host+"/?detour-signature="+old, nil, "Accept", "text/html"))
	if answer.StatusCode != http.StatusForbidden || !strings.Contains(page, "has expired") || strings.Contains(page, "refresh") {
		t.Errorf("%s\n%s", answer.Status, page)
	}
}

// TestSignatureLeavesTheURL has a browser keep it: in a cookie of this host, which scripts do not see.
func TestSignatureLeavesTheURL(t *testing.T) {
	cfg := withKeys(signingKey)
	cfg.URL = "https://preview.test"
	f := start(t, cfg, echo)
	c := f.client(t, (*http.Protocols).SetHTTP1)
	signature := signed(signingKey, host, time.Hour)
	for url, want := range map[string]string{
		"/x?detour-signature=" + signature:                  "//" + host + "/x",
		"/a%2Fb?c=d;e&detour-signature=" + signature + "&f": "//" + host + "/a%2Fb?c=d;e&f",
		"/x?detour%2Dsignature=" + signature:                "//" + host + "/x",
		"//evil.example/?detour-signature=" + signature:     "//" + host + "//evil.example/",
	} {
		r := request(t, "GET", "http://"+host+url, nil, "Accept", "text/html")
		answer, body := send(t, c, r)
		if got := answer.Header.Get("Location"); answer.StatusCode != http.StatusSeeOther || got != want || body != "" {
			t.Errorf("%s: %s to %s, want %s", url, answer.Status, got, want)
		}
		cookie := answer.Cookies()[0]
		expires := cookie.Expires
		cookie.Raw, cookie.RawExpires, cookie.Expires = "", "", time.Time{}
		secure := &http.Cookie{Name: "detour-signature", Value: signature, Path: "/", HttpOnly: true, Secure: true, SameSite: http.SameSiteLaxMode}
		if diff := cmp.Diff(secure, cookie); diff != "" || time.Until(expires) > time.Hour || time.Until(expires) < 55*time.Minute {
			t.Errorf("it expires at %v; -want +got\n%s", expires, diff)
		}
	}
}

// TestWithoutKeys lets nobody in.
func TestWithoutKeys(t *testing.T) {
	f := start(t, withKeys(), echo)
	r := request(t, "GET", "http://"+host, nil, "Detour-Signature", signed(signingKey, host, time.Hour))
	answer, _ := send(t, f.client(t, (*http.Protocols).SetHTTP1), r)
	if got := answer.Header.Get(api.HeaderError); got != "no-signing-key" {
		t.Errorf("%s %q", answer.Status, got)
	}
}
