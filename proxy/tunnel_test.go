package proxy

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/detour-dev/detour/api"
)

const upgradeRequest = "GET /chat HTTP/1.1\r\nHost: x\r\nConnection: keep-alive, Upgrade\r\nUpgrade: echo\r\n"

// upgrading is an app that, once asked to, echoes in lines that begin with its name, until the client's end.
func upgrading(t *testing.T, name string) net.Addr {
	return serveTCP(t, func(c *net.TCPConn) {
		r := bufio.NewReader(c)
		req, err := http.ReadRequest(r)
		if err != nil {
			return
		}
		if req.Header.Get("Upgrade") != "echo" || !strings.HasSuffix(req.Header.Get("Connection"), "Upgrade") {
			io.WriteString(c, "HTTP/1.1 426 Upgrade Required\r\nContent-Length: 0\r\n\r\n")
			return
		}
		// The first line of the other protocol goes out with the head.
		fmt.Fprintf(c, "HTTP/1.1 101 Do It\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n%s: hello\n", name)
		lines := bufio.NewScanner(r)
		for lines.Scan() {
			fmt.Fprintf(c, "%s: %s\n", name, lines.Text())
		}
		fmt.Fprintf(c, "%s: bye\n", name)
	})
}

func TestUpgrade(t *testing.T) {
	p := start(t, upgrading(t, "baseline"))
	p.route(t, "a", endpointOf("x", upgrading(t, "preview")))
	for key, want := range map[string]string{"": "baseline", "a": "preview"} {
		request := upgradeRequest
		if key != "" {
			request += "Detour-Key: " + key + "\r\n"
		}
		c := dialTCP(t, p.addr())
		io.WriteString(c, request+"\r\nwith the head\n") // bytes sent along are not lost
		r := bufio.NewReader(c)
		resp, err := http.ReadResponse(r, nil)
		if err != nil {
			t.Fatal(err)
		}
		if resp.Status != "101 Do It" || resp.Header.Get("Upgrade") != "echo" || resp.Header.Get("Connection") != "Upgrade" {
			t.Errorf("%q, %v", resp.Status, resp.Header)
		}
		if got := resp.Header.Get(api.HeaderServedBy); (got == "shop/x") != (key == "a") {
			t.Errorf("served by %q", got)
		}
		io.WriteString(c, "later\n")
		c.CloseWrite()
		got, err := io.ReadAll(r)
		if lines := fmt.Sprintf("%[1]s: hello\n%[1]s: with the head\n%[1]s: later\n%[1]s: bye\n", want); string(got) != lines || err != nil {
			t.Errorf("got %q, %v", got, err)
		}
	}
}

func TestUpgradeThatIsDeclined(t *testing.T) {
	p := start(t, serveHTTP(t, named("no")))
	got := exchange(t, p.addr(), upgradeRequest+"\r\n"+upgradeRequest+"Connection: close\r\n\r\n", "")
	if strings.Count(got, "HTTP/1.1 200 OK\r\n") != 2 {
		t.Errorf("got %q", got)
	}
}

func TestUpgradeWithoutEndpointIsRefused(t *testing.T) {
	p := start(t, upgrading(t, "baseline"))
	p.route(t, "a")
	got := exchange(t, p.addr(), upgradeRequest+"Detour-Key: a\r\n\r\n", "deployment/a")
	if !strings.HasPrefix(got, "HTTP/1.1 503 ") {
		t.Errorf("got %q", got)
	}
}

// TestTunnelsEnd: whichever side breaks off, nothing is left behind.
func TestTunnelsEnd(t *testing.T) {
	p := start(t, upgrading(t, "baseline"))
	c := dialTCP(t, p.addr())
	io.WriteString(c, upgradeRequest+"\r\n")
	if _, err := http.ReadResponse(bufio.NewReader(c), nil); err != nil {
		t.Fatal(err)
	}
	c.SetLinger(0)
	c.Close()
	eventually(t, "the tunnel ends", func() bool { return p.meters.active[protocolHTTP1].Get() == 0 })
}
