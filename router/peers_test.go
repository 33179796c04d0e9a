package router

import (
	"context"
	"encoding/pem"
	"log/slog"
	"net"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/detour-dev/detour/api"
)

// TestAskPeers has three replicas: the one that asks, one that answers, and one that is away.
func TestAskPeers(t *testing.T) {
	other, _ := newTestServer(t)
	other.acks.put(podRef{uid: "pod-api-a"}, api.Ack{Version: "7"})
	listener, err := net.Listen("tcp", "127.0.0.2:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewUnstartedServer(other.handler())
	_ = srv.Listener.Close()
	srv.Listener = listener
	srv.StartTLS()
	defer srv.Close()

	dir := t.TempDir()
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw})
	for name, content := range map[string][]byte{"ca.crt": ca, "token": []byte("router-too\n")} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	_, port, err := net.SplitHostPort(listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	acks := newAckStore(func() {})
	p := newPeers(Config{
		Peers: "detour-router-peers:" + port, PodIP: "127.0.0.1,::1", ServerName: "example.com",
		CertDir: dir, TokenFile: filepath.Join(dir, "token"), Log: slog.New(slog.DiscardHandler),
	}, acks, newLatest[snapshot]())
	p.lookup = func(context.Context, string, string) ([]netip.Addr, error) {
		return []netip.Addr{
			netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("::ffff:127.0.0.2"), netip.MustParseAddr("127.0.0.3"),
		}, nil
	}
	urls, err := p.urls(t.Context())
	want := []string{"https://127.0.0.2:" + port + api.PathAcks, "https://127.0.0.3:" + port + api.PathAcks}
	if diff := cmp.Diff(want, urls); err != nil || diff != "" {
		t.Errorf("whom it asks: %v -want +got\n%s", err, diff)
	}
	p.ask(t.Context())
	if got := acks.fresh()["pod-api-a"].Version; got != "7" {
		t.Errorf("it knows version %q of the Pod, want 7", got)
	}

	stranger := newAckStore(func() {})
	p.acks, p.serverName = stranger, "evil.example.org"
	p.ask(t.Context())
	if len(stranger.fresh()) > 0 {
		t.Error("it believes a replica whose certificate has another name")
	}
}
