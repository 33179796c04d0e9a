package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/coder/websocket/wsjson"
	"github.com/redis/go-redis/v9"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

const key = "pr-42"

// servant is a copy of a service that had a part in an answer of the shop.
type servant struct{ Service, Version, Pod, Protocol string }

// reply is an answer of the shop and the proof that came with it.
type reply struct {
	ServedBy []servant `json:"served_by"`
	DB       string    `json:"db"`
	proof    string    // Detour-Served-By
}

// ask sends one request to an entry service; key is empty for someone who did not ask for a preview.
type ask func(ctx context.Context, key string) (reply, error)

// testTraffic sends requests with and without the key, mixed on the same connections, to both entry services by each
// protocol. Every one must be answered by the right copies, all the way through.
func testTraffic(t *testing.T) {
	for _, entry := range []string{"frontend", "api"} {
		address := serviceAddress(t, "shop", entry)
		for protocol, ask := range map[string]ask{
			"http1": askHTTP(t, address, "http1"),
			"h2c":   askHTTP(t, address, "h2c"),
			"grpc":  askGRPC(t, address),
		} {
			t.Run(entry+" "+protocol, func(t *testing.T) { testMixed(t, entry, protocol, ask) })
		}
	}
}

// testMixed sends 1,000 requests with the key and 1,000 without from 16 clients.
func testMixed(t *testing.T, entry, protocol string, ask ask) {
	const each, clients = 1000, 16
	requests := make(chan string)
	var wg sync.WaitGroup
	for range clients {
		wg.Go(func() {
			for k := range requests {
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
				r, err := ask(ctx, k)
				cancel()
				if err == nil {
					err = r.check(entry, protocol, k)
				}
				if err != nil {
					t.Errorf("key %q: %v", k, err)
				}
			}
		})
	}
	for range each {
		requests <- key
		requests <- ""
	}
	close(requests)
	wg.Wait()
}

// check says what is wrong with the answer to a request that carried the key.
func (r reply) check(entry, protocol, key string) error {
	want := []string{"frontend", "api", "identity"}
	if entry == "api" {
		want = want[1:]
	}
	if len(r.ServedBy) != len(want) {
		return fmt.Errorf("served by %v, want %v", r.ServedBy, want)
	}
	for i, s := range r.ServedBy {
		version := "baseline"
		if key != "" && s.Service != "frontend" {
			version = key
		}
		if s.Service != want[i] || s.Version != version || s.Protocol != protocol {
			return fmt.Errorf("%s of version %s answered by %s, want %s of version %s by %s",
				s.Service, s.Version, s.Protocol, want[i], version, protocol)
		}
	}
	proof := ""
	if key != "" && entry == "api" {
		proof = "shop/" + r.ServedBy[0].Pod
	}
	if r.proof != proof {
		return fmt.Errorf("Detour-Served-By is %q, want %q", r.proof, proof)
	}
	if r.DB != "ok" {
		return fmt.Errorf("db is %q", r.DB)
	}
	return nil
}

func askHTTP(t *testing.T, address, via string) ask {
	var protocols http.Protocols
	protocols.SetHTTP1(via == "http1")
	protocols.SetUnencryptedHTTP2(via == "h2c")
	transport := &http.Transport{Protocols: &protocols, MaxIdleConnsPerHost: 16}
	t.Cleanup(transport.CloseIdleConnections)
	return func(ctx context.Context, key string) (reply, error) {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/?via="+via, nil)
		if err != nil {
			return reply{}, err
		}
		if key != "" {
			req.Header.Set("Detour-Key", key)
		}
		return read(transport.RoundTrip(req))
	}
}

// read takes down what the shop has answered.
func read(resp *http.Response, err error) (reply, error) {
	if err != nil {
		return reply{}, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		return reply{}, fmt.Errorf("%s: %s (%v)", resp.Status, body, err)
	}
	r := reply{proof: resp.Header.Get("Detour-Served-By")}
	return r, json.Unmarshal(body, &r)
}

func askGRPC(t *testing.T, address string, options ...grpc.DialOption) ask {
	options = append(options, grpc.WithTransportCredentials(insecure.NewCredentials()))
	conn, err := grpc.NewClient(address, options...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return func(ctx context.Context, key string) (reply, error) {
		if key != "" {
			ctx = metadata.AppendToOutgoingContext(ctx, "detour-key", key)
		}
		var header metadata.MD
		var answer structpb.Struct
		err := conn.Invoke(ctx, "/shop.v1.Shop/Get", wrapperspb.String("grpc"), &answer, grpc.Header(&header))
		if err != nil {
			return reply{}, err
		}
		body, err := answer.MarshalJSON()
		if err != nil {
			return reply{}, err
		}
		r := reply{proof: strings.Join(header.Get("detour-served-by"), ",")}
		return r, json.Unmarshal(body, &r)
	}
}

func testWebSocket(t *testing.T) {
	address := serviceAddress(t, "shop", "api")
	for _, k := range []string{"", key} {
		want := "baseline"
		header := http.Header{}
		if k != "" {
			want = k
			header.Set("Detour-Key", k)
		}
		conn, _, err := websocket.Dial(t.Context(), "ws://"+address+"/ws", &websocket.DialOptions{HTTPHeader: header})
		if err != nil {
			t.Fatalf("key %q: %v", k, err)
		}
		defer conn.CloseNow()
		var first servant
		if err := wsjson.Read(t.Context(), conn, &first); err != nil || first.Version != want {
			t.Fatalf("key %q: version %q answered (%v), want %q", k, first.Version, err, want)
		}
		for i := range 100 {
			message := strings.Repeat("x", i*100)
			if err := conn.Write(t.Context(), websocket.MessageText, []byte(message)); err != nil {
				t.Fatal(err)
			}
			if _, echo, err := conn.Read(t.Context()); err != nil || string(echo) != message {
				t.Fatalf("message %d of %d bytes came back as %d (%v)", i, len(message), len(echo), err)
			}
		}
		if err := conn.Close(websocket.StatusNormalClosure, ""); err != nil {
			t.Errorf("key %q: closing: %v", k, err)
		}
	}
}

// testRedis speaks a protocol that is not HTTP through an injected proxy.
func testRedis(t *testing.T) {
	names := kubectl(t, "get", "pods", "-n", "shop", "-l", "app=db",
		"-o", "jsonpath={.items[*].spec.initContainers[*].name}")
	if !strings.Contains(names, "detour-proxy") {
		t.Fatalf("the database's Pod has no proxy: %q", names)
	}
	endpoint := kubectl(t, "get", "endpointslices", "-n", "shop", "-l", "kubernetes.io/service-name=db",
		"-o", "jsonpath={.items[*].ports[*].port}")
	if endpoint == "6379" {
		t.Fatal("the Service leads past the proxy")
	}
	db := redis.NewClient(&redis.Options{Addr: serviceAddress(t, "shop", "db")})
	defer db.Close()
	value := strings.Repeat("v", 100_000)
	for i := range 100 {
		name := fmt.Sprintf("e2e-%d", i)
		if err := db.Set(t.Context(), name, value, time.Minute).Err(); err != nil {
			t.Fatal(err)
		}
		if got, err := db.Get(t.Context(), name).Result(); err != nil || got != value {
			t.Fatalf("%s came back with %d bytes (%v), want %d", name, len(got), err, len(value))
		}
	}
}
