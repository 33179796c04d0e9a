// Command shop is the demo: a small shop of three services and a database.
//
//	frontend -> api -> identity
//	                -> db (Redis)
//
// One program holds the three services; its argument says which one it is, its environment the rest (see config).
// Every service answers on one port by HTTP/1.1, HTTP/2 with prior knowledge and gRPC, and its answer names the copies
// that had a part in it. Like most services they pass the caller's trace context and baggage on with the OpenTelemetry
// SDK, and forward no other header.
package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/trace"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "shop:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	cfg, err := configFrom(args, os.Getenv)
	if err != nil {
		return err
	}
	slog.SetDefault(slog.New(slog.NewJSONHandler(os.Stderr, nil)).
		With("service", cfg.Service, "version", cfg.Version, "pod", cfg.Pod))
	propagateContext()
	handler, err := newHandler(cfg)
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", cfg.Listen)
	if err != nil {
		return fmt.Errorf("listening on %s: %w", cfg.Listen, err)
	}
	slog.Info("serving", "address", listener.Addr().String())
	defer slog.Info("stopped")
	return serve(ctx, listener, handler)
}

// propagateContext sets up what most services have: trace ids of their own where the caller sent none, and the W3C
// headers 'traceparent', 'tracestate' and 'baggage' read and passed on.
func propagateContext() {
	otel.SetTracerProvider(trace.NewTracerProvider())
	otel.SetTextMapPropagator(propagation.NewCompositeTextMapPropagator(
		propagation.TraceContext{}, propagation.Baggage{}))
}

// newHandler builds the service that the configuration names.
func newHandler(cfg config) (http.Handler, error) {
	switch cfg.Service {
	case "frontend":
		return newFrontend(cfg)
	case "api":
		return newAPI(cfg)
	case "identity":
		return newIdentity(cfg), nil
	}
	return nil, fmt.Errorf("no service is called %q: want frontend, api or identity", cfg.Service)
}

// serve answers on the listener until the context ends, then lets requests in flight finish. Open WebSockets end with
// the process.
func serve(ctx context.Context, listener net.Listener, handler http.Handler) error {
	server := &http.Server{Handler: handler, Protocols: new(http.Protocols), ReadHeaderTimeout: 10 * time.Second}
	server.Protocols.SetHTTP1(true)
	server.Protocols.SetUnencryptedHTTP2(true)

	stopped := make(chan error, 1)
	go func() {
		<-ctx.Done()
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		defer cancel()
		stopped <- server.Shutdown(grace)
	}()
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serving on %s: %w", listener.Addr(), err)
	}
	return <-stopped
}
