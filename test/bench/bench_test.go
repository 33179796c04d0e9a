package main

import (
	"net/netip"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/detour-dev/detour/api"
)

func TestTurn(t *testing.T) {
	b := &bench{}
	for round, want := range map[int][]string{
		0: {ours, haproxy, nginx, nethttp},
		1: {nethttp, nginx, haproxy, ours},
		8: {ours, haproxy},
		9: {haproxy, ours},
	} {
		var got []string
		for _, p := range turn(b.peers(api.ProtocolSniff), round) {
			got = append(got, p.name)
		}
		if !slices.Equal(got, want) {
			t.Errorf("round %d: %v, want %v", round, got, want)
		}
	}
}

func TestTables(t *testing.T) {
	s := site{App: netip.MustParseAddrPort("127.0.0.1:8080"), Preview: netip.MustParseAddrPort("127.0.0.2:8080"), Key: key}
	for want, table := range map[int]*api.Table{0: noRoutes(s), 1: oneRoute(s), 10_000: manyRoutes(s)} {
		routes := 0
		for _, p := range table.Ports {
			routes += len(p.Routes)
		}
		if err := table.Check(); err != nil || routes != want {
			t.Errorf("%d routes, error %v, want %d", routes, err, want)
		}
	}
}

func TestRender(t *testing.T) {
	s := site{
		Dir: t.TempDir(), Listen: 9000, Key: key,
		App: netip.MustParseAddrPort("127.0.0.1:8080"), Preview: netip.MustParseAddrPort("127.0.0.2:8080"),
	}
	for _, c := range []struct {
		name     string
		protocol api.Protocol
		want     string
	}{
		{"haproxy.cfg", api.ProtocolSniff, "bind 127.0.0.1:9000\n"},
		{"haproxy.cfg", api.ProtocolH2C, "server app 127.0.0.1:8080 proto h2\n"},
		{"haproxy.cfg", api.ProtocolTCP, "mode tcp\n"},
		{"nginx.conf", api.ProtocolSniff, "map $http_detour_key $to { default app; pr-42 preview; }"},
		{"nginx.conf", api.ProtocolH2C, "listen 127.0.0.1:9000 http2;"},
		{"nginx.conf", api.ProtocolTCP, "proxy_pass 127.0.0.1:8080;"},
	} {
		s.Protocol = c.protocol
		path, err := s.render(c.name)
		if err != nil {
			t.Fatal(err)
		}
		if b, err := os.ReadFile(path); err != nil || !strings.Contains(string(b), c.want) {
			t.Errorf("%s for %q: %s, error %v, want %q in it", c.name, c.protocol, b, err, c.want)
		}
	}
}

func TestParseOptions(t *testing.T) {
	good := []string{"-proxy", "p", "-programs", "d"}
	if o, err := parseOptions(append(good, "-run", "h2c", "-rounds", "3")); err != nil || o.rounds != 3 || !o.only.MatchString("h2c") {
		t.Errorf("%+v, error %v", o, err)
	}
	for _, bad := range [][]string{{"-run", "("}, {"-rounds", "0"}, {"-duration", "-1s"}, {"-proxy", ""}} {
		if _, err := parseOptions(append(good, bad...)); err == nil {
			t.Errorf("%v: no error", bad)
		}
	}
}

// TestCases holds that every line has a name of its own, by which -run can choose it.
func TestCases(t *testing.T) {
	seen := map[string]bool{}
	for _, c := range (&bench{}).cases() {
		for _, g := range c.goals {
			if seen[g.name] || !c.matches(regexp.MustCompile("^"+regexp.QuoteMeta(g.name)+"$")) {
				t.Errorf("%q is there twice or cannot be chosen", g.name)
			}
			seen[g.name] = true
		}
	}
}
