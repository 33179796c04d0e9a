package proxy

import (
	"bufio"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"syscall"
	"testing"

	"github.com/detour-dev/detour/api"
)

func TestServerSpeaksFirst(t *testing.T) {
	p := start(t, serveTCP(t, func(c *net.TCPConn) {
		io.WriteString(c, "220 ready\r\n")
		line, _ := bufio.NewReader(c).ReadString('\n')
		fmt.Fprintf(c, "250 you said %s", line)
	}))
	c := dialTCP(t, p.addr())
	r := bufio.NewReader(c)
	if line, err := r.ReadString('\n'); line != "220 ready\r\n" {
		t.Fatalf("%q, %v", line, err)
	}
	io.WriteString(c, "GET / HTTP/1.1\r\n") // by now it does not matter what it looks like
	if line, err := r.ReadString('\n'); line != "250 you said GET / HTTP/1.1\r\n" {
		t.Fatalf("%q, %v", line, err)
	}
}

// TestClientSpeaksFirst has clients of other protocols, each waiting for an answer to its first bytes.
func TestClientSpeaksFirst(t *testing.T) {
	echo := serveTCP(t, func(c *net.TCPConn) { io.Copy(c, c) })
	p := start(t, echo)
	for _, first := range []string{
		"*1\r\n$4\r\nPING\r\n", "\x00", "PING\r\n", "get key\r\n", "\r\n", "CONNECT a:1 HTTP/1.1\r\n\r\n",
		"GET /" + strings.Repeat("x", maxRequestLine),
	} {
		c := dialTCP(t, p.addr())
		io.WriteString(c, first)
		got := make([]byte, len(first))
		if _, err := io.ReadFull(c, got); err != nil || string(got) != first {
			t.Errorf("%.20q: got %.20q, %v", first, got, err)
		}
	}
	if n := p.meters.connections[protocolTCP].Get(); n != 6 { // CONNECT names HTTP
		t.Errorf("%d connections were counted as TCP", n)
	}
}

func TestDeclaredProtocols(t *testing.T) {
	app, heads := rawApp(t, "HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nbaseline")
	preview := serveHTTP(t, named("preview!"))
	p := start(t, app)
	routes := []api.Route{{Key: "a", Endpoints: []api.Endpoint{endpointOf("x", preview)}}}
	for declared, want := range map[api.Protocol]string{
		api.ProtocolTCP: "baseline", api.ProtocolHTTP: "preview!", api.ProtocolH2C: "preview!", api.ProtocolSniff: "preview!",
	} {
		p.put(t, api.Port{Port: p.port, Protocol: declared, Routes: routes})
		request := "GET / HTTP/1.1\r\nHost: x\r\nDETOUR-KEY: a\r\n\r\n"
		if got := exchange(t, p.addr(), request, want); !strings.Contains(got, want) {
			t.Errorf("declared %q: got %q", declared, got)
		}
		if declared == api.ProtocolTCP && receive(t, heads) != request {
			t.Error("the request was changed")
		}
	}
}

// TestDeclaredHTTPWaitsForTheClient: on a port that is declared to be HTTP, what the app says first decides nothing.
func TestDeclaredHTTPWaitsForTheClient(t *testing.T) {
	said := make(chan struct{})
	p := start(t, serveTCP(t, func(c *net.TCPConn) {
		io.WriteString(c, "noise")
		close(said)
		io.Copy(io.Discard, c)
	}))
	p.put(t, api.Port{Port: p.port, Protocol: api.ProtocolHTTP, Routes: []api.Route{
		{Key: "a", Endpoints: []api.Endpoint{endpointOf("x", serveHTTP(t, named("preview")))}},
	}})
	c := dialTCP(t, p.addr())
	<-said
	io.WriteString(c, "\x00") // no HTTP after all
	got := make([]byte, 5)
	if _, err := io.ReadFull(c, got); string(got) != "noise" {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestTLSPassesThrough(t *testing.T) {
	s := httptest.NewTLSServer(named("over TLS"))
	defer s.Close()
	p := start(t, s.Listener.Addr())
	p.route(t, "a")
	c := s.Client()
	c.Transport.(*http.Transport).TLSClientConfig.ServerName = "example.com"
	defer c.CloseIdleConnections()
	if _, body := get(t, c, "https://"+p.addr(), "Detour-Key: a"); body != "over TLS" {
		t.Errorf("got %q", body)
	}
}

func TestTLSReachesTheAppUntouched(t *testing.T) {
	p := start(t, serveTCP(t, func(c *net.TCPConn) { io.Copy(c, c) }))
	c := dialTCP(t, p.addr())
	err := tls.Client(c, &tls.Config{ServerName: "x"}).Handshake()
	if err == nil || !strings.Contains(err.Error(), "clientHelloMsg") { // its own ClientHello came back
		t.Errorf("got %v", err)
	}
}

func TestHalfClose(t *testing.T) {
	for _, first := range []string{"", "\x00hello"} {
		p := start(t, serveTCP(t, func(c *net.TCPConn) {
			b, _ := io.ReadAll(c)
			fmt.Fprintf(c, "%d bytes", len(b))
			c.CloseWrite()
			io.Copy(io.Discard, c)
		}))
		c := dialTCP(t, p.addr())
		io.WriteString(c, first)
		c.CloseWrite()
		if got, err := io.ReadAll(c); err != nil || string(got) != fmt.Sprintf("%d bytes", len(first)) {
			t.Errorf("got %q, %v", got, err)
		}
	}
}

func TestMuchDataBothWays(t *testing.T) {
	p := start(t, serveTCP(t, func(c *net.TCPConn) {
		io.Copy(c, c)
		c.CloseWrite()
	}))
	c := dialTCP(t, p.addr())
	sent := strings.Repeat("\x00123456789abcdef", 1<<18)
	go func() {
		io.WriteString(c, sent)
		c.CloseWrite()
	}()
	if got, err := io.ReadAll(c); err != nil || string(got) != sent {
		t.Errorf("%d bytes came back of %d, %v", len(got), len(sent), err)
	}
}

func TestResetsAreHandedOn(t *testing.T) {
	fromClient := make(chan error, 1)
	p := start(t, serveTCP(t, func(c *net.TCPConn) {
		b := make([]byte, 1)
		io.ReadFull(c, b)
		if b[0] == 'r' {
			c.SetLinger(0)
			return
		}
		_, err := c.Read(b)
		fromClient <- err
	}))
	c := dialTCP(t, p.addr())
	io.WriteString(c, "r\x00")
	if _, err := io.ReadAll(c); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the client got %v", err)
	}
	c = dialTCP(t, p.addr())
	io.WriteString(c, "\x00")
	eventually(t, "the connection is being copied", func() bool { return p.meters.connections[protocolTCP].Get() == 2 })
	c.SetLinger(0)
	c.Close()
	if err := <-fromClient; !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the app got %v", err)
	}
}

func TestAppThatRefuses(t *testing.T) {
	p := start(t, refusing(t))
	p.route(t, "a", endpointOf("x", serveHTTP(t, named("preview"))))
	c, err := net.Dial("tcp", p.addr())
	if err == nil { // the reset may come that early
		_, err = c.Read(make([]byte, 1))
		c.Close()
	}
	if !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the client got %v, want a reset", err)
	}
}

func TestOwnAddress(t *testing.T) {
	v4, v6 := netip.MustParseAddr("10.0.0.7"), netip.MustParseAddr("fd00::7")
	for name, c := range map[string]struct {
		own    []netip.Addr
		client string
		want   netip.Addr
	}{
		"IPv4":              {[]netip.Addr{v6, v4}, "10.1.1.1:1", v4},
		"IPv4 on a v6 port": {[]netip.Addr{v6, v4}, "[::ffff:10.1.1.1]:1", v4},
		"IPv6":              {[]netip.Addr{v4, v6}, "[fd00::1]:1", v6},
		"only IPv4":         {[]netip.Addr{v4}, "[fd00::1]:1", v4},
		"only IPv6":         {[]netip.Addr{v6}, "10.1.1.1:1", v6},
	} {
		if got := ownAddress(c.own, netip.MustParseAddrPort(c.client).Addr()); got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
}
