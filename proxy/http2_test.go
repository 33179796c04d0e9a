package proxy

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/net/http2"

	"github.com/detour-dev/detour/api"
)

// clientH2C is an HTTP/2 client with prior knowledge and one connection of its own.
func clientH2C(t *testing.T) *http.Client {
	tr := &http.Transport{DisableCompression: true, Protocols: new(http.Protocols)}
	tr.Protocols.SetUnencryptedHTTP2(true)
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: deadline}
}

// grpcRequest is a call as gRPC makes it, with a body that may stay open.
func grpcRequest(t *testing.T, url string, body io.Reader) *http.Request {
	t.Helper()
	req, err := http.NewRequest(http.MethodPost, url, body)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/grpc+proto")
	req.Header.Set("Te", "trailers")
	req.Header.Set("Grpc-Timeout", "5S")
	return req
}

// TestGRPC sends a message only when the one before has come back, and reads the status from the trailers.
func TestGRPC(t *testing.T) {
	echo := func(name string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/grpc+proto")
			w.Header().Set("X-Te", r.Header.Get("Te"))
			w.Header().Set("X-Timeout", r.Header.Get("Grpc-Timeout"))
			flush := http.NewResponseController(w).Flush
			flush()
			buf := make([]byte, 1024)
			for {
				n, err := r.Body.Read(buf)
				w.Write(buf[:n])
				flush()
				if err != nil {
					break
				}
			}
			w.Header().Set(http.TrailerPrefix+"Grpc-Status", "0")
			w.Header().Set(http.TrailerPrefix+"Grpc-Message", name)
		}
	}
	p := start(t, serveHTTP(t, echo("baseline")))
	p.route(t, "pr-42", endpointOf("x", serveHTTP(t, echo("preview"))))
	c := clientH2C(t)
	for key, want := range map[string]string{"": "baseline", "pr-42": "preview"} {
		in, out := io.Pipe()
		req := grpcRequest(t, p.url("/echo.Echo/Both"), in)
		if key != "" {
			req.Header.Set(api.HeaderKey, key)
		}
		resp, err := c.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		for i := range 3 {
			message := fmt.Sprintf("message %d", i)
			io.WriteString(out, message)
			got := make([]byte, len(message))
			if _, err := io.ReadFull(resp.Body, got); err != nil || string(got) != message {
				t.Fatalf("got %q, %v", got, err)
			}
		}
		out.Close()
		rest, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if len(rest) > 0 || err != nil {
			t.Errorf("%d bytes behind the messages, %v", len(rest), err)
		}
		trailer := http.Header{"Grpc-Status": {"0"}, "Grpc-Message": {want}}
		if diff := cmp.Diff(trailer, resp.Trailer); diff != "" {
			t.Errorf("trailers: -want +got\n%s", diff)
		}
		if resp.Header.Get("X-Te") != "trailers" || resp.Header.Get("X-Timeout") != "5S" {
			t.Errorf("the app got %v", resp.Header)
		}
	}
}

// TestGRPCStatusOnly has no body: the head itself must end the stream, or gRPC finds no status.
func TestGRPCStatusOnly(t *testing.T) {
	p := start(t, serveHTTP(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/grpc")
		w.Header().Set("Grpc-Status", "5")
	}))
	p.route(t, "gone")
	for key, want := range map[string]string{"": "5", "gone": "14"} {
		for range 20 {
			head := headOf(t, p.addr(), key)
			if !head.StreamEnded() {
				t.Error("the head does not end the stream")
			}
			got := map[string]string{}
			for _, f := range head.Fields {
				got[f.Name] = f.Value
			}
			if got[":status"] != "200" || got["grpc-status"] != want || got["content-type"] != "application/grpc" {
				t.Errorf("key %q: got %v", key, got)
			}
			if key != "" && (got["detour-error"] != "no-endpoint" || !strings.Contains(got["grpc-message"], "deployment/gone")) {
				t.Errorf("key %q: got %v", key, got)
			}
			if _, ok := got["date"]; key == "" && got["content-length"] != "0" && ok {
				t.Errorf("key %q: got %v", key, got)
			}
		}
	}
}

// headOf makes one gRPC call frame by frame and returns the head of its answer.
func headOf(t *testing.T, addr, key string) *http2.MetaHeadersFrame {
	t.Helper()
	c := dialTCP(t, addr)
	defer c.Close()
	io.WriteString(c, http2.ClientPreface)
	f := newFramer(c)
	f.WriteSettings()
	fields := []string{":method", "POST", ":scheme", "http", ":path", "/a/b", ":authority", "x", "content-type", "application/grpc", "te", "trailers"}
	if key != "" {
		fields = append(fields, "detour-key", key)
	}
	f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: encode(fields...), EndHeaders: true, EndStream: true})
	for {
		frame, err := f.ReadFrame()
		if err != nil {
			t.Fatal(err)
		}
		if head, ok := frame.(*http2.MetaHeadersFrame); ok {
			return head
		}
	}
}

func TestOneConnectionForAllStreams(t *testing.T) {
	const streams = 50
	var mu sync.Mutex
	from := map[string]bool{}
	var arrived sync.WaitGroup
	arrived.Add(streams)
	app := serveHTTP(t, func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		from[r.RemoteAddr] = true
		mu.Unlock()
		arrived.Done()
		arrived.Wait() // all of them are open at once
	})
	p := start(t, app)
	p.route(t, "a", endpointOf("x", serveHTTP(t, named("preview"))))
	c := clientH2C(t)
	get(t, c, p.url("/"), "Detour-Key: a") // so that the client has its connection
	var requests sync.WaitGroup
	for range streams {
		requests.Go(func() {
			if _, err := getErr(c, p.url("/"), ""); err != nil {
				t.Error(err)
			}
		})
	}
	requests.Wait()
	if len(from) != 1 {
		t.Errorf("the app saw %d connections", len(from))
	}
}

// TestAppThatSpeaksHTTP2First sends its SETTINGS before the client has said anything, as gRPC servers do.
func TestAppThatSpeaksHTTP2First(t *testing.T) {
	//lint:ignore SA1019 net/http's own server waits for the client
	server := &http2.Server{}
	app := serveTCP(t, func(c *net.TCPConn) {
		//lint:ignore SA1019 see above
		server.ServeConn(c, &http2.ServeConnOpts{Handler: named("baseline")})
	})
	p := start(t, app)
	p.route(t, "a", endpointOf("x", serveHTTP(t, named("preview"))))
	c := clientH2C(t)
	for key, want := range map[string]string{"": "baseline", "a": "preview"} {
		if got, err := getErr(c, p.url("/"), key); got != want || err != nil {
			t.Errorf("key %q: %q, %v", key, got, err)
		}
	}
}

// TestAppThatGoesAway closes its connections after two requests each; a client that goes on must not notice.
func TestAppThatGoesAway(t *testing.T) {
	var requests atomic.Int32
	p := start(t, serveHTTP(t, func(w http.ResponseWriter, r *http.Request) {
		if requests.Add(1)%2 == 0 {
			w.Header().Set("Connection", "close") // GOAWAY
		}
		io.WriteString(w, "baseline")
	}))
	c := clientH2C(t)
	for range 10 {
		if got, err := getErr(c, p.url("/"), ""); got != "baseline" || err != nil {
			t.Errorf("%q, %v", got, err)
		}
	}
}

func TestStreamThatTheAppResetsIsReset(t *testing.T) {
	p := start(t, serveHTTP(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/reset" {
			io.WriteString(w, "half of")
			http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		}
		io.WriteString(w, "whole")
	}))
	c := clientH2C(t)
	for range 3 {
		if got, err := getErr(c, p.url("/reset"), ""); err == nil || got != "half of" {
			t.Errorf("%q, %v", got, err)
		}
		if got, err := getErr(c, p.url("/"), ""); err != nil || got != "whole" {
			t.Errorf("%q, %v", got, err)
		}
	}
	if n := p.meters.connections[protocolHTTP2].Get(); n != 1 {
		t.Errorf("%d connections, want 1: a stream's end must not end the connection", n)
	}
}
