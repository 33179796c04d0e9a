package conformance

import (
	"context"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/grpclog"
	"google.golang.org/grpc/interop"
	testgrpc "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/stats"
	"google.golang.org/grpc/tap"

	"github.com/detour-dev/detour/api"
)

// interopCases are gRPC's own interoperability tests, but for the two soaks, which have a test of their own.
var interopCases = map[string]func(ctx context.Context, conn *grpc.ClientConn){
	"empty_unary":                 onTestService(interop.DoEmptyUnaryCall),
	"large_unary":                 onTestService(interop.DoLargeUnaryCall),
	"client_streaming":            onTestService(interop.DoClientStreaming),
	"server_streaming":            onTestService(interop.DoServerStreaming),
	"ping_pong":                   onTestService(interop.DoPingPong),
	"empty_stream":                onTestService(interop.DoEmptyStream),
	"timeout_on_sleeping_server":  onTestService(interop.DoTimeoutOnSleepingServer),
	"cancel_after_begin":          onTestService(interop.DoCancelAfterBegin),
	"cancel_after_first_response": onTestService(interop.DoCancelAfterFirstResponse),
	"status_code_and_message":     onTestService(interop.DoStatusCodeAndMessage),
	"special_status_message":      onTestService(interop.DoSpecialStatusMessage),
	"custom_metadata":             onTestService(interop.DoCustomMetadata),
	"unimplemented_method":        interop.DoUnimplementedMethod,
	"unimplemented_service": func(ctx context.Context, conn *grpc.ClientConn) {
		interop.DoUnimplementedService(ctx, testgrpc.NewUnimplementedServiceClient(conn))
	},
}

func onTestService(do func(context.Context, testgrpc.TestServiceClient, ...grpc.CallOption)) func(context.Context, *grpc.ClientConn) {
	return func(ctx context.Context, conn *grpc.ClientConn) { do(ctx, testgrpc.NewTestServiceClient(conn)) }
}

// TestGRPC runs the interoperability tests through the proxy: without a key against the app, and with one against the
// preview, which every answer must name.
func TestGRPC(t *testing.T) {
	app, preview := startInterop(t, listenApp(t)), startInterop(t, listenPreview(t))
	s := startSidecar(t, app.addr, append(otherRoutes(20, 0), routeTo(preview.addr))...)

	for _, keyed := range []bool{false, true} {
		name, server, other := "app", app, preview
		if keyed {
			name, server, other = "preview", preview, app
		}
		for _, test := range slices.Sorted(maps.Keys(interopCases)) {
			do := interopCases[test]
			t.Run(name+"/"+test, func(t *testing.T) {
				mine, others := server.calls.Load(), other.calls.Load()
				c := &interopClient{t: t, keyed: func() bool { return keyed }}
				conn := c.dial(s.addr)
				ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
				defer cancel()
				fatal(t, func() { do(ctx, conn) })
				// A call that is cancelled at once may have reached no one.
				cancelled := test == "cancel_after_begin" || test == "timeout_on_sleeping_server"
				if !cancelled && server.calls.Load() == mine {
					t.Error("the right server was not called")
				}
				if other.calls.Load() != others {
					t.Error("the wrong server was called")
				}
			})
		}
	}
}

// TestGRPCSoak makes 100,000 calls, every other one keyed, over four channels while the routes around the key's own
// change all the time: rpc_soak. Then channel_soak, which opens a channel for each call.
func TestGRPCSoak(t *testing.T) {
	app, preview := startInterop(t, listenApp(t)), startInterop(t, listenPreview(t))
	own := routeTo(preview.addr)
	s := startSidecar(t, app.addr, own)
	stop := changeRoutes(t, s, own)
	defer stop()

	var n atomic.Int64
	c := &interopClient{t: t, keyed: func() bool { return n.Add(1)%2 == 0 }}
	channels := make([]*grpc.ClientConn, 4)
	for i := range channels {
		channels[i] = c.dial(s.addr)
	}
	var next atomic.Int64
	shared := func() (*grpc.ClientConn, func()) {
		return channels[next.Add(1)%int64(len(channels))], func() {}
	}
	fresh := func() (*grpc.ClientConn, func()) {
		conn := c.dial(s.addr)
		return conn, func() { conn.Close() }
	}

	config := interop.SoakTestConfig{
		ServerAddr:                       s.addr,
		NumWorkers:                       16,
		PerIterationMaxAcceptableLatency: 5 * time.Second,
		OverallTimeout:                   2 * time.Minute,
	}
	t.Run("rpc_soak", func(t *testing.T) {
		config := config
		config.Iterations, config.RequestSize, config.ResponseSize, config.ChannelForTest = 100_000, 271, 314, shared
		soak(t, config)
	})
	t.Run("rpc_soak large", func(t *testing.T) { // the sizes are the suite's own
		config := config
		config.Iterations, config.RequestSize, config.ResponseSize, config.ChannelForTest = 1_600, 271_828, 314_159, shared
		soak(t, config)
	})
	t.Run("channel_soak", func(t *testing.T) {
		config := config
		config.Iterations, config.RequestSize, config.ResponseSize, config.ChannelForTest = 1_600, 27_182, 31_415, fresh
		soak(t, config)
	})
	changes := stop()
	if changes < 20 {
		t.Errorf("the routes changed %d times only", changes)
	}

	got := map[string]int64{"app": app.calls.Load(), "preview": preview.calls.Load()}
	want := map[string]int64{"app": c.plain.Load(), "preview": c.withKey.Load()}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("calls by server (-sent +received):\n%s", diff)
	}
	if total := want["app"] + want["preview"]; total != 103_200 {
		t.Errorf("%d calls were made, want 103200", total)
	}
}

// changeRoutes keeps adding and removing routes beside own until told to stop; then it says how often.
func changeRoutes(t *testing.T, s *sidecar, own api.Route) (stop func() int) {
	done := make(chan struct{})
	var changes int
	var wg sync.WaitGroup
	wg.Go(func() {
		tick := time.NewTicker(50 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-done:
				return
			case <-tick.C:
				changes++
				s.publish(t, slices.Insert(otherRoutes(changes%40, changes), changes%40/2, own)...)
			}
		}
	})
	var once sync.Once
	return func() int {
		once.Do(func() { close(done) })
		wg.Wait()
		return changes
	}
}

// soak runs gRPC's soak test, which prints a line a call: only those that do not tell of success are shown.
func soak(t *testing.T, config interop.SoakTestConfig) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	var printed output
	var reading sync.WaitGroup
	reading.Go(func() { io.Copy(&printed, r) })
	stderr := os.Stderr
	os.Stderr = w
	fatal(t, func() { interop.DoSoakTest(t.Context(), config) })
	os.Stderr = stderr
	w.Close()
	reading.Wait()
	for line := range strings.Lines(printed.String()) {
		if strings.HasPrefix(line, "Worker") && !strings.HasSuffix(line, "succeeded\n") {
			t.Error(strings.TrimSpace(line))
		}
	}
}

// interopServer is one that counts the calls it gets, those of methods that it lacks too.
type interopServer struct {
	addr  string
	calls atomic.Int64
}

func startInterop(t *testing.T, l net.Listener) *interopServer {
	s := &interopServer{addr: l.Addr().String()}
	server := grpc.NewServer(grpc.InTapHandle(func(ctx context.Context, _ *tap.Info) (context.Context, error) {
		s.calls.Add(1)
		return ctx, nil
	}))
	testgrpc.RegisterTestServiceServer(server, interop.NewTestServer())
	go server.Serve(l)
	t.Cleanup(server.Stop)
	return s
}

// interopClient dials channels whose calls carry the key whenever keyed says so, and holds every answer to naming the
// preview then, and no one otherwise.
type interopClient struct {
	t              *testing.T
	keyed          func() bool
	plain, withKey atomic.Int64 // calls
}

// dial opens a channel, which is closed with the test at the latest.
func (c *interopClient) dial(addr string) *grpc.ClientConn {
	conn, err := grpc.NewClient(addr,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithStatsHandler(c),
		grpc.WithUnaryInterceptor(func(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
			return invoke(c.withCarrier(ctx), method, req, reply, cc, opts...)
		}),
		grpc.WithStreamInterceptor(func(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, open grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
			return open(c.withCarrier(ctx), desc, cc, method, opts...)
		}))
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { conn.Close() })
	return conn
}

func (c *interopClient) withCarrier(ctx context.Context) context.Context {
	if !c.keyed() {
		c.plain.Add(1)
		return ctx
	}
	c.withKey.Add(1)
	return metadata.AppendToOutgoingContext(ctx, strings.ToLower(api.HeaderKey), key)
}

// call is what is known of one, under the context that its events come with.
type call struct {
	want     []string // of the answer's Detour-Served-By
	answered bool
}

type callKey struct{}

// TagRPC is part of [stats.Handler].
func (c *interopClient) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context {
	sent, _ := metadata.FromOutgoingContext(ctx)
	var want []string
	if len(sent.Get(api.HeaderKey)) > 0 {
		want = []string{servedBy}
	}
	return context.WithValue(ctx, callKey{}, &call{want: want})
}

// HandleRPC is part of [stats.Handler]. An answer without a body has trailers only.
func (c *interopClient) HandleRPC(ctx context.Context, event stats.RPCStats) {
	this := ctx.Value(callKey{}).(*call)
	var got metadata.MD
	switch event := event.(type) {
	case *stats.InHeader:
		got = event.Header
	case *stats.InTrailer:
		got = event.Trailer
	default:
		return
	}
	if this.answered {
		return
	}
	this.answered = true
	if diff := cmp.Diff(this.want, got.Get(api.HeaderServedBy)); diff != "" {
		c.t.Errorf("%s (-want +got):\n%s", api.HeaderServedBy, diff)
	}
}

// TagConn is part of [stats.Handler].
func (c *interopClient) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context {
	return ctx
}

// HandleConn is part of [stats.Handler].
func (c *interopClient) HandleConn(context.Context, stats.ConnStats) {}

// TestMain sets gRPC's logger, which can be done only before anything else.
func TestMain(m *testing.M) {
	grpclog.SetLoggerV2(panicLogger{grpclog.NewLoggerV2(io.Discard, io.Discard, io.Discard)})
	os.Exit(m.Run())
}

// panicLogger panics where gRPC's own ends the process, which is how the interoperability tests fail.
type panicLogger struct{ grpclog.LoggerV2 }

type fatalLog string

func (panicLogger) Fatal(args ...any)                 { panic(fatalLog(fmt.Sprint(args...))) }
func (panicLogger) Fatalln(args ...any)               { panic(fatalLog(fmt.Sprintln(args...))) }
func (panicLogger) Fatalf(format string, args ...any) { panic(fatalLog(fmt.Sprintf(format, args...))) }

// fatal fails the test if do logs something fatal.
func fatal(t *testing.T, do func()) {
	t.Helper()
	defer func() {
		t.Helper()
		switch r := recover().(type) {
		case nil:
		case fatalLog:
			t.Error(string(r))
		default:
			panic(r)
		}
	}()
	do()
}
