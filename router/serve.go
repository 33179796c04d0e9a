package router

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"
	"sigs.k8s.io/controller-runtime/pkg/certwatcher"
)

// parts are the router's long-lived goroutines, which stop in the reverse order of their start.
type parts struct {
	failed chan error // the first part that could not go on
	stops  []func()
}

func (p *parts) start(name string, run func(context.Context) error) {
	if p.failed == nil {
		p.failed = make(chan error, 1)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := run(ctx); err != nil {
			select {
			case p.failed <- fmt.Errorf("%s: %w", name, err):
			default:
			}
		}
	}()
	p.stops = append(p.stops, func() {
		cancel()
		<-done
	})
}

func (p *parts) stop() {
	for i := len(p.stops) - 1; i >= 0; i-- {
		p.stops[i]()
	}
}

// health answers the kubelet.
type health struct {
	synced   func() bool // whether the caches of every namespace are filled
	wasReady atomic.Bool // a namespace that joins later does not make the router unready
	serving  atomic.Bool // the API has its certificate and listens
	stopping atomic.Bool
}

func (h *health) isReady() bool {
	if h.synced() {
		h.wasReady.Store(true)
	}
	return h.wasReady.Load() && h.serving.Load() && !h.stopping.Load()
}

func (h *health) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = fmt.Fprintln(w, "ok")
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if !h.isReady() {
			http.Error(w, "not ready: the caches are not filled, the certificate is missing, or the router is stopping", http.StatusServiceUnavailable)
			return
		}
		_, _ = fmt.Fprintln(w, "ok")
	})
	return mux
}

func (m *metrics) handler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{}))
	return mux
}

const (
	readHeaderTimeout = 10 * time.Second
	idleTimeout       = 2 * time.Minute
	stopTimeout       = 5 * time.Second
)

// serveHTTP serves plain HTTP until its context ends.
func serveHTTP(address string, handler http.Handler) func(context.Context) error {
	return func(ctx context.Context) error {
		listener, err := net.Listen("tcp", address)
		if err != nil {
			return fmt.Errorf("listening on %s: %w", address, err)
		}
		srv := &http.Server{Handler: handler, ReadHeaderTimeout: readHeaderTimeout, WriteTimeout: requestTimeout, IdleTimeout: idleTimeout}
		return serve(ctx, srv, func() error { return srv.Serve(listener) })
	}
}

// serveAPI serves the API over TLS, as soon as there is a certificate and with the newest one there is.
func serveAPI(cfg Config, s *server, serving *atomic.Bool) func(context.Context) error {
	return func(ctx context.Context) error {
		certificate := waitForCertificate(ctx, cfg.CertDir, cfg.Log)
		if certificate == nil {
			return nil
		}
		listener, err := net.Listen("tcp", cfg.Listen)
		if err != nil {
			return fmt.Errorf("listening on %s: %w", cfg.Listen, err)
		}
		watching, stopWatching := context.WithCancel(ctx)
		defer stopWatching()
		watched := make(chan error, 1)
		go func() { watched <- certificate.Start(watching) }()
		srv := &http.Server{
			Handler:           s.handler(),
			TLSConfig:         &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: certificate.GetCertificate},
			ReadHeaderTimeout: readHeaderTimeout, IdleTimeout: idleTimeout, MaxHeaderBytes: 64 << 10,
			ErrorLog: slog.NewLogLogger(cfg.Log.Handler(), slog.LevelDebug), // TLS handshakes of port scanners
		}
		srv.RegisterOnShutdown(func() { close(s.closing) })
		cfg.Log.Info("serving", "address", listener.Addr().String())
		serving.Store(true)
		err = serve(ctx, srv, func() error { return srv.ServeTLS(listener, "", "") })
		stopWatching()
		return errors.Join(err, <-watched)
	}
}

// waitForCertificate returns nil when ctx ends first. The Secret that it comes from may be made after the router has
// started.
func waitForCertificate(ctx context.Context, dir string, log *slog.Logger) *certwatcher.CertWatcher {
	said := false
	for {
		w, err := certwatcher.New(filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key"))
		if err == nil {
			return w
		}
		if !said {
			log.Info("waiting for the certificate", "dir", dir, "error", err)
			said = true
		}
		if !pause(ctx, time.Second) {
			return nil
		}
	}
}

// serve stops srv when ctx ends: first the listener, then what is idle, then, after a while, the rest.
func serve(ctx context.Context, srv *http.Server, listen func() error) error {
	failed := make(chan error, 1)
	go func() { failed <- listen() }()
	select {
	case err := <-failed:
		return fmt.Errorf("serving: %w", err)
	case <-ctx.Done():
	}
	stopping, cancel := context.WithTimeout(context.Background(), stopTimeout)
	defer cancel()
	if err := srv.Shutdown(stopping); err != nil {
		_ = srv.Close()
	}
	<-failed
	return nil
}
