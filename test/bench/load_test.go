package main

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/detour-dev/detour/test/bench/bulk"
)

// serve answers with a status and a body of n letters.
func serve(t *testing.T, status, n int, letter string) (addr string) {
	body := strings.Repeat(letter, n)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		if r.Method == http.MethodPost {
			return
		}
		w.Header().Set("Content-Length", strconv.Itoa(n))
		w.WriteHeader(status)
		io.WriteString(w, body)
	}))
	t.Cleanup(s.Close)
	return s.Listener.Addr().String()
}

func quick() window {
	done := func() error { return nil }
	return window{50 * time.Millisecond, 200 * time.Millisecond, done, done}
}

func TestHTTP1Load(t *testing.T) {
	addr := serve(t, 200, answerBody, "a")
	got, err := http1Load{conns: 4, request: get()}.run(t.Context(), addr, quick())
	if err != nil || got.units < 10 {
		t.Errorf("as fast as they are answered: %g requests, error %v", got.units, err)
	}
	got, err = http1Load{conns: 4, rate: 500, request: get()}.run(t.Context(), addr, quick())
	if err != nil || got.units > 120 || len(got.latencies) == 0 || quantile(got.latencies, 0) <= 0 {
		t.Errorf("500 rps for 200 ms: %g requests, %d latencies, error %v", got.units, len(got.latencies), err)
	}
}

func TestHTTP1LoadFails(t *testing.T) {
	for name, addr := range map[string]string{
		"503":           serve(t, 503, answerBody, "a"),
		"the preview's": serve(t, 200, answerBody, "p"),
		"nobody there":  "127.0.0.1:1",
	} {
		if _, err := (http1Load{conns: 2, request: get()}).run(t.Context(), addr, quick()); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestBulkLoad(t *testing.T) {
	addr := serve(t, 200, bulk.Size, "b")
	for _, up := range []bool{false, true} {
		got, err := bulkLoad{conns: 2, up: up}.run(t.Context(), addr, quick())
		if err != nil || got.units == 0 {
			t.Errorf("up %v: %g MiB, error %v", up, got.units, err)
		}
	}
	if _, err := (bulkLoad{conns: 2}).run(t.Context(), serve(t, 503, 10, "b"), quick()); err == nil {
		t.Error("503: no error")
	}
}
