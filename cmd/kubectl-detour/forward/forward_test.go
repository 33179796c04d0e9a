package forward

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// service plays a Service: Pods by name, each an app on a real socket.
type service struct {
	mu    sync.Mutex
	pods  map[string]*httptest.Server
	order []string // those that are ready
	said  []string // where connections began to go
}

func (s *service) add(t *testing.T, pod string, app http.HandlerFunc) {
	t.Helper()
	server := httptest.NewUnstartedServer(app)
	server.Config.Protocols = protocols((*http.Protocols).SetHTTP1, (*http.Protocols).SetUnencryptedHTTP2)
	server.Start()
	t.Cleanup(server.Close)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.pods == nil {
		s.pods = map[string]*httptest.Server{}
	}
	s.pods[pod] = server
	s.order = append(s.order, pod)
}

func (s *service) entrances(context.Context) ([]Entrance, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.order) == 0 {
		return nil, errors.New("no Pod is ready")
	}
	var all []Entrance
	for _, pod := range s.order {
		all = append(all, Entrance{pod, 15401})
	}
	return all, nil
}

func (s *service) open(ctx context.Context, e Entrance) (net.Conn, error) {
	s.mu.Lock()
	server := s.pods[e.Pod]
	s.mu.Unlock()
	return (&net.Dialer{}).DialContext(ctx, "tcp", server.Listener.Addr().String())
}

// passage must not be asked what it said before the requests are over.
func (s *service) passage() *Passage {
	return &Passage{Entrances: s.entrances, Open: s.open, Changed: func(e Entrance) { s.said = append(s.said, e.Pod) }}
}

// serve serves a local port until the test ends, or the function is called.
func serve(t *testing.T, cfg Config) (address string, stop func() error) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- Serve(ctx, listener, cfg)
		close(done)
	}()
	stop = func() error {
		cancel()
		return <-done
	}
	t.Cleanup(func() { _ = stop() })
	return listener.Addr().String(), stop
}

func protocols(speak ...func(*http.Protocols, bool)) *http.Protocols {
	p := &http.Protocols{}
	for _, s := range speak {
		s(p, true)
	}
	return p
}

func client(t *testing.T, speak func(*http.Protocols, bool)) *http.Client {
	transport := &http.Transport{Protocols: protocols(speak)}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: 20 * time.Second}
}

func send(t *testing.T, c *http.Client, method, url, body string, header http.Header) (*http.Response, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header = header.Clone()
	answer, err := c.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = answer.Body.Close() }()
	content, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer, string(content)
}

// seen is a request as the app sees it.
type seen struct {
	Proto, Method, Host, URI, Body string
	Key, Baggage, Cookie, For      string
}

func echo(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	h := r.Header
	_ = json.NewEncoder(w).Encode(seen{
		r.Proto, r.Method, r.Host, r.RequestURI, string(body),
		strings.Join(h["Detour-Key"], "|"), strings.Join(h["Baggage"], "|"), h.Get("Cookie"), h.Get("X-Forwarded-For"),
	})
}

func TestRequests(t *testing.T) {
	var s service
	s.add(t, "api-1", echo)
	sniffed, _ := serve(t, Config{Key: "pr-42", Dial: s.passage().Dial})
	h2c, _ := serve(t, Config{Key: "pr-42", Dial: s.passage().Dial, H2C: true})
	http1, http2 := client(t, (*http.Protocols).SetHTTP1), client(t, (*http.Protocols).SetUnencryptedHTTP2)
	for name, c := range map[string]struct {
		client  *http.Client
		address string
		header  http.Header
		want    seen
	}{
		"HTTP/1.1":           {http1, sniffed, nil, seen{Proto: "HTTP/1.1"}},
		"HTTP/2":             {http2, sniffed, nil, seen{Proto: "HTTP/1.1"}},
		"gRPC":               {http2, sniffed, http.Header{"Content-Type": {"application/grpc"}}, seen{Proto: "HTTP/2.0"}},
		"gRPC-Web":           {http2, sniffed, http.Header{"Content-Type": {"application/grpc-web"}}, seen{Proto: "HTTP/1.1"}},
		"HTTP/1.1, h2c app":  {http1, h2c, nil, seen{Proto: "HTTP/2.0"}},
		"of a proxy in CI":   {http1, sniffed, http.Header{"X-Forwarded-For": {"192.0.2.1"}}, seen{Proto: "HTTP/1.1", For: "192.0.2.1"}},
		"with another key":   {http1, sniffed, http.Header{"Detour-Key": {"x", "y"}, "Baggage": {"detour-key=x"}, "Cookie": {"detour-key=x; a=1"}}, seen{Proto: "HTTP/1.1", Cookie: "a=1"}},
		"key to be dropped":  {http1, sniffed, http.Header{"Connection": {"Detour-Key"}}, seen{Proto: "HTTP/1.1"}},
		"with other baggage": {http1, sniffed, http.Header{"Baggage": {"a=1"}}, seen{Proto: "HTTP/1.1", Baggage: ",a=1"}},
	} {
		// ';' in a query is what net/url would drop.
		answer, body := send(t, c.client, "PUT", "http://"+c.address+"/a%2Fb?c=d;e&%zz", "body", c.header)
		c.want.Method, c.want.Host, c.want.URI, c.want.Body = "PUT", c.address, "/a%2Fb?c=d;e&%zz", "body"
		c.want.Key, c.want.Baggage = "pr-42", "detour-key=pr-42"+c.want.Baggage
		var got seen
		if err := json.Unmarshal([]byte(body), &got); err != nil {
			t.Fatalf("%s: %s: %s", name, answer.Status, body)
		}
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s: -want +got\n%s", name, diff)
		}
	}
}

// TestStreams has each end say something only once it has heard the other.
func TestStreams(t *testing.T) {
	var s service
	s.add(t, "api-1", func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).EnableFullDuplex()
		lines := bufio.NewScanner(r.Body)
		_, _ = fmt.Fprintln(w, "hello")
		_ = http.NewResponseController(w).Flush()
		for lines.Scan() {
			_, _ = fmt.Fprintln(w, lines.Text())
			_ = http.NewResponseController(w).Flush()
		}
		w.Header().Set(http.TrailerPrefix+"Grpc-Status", "0")
	})
	address, _ := serve(t, Config{Key: "pr-42", Dial: s.passage().Dial})
	for name, speak := range map[string]func(*http.Protocols, bool){
		"HTTP/1.1": (*http.Protocols).SetHTTP1, "gRPC": (*http.Protocols).SetUnencryptedHTTP2,
	} {
		body, upload := io.Pipe()
		r, err := http.NewRequestWithContext(t.Context(), "POST", "http://"+address, body)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", "application/grpc")
		answer, err := client(t, speak).Do(r)
		if err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(answer.Body)
		for _, line := range []string{"hello", "one", "two"} {
			if line != "hello" {
				_, _ = fmt.Fprintln(upload, line)
			}
			if !lines.Scan() || lines.Text() != line {
				t.Fatalf("%s: %q, want %q: %v", name, lines.Text(), line, lines.Err())
			}
		}
		_ = upload.Close()
		if lines.Scan() || answer.Trailer.Get("Grpc-Status") != "0" {
			t.Errorf("%s: %q and trailers %v at the end", name, lines.Text(), answer.Trailer)
		}
		_ = answer.Body.Close()
	}
}

// TestUpgrade has a WebSocket carry bytes both ways, until the port goes.
func TestUpgrade(t *testing.T) {
	var s service
	s.add(t, "api-1", func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Upgrade") != "websocket" || r.Header.Get("Detour-Key") != "pr-42" {
			http.Error(w, fmt.Sprint(r.Header), http.StatusBadRequest)
			return
		}
		conn, buffered, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer conn.Close()
		_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
		_, _ = io.Copy(conn, buffered)
	})
	address, stop := serve(t, Config{Key: "pr-42", Dial: s.passage().Dial})
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	_, _ = fmt.Fprintf(conn, "GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
	reader := bufio.NewReader(conn)
	answer, err := http.ReadResponse(reader, nil)
	if err != nil || answer.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("%+v, %v", answer, err)
	}
	for _, line := range []string{"one\n", "two\n"} {
		_, _ = io.WriteString(conn, line)
		if got, err := reader.ReadString('\n'); got != line {
			t.Fatalf("%q, want %q: %v", got, line, err)
		}
	}
	if err := stop(); err != nil {
		t.Errorf("it ends with %v", err)
	}
	if _, err := reader.ReadByte(); !errors.Is(err, io.EOF) {
		t.Errorf("after the end: %v, want EOF", err)
	}
}

// TestPodGoesAway has requests follow to another Pod, and says what is wrong when there is none.
func TestPodGoesAway(t *testing.T) {
	var s service
	for _, pod := range []string{"api-1", "api-2"} {
		s.add(t, pod, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, pod) })
	}
	address, stop := serve(t, Config{Key: "pr-42", Dial: s.passage().Dial})
	c := client(t, (*http.Protocols).SetHTTP1)
	ask := func(want string) {
		t.Helper()
		if _, body := send(t, c, "GET", "http://"+address, "", nil); body != want {
			t.Errorf("%q answers, want %q", body, want)
		}
	}
	ask("api-1")
	s.pods["api-1"].Close() // it is still listed as ready
	ask("api-2")
	s.mu.Lock()
	s.order = []string{"api-0", "api-2"}
	s.mu.Unlock()
	ask("api-2")

	s.pods["api-2"].Close()
	s.mu.Lock()
	s.order = nil
	s.mu.Unlock()
	answer, body := send(t, c, "GET", "http://"+address, "", nil) // sent again where the connection has just been closed
	if answer.StatusCode != http.StatusBadGateway || answer.Header.Get("Detour-Error") != "unreachable" || !strings.Contains(body, "no Pod is ready") {
		t.Errorf("without a Pod: %s: %s", answer.Status, body)
	}
	answer, _ = send(t, client(t, (*http.Protocols).SetUnencryptedHTTP2), "POST", "http://"+address, "x", http.Header{"Content-Type": {"application/grpc"}})
	if answer.StatusCode != http.StatusOK || answer.Header.Get("Grpc-Status") != "14" || !strings.Contains(answer.Header.Get("Grpc-Message"), "no%20Pod%20is%20ready") {
		t.Errorf("gRPC without a Pod: %+v", answer)
	}
	if err := stop(); err != nil {
		t.Errorf("it ends with %v", err)
	}
	if diff := cmp.Diff([]string{"api-1", "api-2"}, s.said); diff != "" {
		t.Errorf("the Pods that were told of: -want +got\n%s", diff)
	}
}

// TestEnd aborts a request that is under way.
func TestEnd(t *testing.T) {
	var s service
	arrived := make(chan struct{})
	s.add(t, "api-1", func(_ http.ResponseWriter, r *http.Request) {
		close(arrived)
		<-r.Context().Done()
	})
	address, stop := serve(t, Config{Key: "pr-42", Dial: s.passage().Dial})
	failed := make(chan error, 1)
	go func() {
		answer, err := client(t, (*http.Protocols).SetHTTP1).Get("http://" + address)
		if err == nil {
			_ = answer.Body.Close()
		}
		failed <- err
	}()
	<-arrived
	if err := stop(); err != nil {
		t.Errorf("it ends with %v", err)
	}
	if err := <-failed; err == nil {
		t.Error("the request that was under way got an answer")
	}
}

// TestPassageTells has no Pod be reached.
func TestPassageTells(t *testing.T) {
	var all []Entrance
	for i := range 9 {
		all = append(all, Entrance{fmt.Sprint("api-", i), 15401})
	}
	p := &Passage{
		Entrances: func(context.Context) ([]Entrance, error) { return all, nil },
		Open:      func(context.Context, Entrance) (net.Conn, error) { return nil, errors.New("gone") },
		Changed:   func(e Entrance) { t.Errorf("it goes to %v", e) },
	}
	_, err := p.Dial(t.Context())
	want := "through Pod api-0, port 15401: gone\nthrough Pod api-1, port 15401: gone\nthrough Pod api-2, port 15401: gone"
	if err == nil || err.Error() != want {
		t.Errorf("%v, want %s", err, want)
	}
}
