package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/detour-dev/detour/api"
)

// gatewayURL is what hack/e2e has the gateway told.
const gatewayURL = "http://preview.localhost:18080"

// local is how programs reach it. To browsers names below localhost are this machine's anyway (RFC 6761, section 6.3).
var local = &http.Transport{
	DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, "127.0.0.1:18080")
	},
	MaxIdleConnsPerHost: 16,
}

// testGateway enters the shop by its previews' URLs, as people who were sent a link do.
func testGateway(t *testing.T) {
	openGateway(t)
	kubectl(t, "create", "serviceaccount", "reader", "-n", "shop")
	kubectl(t, "create", "rolebinding", "reader", "-n", "shop", "--clusterrole=view", "--serviceaccount=shop:reader")
	kubectl(t, "create", "serviceaccount", "stranger", "-n", "shop")

	t.Run("signs for readers", testLinks)
	t.Run("without a link", testUnsigned)
	t.Run("a link", testLink)
	t.Run("10,000 requests", testThroughGateway)
	t.Run("grpc", testGRPCThroughGateway)
	t.Run("browser", testBrowser)
}

// openGateway leads from the machine's port to the gateway's Service, as the local cluster does for its host.
func openGateway(t *testing.T) {
	t.Helper()
	to := serviceAddress(t, "detour-system", "detour-gateway")
	listener, err := net.Listen("tcp", "127.0.0.1:18080")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			from, err := listener.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { carry(from, to) })
		}
	})
	t.Cleanup(func() {
		listener.Close()
		local.CloseIdleConnections()
		wg.Wait()
	})
}

// carry ends when both sides have.
func carry(from net.Conn, to string) {
	defer from.Close()
	upstream, err := net.Dial("tcp", to)
	if err != nil {
		return
	}
	defer upstream.Close()
	var wg sync.WaitGroup
	for _, way := range [][2]net.Conn{{from, upstream}, {upstream, from}} {
		wg.Go(func() {
			_, _ = io.Copy(way[1], way[0])
			_ = way[1].(*net.TCPConn).CloseWrite()
		})
	}
	wg.Wait()
}

func hostURL(service string) string {
	return api.PreviewURL(gatewayURL, api.HostName{Key: key, Service: service, Namespace: "shop"})
}

// askForLink returns the answer's status as well.
func askForLink(t *testing.T, account, audience string, request api.LinkRequest) (api.Link, int) {
	t.Helper()
	body, err := json.Marshal(request)
	if err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, api.GatewayURL(gatewayURL)+api.PathLinks, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	token := strings.TrimSpace(kubectl(t, "create", "token", account, "-n", "shop", "--audience", audience))
	req.Header.Set("Authorization", "Bearer "+token)
	resp, err := (&http.Client{Transport: local}).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var link api.Link
	if err := json.NewDecoder(resp.Body).Decode(&link); err != nil {
		t.Fatal(err)
	}
	return link, resp.StatusCode
}

func linkTo(t *testing.T, request api.LinkRequest) api.Link {
	t.Helper()
	link, status := askForLink(t, "reader", api.Audience, request)
	if status != http.StatusOK {
		t.Fatalf("asking for a link to %+v: %d", request, status)
	}
	return link
}

func testLinks(t *testing.T) {
	toAPI := api.LinkRequest{Key: key, Service: "api", Namespace: "shop", Seconds: 60}
	for _, c := range []struct {
		account, audience string
		request           api.LinkRequest
		want              int
	}{
		{"reader", api.Audience, toAPI, http.StatusOK},
		{"stranger", api.Audience, toAPI, http.StatusForbidden},
		{"reader", "https://kubernetes.default.svc", toAPI, http.StatusUnauthorized},
		{"reader", api.Audience, api.LinkRequest{Namespace: "detour-system"}, http.StatusForbidden},
	} {
		if _, status := askForLink(t, c.account, c.audience, c.request); status != c.want {
			t.Errorf("%s, audience %s, %+v: %d, want %d", c.account, c.audience, c.request, status, c.want)
		}
	}
}

func testUnsigned(t *testing.T) {
	for _, url := range []string{hostURL("api"), hostURL("no-such-service"), api.GatewayURL(gatewayURL) + api.PathNamespaces + "shop"} {
		if resp, _ := fetch(t, &http.Client{Transport: local}, url, nil); resp.StatusCode != http.StatusForbidden {
			t.Errorf("%s: %s, want 403", url, resp.Status)
		}
	}
	link := linkTo(t, api.LinkRequest{Key: key, Service: "api", Namespace: "shop", Seconds: 1})
	time.Sleep(time.Until(link.Expires))
	if resp, body := fetch(t, &http.Client{Transport: local}, link.URL, nil); resp.StatusCode != http.StatusForbidden || !strings.Contains(body, "expired") {
		t.Errorf("an expired link: %s, %s", resp.Status, body)
	}
}

// testLink opens one as a browser does, which then has a cookie.
func testLink(t *testing.T) {
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	browser := &http.Client{Transport: local, Jar: jar}
	link := linkTo(t, api.LinkRequest{Key: key, Service: "frontend", Namespace: "shop"})
	resp, body := fetch(t, browser, link.URL, http.Header{"Accept": {"text/html"}})
	if resp.StatusCode != http.StatusOK || resp.Request.URL.RawQuery != "" {
		t.Fatalf("%s at %s: %s", resp.Status, resp.Request.URL, body)
	}
	_, body = fetch(t, browser, hostURL("frontend")+"api", http.Header{api.HeaderKey: {"another"}})
	var r reply
	if err := json.Unmarshal([]byte(body), &r); err != nil || r.check("frontend", "http1", key) != nil {
		t.Errorf("a client that names another key gets %s (%v)", body, err)
	}

	signature := signatureOf(linkTo(t, api.LinkRequest{Key: key, Service: "api", Namespace: "shop"}))
	conn, _, err := websocket.Dial(t.Context(), strings.Replace(hostURL("api"), "http", "ws", 1)+"ws", &websocket.DialOptions{
		HTTPClient: &http.Client{Transport: local}, HTTPHeader: http.Header{api.HeaderSignature: {signature}},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.CloseNow()
	if _, first, err := conn.Read(t.Context()); err != nil || !strings.Contains(string(first), key) {
		t.Errorf("the WebSocket begins with %s (%v)", first, err)
	}
	message := strings.Repeat("x", 10_000)
	if err := conn.Write(t.Context(), websocket.MessageText, []byte(message)); err != nil {
		t.Fatal(err)
	}
	if _, echo, err := conn.Read(t.Context()); err != nil || string(echo) != message {
		t.Errorf("%d bytes came back as %d (%v)", len(message), len(echo), err)
	}
}

func signatureOf(link api.Link) string {
	_, signature, _ := strings.Cut(link.URL, api.ParameterSignature+"=")
	return signature
}

func fetch(t *testing.T, client *http.Client, url string, header http.Header) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	if header != nil {
		req.Header = header
	}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(body)
}

// testThroughGateway sends 10,000 requests to two previews of one key, and says what that costs beside going to the
// Service with the key.
func testThroughGateway(t *testing.T) {
	const each, clients = 5000, 16
	var took []time.Duration
	for _, entry := range []string{"frontend", "api"} {
		signature := signatureOf(linkTo(t, api.LinkRequest{Key: key, Service: entry, Namespace: "shop"}))
		through := askSigned(entry, signature)
		took = append(took, askMany(t, each, clients, func(ctx context.Context) error {
			r, err := through(ctx)
			if err == nil {
				err = r.check(entry, "http1", key)
			}
			return err
		}))
		direct := askHTTP(t, serviceAddress(t, "shop", entry), "http1")
		took = append(took, askMany(t, each, clients, func(ctx context.Context) error {
			_, err := direct(ctx, key)
			return err
		}))
	}
	t.Logf("%d requests each: to frontend %v through the gateway and %v without, to api %v and %v", each, took[0], took[1], took[2], took[3])
}

// askSigned asks by a preview's URL.
func askSigned(service, signature string) func(context.Context) (reply, error) {
	return func(ctx context.Context) (reply, error) {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, hostURL(service)+"?via=http1", nil)
		if err != nil {
			return reply{}, err
		}
		req.Header.Set(api.HeaderSignature, signature)
		return read(local.RoundTrip(req))
	}
}

// askMany returns how long it took.
func askMany(t *testing.T, requests, clients int, ask func(context.Context) error) time.Duration {
	t.Helper()
	start := time.Now()
	turns := make(chan struct{})
	var wg sync.WaitGroup
	for range clients {
		wg.Go(func() {
			for range turns {
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
				if err := ask(ctx); err != nil {
					t.Error(err)
				}
				cancel()
			}
		})
	}
	for range requests {
		turns <- struct{}{}
	}
	close(turns)
	wg.Wait()
	return time.Since(start).Round(time.Millisecond)
}

// testGRPCThroughGateway has gRPC's own client enter by a preview's host.
func testGRPCThroughGateway(t *testing.T) {
	link := linkTo(t, api.LinkRequest{Key: key, Service: "frontend", Namespace: "shop"})
	host, err := url.Parse(link.URL)
	if err != nil {
		t.Fatal(err)
	}
	ask := askGRPC(t, "passthrough:///127.0.0.1:18080", grpc.WithAuthority(host.Host))
	askMany(t, 1000, 16, func(ctx context.Context) error {
		ctx = metadata.AppendToOutgoingContext(ctx, api.HeaderSignature, signatureOf(link))
		r, err := ask(ctx, "")
		if err == nil {
			err = r.check("frontend", "grpc", key)
		}
		return err
	})
}

// testBrowser has a real browser open links, and watch the namespace's page.
func testBrowser(t *testing.T) {
	expired := linkTo(t, api.LinkRequest{Key: key, Service: "frontend", Namespace: "shop", Seconds: 1})
	time.Sleep(time.Until(expired.Expires))
	node := exec.CommandContext(t.Context(), os.Getenv("NODE"), "../browser/gateway.mjs",
		linkTo(t, api.LinkRequest{Key: key, Service: "frontend", Namespace: "shop"}).URL, expired.URL,
		linkTo(t, api.LinkRequest{Namespace: "shop"}).URL, "http://"+serviceAddress(t, "shop", "frontend")+"/")
	out, err := node.CombinedOutput()
	t.Logf("%s", out)
	if err != nil {
		t.Error(err)
	}
}
