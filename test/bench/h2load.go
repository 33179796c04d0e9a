package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"time"
)

// h2Load sends gRPC-shaped requests over HTTP/2 with nghttp2's h2load.
type h2Load struct {
	conns, streams int    // streams of each connection
	dir            string // for the message that is sent
}

// rpc is the path of the method that is called.
const rpc = "/shop.v1.Products/Get"

// rpcHeads are the fields that a gRPC client sends, and those of tracing.
var rpcHeads = [][2]string{
	{"content-type", "application/grpc"},
	{"te", "trailers"},
	{"user-agent", "grpc-go/1.85.0"},
	{"grpc-accept-encoding", "gzip"},
	{"grpc-timeout", "1S"},
	{"authorization", "Bearer eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.6ZRYnZQ2bVtxGzq0cOmD"},
	{"x-request-id", "7f1c9a52-6f0e-4b7e-9d53-0c1f5a7e2b44"},
	{"traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"},
}

// rpcMessage is a gRPC message of 64 bytes behind its prefix.
var rpcMessage = append([]byte{0, 0, 0, 0, 64}, make([]byte, 64)...)

// run has a run of h2load warm the proxy and another be measured, connecting included.
func (l h2Load) run(ctx context.Context, addr string, w window) (traffic, error) {
	if _, err := l.h2load(ctx, addr, w.warm); err != nil {
		return traffic{}, err
	}
	if err := w.open(); err != nil {
		return traffic{}, err
	}
	t, err := l.h2load(ctx, addr, w.measure)
	if err != nil {
		return t, err
	}
	return t, w.close()
}

func (l h2Load) h2load(ctx context.Context, addr string, d time.Duration) (traffic, error) {
	message := filepath.Join(l.dir, "message")
	if err := os.WriteFile(message, rpcMessage, 0o600); err != nil {
		return traffic{}, err
	}
	args := []string{
		"-t", "1", "-c", strconv.Itoa(l.conns), "-m", strconv.Itoa(l.streams),
		"-D", fmt.Sprintf("%dms", d.Milliseconds()), "-d", message,
	}
	for _, h := range rpcHeads {
		args = append(args, "-H", h[0]+": "+h[1])
	}
	out, err := exec.CommandContext(ctx, "h2load", append(args, "http://"+addr+rpc)...).CombinedOutput()
	if err != nil {
		return traffic{}, fmt.Errorf("h2load: %w\n%s", err, out)
	}
	t, err := parseH2load(out)
	if err != nil {
		return t, fmt.Errorf("h2load: %w\n%s", err, out)
	}
	t.elapsed = d
	return t, nil
}

var (
	h2loadRequests = regexp.MustCompile(
		`requests: \d+ total, \d+ started, (\d+) done, (\d+) succeeded, (\d+) failed, (\d+) errored, (\d+) timeout`)
	h2loadCodes = regexp.MustCompile(`status codes: (\d+) 2xx, (\d+) 3xx, (\d+) 4xx, (\d+) 5xx`)
)

// parseH2load reads what h2load printed, and refuses it if not every request was answered 2xx.
func parseH2load(out []byte) (traffic, error) {
	requests, err := figures(h2loadRequests, out)
	if err != nil {
		return traffic{}, err
	}
	codes, err := figures(h2loadCodes, out)
	if err != nil {
		return traffic{}, err
	}
	done, failed := requests[0], requests[2]+requests[3]+requests[4]
	if done == 0 || requests[1] != done || failed > 0 || codes[1]+codes[2]+codes[3] > 0 {
		return traffic{}, errors.New("requests failed")
	}
	return traffic{units: float64(done)}, nil
}

func figures(pattern *regexp.Regexp, out []byte) ([]int, error) {
	match := pattern.FindSubmatch(out)
	if match == nil {
		return nil, fmt.Errorf("no %q in what it printed", pattern)
	}
	var numbers []int
	for _, m := range match[1:] {
		n, err := strconv.Atoi(string(m))
		if err != nil {
			return nil, err
		}
		numbers = append(numbers, n)
	}
	return numbers, nil
}
