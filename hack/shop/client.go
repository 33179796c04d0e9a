package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"go.opentelemetry.io/contrib/instrumentation/google.golang.org/grpc/otelgrpc"
	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// client asks another service of the shop, by any protocol. It connects when first used.
type client struct {
	name  string // of the service, for errors
	addr  string
	http1 *http.Client
	h2c   *http.Client
	grpc  *grpc.ClientConn
}

func newClient(name, addr string) (*client, error) {
	// gRPC's default makes a service that was away for long wait another two minutes.
	retrySoon := backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: time.Second}
	conn, err := grpc.NewClient(addr,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithStatsHandler(otelgrpc.NewClientHandler()),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: retrySoon, MinConnectTimeout: 2 * time.Second}))
	if err != nil {
		return nil, fmt.Errorf("preparing gRPC calls to %s: %w", addr, err)
	}
	var http1, h2c http.Protocols
	http1.SetHTTP1(true)
	h2c.SetUnencryptedHTTP2(true)
	return &client{name: name, addr: addr, http1: httpClient(http1), h2c: httpClient(h2c), grpc: conn}, nil
}

// httpClient speaks one of the HTTPs and passes the trace context and baggage on.
func httpClient(protocols http.Protocols) *http.Client {
	return &http.Client{
		Transport: otelhttp.NewTransport(&http.Transport{Protocols: &protocols, MaxIdleConnsPerHost: 100}),
		Timeout:   5 * time.Second,
	}
}

// get asks by the protocol 'via', HTTP/1.1 if it is empty, and has those asked use the same.
func (c *client) get(ctx context.Context, via string) (answer, error) {
	var a answer
	var err error
	switch via {
	case protoGRPC:
		a, err = c.getGRPC(ctx, via)
	case protoH2C:
		a, err = c.getHTTP(ctx, c.h2c, via)
	default:
		a, err = c.getHTTP(ctx, c.http1, via)
	}
	if err != nil {
		return answer{}, fmt.Errorf("asking %s: %w", c.name, err)
	}
	return a, nil
}

func (c *client) getHTTP(ctx context.Context, hc *http.Client, via string) (answer, error) {
	query := url.Values{}
	if via != "" {
		query.Set("via", via)
	}
	target := url.URL{Scheme: "http", Host: c.addr, Path: "/", RawQuery: query.Encode()}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, target.String(), nil)
	if err != nil {
		return answer{}, err
	}
	resp, err := hc.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return answer{}, fmt.Errorf("reading the answer: %w", err)
	}
	var a answer
	err = json.Unmarshal(body, &a)
	if resp.StatusCode != http.StatusOK {
		return answer{}, fmt.Errorf("%s: %s", resp.Status, cmp.Or(a.Error, strings.TrimSpace(string(body))))
	}
	return a, err
}

func (c *client) getGRPC(ctx context.Context, via string) (answer, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	reply := new(structpb.Struct)
	if err := c.grpc.Invoke(ctx, grpcGet, wrapperspb.String(via), reply); err != nil {
		return answer{}, err
	}
	return answerIn(reply)
}
