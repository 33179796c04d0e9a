package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/coder/websocket/wsjson"
	"github.com/google/go-cmp/cmp"
	"go.opentelemetry.io/otel/baggage"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

func TestMain(m *testing.M) {
	propagateContext()
	os.Exit(m.Run())
}

func TestAnswerNamesWhoServedByWhichProtocol(t *testing.T) {
	t.Parallel()
	frontend := startShop(t)
	for _, tc := range []struct {
		query, want string // want: the protocol that services ask each other by
	}{
		{"", protoHTTP1},
		{"?via=http1", protoHTTP1},
		{"?via=h2c", protoH2C},
		{"?via=grpc", protoGRPC},
	} {
		t.Run(tc.want+tc.query, func(t *testing.T) {
			got := getJSON(t, "http://"+frontend+"/"+tc.query)
			want := answer{
				ServedBy: []servant{
					{"frontend", "baseline", "frontend-0", protoHTTP1},
					{"api", "pr-42", "api-0", tc.want},
					{"identity", "baseline", "identity-0", tc.want},
				},
				Banner:   "Free shipping",
				Products: []product{{"Boots", "€ 140"}, {"Tent", "€ 210"}, {"Map", "€ 12"}},
				User:     "Ada",
				DB:       "ok",
				Visits:   got.Visits,
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("answer (-want +got):\n%s", diff)
			}
		})
	}
	if first, second := getJSON(t, "http://"+frontend).Visits, getJSON(t, "http://"+frontend+"/api").Visits; second != first+1 {
		t.Errorf("visits went from %d to %d, want one more", first, second)
	}
}

func TestBaggageIsPassedOnAndOtherHeadersAreNot(t *testing.T) {
	t.Parallel()
	seen := make(chan http.Header, 1)
	identity := start(t, func() (http.Handler, error) {
		cfg := config{Service: "identity"}
		h := newIdentity(cfg)
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			seen <- r.Header.Clone()
			h.ServeHTTP(w, r)
		}), nil
	})
	api := startService(t, config{Service: "api", Identity: identity, DB: closedPort(t)})
	frontend := startService(t, config{Service: "frontend", API: api})
	for _, via := range []string{protoHTTP1, protoH2C, protoGRPC} {
		t.Run(via, func(t *testing.T) {
			req, err := http.NewRequest(http.MethodGet, "http://"+frontend+"/?via="+via, nil)
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Baggage", "tenant=blue,colour=red;shade=dark")
			req.Header.Set("X-Mine", "1")
			req.Header.Set("Traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
			do(t, req)

			header := <-seen
			got, err := baggage.Parse(header.Get("Baggage"))
			if err != nil {
				t.Fatal(err)
			}
			if got.Member("tenant").Value() != "blue" || got.Member("colour").Value() != "red" {
				t.Errorf("identity got baggage %q, want tenant and colour in it", header.Get("Baggage"))
			}
			if parent := header.Get("Traceparent"); !strings.HasPrefix(parent, "00-0af7651916cd43dd8448eb211c80319c-") {
				t.Errorf("identity got traceparent %q, want the trace of the caller", parent)
			}
			if header.Get("X-Mine") != "" {
				t.Error("identity got a header that nobody was to pass on")
			}
		})
	}
}

func TestPageForBrowsers(t *testing.T) {
	frontend := startShop(t)
	status, page := getPage(t, "http://"+frontend)
	if status != http.StatusOK {
		t.Errorf("got status %d", status)
	}
	for _, want := range []string{"<!doctype html>", "Hello Ada", "Free shipping", "Boots", "api-0", "pr-42"} {
		if !strings.Contains(page, want) {
			t.Errorf("page does not say %q:\n%s", want, page)
		}
	}
}

func TestShopWithoutDatabaseStaysOpen(t *testing.T) {
	identity := startService(t, config{Service: "identity"})
	api := startService(t, config{Service: "api", Identity: identity, DB: closedPort(t)})
	frontend := startService(t, config{Service: "frontend", API: api})
	if got := getJSON(t, "http://"+frontend); got.DB != "unavailable" || got.User != "Ada" {
		t.Errorf("got %+v, want the user and an unavailable database", got)
	}
	if _, page := getPage(t, "http://"+frontend); !strings.Contains(page, "db: unavailable") {
		t.Errorf("page does not say that the database is unavailable:\n%s", page)
	}
}

func TestErrorsSayWhoDidNotAnswer(t *testing.T) {
	t.Parallel()
	api := startService(t, config{Service: "api", Identity: closedPort(t), DB: closedPort(t)})
	frontend := startService(t, config{Service: "frontend", API: api})
	for _, tc := range []struct {
		query, want string
		status      int
	}{
		{"", "asking api: 502 Bad Gateway: asking identity: ", http.StatusBadGateway},
		{"?via=h2c", "asking api: 502 Bad Gateway: asking identity: ", http.StatusBadGateway},
		{"?via=grpc", "asking identity: ", http.StatusBadGateway},
		{"?via=telex", "want http1, h2c or grpc", http.StatusBadRequest},
	} {
		t.Run(tc.query, func(t *testing.T) {
			req, err := http.NewRequest(http.MethodGet, "http://"+frontend+"/"+tc.query, nil)
			if err != nil {
				t.Fatal(err)
			}
			code, body := do(t, req)
			if code != tc.status || !strings.Contains(body, tc.want) {
				t.Errorf("got status %d and %s, want %d and %q", code, body, tc.status, tc.want)
			}
		})
	}
}

func TestGRPC(t *testing.T) {
	conn, err := grpc.NewClient(startService(t, config{Service: "identity", Version: "v1", Pod: "identity-0"}),
		grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	reply := new(structpb.Struct)
	if err := conn.Invoke(t.Context(), grpcGet, wrapperspb.String(""), reply); err != nil {
		t.Fatal(err)
	}
	got, err := answerIn(reply)
	if err != nil {
		t.Fatal(err)
	}
	want := answer{ServedBy: []servant{{"identity", "v1", "identity-0", protoGRPC}}, User: "Ada"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("answer (-want +got):\n%s", diff)
	}
	err = conn.Invoke(t.Context(), grpcGet, wrapperspb.String("telex"), reply)
	if got := status.Code(err); got != codes.InvalidArgument {
		t.Errorf("an unknown protocol gave %v, want InvalidArgument", err)
	}
}

func TestWebSocketSaysWhoAnswersThenEchoes(t *testing.T) {
	api := startService(t, config{Service: "api", Version: "v1", Pod: "api-0", Identity: closedPort(t), DB: closedPort(t)})
	conn, _, err := websocket.Dial(t.Context(), "ws://"+api+"/ws", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.CloseNow()
	var first servant
	if err := wsjson.Read(t.Context(), conn, &first); err != nil {
		t.Fatal(err)
	}
	if want := (servant{"api", "v1", "api-0", protoWebSocket}); first != want {
		t.Errorf("first message is %+v, want %+v", first, want)
	}
	for _, message := range []string{"one", strings.Repeat("x", 10_000)} {
		if err := conn.Write(t.Context(), websocket.MessageText, []byte(message)); err != nil {
			t.Fatal(err)
		}
		_, got, err := conn.Read(t.Context())
		if err != nil || string(got) != message {
			t.Errorf("got %d bytes (error %v) back, want the %d that were sent", len(got), err, len(message))
		}
	}
	if err := conn.Close(websocket.StatusNormalClosure, ""); err != nil {
		t.Errorf("closing: %v", err)
	}
}

func TestRequestsInFlightFinishBeforeTheEnd(t *testing.T) {
	listener := listen(t)
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- serve(ctx, listener, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			stop()
			for range 10_000 { // until the listener is closed, so that the end has begun
				conn, err := net.Dial("tcp", listener.Addr().String())
				if err != nil {
					break
				}
				conn.Close()
			}
			fmt.Fprint(w, "done")
		}))
	}()
	resp, err := http.Get("http://" + listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if body, err := io.ReadAll(resp.Body); string(body) != "done" {
		t.Errorf("got %q (error %v), want the whole answer", body, err)
	}
	if err := <-ended; err != nil {
		t.Errorf("serve returned %v", err)
	}
}

func TestUnknownService(t *testing.T) {
	if err := run(t.Context(), []string{"warehouse"}); err == nil || !strings.Contains(err.Error(), `"warehouse"`) {
		t.Errorf("got error %v, want one that names the service", err)
	}
	if err := run(t.Context(), nil); err == nil || !strings.Contains(err.Error(), "usage") {
		t.Errorf("got error %v, want the usage", err)
	}
}

// startShop runs the whole shop and returns the frontend's address.
func startShop(t *testing.T) string {
	t.Helper()
	identity := startService(t, config{Service: "identity", Version: "baseline", Pod: "identity-0"})
	api := startService(t, config{Service: "api", Version: "pr-42", Pod: "api-0", Banner: "Free shipping",
		Identity: identity, DB: startRedis(t)})
	return startService(t, config{Service: "frontend", Version: "baseline", Pod: "frontend-0", API: api})
}

func startService(t *testing.T, cfg config) string {
	t.Helper()
	return start(t, func() (http.Handler, error) { return newHandler(cfg) })
}

// start serves a handler until the test ends and returns its address.
func start(t *testing.T, build func() (http.Handler, error)) string {
	t.Helper()
	handler, err := build()
	if err != nil {
		t.Fatal(err)
	}
	listener := listen(t)
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- serve(ctx, listener, handler) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Errorf("stopping %s: %v", listener.Addr(), err)
		}
	})
	return listener.Addr().String()
}

// startRedis is as much of a Redis as the shop needs: it counts, and knows no other command.
func startRedis(t *testing.T) string {
	t.Helper()
	listener := listen(t)
	var count atomic.Int64
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return // the test has ended
			}
			go serveRedis(conn, &count)
		}
	}()
	return listener.Addr().String()
}

// serveRedis answers commands, each an array of strings: '*2', '$4', 'incr', '$6', 'visits', a line each.
func serveRedis(conn net.Conn, count *atomic.Int64) {
	defer conn.Close()
	for lines := bufio.NewScanner(conn); lines.Scan(); {
		var size int
		if _, err := fmt.Sscanf(lines.Text(), "*%d", &size); err != nil {
			return
		}
		var words []string
		for range size {
			lines.Scan() // the length
			lines.Scan()
			words = append(words, strings.ToLower(lines.Text()))
		}
		if slices.Equal(words, []string{"incr", "visits"}) {
			fmt.Fprintf(conn, ":%d\r\n", count.Add(1))
			continue
		}
		fmt.Fprint(conn, "-ERR unknown command\r\n")
	}
}

func listen(t *testing.T) net.Listener {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	return listener
}

// closedPort is an address that nobody listens on.
func closedPort(t *testing.T) string {
	t.Helper()
	listener := listen(t)
	listener.Close()
	return listener.Addr().String()
}

func getJSON(t *testing.T, url string) answer {
	t.Helper()
	req, err := http.NewRequest(http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	status, body := do(t, req)
	var a answer
	if err := json.Unmarshal([]byte(body), &a); err != nil || status != http.StatusOK {
		t.Fatalf("got status %d and %q (error %v), want an answer", status, body, err)
	}
	return a
}

func getPage(t *testing.T, url string) (int, string) {
	t.Helper()
	req, err := http.NewRequest(http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Accept", "text/html,application/xhtml+xml;q=0.9,*/*;q=0.8")
	return do(t, req)
}

func do(t *testing.T, req *http.Request) (int, string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	resp, err := http.DefaultClient.Do(req.WithContext(ctx))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}
