package gateway

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"github.com/detour-dev/detour/api"
	"github.com/detour-dev/detour/router/view/viewtest"
)

func TestRefusal(t *testing.T) {
	o := viewtest.Shop()
	viewtest.Waiting("ImagePull<BackOff")(o.Pod("api-pr-42-x"))
	g := newGateway(t, Config{}, directory{"shop": viewtest.Acknowledged(o)})
	const ready, unknown = "pr-42--api--shop.preview.test", "pr-1--api--shop.preview.test"
	for name, c := range map[string]struct {
		host, method, header, value string
		status                      int
		contentType, body           string
	}{
		"a program":              {ready, "GET", "Accept", "*/*", 503, "text/plain; charset=utf-8", "api-pr-42-x: ImagePull<BackOff"},
		"a browser":              {ready, "GET", "Accept", "text/html,*/*", 503, "text/html; charset=utf-8", "api-pr-42-x: ImagePull&lt;BackOff"},
		"a browser's page again": {ready, "GET", "Accept", "text/html,*/*", 503, "text/html; charset=utf-8", `http-equiv="refresh"`},
		"a browser's form":       {ready, "POST", "Accept", "text/html,*/*", 503, "text/plain; charset=utf-8", "ImagePull"},
		"unknown to a browser":   {unknown, "GET", "Accept", "text/html", 404, "text/plain; charset=utf-8", "no preview has the key pr-1"},
		"gRPC":                   {ready, "POST", "Content-Type", "application/grpc", 200, "application/grpc", ""},
	} {
		r := httptest.NewRequest(c.method, "http://"+c.host+"/", nil)
		r.Header.Set(c.header, c.value)
		w := httptest.NewRecorder()
		g.ServeHTTP(w, r)
		h := w.Result().Header
		if w.Code != c.status || h.Get("Content-Type") != c.contentType || !strings.Contains(w.Body.String(), c.body) ||
			h.Get("X-Robots-Tag") != "noindex" || h.Get("Cache-Control") != "no-store" {
			t.Errorf("%s: %d %v\n%s", name, w.Code, h, w.Body)
		}
		if again := h.Get("Retry-After"); (again != "") != (c.host == ready) {
			t.Errorf("%s: Retry-After %q", name, again)
		}
		if c.status == http.StatusOK && (h.Get("Grpc-Status") != "14" || !strings.Contains(h.Get("Grpc-Message"), "ImagePull%3CBackOff")) {
			t.Errorf("%s: %v", name, h)
		}
		if reason := h.Get(api.HeaderError); reason != "not-ready" && reason != "unknown-host" {
			t.Errorf("%s: %s %q", name, api.HeaderError, reason)
		}
	}
	var counted dto.Metric
	if err := g.metrics.requests.WithLabelValues("not-ready").Write(&counted); err != nil || counted.Counter.GetValue() != 5 {
		t.Errorf("%v counted as not-ready, want 5 (%v)", &counted, err)
	}
}

func TestConfig(t *testing.T) {
	var c Config
	for _, s := range []string{"shop.example=shop/frontend", "API.example:8443=shop/api"} {
		if err := c.AddPlainHost(s); err != nil {
			t.Error(err)
		}
	}
	if got := c.PlainHosts["api.example:8443"]; got != (ServiceName{"shop", "api"}) || len(c.PlainHosts) != 2 {
		t.Errorf("got %v", c.PlainHosts)
	}
	for _, bad := range []string{"", "shop.example", "shop.example=shop", "=shop/api", "a=/b", "a=b/"} {
		if err := c.AddPlainHost(bad); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
	for url, want := range map[string]string{
		"https://preview.example.com": "https://preview.example.com", "HTTP://Preview.Localhost:18080/": "http://preview.localhost:18080",
		"": "", "preview.example.com": "", "https://": "", "https://a_b": "", "https://a..b": "", "https://-a": "", "ftp://a": "",
		"https://a/b": "", "https://a?b": "", "https://a#b": "", "https://u@a": "", "https://a:0": "", "https://a:65536": "",
		"https://" + strings.Repeat("a.", 95) + "a": "", "https://[::1]": "", "https://a.": "", "https://%61": "",
	} {
		base, err := parseBase(url)
		if (err == nil) != (want != "") || err == nil && base.String() != want {
			t.Errorf("%q: %s, %v, want %q", url, base, err, want)
		}
	}
	if _, err := New(Config{URL: "http://preview.test"}, nil, prometheus.NewRegistry()); err == nil {
		t.Error("a gateway without keys is taken that nobody has said is open")
	}
}
