package main

import (
	"context"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/detour-dev/detour/api"
)

func TestRunNamesWhatIsWrong(t *testing.T) {
	whole := map[string]string{api.EnvPorts: "http:1:2", api.EnvAdminPort: "3", api.EnvPodIPs: "127.0.0.1"}
	for want, c := range map[string]struct {
		args []string
		env  map[string]string
	}{
		api.EnvPorts:                       {nil, nil},
		"flag provided but not defined":    {[]string{"-x"}, nil},
		api.EnvRouter + `: "http://plain"`: {nil, map[string]string{api.EnvPorts: "http:1:2", api.EnvAdminPort: "3", api.EnvRouter: "http://plain"}},
		`command "x"`:                      {[]string{"x"}, whole},
		"asking the proxy to drain":        {[]string{api.ProxyDrain}, whole}, // nobody is there
	} {
		err := run(t.Context(), c.args, func(name string) string { return c.env[name] })
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want one with %q", err, want)
		}
	}
	if err := run(t.Context(), []string{"-h"}, os.Getenv); err != nil {
		t.Errorf("-h: %v", err)
	}
}

// TestRun serves with routes from a file until it is told to end, and drains before.
func TestRun(t *testing.T) {
	routes := filepath.Join(t.TempDir(), "routes.json")
	if err := os.WriteFile(routes, []byte(`{}`), 0o600); err != nil {
		t.Fatal(err)
	}
	admin := freePort(t)
	env := map[string]string{
		api.EnvPorts: "http:" + freePort(t) + ":1", api.EnvAdminPort: admin,
		api.EnvNamespace: "shop", api.EnvPod: "api-0", api.EnvPodIPs: "127.0.0.1",
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	getenv := func(name string) string { return env[name] }
	go func() { ended <- run(ctx, []string{"-routes", routes}, getenv) }()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(10 * time.Second); !ready("http://127.0.0.1:" + admin + "/readyz"); <-tick.C {
		if time.Now().After(end) {
			t.Fatal("not ready in time")
		}
	}
	if err := run(ctx, []string{api.ProxyDrain}, getenv); err != nil {
		t.Error(err)
	}
	if !ready("http://127.0.0.1:" + admin + "/readyz") {
		t.Error("not ready any more")
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func ready(url string) bool {
	resp, err := http.Get(url)
	if err != nil {
		return false
	}
	resp.Body.Close()
	return resp.StatusCode == http.StatusOK
}

// freePort is one that nobody listens on, and that the kernel gives to nobody else for a while.
func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", ":0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return port
}
