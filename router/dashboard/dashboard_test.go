package dashboard

import (
	"encoding/json"
	"flag"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/net/html"

	"github.com/detour-dev/detour/api"
	"github.com/detour-dev/detour/router/view"
	"github.com/detour-dev/detour/router/view/viewtest"
)

var update = flag.Bool("update", false, "write the golden files anew")

// TestPages compares whole pages with testdata/; go test -update writes them anew.
func TestPages(t *testing.T) {
	open := func(c *Config) { c.Open = true }
	empty := viewtest.Acknowledged(&viewtest.Namespace{})
	for name, test := range map[string]struct {
		d    *Dashboard
		path string
	}{
		"namespaces": {shown(open, mixed()), "/"},
		"closed":     {shown(nil, mixed()), "/"},
		"namespace":  {shown(nil, mixed(), api.Counters{Requests: 84, Errors: 2}), "/namespaces/shop"},
		"empty":      {shown(nil, empty), "/namespaces/shop"},
		"preview":    {shown(nil, mixed(), api.Counters{Requests: 84, Errors: 2, Last: viewtest.Now.Add(-time.Minute)}), "/namespaces/shop/previews/api/pr-42"},
		"unready":    {shown(nil, mixed()), "/namespaces/shop/previews/identity/pr-2"},
		"unknown":    {shown(nil, mixed()), "/namespaces/elsewhere"},
	} {
		t.Run(name, func(t *testing.T) {
			_, got := get(t, test.d, test.path)
			got = regexp.MustCompile(`(/assets/\w+)\.[\w-]+\.`).ReplaceAllString(got, "$1.HASH.")
			golden := filepath.Join("testdata", name+".html")
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), got); diff != "" {
				t.Errorf("-want +got\n%s", diff)
			}
			checkHTML(t, got)
		})
	}
}

// checkHTML holds a page to having each id once, and to nothing that the content policy forbids.
func checkHTML(t *testing.T, page string) {
	t.Helper()
	root, err := html.Parse(strings.NewReader(page))
	if err != nil {
		t.Fatal(err)
	}
	ids := map[string]bool{}
	for n := range root.Descendants() {
		if n.Type == html.ElementNode && n.Data == "style" {
			t.Error("a style element")
		}
		for _, a := range n.Attr {
			switch {
			case a.Key == "id" && ids[a.Val]:
				t.Errorf("the id %q is there twice", a.Val)
			case a.Key == "id":
				ids[a.Val] = true
			case a.Key == "style" || strings.HasPrefix(a.Key, "on"):
				t.Errorf("an attribute that the policy forbids: %s=%q", a.Key, a.Val)
			}
		}
	}
}

func TestAnswers(t *testing.T) {
	d := shown(nil, mixed())
	starting := New(newWorld().config())
	starting.take(map[string]*view.View{"shop": nil})
	for name, test := range map[string]struct {
		d            *Dashboard
		method, path string
		code         int
		text         string
	}{
		"HEAD":                     {d, http.MethodHead, "/namespaces/shop", 200, ""},
		"HEAD of the events":       {d, http.MethodHead, "/namespaces/shop/events", 200, ""},
		"POST":                     {d, http.MethodPost, "/namespaces/shop", 405, ""},
		"DELETE of nothing":        {d, http.MethodDelete, "/x", 405, ""},
		"no such page":             {d, http.MethodGet, "/x", 404, "There is no such page"},
		"no such namespace":        {d, http.MethodGet, "/namespaces/bank", 404, "kubectl detour enable"},
		"its events":               {d, http.MethodGet, "/namespaces/bank/events", 404, ""},
		"no such preview":          {d, http.MethodGet, "/namespaces/shop/previews/api/pr-9", 404, "kubectl detour create"},
		"a preview of nothing":     {d, http.MethodGet, "/namespaces/shop/previews/apii/pr-1", 200, "UnknownTarget"},
		"a hostile key":            {d, http.MethodGet, "/namespaces/shop/previews/api/%3Cscript%3E", 404, ""},
		"caches that fill":         {starting, http.MethodGet, "/namespaces/shop", 503, "The router is starting"},
		"before the first view":    {New(newWorld().config()), http.MethodGet, "/namespaces/shop", 503, "http-equiv=\"refresh\""},
		"an asset that is another": {d, http.MethodGet, "/assets/style.css", 404, ""},
	} {
		t.Run(name, func(t *testing.T) {
			resp, body := do(t, test.d, test.method, test.path)
			if resp.StatusCode != test.code {
				t.Errorf("status %d, want %d", resp.StatusCode, test.code)
			}
			if allow := resp.Header.Get("Allow"); test.code == 405 && allow != "GET, HEAD" {
				t.Errorf("Allow: %q", allow)
			}
			contains(t, body, test.text)
			want := map[string]string{
				"Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
				"Referrer-Policy":         "no-referrer", "X-Content-Type-Options": "nosniff", "Cache-Control": "no-store",
			}
			for name, value := range want {
				if got := resp.Header.Get(name); got != value {
					t.Errorf("%s: %q, want %q", name, got, value)
				}
			}
		})
	}
}

// TestAssets follows what a page refers to.
func TestAssets(t *testing.T) {
	d := shown(nil, mixed())
	_, page := get(t, d, "/namespaces/shop")
	found := regexp.MustCompile(`/assets/[^"]+`).FindAllString(page, -1)
	if len(found) != 3 {
		t.Fatalf("the page refers to %q, want an icon, a style and a script", found)
	}
	for _, path := range found {
		resp, body := get(t, d, path)
		if resp.StatusCode != 200 || body == "" || !strings.Contains(resp.Header.Get("Cache-Control"), "immutable") {
			t.Errorf("%s: %s, %d bytes, %v", path, resp.Status, len(body), resp.Header)
		}
	}
}

func TestStatusJSON(t *testing.T) {
	d := shown(nil, mixed(), api.Counters{Requests: 3, Errors: 1}, api.Counters{Requests: 10, Errors: 2})
	resp, body := get(t, d, "/namespaces/shop/status.json")
	if got := resp.Header.Get("Content-Type"); got != "application/json" {
		t.Errorf("Content-Type: %s", got)
	}
	var got Namespace
	if err := json.Unmarshal([]byte(body), &got); err != nil {
		t.Fatal(err)
	}
	if got.Namespace != "shop" || len(got.Services) != 2 || len(got.Previews) != 4 {
		t.Fatalf("%s", body)
	}
	first := got.Previews[0]
	if first.State != api.StateRouted || first.Commit != "3f2c1ab" || first.URL != "http://pr-42--api--shop.preview.example.com:18080/" {
		t.Errorf("state %s, commit %s, URL %s", first.State, first.Commit, first.URL)
	}
	if diff := cmp.Diff(&api.Counters{Requests: 10, Errors: 2}, first.Traffic); diff != "" {
		t.Errorf("traffic: -want +got\n%s", diff)
	}
	h := first.History
	if h == nil || h.StepSeconds != 30 || len(h.Requests) != 30 || len(h.Errors) != 30 || h.Requests[29] != 10 || h.Errors[29] != 2 {
		t.Errorf("history %+v", h)
	}
	if until := viewtest.Now.Add(30 * time.Second); !h.Until.Equal(until) {
		t.Errorf("until %s, want %s", h.Until, until)
	}
	if typo := got.Previews[2]; typo.URL != "" || typo.History != nil || typo.Problem.Reason != "UnknownTarget" {
		t.Errorf("%+v", typo)
	}
}

// TestHostileInput: nothing that a cluster's objects say becomes markup, a script or a command.
func TestHostileInput(t *testing.T) {
	const evil = `"><script>alert(1)</script><img src=x onerror=alert(1)>`
	const quote = `x' ; rm -rf / ; '`
	status := func(target, key string) api.PreviewStatus {
		return api.PreviewStatus{
			Preview: "deployment/" + evil, Target: target, Key: key, State: api.StatePending, Of: 1, Endpoints: []string{evil},
			Problem: &api.Problem{Reason: evil, Message: evil}, Warnings: []api.Problem{{Reason: evil, Message: evil}},
			Missing:   []api.Missing{{Pod: evil, Reason: evil}},
			Instances: []api.Instance{{Pod: evil, Images: []string{evil, "javascript:alert(1)"}, Unready: evil}},
		}
	}
	v := &view.View{}
	v.Status.Previews = []api.PreviewStatus{status(evil, evil), status("api", quote), status(quote, "pr-1"), status("api", "pr-1"), status("..", ".."), status("", "")}
	v.Status.Services = []api.ServiceStatus{{Name: evil, Problem: &api.Problem{Reason: evil, Message: evil}}}
	d := shown(nil, v)
	for _, path := range []string{"/namespaces/shop", "/namespaces/shop/previews/api/pr-1"} {
		resp, page := get(t, d, path)
		if resp.StatusCode != 200 {
			t.Errorf("%s: %s", path, resp.Status)
		}
		root, err := html.Parse(strings.NewReader(page))
		if err != nil {
			t.Fatal(err)
		}
		scripts := 0
		for n := range root.Descendants() {
			if n.Type != html.ElementNode {
				continue
			}
			if n.Data == "script" {
				scripts++
			}
			if n.Data == "img" || slices.ContainsFunc(n.Attr, func(a html.Attribute) bool { return strings.HasPrefix(a.Key, "on") }) {
				t.Errorf("%s: markup got through: %s %v", path, n.Data, n.Attr)
			}
			if n.Data == "code" && n.FirstChild != nil && strings.Contains(n.FirstChild.Data, "curl") && strings.Contains(n.FirstChild.Data, "rm -rf") {
				t.Errorf("%s: a command to copy: %s", path, n.FirstChild.Data)
			}
			for _, a := range n.Attr {
				if a.Key == "href" && !regexp.MustCompile(`^(#main|/[\w./-]*|http://[\w.-]+\.preview\.example\.com:18080/)$`).MatchString(a.Val) {
					t.Errorf("%s: a link to %q", path, a.Val)
				}
			}
		}
		if scripts != 1 {
			t.Errorf("%s: %d scripts, want the page's own", path, scripts)
		}
	}
}

// TestHundredPreviews keeps a full page small: each preview has its row, and not much markup.
func TestHundredPreviews(t *testing.T) {
	o := viewtest.Shop()
	for i := range 99 {
		o.AddPreview(fmt.Sprintf("preview-%d", i), "api", fmt.Sprintf("key-%d", i))
	}
	d := shown(nil, viewtest.Acknowledged(o), api.Counters{Requests: 5})
	_, page := get(t, d, "/namespaces/shop")
	if rows := strings.Count(page, `class="preview"`); rows != 100 {
		t.Errorf("%d rows, want 100", rows)
	}
	if len(page) > 300<<10 {
		t.Errorf("the page has %d KiB", len(page)>>10)
	}
}

func BenchmarkNamespacePage(b *testing.B) {
	o := viewtest.Shop()
	for i := range 99 {
		o.AddPreview(fmt.Sprintf("preview-%d", i), "api", fmt.Sprintf("key-%d", i))
	}
	d := shown(nil, viewtest.Acknowledged(o))
	r := httptest.NewRequest(http.MethodGet, "/namespaces/shop", nil)
	for b.Loop() {
		d.ServeHTTP(httptest.NewRecorder(), r)
	}
}

func TestCommit(t *testing.T) {
	for image, want := range map[string]string{
		"registry.example:5000/api:3f2c1ab":            "3f2c1ab",
		"api:sha-3f2c1ab@sha256:0123456789abcdef":      "3f2c1ab",
		"api:8f14e45fceea167a5a36dedd4bea2543b1e0b0aa": "8f14e45fceea167a5a36dedd4bea2543b1e0b0aa",
		"api:v1.2.3": "", "api": "", "api:20260102": "", "": "", "registry.example:5000/api": "", "api@sha256:3f2c1ab": "",
		"api:3F2C1AB": "", "api:3f2c1ab-dirty": "",
	} {
		if got := commitOf([]api.Instance{{Images: []string{image}}}); got != want {
			t.Errorf("%q: %q, want %q", image, got, want)
		}
	}
}
