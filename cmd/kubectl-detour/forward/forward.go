// Package forward serves a local port whose requests enter a Service of a cluster with a key in them, for a browser or a
// test that runs outside.
//
// # The story
//
// A request to the local port loses whatever could carry a key and gets the one that the port stands for
// ([api.ReplaceKey]). It goes through a connection that a [Passage] has made: through the API server's port-forward
// ([Tunnel]) to the proxy of a ready Pod behind the Service, which decides where it goes as it does with any other. Each
// connection looks for its own Pod, so one that goes away takes only the requests with it that it has.
//
// # Use
//
//	p := &forward.Passage{Entrances: readyPods, Open: forward.Tunnel(config, "shop"), Changed: say}
//	err := forward.Serve(ctx, listener, forward.Config{Key: "pr-42", Dial: p.Dial})
//
// # What it does not do
//
// It asks nobody who they are: whoever reaches the local port reaches the Service. It leaves the host, redirects and cookies
// as they are, and looks into no body.
package forward

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
	"time"

	"github.com/detour-dev/detour/api"
)

const (
	readHeaderTimeout = 10 * time.Second
	// upstreamIdle is shorter than the time after which apps are known to close idle connections (2 to 5 seconds): a
	// request that is not repeated, such as a POST, must not meet one that has just been closed.
	upstreamIdle    = time.Second
	continueTimeout = time.Second
	pingAfter       = 30 * time.Second // of silence, on an HTTP/2 connection, whose other end may be gone
	pingTimeout     = 15 * time.Second
	closeTimeout    = time.Second
)

// Config is what a local port does. All of it is required, but for H2C.
type Config struct {
	// Key is what every request carries.
	Key string
	// Dial makes a connection into the Service. It is called from several goroutines.
	Dial func(context.Context) (net.Conn, error)
	// H2C is set where the app speaks HTTP/2 with prior knowledge only. Otherwise it gets HTTP/1.1, and HTTP/2 for gRPC.
	H2C bool
}

// Serve serves HTTP/1.1 and HTTP/2 with prior knowledge until ctx is done; requests that are under way then are aborted.
// It closes the listener.
func Serve(ctx context.Context, listener net.Listener, cfg Config) error {
	f := &forwarder{
		cfg:   cfg,
		http1: newTransport(cfg, (*http.Protocols).SetHTTP1),
		http2: newTransport(cfg, (*http.Protocols).SetUnencryptedHTTP2),
	}
	server := &http.Server{
		Handler: f, Protocols: &http.Protocols{}, ReadHeaderTimeout: readHeaderTimeout,
		// What is under way, and what has been upgraded, ends with ctx.
		BaseContext: func(net.Listener) context.Context { return ctx },
		ErrorLog:    log.New(io.Discard, "", 0), // clients that go away
	}
	server.Protocols.SetHTTP1(true)
	server.Protocols.SetUnencryptedHTTP2(true)
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	select {
	case err := <-served:
		return err
	case <-ctx.Done():
	}
	// 1. No new requests; those under way are being aborted.
	closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
	defer cancel()
	if server.Shutdown(closing) != nil {
		_ = server.Close() // a client that does not read
	}
	<-served
	// 2. The connections that nobody uses any more.
	f.http1.CloseIdleConnections()
	f.http2.CloseIdleConnections()
	return nil
}

func newTransport(cfg Config, speak func(*http.Protocols, bool)) *http.Transport {
	t := &http.Transport{
		DialContext:           func(ctx context.Context, _, _ string) (net.Conn, error) { return cfg.Dial(ctx) },
		DisableCompression:    true, // it is between the client and the app
		MaxIdleConnsPerHost:   32,
		IdleConnTimeout:       upstreamIdle,
		ExpectContinueTimeout: continueTimeout,
		HTTP2:                 &http.HTTP2Config{SendPingTimeout: pingAfter, PingTimeout: pingTimeout},
		Protocols:             &http.Protocols{},
	}
	speak(t.Protocols, true)
	return t
}

// forwarder is the handler of a local port.
type forwarder struct {
	cfg          Config
	http1, http2 *http.Transport
}

func (f *forwarder) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.ProtoMajor == 1 {
		// Otherwise an answer could begin only once the body is read, which a stream in both directions never is.
		_ = http.NewResponseController(w).EnableFullDuplex()
	}
	proxy := httputil.ReverseProxy{
		Transport: f.transport(r), Rewrite: f.rewrite, ErrorHandler: fail,
		FlushInterval: -1, // at once
		ErrorLog:      log.New(io.Discard, "", 0),
	}
	proxy.ServeHTTP(w, r)
}

// transport speaks HTTP/2 to an app that is known to, and for gRPC; HTTP/1.1 is what every other one speaks.
func (f *forwarder) transport(r *http.Request) *http.Transport {
	if (f.cfg.H2C || r.ProtoMajor == 2 && isGRPC(r)) && r.Header.Get("Upgrade") == "" {
		return f.http2
	}
	return f.http1
}

// isGRPC leaves out gRPC-Web, which is made for HTTP/1.1.
func isGRPC(r *http.Request) bool {
	subtype, found := strings.CutPrefix(r.Header.Get("Content-Type"), "application/grpc")
	return found && (subtype == "" || subtype[0] == '+' || subtype[0] == ';')
}

// rewrite puts the key in. The app sees the host that the client has, and makes its links and cookies for that.
func (f *forwarder) rewrite(r *httputil.ProxyRequest) {
	r.Out.URL.Scheme, r.Out.URL.Host = "http", "service" // one for all: each connection leads there
	r.Out.URL.RawQuery = r.In.URL.RawQuery               // as it came, not as net/url would write it
	for _, name := range []string{"Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto"} {
		if values := r.In.Header[name]; len(values) > 0 {
			r.Out.Header[name] = values // httputil takes them out
		}
	}
	api.ReplaceKey(r.Out.Header, f.cfg.Key)
}

// fail answers what the Service did not.
func fail(w http.ResponseWriter, r *http.Request, err error) {
	if errors.Is(err, context.Canceled) || r.Context().Err() != nil {
		panic(http.ErrAbortHandler) // the client has gone, or the port goes
	}
	message := fmt.Sprintf("kubectl detour forward: no answer from the cluster: %v", err)
	w.Header().Set(api.HeaderError, "unreachable")
	if isGRPC(r) {
		tellGRPC(w.Header(), message)
		return
	}
	http.Error(w, message, http.StatusBadGateway)
}

// tellGRPC answers with a status in the place of trailers (https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md).
func tellGRPC(h http.Header, message string) {
	const unavailable = "14"
	h.Set("Content-Type", "application/grpc")
	h.Set("Grpc-Status", unavailable)
	h.Set("Grpc-Message", url.PathEscape(message))
}
