package router

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	authenticationv1 "k8s.io/api/authentication/v1"

	"github.com/detour-dev/detour/api"
	"github.com/detour-dev/detour/router/view/viewtest"
)

// fakeReviewer knows a few tokens by name.
type fakeReviewer struct {
	calls atomic.Int32
	down  atomic.Bool
}

func (f *fakeReviewer) reviewToken(ctx context.Context, token string) (authenticationv1.TokenReviewStatus, error) {
	f.calls.Add(1)
	if f.down.Load() {
		return authenticationv1.TokenReviewStatus{}, context.DeadlineExceeded
	}
	status := authenticationv1.TokenReviewStatus{Authenticated: true, Audiences: []string{api.Audience}}
	switch token {
	case "router", "router-too":
		status.User.Username = "system:serviceaccount:detour-system:detour-router"
	case "alice", "mallory":
		status.User.Username = token
	case "other-audience":
		status.User = podUser("api-a")
		status.Audiences = []string{"https://kubernetes.default.svc"}
	case "account":
		status.User.Username = "system:serviceaccount:shop:default"
	case "pod-api-a", "pod-api-b", "pod-new":
		status.User = podUser(strings.TrimPrefix(token, "pod-"))
	default:
		return authenticationv1.TokenReviewStatus{Error: "unknown token"}, nil
	}
	return status, nil
}

func podUser(name string) authenticationv1.UserInfo {
	return authenticationv1.UserInfo{
		Username: "system:serviceaccount:shop:default",
		Extra: map[string]authenticationv1.ExtraValue{
			"authentication.kubernetes.io/pod-name": {name},
			"authentication.kubernetes.io/pod-uid":  {"pod-" + name},
		},
	}
}

func (f *fakeReviewer) mayListPods(_ context.Context, user authenticationv1.UserInfo, _ string) (bool, error) {
	return user.Username == "alice", nil
}

// newTestServer knows the shop.
func newTestServer(t *testing.T) (*server, *fakeReviewer) {
	tokenFile := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(tokenFile, []byte("router\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	reviewer := &fakeReviewer{}
	latest := newLatest[snapshot]()
	acks := newAckStore(func() {})
	metrics := newMetrics(latest, acks)
	latest.set(snapshot{"shop": viewtest.Acknowledged(viewtest.Shop()), "filling": nil})
	return &server{
		auth:   newAuthenticator(reviewer, tokenFile, metrics.countReview),
		latest: latest, acks: acks, metrics: metrics, log: slog.New(slog.DiscardHandler), closing: make(chan struct{}),
	}, reviewer
}

func request(t *testing.T, s *server, method, path, token, body string) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	w := httptest.NewRecorder()
	s.handler().ServeHTTP(w, r)
	return w
}

func TestWhoGetsIn(t *testing.T) {
	const routes, acks, status = "GET " + api.PathRoutes, "GET " + api.PathAcks, "GET " + api.PathStatus
	for _, test := range []struct {
		request, token string
		code           int
		message        string
	}{
		{routes, "", 401, "Authorization: Bearer"},
		{routes, "nonsense", 401, "not valid for the audience detour.dev/router"},
		{routes, "other-audience", 401, "made for the audience [https://kubernetes.default.svc], not for detour.dev/router"},
		{routes, "account", 401, "not bound to a Pod"},
		{routes, "router", 401, "not bound to a Pod"},
		{"POST " + api.PathAcks, "", 401, "Bearer"},
		{"POST " + api.PathAcks, "account", 401, "not bound to a Pod"},
		{"POST " + api.PathAcks, "pod-api-a", 204, ""},
		{acks, "", 401, "Bearer"},
		{acks, "pod-api-a", 401, "not a replica of the router"},
		{acks, "alice", 401, "not a replica of the router"},
		{acks, "router-too", 200, "{"},
		{status + "shop", "", 401, "Bearer"},
		{status + "shop", "mallory", 403, "mallory may not list pods in namespace shop"},
		{status + "shop", "alice", 200, "deployment/api-pr-42"},
		{status + "elsewhere", "alice", 404, "label it detour.dev/inject=enabled"},
		{status + "filling", "alice", 503, "try again"},
		{"GET /", "", 401, "Bearer"},
		{"GET /", "alice", 404, api.PathStatus},
		{"DELETE " + api.PathAcks, "alice", 404, "DELETE"},
	} {
		t.Run(test.request+" as "+test.token, func(t *testing.T) {
			s, _ := newTestServer(t)
			method, path, _ := strings.Cut(test.request, " ")
			got := request(t, s, method, path, test.token, `{"version":"1"}`)
			if got.Code != test.code || !strings.Contains(got.Body.String(), test.message) {
				t.Errorf("got %d %s, want %d with %q", got.Code, got.Body, test.code, test.message)
			}
		})
	}
}

func TestAPIServerIsAway(t *testing.T) {
	s, reviewer := newTestServer(t)
	reviewer.down.Store(true)
	got := request(t, s, "GET", api.PathRoutes, "pod-api-a", "")
	if got.Code != 503 || got.Header().Get("Retry-After") == "" {
		t.Errorf("got %d %v %s, want 503 with Retry-After: the token may well be good", got.Code, got.Header(), got.Body)
	}
}

func TestReviewsAreRemembered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, reviewer := newTestServer(t)
		for range 3 {
			request(t, s, "POST", api.PathAcks, "pod-api-a", `{}`)
			request(t, s, "POST", api.PathAcks, "nonsense", `{}`)
		}
		if got := reviewer.calls.Load(); got != 4 {
			t.Errorf("%d reviews, want 1 of the good token and 3 of the bad one", got)
		}
		time.Sleep(acceptedFor)
		request(t, s, "POST", api.PathAcks, "pod-api-a", `{}`)
		if got := reviewer.calls.Load(); got != 5 {
			t.Errorf("%d reviews, want the good token reviewed again after %s", got, acceptedFor)
		}
	})
}

func TestAckLimits(t *testing.T) {
	many := `{"previews":{"p0":{}` + strings.Repeat(`,"p0":{}`, 10)
	for i := range maxAckPreviews {
		many += `,"p` + string(rune('a'+i%26)) + strings.Repeat("x", i/26) + `":{}`
	}
	many += `}}`
	for name, body := range map[string]string{
		"no JSON":       "version=1",
		"two objects":   `{} {}`,
		"long version":  `{"version":"` + strings.Repeat("f", maxVersion+1) + `"}`,
		"many previews": many,
		"large":         `{"version":"1","x":"` + strings.Repeat("x", maxAckBytes) + `"}`,
		"negative":      `{"previews":{"p":{"requests":-1}}}`,
	} {
		s, _ := newTestServer(t)
		if got := request(t, s, "POST", api.PathAcks, "pod-api-a", body); got.Code != 400 {
			t.Errorf("%s: got %d %s, want 400", name, got.Code, got.Body)
		}
		if len(s.acks.fresh()) > 0 {
			t.Errorf("%s: it was taken all the same", name)
		}
	}
}

func TestStatusCountsTraffic(t *testing.T) {
	s, _ := newTestServer(t)
	for pod, last := range map[string]string{"pod-api-a": "03:00", "pod-api-b": "02:00", "pod-new": "04:00"} { // which is not known
		request(t, s, "POST", api.PathAcks, pod, `{"previews":{"deployment/api-pr-42":{"requests":3,"errors":1,"last":"2026-01-02T03:`+last+`Z"}}}`)
	}
	var got api.Status
	if err := json.Unmarshal(request(t, s, "GET", api.PathStatus+"shop", "alice", "").Body.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(&api.Counters{Requests: 6, Errors: 2, Last: time.Date(2026, 1, 2, 3, 3, 0, 0, time.UTC)}, got.Previews[0].Traffic); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}

// openStream reads a Pod's stream; the channel is closed when it ends.
func openStream(t *testing.T, s *server, token string) <-chan string {
	srv := httptest.NewServer(s.handler())
	t.Cleanup(srv.Close)
	req, err := http.NewRequestWithContext(t.Context(), "GET", srv.URL+api.PathRoutes, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	resp, err := srv.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	lines := make(chan string)
	go func() {
		defer close(lines)
		defer func() { _ = resp.Body.Close() }()
		for scanner := bufio.NewScanner(resp.Body); scanner.Scan(); {
			select {
			case lines <- scanner.Text():
			case <-t.Context().Done():
				return
			}
		}
	}()
	if got := nextLine(t, lines); got != "" {
		t.Fatalf("the stream begins with %q, want an empty line", got)
	}
	return lines
}

func nextLine(t *testing.T, lines <-chan string) string {
	t.Helper()
	select {
	case line, ok := <-lines:
		if !ok {
			t.Fatal("the stream has ended")
		}
		return line
	case <-time.After(5 * time.Second):
		t.Fatal("nothing came for 5s")
	}
	return ""
}

func nextTable(t *testing.T, lines <-chan string) api.Table {
	t.Helper()
	var table api.Table
	if line := nextLine(t, lines); json.Unmarshal([]byte(line), &table) != nil || table.Hash() != table.Version {
		t.Fatalf("%q is no table", line)
	}
	return table
}

func TestStreamFollowsTheTable(t *testing.T) {
	s, _ := newTestServer(t)
	lines := openStream(t, s, "pod-api-a")
	if got := nextTable(t, lines); len(got.Ports) != 1 || got.Ports[0].Routes[0].Key != "pr-42" {
		t.Errorf("first table: %v", got)
	}

	s.latest.set(snapshot{"shop": viewtest.Acknowledged(viewtest.Shop())}) // nothing new for this Pod: the next line is another table
	o := viewtest.Shop()
	o.AddPreview("api-pr-43", "api", "pr-43")
	s.latest.set(snapshot{"shop": viewtest.Acknowledged(o)})
	if got := nextTable(t, lines); len(got.Ports[0].Routes) != 2 {
		t.Errorf("second table: %v, want two routes", got)
	}

	s.latest.set(snapshot{})
	if got := nextTable(t, lines); len(got.Ports) != 0 {
		t.Errorf("after its namespace has left: %v, want an empty table", got)
	}

	close(s.closing)
	if line, open := <-lines; open {
		t.Errorf("a stopping router sends %q", line)
	}
}

func TestStreamWaitsForThePod(t *testing.T) {
	s, _ := newTestServer(t)
	lines := openStream(t, s, "pod-new")
	s.latest.set(snapshot{"shop": nil})
	o := viewtest.Shop()
	o.AddPod("new", "api-1", viewtest.Injected("http:15401:8080"))
	s.latest.set(snapshot{"shop": viewtest.Acknowledged(o)})
	if got := nextTable(t, lines); len(got.Ports) != 1 {
		t.Errorf("first table: %v, want that of the Pod once it is known", got)
	}
}

// TestSlowStream plays a proxy that stops reading: it misses what is old and is not waited for.
func TestSlowStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _ := newTestServer(t)
		client, stop := pipeServer(t, s)
		defer stop()
		reader := bufio.NewReader(client)
		if _, err := io.WriteString(client, "GET "+api.PathRoutes+" HTTP/1.1\r\nHost: router\r\nAuthorization: Bearer pod-api-a\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		resp, err := http.ReadResponse(reader, nil)
		if err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(resp.Body)
		lines.Scan() // the empty one
		lines.Scan() // the table
		synctest.Wait()

		time.Sleep(api.KeepAlive)
		if !lines.Scan() || lines.Text() != "" {
			t.Errorf("got %q after %s, want an empty line", lines.Text(), api.KeepAlive)
		}

		o := viewtest.Shop()
		for _, key := range []string{"a", "b", "c"} {
			o.AddPreview("preview-"+key, "api", key)
			s.latest.set(snapshot{"shop": viewtest.Acknowledged(o)})
			synctest.Wait() // the first is being written; nobody reads it
		}
		lines.Scan()
		lines.Scan()
		if !strings.Contains(lines.Text(), `"key":"c"`) {
			t.Errorf("the second line is %s, want the newest table", lines.Text())
		}

		s.latest.set(snapshot{})
		time.Sleep(requestTimeout + time.Second)
		synctest.Wait()
		if lines.Scan(); lines.Scan() {
			t.Errorf("a proxy that did not read for %s is still sent %q", requestTimeout, lines.Text())
		}
	})
}

// pipeServer serves one connection without a socket, so that time in a test's bubble can pass.
func pipeServer(t *testing.T, s *server) (net.Conn, func()) {
	client, conn := net.Pipe()
	listener := &oneConn{conn: make(chan net.Conn, 1), closed: make(chan struct{})}
	listener.conn <- conn
	srv := &http.Server{Handler: s.handler()}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = srv.Serve(listener)
	}()
	return client, func() {
		_ = client.Close()
		_ = srv.Close()
		<-done
	}
}

type oneConn struct {
	conn   chan net.Conn
	closed chan struct{}
}

func (l *oneConn) Accept() (net.Conn, error) {
	select {
	case c := <-l.conn:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *oneConn) Close() error {
	select {
	case <-l.closed:
	default:
		close(l.closed)
	}
	return nil
}

func (l *oneConn) Addr() net.Addr { return &net.UnixAddr{Name: "pipe"} }
