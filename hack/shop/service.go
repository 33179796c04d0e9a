package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"

	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"
)

// errVia tells that the caller wants services to speak a protocol that they don't have.
var errVia = errors.New("via: want http1, h2c or grpc")

// service is what the three services share: it gives its answers by HTTP and gRPC on one port and signs them.
type service struct {
	cfg config

	// answer says what this service has to say. Where it asks other services, it does so by the protocol 'via'.
	answer func(ctx context.Context, via string) (answer, error)
}

// handler serves the routes, gRPC and the health check on one port.
func (s *service) handler(routes http.Handler) http.Handler {
	grpc := newGRPCServer(s)
	traced := otelhttp.NewHandler(routes, s.cfg.Service)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/healthz":
			fmt.Fprintln(w, "ok")
		case r.ProtoMajor == 2 && strings.HasPrefix(r.Header.Get("Content-Type"), "application/grpc"):
			grpc.ServeHTTP(w, r)
		default:
			traced.ServeHTTP(w, r)
		}
	})
}

// ask has the service answer a caller who speaks the protocol, and puts this copy in front of those that answered
// before it. With an error the answer names this copy and the error.
func (s *service) ask(ctx context.Context, protocol, via string) (answer, error) {
	self := s.self(protocol)
	if via != "" && !slices.Contains([]string{protoHTTP1, protoH2C, protoGRPC}, via) {
		return answer{ServedBy: []servant{self}, Error: errVia.Error()}, errVia
	}
	a, err := s.answer(ctx, via)
	if err != nil {
		return answer{ServedBy: []servant{self}, Error: err.Error()}, err
	}
	a.ServedBy = append([]servant{self}, a.ServedBy...)
	return a, nil
}

func (s *service) self(protocol string) servant {
	return servant{Service: s.cfg.Service, Version: s.cfg.Version, Pod: s.cfg.Pod, Protocol: protocol}
}

// askHTTP answers an HTTP request, with the status that goes with the answer.
func (s *service) askHTTP(r *http.Request) (answer, int) {
	protocol := protoHTTP1
	if r.ProtoMajor == 2 {
		protocol = protoH2C
	}
	a, err := s.ask(r.Context(), protocol, r.FormValue("via"))
	switch {
	case errors.Is(err, errVia):
		return a, http.StatusBadRequest
	case err != nil:
		slog.Warn("no answer", "error", err.Error())
		return a, http.StatusBadGateway
	}
	return a, http.StatusOK
}

// serveJSON answers programs.
func (s *service) serveJSON(w http.ResponseWriter, r *http.Request) {
	a, status := s.askHTTP(r)
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	if err := json.NewEncoder(w).Encode(a); err != nil {
		slog.Debug("caller went away", "error", err.Error())
	}
}
