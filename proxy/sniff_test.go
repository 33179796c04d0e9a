package proxy

import (
	"strings"
	"testing"
)

func TestClassify(t *testing.T) {
	long := "GET /" + strings.Repeat("x", maxRequestLine)
	for in, want := range map[string]struct {
		carries protocol
		enough  bool
	}{
		"GET / HTTP/1.1\r\n":                       {protocolHTTP1, true},
		"GET / HTTP/1.0\n":                         {protocolHTTP1, true},
		"GET /a;b?c=%zz#d HTTP/1.1\r\nHost: x\r\n": {protocolHTTP1, true},
		"OPTIONS * HTTP/1.1\r\n":                   {protocolHTTP1, true},
		"GET http://x/ HTTP/1.1\r\n":               {protocolHTTP1, true},
		"M-SEARCH * HTTP/1.1\r\n":                  {protocolHTTP1, true},
		"G":                                        {protocolTCP, false},
		"GET":                                      {protocolTCP, false},
		"GET ":                                     {protocolTCP, false},
		"GET / HTTP/1.1\r":                         {protocolTCP, false},
		preface:                                    {protocolHTTP2, true},
		preface + "\x00\x00\x00\x04":               {protocolHTTP2, true},
		preface[:23]:                               {protocolHTTP2, false},
		"P":                                        {protocolHTTP2, false},
		"POST / HTTP/1.1\r\n":                      {protocolHTTP1, true},
		"PRI * HTTP/2.0\r\n\r\nXX":                 {protocolHTTP1, true}, // which finds it in doubt
		"GET / HTTP/1.1\rHost":                     {protocolHTTP1, true},
		"GET\tx / HTTP/1.1":                        {protocolTCP, true},
		"GET / http/1.1\n":                         {protocolHTTP1, true},
		"\x16\x03\x01\x02\x00\x01":                 {protocolTCP, true}, // TLS
		"*1\r\n$4\r\nPING\r\n":                     {protocolTCP, true}, // Redis
		"PING\r\n":                                 {protocolTCP, true},
		"get some-key\r\n":                         {protocolTCP, true}, // memcached
		"GET /\r\n":                                {protocolTCP, true}, // HTTP/0.9
		"\r\nGET / HTTP/1.1\r\n":                   {protocolTCP, true},
		" GET / HTTP/1.1\r\n":                      {protocolTCP, true},
		"GET  / HTTP/1.1\r\n":                      {protocolTCP, true},
		"GET / HTTP/2.0\r\n":                       {protocolHTTP1, true},
		"GET / HTTP/1.1 \r\n":                      {protocolHTTP1, true},
		"CONNECT a:1 HTTP/1.1\r\n":                 {protocolHTTP1, true},
		"CONNECT 10.0.0.1:1 HTTP/1.1\r\n":          {protocolHTTP1, true},
		"CONNECT":                                  {protocolTCP, false},
		"CONNECTED / HTTP/1.1\r\n":                 {protocolHTTP1, true},
		"GET \x00":                                 {protocolTCP, true},
		"GET /\x1b":                                {protocolTCP, true},
		"HELO 1234":                                {protocolTCP, true},
		strings.Repeat("A", maxMethod+1):           {protocolTCP, true},
		long:                                       {protocolTCP, true},
	} {
		if carries, enough := classify([]byte(in)); carries != want.carries || enough != want.enough {
			t.Errorf("%.40q: %s, %v, want %s, %v", in, carries, enough, want.carries, want.enough)
		}
	}
}

// FuzzClassify checks that a verdict, once reached, does not change with what follows, and is reached in time.
func FuzzClassify(f *testing.F) {
	for _, s := range []string{"GET / HTTP/1.1\r\n\r\n", preface + "x", "\x16\x03\x01", "*1\r\n", "POST /a HTTP/1.0\n"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		decided := -1
		var first protocol
		for n := 1; n <= len(b); n++ {
			carries, enough := classify(b[:n])
			switch {
			case decided >= 0 && (!enough || carries != first):
				t.Fatalf("%s after %d bytes, %s after %d", first, decided, carries, n)
			case decided < 0 && enough:
				decided, first = n, carries
			case !enough && n >= maxRequestLine:
				t.Fatalf("undecided after %d bytes", n)
			}
			if decided >= 0 && n > decided+64 {
				return
			}
		}
	})
}

func TestIsSettings(t *testing.T) {
	for in, want := range map[string]bool{
		"": false, "\x00": false,
		"\x00\x00\x00\x04\x00\x00\x00\x00\x00":         true,
		"\x00\x00\x12\x04\x00\x00\x00\x00\x00\x00\x03": true,
		"\x00\x00\x00\x04\x01\x00\x00\x00\x00":         false, // an ACK
		"\x00\x00\x00\x06\x00\x00\x00\x00\x00":         false, // a PING
		"+OK\r\n":                                      false,
		"HTTP/1.1 408 Request Timeout\r\n":             false,
	} {
		if got := isSettings([]byte(in)); got != want {
			t.Errorf("%q: %v", in, got)
		}
	}
}

// TestConnectionsBeyondTheCapAreCopied: memory is bounded, and nobody is turned away.
func TestConnectionsBeyondTheCapAreCopied(t *testing.T) {
	p := start(t, serveHTTP(t, named("baseline")))
	p.route(t, "a", endpointOf("x", serveHTTP(t, named("preview"))))
	p.routed.Store(maxRouted - 1)
	first, second := client(t), client(t)
	if _, body := get(t, first, p.url("/"), "Detour-Key: a"); body != "preview" {
		t.Errorf("within the cap: got %q", body)
	}
	if _, body := get(t, second, p.url("/"), "Detour-Key: a"); body != "baseline" {
		t.Errorf("beyond the cap: got %q", body)
	}
	if n := p.meters.set.GetOrCreateCounter(`detour_proxy_passed_through_total{reason="connections"}`).Get(); n != 1 {
		t.Errorf("counted %d times", n)
	}
	first.CloseIdleConnections()
	eventually(t, "there is room again", func() bool { return p.routed.Load() == maxRouted-1 })
	if _, body := get(t, client(t), p.url("/"), "Detour-Key: a"); body != "preview" {
		t.Errorf("with room again: got %q", body)
	}
}
