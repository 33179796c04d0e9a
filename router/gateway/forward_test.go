package gateway

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/detour-dev/detour/api"
	"github.com/detour-dev/detour/router/view"
	"github.com/detour-dev/detour/router/view/viewtest"
)

const host = "pr-42--api--shop.preview.test"

// fixture is a gateway on a real socket, with an app behind the Service api.
type fixture struct {
	address string
	app     netip.AddrPort
	gateway *Gateway
	stop    func() error // ends the gateway; the test does it at its end anyway
}

func start(t testing.TB, cfg Config, app http.HandlerFunc) fixture {
	t.Helper()
	backend := httptest.NewUnstartedServer(app)
	backend.Config.Protocols = protocols((*http.Protocols).SetHTTP1, (*http.Protocols).SetUnencryptedHTTP2)
	backend.Start()
	t.Cleanup(backend.Close)
	v := viewtest.Acknowledged(viewtest.Shop())
	f := fixture{app: netip.MustParseAddrPort(backend.Listener.Addr().String())}
	v.Entries["api"] = view.Entry{Address: f.app}
	v.Entries["h2c"] = view.Entry{Address: f.app, H2C: true}
	v.Entries["gone"] = view.Entry{Address: netip.MustParseAddrPort("127.0.0.1:1")}
	f.gateway = newGateway(t, cfg, directory{"shop": v})
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f.address = listener.Addr().String()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- f.gateway.serve(ctx, listener)
		close(done)
	}()
	f.stop = func() error {
		cancel()
		return <-done
	}
	t.Cleanup(func() { _ = f.stop() })
	return f
}

func protocols(speak ...func(*http.Protocols, bool)) *http.Protocols {
	p := &http.Protocols{}
	for _, s := range speak {
		s(p, true)
	}
	return p
}

// client sends every request to the gateway, whatever its host.
func (f fixture) client(t *testing.T, speak func(*http.Protocols, bool)) *http.Client {
	transport := &http.Transport{
		Protocols: protocols(speak),
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "tcp", f.address)
		},
	}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

func (f fixture) dial(t *testing.T) (net.Conn, *bufio.Reader) {
	t.Helper()
	conn, err := net.Dial("tcp", f.address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	return conn, bufio.NewReader(conn)
}

// seen is a request as the app sees it.
type seen struct {
	Proto, Method, Host, URI, Body string
	Header, Trailer                http.Header
}

func echo(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	_ = json.NewEncoder(w).Encode(seen{r.Proto, r.Method, r.Host, r.RequestURI, string(body), r.Header, r.Trailer})
}

func request(t *testing.T, method, url string, body io.Reader, header ...string) *http.Request {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, url, body)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Add(header[i], header[i+1])
	}
	return r
}

func send(t *testing.T, c *http.Client, r *http.Request) (*http.Response, string) {
	t.Helper()
	answer, err := c.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = answer.Body.Close() }()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer, string(body)
}

func sendSeen(t *testing.T, c *http.Client, r *http.Request) seen {
	t.Helper()
	answer, body := send(t, c, r)
	var s seen
	if err := json.Unmarshal([]byte(body), &s); err != nil {
		t.Fatalf("%s: %s", answer.Status, body)
	}
	return s
}

func TestForward(t *testing.T) {
	f := start(t, Config{}, echo)
	http1, http2 := f.client(t, (*http.Protocols).SetHTTP1), f.client(t, (*http.Protocols).SetUnencryptedHTTP2)
	for name, c := range map[string]struct {
		client  *http.Client
		service string
		header  []string
		want    string // the protocol that the app is spoken to in
	}{
		"HTTP/1.1":                     {http1, "api", nil, "HTTP/1.1"},
		"HTTP/2":                       {http2, "api", nil, "HTTP/1.1"},
		"gRPC":                         {http2, "api", []string{"Content-Type", "application/grpc+proto"}, "HTTP/2.0"},
		"gRPC-Web":                     {http2, "api", []string{"Content-Type", "application/grpc-web+proto"}, "HTTP/1.1"},
		"HTTP/1.1 to one that says h2": {http1, "h2c", nil, "HTTP/2.0"},
		"HTTP/2 to one that says h2":   {http2, "h2c", nil, "HTTP/2.0"},
	} {
		host := "pr-42--" + c.service + "--shop.preview.test:8080"
		// ';' in a query is what net/url would drop.
		got := sendSeen(t, c.client, request(t, "PUT", "http://"+host+"/a%2Fb?c=d;e&%zz", strings.NewReader("body"), c.header...))
		want := seen{Proto: c.want, Method: "PUT", Host: host, URI: "/a%2Fb?c=d;e&%zz", Body: "body"}
		key, baggage := got.Header.Get("Detour-Key"), got.Header.Get("Baggage")
		got.Header, got.Trailer = nil, nil
		if diff := cmp.Diff(want, got); diff != "" || key != "pr-42" || baggage != "detour-key=pr-42" {
			t.Errorf("%s: key %q, baggage %q; -want +got\n%s", name, key, baggage, diff)
		}
	}
}

// TestStreams has each end say something only once it has heard the other, in both protocols.
func TestStreams(t *testing.T) {
	f := start(t, Config{}, func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).EnableFullDuplex()
		lines := bufio.NewScanner(r.Body)
		w.Header().Set("Trailer", "Count")
		_, _ = fmt.Fprintln(w, "hello")
		_ = http.NewResponseController(w).Flush()
		for lines.Scan() {
			_, _ = fmt.Fprintln(w, lines.Text())
			_ = http.NewResponseController(w).Flush()
		}
		w.Header().Set("Count", "3")
		w.Header().Set(http.TrailerPrefix+"Grpc-Status", "0")
	})
	for name, speak := range map[string]func(*http.Protocols, bool){
		"HTTP/1.1": (*http.Protocols).SetHTTP1, "h2c": (*http.Protocols).SetUnencryptedHTTP2,
	} {
		body, upload := io.Pipe()
		answer, err := f.client(t, speak).Do(request(t, "POST", "http://"+host, body, "Content-Type", "application/grpc"))
		if err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(answer.Body)
		for _, line := range []string{"hello", "one", "two", "three"} {
			if line != "hello" {
				_, _ = fmt.Fprintln(upload, line)
			}
			if !lines.Scan() || lines.Text() != line {
				t.Fatalf("%s: %q, want %q: %v", name, lines.Text(), line, lines.Err())
			}
		}
		_ = upload.Close()
		if lines.Scan() || answer.Trailer.Get("Count") != "3" || answer.Trailer.Get("Grpc-Status") != "0" {
			t.Errorf("%s: %q and trailers %v at the end", name, lines.Text(), answer.Trailer)
		}
		_ = answer.Body.Close()
	}
}

// TestServerSentEvents has the app wait for the client to have read an event before it sends the next.
func TestServerSentEvents(t *testing.T) {
	read := make(chan struct{})
	f := start(t, Config{}, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		for i := range 3 {
			_, _ = fmt.Fprintf(w, "data: %d\n\n", i)
			_ = http.NewResponseController(w).Flush()
			<-read
		}
	})
	answer, err := f.client(t, (*http.Protocols).SetHTTP1).Do(request(t, "GET", "http://"+host, nil))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = answer.Body.Close() }()
	lines := bufio.NewScanner(answer.Body)
	for i := range 3 {
		if !lines.Scan() || lines.Text() != fmt.Sprintf("data: %d", i) || !lines.Scan() {
			t.Fatalf("event %d: %q, %v", i, lines.Text(), lines.Err())
		}
		read <- struct{}{}
	}
}

// TestEarlyAnswer is an app that refuses an upload in the middle: the client hears it, and does not wait for ever.
func TestEarlyAnswer(t *testing.T) {
	f := start(t, Config{}, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.ReadFull(r.Body, make([]byte, 1))
		http.Error(w, "too large", http.StatusRequestEntityTooLarge)
	})
	conn, reader := f.dial(t)
	_, _ = fmt.Fprintf(conn, "POST / HTTP/1.1\r\nHost: %s\r\nContent-Length: 1000000000\r\n\r\nx", host)
	answer, err := http.ReadResponse(reader, nil)
	if err != nil || answer.StatusCode != http.StatusRequestEntityTooLarge {
		t.Fatalf("%+v, %v", answer, err)
	}
}

func TestContinue(t *testing.T) {
	f := start(t, Config{}, echo)
	conn, reader := f.dial(t)
	_, _ = fmt.Fprintf(conn, "POST / HTTP/1.1\r\nHost: %s\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n", host)
	first, err := http.ReadResponse(reader, nil)
	if err != nil || first.StatusCode != http.StatusContinue {
		t.Fatalf("%+v, %v", first, err)
	}
	_, _ = io.WriteString(conn, "x")
	if second, err := http.ReadResponse(reader, nil); err != nil || second.StatusCode != http.StatusOK {
		t.Fatalf("%+v, %v", second, err)
	}
}

// upgrade answers a handshake and then echoes what comes.
func upgrade(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Upgrade") == "" {
		echo(w, r)
		return
	}
	conn, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	defer func() { _ = conn.Close() }()
	_, _ = fmt.Fprintf(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: %s\r\nKey: %s\r\n\r\n",
		r.Header.Get("Upgrade"), r.Header.Get("Detour-Key"))
	_, _ = io.Copy(conn, rw)
}

// openWebSocket returns an upgraded connection, over which each end has heard the other.
func openWebSocket(t *testing.T, f fixture) (net.Conn, *bufio.Reader) {
	t.Helper()
	conn, reader := f.dial(t)
	_, _ = fmt.Fprintf(conn, "GET /ws HTTP/1.1\r\nHost: %s\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\r\n", host)
	answer, err := http.ReadResponse(reader, nil)
	if err != nil || answer.StatusCode != http.StatusSwitchingProtocols || answer.Header.Get("Key") != "pr-42" {
		t.Fatalf("%+v, %v", answer, err)
	}
	_, _ = io.WriteString(conn, "frames\n")
	if line, err := reader.ReadString('\n'); line != "frames\n" {
		t.Fatalf("%q, %v", line, err)
	}
	return conn, reader
}

func TestWebSocket(t *testing.T) {
	f := start(t, Config{}, upgrade)
	_, reader := openWebSocket(t, f)
	if err := f.stop(); err != nil {
		t.Errorf("stopping: %v", err)
	}
	if _, err := reader.ReadByte(); err == nil {
		t.Error("the connection outlives the gateway")
	}
}

// TestSmuggling has clients try to bring a key of their own, or to get away from the Service.
func TestSmuggling(t *testing.T) {
	f := start(t, Config{}, upgrade)
	for name, head := range map[string]string{
		"other carriers":             "GET / HTTP/1.1\r\nHost: %s\r\nDetour-Key: evil\r\nbaggage: detour-key=evil\r\nCookie: detour-key=evil\r\n",
		"the connection drops them":  "GET / HTTP/1.1\r\nHost: %s\r\nConnection: Detour-Key, Baggage\r\n",
		"another protocol":           "GET / HTTP/1.1\r\nHost: %s\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n",
		"a whole URL as the target":  "GET http://%s/ HTTP/1.1\r\nHost: evil.example\r\n",
		"trailers":                   "POST / HTTP/1.1\r\nHost: %s\r\nTransfer-Encoding: chunked\r\nTrailer: Detour-Key\r\n\r\n1\r\nx\r\n0\r\nDetour-Key: evil\r\nX: evil\r\n",
		"a path that looks like one": "GET //evil.example/ HTTP/1.1\r\nHost: %s\r\n",
	} {
		conn, reader := f.dial(t)
		_, _ = fmt.Fprintf(conn, head+"\r\n", host)
		answer, err := http.ReadResponse(reader, nil)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		body, _ := io.ReadAll(answer.Body)
		var got seen
		if err := json.Unmarshal(body, &got); err != nil {
			t.Errorf("%s: %s %s", name, answer.Status, body)
			continue
		}
		if got.Host != host || got.Header.Get("Detour-Key") != "pr-42" || got.Header.Get("Baggage") != "detour-key=pr-42" ||
			strings.Contains(string(body), "evil") && got.URI != "//evil.example/" || strings.Contains(string(body), "h2c") {
			t.Errorf("%s: the app sees %s", name, body)
		}
	}
}

func TestUnfitRequests(t *testing.T) {
	f := start(t, Config{}, echo)
	for head, want := range map[string]string{
		"CONNECT %[1]s:443 HTTP/1.1\r\nHost: %[1]s\r\n":                       "connect",
		"GET http:path HTTP/1.1\r\nHost: %s\r\n":                              "malformed",
		"GET / HTTP/1.1\r\nHost: %s\r\nVia: 1.1 a, 1.1 detour-gateway\r\n":    "loop",
		"GET / HTTP/1.1\r\nHost: 10.0.0.1\r\nX-Forwarded-Host: %s\r\n":        "unknown-host",
		"GET / HTTP/1.1\r\nHost: pr-42--gone--shop.preview.test\r\nX: %s\r\n": "unreachable",
	} {
		conn, reader := f.dial(t)
		_, _ = fmt.Fprintf(conn, head+"\r\n", host)
		answer, err := http.ReadResponse(reader, nil)
		if err != nil || answer.Header.Get(api.HeaderError) != want {
			t.Errorf("%q: %+v, %v, want %s", head, answer, err, want)
		}
	}
}

func TestForwardedHeaders(t *testing.T) {
	for name, c := range map[string]struct {
		trust bool
		want  http.Header
	}{
		"as they are": {false, http.Header{"X-Forwarded-For": {"127.0.0.1"}, "X-Forwarded-Host": {host}, "X-Forwarded-Proto": {"http"}}},
		"trusted": {true, http.Header{
			"X-Forwarded-For": {"192.0.2.1, 127.0.0.1"}, "X-Forwarded-Host": {"other.example"}, "X-Forwarded-Proto": {"https"},
			"X-Forwarded-Port": {"443"}, "X-Real-Ip": {"192.0.2.1"}, "Forwarded": {"for=192.0.2.1"},
		}},
	} {
		f := start(t, Config{TrustForwarded: c.trust}, echo)
		got := sendSeen(t, f.client(t, (*http.Protocols).SetHTTP1), request(t, "GET", "http://"+host, nil,
			"X-Forwarded-For", "192.0.2.1", "X-Forwarded-Host", "other.example", "X-Forwarded-Proto", "https",
			"X-Forwarded-Port", "443", "X-Real-Ip", "192.0.2.1", "Forwarded", "for=192.0.2.1"))
		for _, name := range []string{"User-Agent", "Accept-Encoding", "Detour-Key", "Baggage", "Via"} {
			got.Header.Del(name)
		}
		if diff := cmp.Diff(c.want, got.Header); diff != "" || got.Host != host {
			t.Errorf("%s: host %s; -want +got\n%s", name, got.Host, diff)
		}
	}
}

func TestStaysOnHost(t *testing.T) {
	plain := map[string]ServiceName{"shop.example": {"shop", "api"}, "login.example:8443": {"shop", "identity"}}
	f := start(t, Config{PlainHosts: plain}, func(w http.ResponseWriter, r *http.Request) {
		location := strings.ReplaceAll(r.URL.Query().Get("to"), "APP", r.Header.Get("App"))
		w.Header().Set("Location", location)
		w.Header().Add("Set-Cookie", "a=1; Domain=shop.example; Path=/; HttpOnly")
		w.Header().Add("Set-Cookie", "b=2; domain=.preview.test")
		w.Header().Add("Set-Cookie", "c=3; Domain="+host+"; Secure")
		w.Header().Add("Set-Cookie", "__Host-d=\"4\"; Path=/")
		w.Header().Set("X-Robots-Tag", "nofollow")
		w.WriteHeader(http.StatusFound)
	})
	c := f.client(t, (*http.Protocols).SetHTTP1)
	for to, want := range map[string]string{
		"/next?x=1":                           "/next?x=1",
		"https://elsewhere.example/x":         "https://elsewhere.example/x",
		"http://" + host + "/x":               "http://" + host + "/x",
		"https://shop.example/x?y=%2F#z":      "//" + host + ":8080/x?y=%2F#z",
		"https://Shop.Example":                "//" + host + ":8080",
		"https://login.example:8443/login":    "//pr-42--identity--shop.preview.test:8080/login",
		"https://login.example/login":         "https://login.example/login",
		"http://api/x":                        "//" + host + ":8080/x",
		"http://api.shop:APP/x":               "//" + host + ":8080/x",
		"http://api.shop.svc.cluster.local/x": "//" + host + ":8080/x",
		"http://127.0.0.1:APP?x":              "//" + host + ":8080?x",
		"http://api.shop:9999/x":              "http://api.shop:9999/x",
		"http://api.shop.example/x":           "http://api.shop.example/x",
		"myapp://callback":                    "myapp://callback",
		"//shop.example/x":                    "//" + host + ":8080/x",
	} {
		r := request(t, "GET", "http://"+host+":8080/?to="+url.QueryEscape(to), nil, "App", fmt.Sprint(f.app.Port()))
		answer, _ := send(t, c, r)
		if got := answer.Header.Get("Location"); got != want {
			t.Errorf("%s: %s, want %s", to, got, want)
		}
		want := []string{"a=1; Path=/; HttpOnly", "b=2", "c=3; Domain=" + host + "; Secure", "__Host-d=\"4\"; Path=/"}
		if diff := cmp.Diff(want, answer.Header["Set-Cookie"]); diff != "" {
			t.Errorf("cookies: -want +got\n%s", diff)
		}
		if diff := cmp.Diff([]string{"nofollow", "noindex"}, answer.Header["X-Robots-Tag"]); diff != "" {
			t.Errorf("X-Robots-Tag: -want +got\n%s", diff)
		}
	}
}

// TestPreflight: browsers put no header of the page's own into one, so that only the host can say the key.
func TestPreflight(t *testing.T) {
	f := start(t, Config{}, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Access-Control-Allow-Origin", r.Header.Get("Origin"))
		w.Header().Set("Access-Control-Allow-Headers", r.Header.Get("Access-Control-Request-Headers"))
		w.Header().Set("Detour-Served-By", r.Header.Get("Detour-Key"))
		w.WriteHeader(http.StatusNoContent)
	})
	const origin = "http://pr-42--frontend--shop.preview.test"
	answer, _ := send(t, f.client(t, (*http.Protocols).SetHTTP1), request(t, "OPTIONS", "http://"+host+"/api", nil,
		"Origin", origin, "Access-Control-Request-Method", "PUT", "Access-Control-Request-Headers", "content-type"))
	h := answer.Header
	if answer.StatusCode != http.StatusNoContent || h.Get("Access-Control-Allow-Origin") != origin ||
		h.Get("Access-Control-Allow-Headers") != "content-type" || h.Get("Detour-Served-By") != "pr-42" {
		t.Errorf("%s %v", answer.Status, h)
	}
}

// TestStopWaits lets a request end that has begun.
func TestStopWaits(t *testing.T) {
	began, goOn := make(chan struct{}), make(chan struct{})
	f := start(t, Config{}, func(w http.ResponseWriter, _ *http.Request) {
		close(began)
		<-goOn
		_, _ = io.WriteString(w, "done")
	})
	stopped := make(chan error, 1)
	go func() {
		<-began
		go func() { stopped <- f.stop() }()
		close(goOn)
	}()
	if _, body := send(t, f.client(t, (*http.Protocols).SetHTTP1), request(t, "GET", "http://"+host, nil)); body != "done" {
		t.Errorf("got %q", body)
	}
	if err := <-stopped; err != nil {
		t.Errorf("stopping: %v", err)
	}
}

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }
