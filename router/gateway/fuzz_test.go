package gateway

import (
	"bufio"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"

	"github.com/detour-dev/detour/api"
	"github.com/detour-dev/detour/router/view"
	"github.com/detour-dev/detour/router/view/viewtest"
)

// recorder is a Service that remembers the requests that reach it.
type recorder struct {
	service string
	mu      *sync.Mutex
	seen    *[]reached
}

type reached struct {
	service string
	header  http.Header
}

func (rec recorder) ServeHTTP(_ http.ResponseWriter, r *http.Request) {
	rec.mu.Lock()
	defer rec.mu.Unlock()
	*rec.seen = append(*rec.seen, reached{rec.service, r.Header})
}

// FuzzGateway sends any head: nothing panics, no Service is reached but the one that the host names, and no key but the
// host's.
func FuzzGateway(f *testing.F) {
	var mu sync.Mutex
	var seen []reached
	v := viewtest.Acknowledged(viewtest.Shop())
	v.Entries = map[string]view.Entry{}
	for _, service := range []string{"api", "identity"} {
		backend := httptest.NewServer(recorder{service, &mu, &seen})
		f.Cleanup(backend.Close)
		v.Entries[service] = view.Entry{Address: netip.MustParseAddrPort(backend.Listener.Addr().String())}
	}
	g := newGateway(f, Config{Namespace: "shop", Dashboard: http.NotFoundHandler()}, directory{"shop": v})
	for _, head := range []string{
		"Host: pr-42--api--shop.preview.test\r\nDetour-Key: evil",
		"Host: PR-42--identity.preview.test.:80\r\nbaggage: a=1;p, detour-key = evil ;x, detour%2dkey=evil",
		"Host: pr-42--api--shop.preview.test\r\nCookie: a=b; detour-key=evil\r\ntracestate: detour=evil,a=b\r\nConnection: detour-key, baggage",
		"Host: pr-42--api--shop.preview.test\r\nCorrelation-Context: detour-key=evil\r\nOt-Baggage-Detour-Key: evil\r\nUberctx-Detour-Key: evil",
		"Host: pr-42--api--shop.preview.test\r\ndetour_key: evil\r\nX-Forwarded-Host: bank\r\nTrailer: Detour-Key",
		"Host: detour.preview.test\r\nAuthorization: Bearer x",
		"Host: 169.254.169.254", "Host: [::1]:80", "Host: a%00b", "Host: --.preview.test", "Host: pr-42--api--shop.preview.test.evil.example",
	} {
		f.Add("GET", "/", head)
		f.Add("GET", "http://pr-42--identity--shop.preview.test/namespaces/shop?a=b;c", head)
	}
	f.Fuzz(func(t *testing.T, method, target, head string) {
		r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(method + " " + target + " HTTP/1.1\r\n" + head + "\r\n\r\n")))
		if err != nil {
			return
		}
		r.RemoteAddr = "192.0.2.1:1"
		mu.Lock()
		seen = nil
		mu.Unlock()
		g.ServeHTTP(httptest.NewRecorder(), r)
		mu.Lock()
		defer mu.Unlock()
		for _, s := range seen {
			label, ok := strings.CutSuffix(hostname(r.Host), ".preview.test")
			if name, plain := api.ParseHostLabel(label); !ok || !plain || name.Service != s.service || name.Key != "pr-42" {
				t.Errorf("host %q reaches Service %s", r.Host, s.service)
			}
			if keys := carried(s.header); len(keys) != 2 || keys[0] != "pr-42" || keys[1] != "pr-42" {
				t.Errorf("host %q brings the keys %q: %v", r.Host, keys, s.header)
			}
		}
	})
}

// carried lists every value that could be read as a key.
func carried(h http.Header) []string {
	var keys []string
	for name, lines := range h {
		name = strings.ReplaceAll(strings.ToLower(name), "_", "-")
		for _, line := range lines {
			switch name {
			case "detour-key", "ot-baggage-detour-key", "uberctx-detour-key":
				keys = append(keys, line)
			case "baggage", "correlation-context":
				keys = append(keys, valuesOf(line, ",", "detour-key")...)
			case "tracestate":
				keys = append(keys, valuesOf(line, ",", "detour")...)
			case "cookie":
				keys = append(keys, valuesOf(line, ";", "detour-key")...)
			}
		}
	}
	return keys
}

func valuesOf(line, separator, name string) []string {
	var values []string
	for member := range strings.SplitSeq(line, separator) {
		is, value, found := strings.Cut(member, "=")
		if found && strings.EqualFold(strings.TrimSpace(is), name) {
			value, _, _ = strings.Cut(value, ";")
			values = append(values, strings.TrimSpace(value))
		}
	}
	return values
}
