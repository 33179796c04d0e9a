package proxy

import (
	"encoding/json"
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"github.com/detour-dev/detour/api"
)

func TestRoutesFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "routes.json")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file+".new", []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(file+".new", file); err != nil {
			t.Fatal(err)
		}
	}
	app, preview := serveHTTP(t, named("baseline")), serveHTTP(t, named("preview"))
	routes := func(key string) string {
		b, err := json.Marshal(api.Table{Ports: []api.Port{{
			Port:   app.(interface{ AddrPort() netip.AddrPort }).AddrPort().Port(),
			Routes: []api.Route{{Key: key, Endpoints: []api.Endpoint{endpointOf("x", preview)}}},
		}}})
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	write(routes("a"))
	p := start(t, app, func(c *Config) { c.RoutesFile = file })
	c := client(t)
	answers := func(key, want string) func() bool {
		return func() bool {
			_, body := get(t, c, p.url("/"), "Detour-Key: "+key)
			return body == want
		}
	}
	if !answers("a", "preview")() {
		t.Fatal("the table is not in force from the start")
	}
	if p.table.Load().version == "" {
		t.Error("a table without a version has got none")
	}
	write(routes("b"))
	eventually(t, "the file is reread", answers("b", "preview"))
	if !answers("a", "baseline")() {
		t.Error("the old route is still there")
	}

	// Whatever is wrong is said once, and the last table stays.
	for i, bad := range []string{"{", `{"ports":[{"port":0}]}`} {
		write(bad)
		eventually(t, "the error is logged", func() bool { return p.logs.count("reading the routes file") == i+1 })
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the file's absence is logged", func() bool { return p.logs.count("reading the routes file") == 3 })
	if !answers("b", "preview")() {
		t.Error("the last table is not in force any more")
	}
	write(routes("c"))
	eventually(t, "the file is there again", answers("c", "preview"))
}
