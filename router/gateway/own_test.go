package gateway

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/detour-dev/detour/api"
)

// dashboard says what it sees.
func dashboard(w http.ResponseWriter, r *http.Request) {
	_, _ = fmt.Fprintf(w, "dashboard %s %v", r.RequestURI+" "+r.URL.String(), r.Header)
}

func pageSignature(namespace string) string {
	return signed(signingKey, "detour.preview.test/namespaces/"+namespace, time.Hour)
}

func TestDashboard(t *testing.T) {
	cfg := withKeys(signingKey)
	cfg.Dashboard = http.HandlerFunc(dashboard)
	f := start(t, cfg, echo)
	c := f.client(t, (*http.Protocols).SetHTTP1)
	for name, q := range map[string]struct {
		method, path string
		header       []string
		want         string // the Detour-Error
	}{
		"the front page":            {"GET", "/", nil, ""},
		"a file":                    {"HEAD", "/assets/style.css", nil, ""},
		"a page":                    {"GET", "/namespaces/shop", []string{"Cookie", "detour-signature=" + pageSignature("shop")}, ""},
		"below it":                  {"GET", "/namespaces/shop/previews/pr-42", []string{"Detour-Signature", pageSignature("shop")}, ""},
		"by its URL":                {"GET", "/namespaces/shop/?detour-signature=" + pageSignature("shop"), nil, ""},
		"without":                   {"GET", "/namespaces/shop", nil, "not-signed"},
		"with another's":            {"GET", "/namespaces/shop", []string{"Detour-Signature", pageSignature("bank")}, "not-signed"},
		"a name that begins so":     {"GET", "/namespaces/shopping", []string{"Detour-Signature", pageSignature("shop")}, "not-signed"},
		"with a preview's":          {"GET", "/namespaces/shop", []string{"Detour-Signature", signed(signingKey, host, time.Hour)}, "not-signed"},
		"with the host's":           {"GET", "/namespaces/shop", []string{"Detour-Signature", signed(signingKey, "detour.preview.test", time.Hour)}, "not-signed"},
		"an old one":                {"GET", "/namespaces/shop", []string{"Detour-Signature", signed(signingKey, "detour.preview.test/namespaces/shop", -time.Second)}, "expired"},
		"all namespaces":            {"GET", "/namespaces", nil, "not-signed"},
		"no namespace":              {"GET", "/namespaces/", nil, "not-signed"},
		"a way round":               {"GET", "/assets/../namespaces/shop", nil, "unknown-path"},
		"a way up":                  {"GET", "/namespaces/shop/../bank", []string{"Detour-Signature", pageSignature("shop")}, "unknown-path"},
		"two slashes":               {"GET", "//namespaces/shop", nil, "unknown-path"},
		"two slashes within":        {"GET", "/namespaces//shop", nil, "unknown-path"},
		"a letter that is escaped":  {"GET", "/%6Eamespaces/shop", nil, "unknown-path"},
		"a slash that is escaped":   {"GET", "/namespaces/shop%2F..%2Fbank", []string{"Detour-Signature", pageSignature("shop")}, "unknown-path"},
		"a dot that is escaped":     {"GET", "/namespaces/shop/%2E%2E/bank", []string{"Detour-Signature", pageSignature("shop")}, "unknown-path"},
		"another method":            {"POST", "/", nil, "method"},
		"another method on a page":  {"DELETE", "/namespaces/shop", []string{"Detour-Signature", pageSignature("shop")}, "method"},
		"a way round to make links": {"POST", "/v1/links/", nil, "method"},
	} {
		r := request(t, q.method, own, nil, q.header...)
		r.URL.Opaque = "//detour.preview.test" + q.path // as it is
		answer, body := send(t, c, r)
		if got := answer.Header.Get(api.HeaderError); got != q.want {
			t.Errorf("%s: %s %q, want %q: %s", name, answer.Status, got, q.want, body)
		}
		served := strings.HasPrefix(body, "dashboard ")
		if served != (q.want == "" && q.method != "HEAD") {
			t.Errorf("%s: the dashboard is reached: %s", name, body)
		}
		_, header, _ := strings.Cut(body, " ")
		if served && strings.Contains(strings.ToLower(header[strings.Index(header, " "):]), "signature") {
			t.Errorf("%s: it sees %s", name, body)
		}
	}
}

// TestDashboardKeepsSignatures has a browser send one for a namespace to the pages of that namespace alone.
func TestDashboardKeepsSignatures(t *testing.T) {
	cfg := withKeys(signingKey)
	cfg.Dashboard = http.HandlerFunc(dashboard)
	f := start(t, cfg, echo)
	answer, _ := send(t, f.client(t, (*http.Protocols).SetHTTP1),
		request(t, "GET", own+"/namespaces/shop/previews?a=b&detour-signature="+pageSignature("shop"), nil, "Accept", "text/html"))
	if got := answer.Header.Get("Location"); answer.StatusCode != http.StatusSeeOther || got != "//detour.preview.test/namespaces/shop/previews?a=b" {
		t.Errorf("%s to %s", answer.Status, got)
	}
	if cookies := answer.Cookies(); len(cookies) != 1 || cookies[0].Path != "/namespaces/shop" || cookies[0].Value != pageSignature("shop") || !cookies[0].HttpOnly {
		t.Errorf("%v", cookies)
	}
}

func TestOpenDashboard(t *testing.T) {
	f := start(t, Config{Dashboard: http.HandlerFunc(dashboard)}, echo)
	if _, body := send(t, f.client(t, (*http.Protocols).SetHTTP1), request(t, "GET", own+"/namespaces/shop", nil)); !strings.HasPrefix(body, "dashboard ") {
		t.Errorf("%s", body)
	}
}

func TestWithoutDashboard(t *testing.T) {
	f := start(t, withKeys(signingKey), echo)
	for _, path := range []string{"/", "/namespaces/shop", "/v1/link"} {
		answer, body := send(t, f.client(t, (*http.Protocols).SetHTTP1), request(t, "GET", own+path, nil))
		if answer.StatusCode != http.StatusNotFound || answer.Header.Get(api.HeaderError) != "unknown-path" {
			t.Errorf("%s: %s %s", path, answer.Status, body)
		}
	}
}
