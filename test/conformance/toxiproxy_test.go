package conformance

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/Shopify/toxiproxy/v2"
	"github.com/google/go-cmp/cmp"
	"github.com/rs/zerolog"

	"github.com/detour-dev/detour/api"
)

// toxic is a fault between the proxy and the app.
type toxic struct {
	kind    string
	stream  string // downstream is towards the client
	options map[string]any
	atLeast time.Duration // what it costs the whole conversation
	mute    bool          // no byte of an answer comes through
	anyEnd  bool          // and whether it ends with a reset depends on how much had been sent by then
}

var toxicCases = map[string]toxic{
	"none":              {},
	"latency":           {kind: "latency", stream: "downstream", options: map[string]any{"latency": 120, "jitter": 20}, atLeast: 100 * time.Millisecond},
	"latency up":        {kind: "latency", stream: "upstream", options: map[string]any{"latency": 120, "jitter": 20}, atLeast: 100 * time.Millisecond},
	"bandwidth":         {kind: "bandwidth", stream: "downstream", options: map[string]any{"rate": 1000}, atLeast: 150 * time.Millisecond},
	"bandwidth up":      {kind: "bandwidth", stream: "upstream", options: map[string]any{"rate": 1000}, atLeast: 150 * time.Millisecond},
	"slicer":            {kind: "slicer", stream: "downstream", options: map[string]any{"average_size": 700, "size_variation": 500, "delay": 50}},
	"slicer up":         {kind: "slicer", stream: "upstream", options: map[string]any{"average_size": 700, "size_variation": 500, "delay": 50}},
	"slow close":        {kind: "slow_close", stream: "downstream", options: map[string]any{"delay": 300}, atLeast: 250 * time.Millisecond},
	"cut in the answer": {kind: "limit_data", stream: "downstream", options: map[string]any{"bytes": 100_000}},
	"cut in its head":   {kind: "limit_data", stream: "downstream", options: map[string]any{"bytes": 10}},
	"cut in the upload": {kind: "limit_data", stream: "upstream", options: map[string]any{"bytes": 1000}, mute: true, anyEnd: true},
	"reset":             {kind: "reset_peer", stream: "downstream", options: map[string]any{"timeout": 0}, mute: true},
	"reset up":          {kind: "reset_peer", stream: "upstream", options: map[string]any{"timeout": 50}, mute: true},
	"timeout":           {kind: "timeout", stream: "upstream", options: map[string]any{"timeout": 200}, atLeast: 150 * time.Millisecond, mute: true},
}

// outcome is what a client has seen of a connection.
type outcome struct {
	Bytes int
	Data  string // shortened when it is shown
	End   string
}

// TestToxiproxy has toxiproxy between the proxy and the app, or the preview. A client must see what it sees of toxiproxy
// directly: the same bytes and the same kind of end.
func TestToxiproxy(t *testing.T) {
	tcp, web, preview := listenApp(t), listenApp(t), listenPreview(t)
	serveBlobs(tcp)
	httpServer(t, web, blobHandler)
	httpServer(t, preview, blobHandler)

	for name, toxic := range toxicCases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			t.Run("tcp", func(t *testing.T) {
				front := startToxiproxy(t, "127.0.0.1:0", tcp.Addr().String(), toxic)
				s := startSidecar(t, front)
				compare(t, toxic, "GIVE\n", front, s.addr)
			})
			t.Run("http", func(t *testing.T) {
				front := startToxiproxy(t, "127.0.0.1:0", web.Addr().String(), toxic)
				s := startSidecar(t, front, routeTo("127.0.0.2:9"))
				compare(t, toxic, "POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 262144\r\n\r\n", front, s.addr)
			})
			t.Run("http keyed", func(t *testing.T) {
				front := startToxiproxy(t, "127.0.0.2:0", preview.Addr().String(), toxic)
				s := startSidecar(t, web.Addr().String(), routeTo(front))
				compareKeyed(t, front, s.addr)
			})
			t.Run("h2c", func(t *testing.T) {
				front := startToxiproxy(t, "127.0.0.1:0", web.Addr().String(), toxic)
				s := startSidecar(t, front, routeTo("127.0.0.2:9"))
				direct, through := exchange(t, "http://"+front), exchange(t, s.url())
				if direct != through {
					t.Errorf("the answer is complete: %v through the proxy, %v directly", through, direct)
				}
			})
		})
	}
}

// compare has the same conversation directly and through the proxy.
func compare(t *testing.T, toxic toxic, head, direct, through string) {
	t.Helper()
	var seen [2]outcome
	for i, addr := range []string{direct, through} {
		started := time.Now()
		seen[i] = converse(t, addr, head)
		if took := time.Since(started); took < toxic.atLeast {
			t.Errorf("%s: over after %v, want %v at least", addr, took, toxic.atLeast)
		}
		if toxic.anyEnd && seen[i].End == "reset" {
			seen[i].End = "EOF"
		}
		if toxic.mute && seen[i].Bytes > 0 {
			t.Errorf("%s: %d bytes have come", addr, seen[i].Bytes)
		}
	}
	if diff := cmp.Diff(seen[0], seen[1]); diff != "" {
		t.Errorf("seen (-directly +through the proxy):\n%.4000s", diff)
	}
}

// compareKeyed does so for a request that goes to a preview. Who closes a connection, and how, is between the client and
// us then; but a whole answer must be the same, and a broken one must not look whole.
func compareKeyed(t *testing.T, direct, through string) {
	t.Helper()
	const head = "POST / HTTP/1.1\r\nHost: a\r\nDetour-Key: pr-1\r\nConnection: close\r\nContent-Length: 262144\r\n\r\n"
	want, got := converse(t, direct, head), converse(t, through, head)
	if want.Bytes > 256<<10 {
		want.End, got.End = "", ""
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("seen (-directly +through the proxy):\n%.4000s", diff)
		}
	} else if strings.HasPrefix(got.Data, "HTTP/1.1 200") && got.Bytes > want.Bytes {
		t.Errorf("%d bytes of an answer have come through the proxy, %d directly", got.Bytes, want.Bytes)
	}
}

// addedByProxy is what the proxy adds to an answer of a preview.
var addedByProxy = regexp.MustCompile(`(?i)` + api.HeaderServedBy + `: .*\r\n`)

// converse sends head and a blob, and reads until the end.
func converse(t *testing.T, addr, head string) outcome {
	t.Helper()
	conn := dial(t, addr)
	go conn.Write(append([]byte(head), blob(256<<10)...))
	got, err := io.ReadAll(conn)
	got = addedByProxy.ReplaceAll(got, nil)
	o := outcome{Bytes: len(got), Data: string(got[:min(len(got), 300)]), End: "EOF"}
	if _, body, ok := bytes.Cut(got, []byte("\r\n\r\n")); ok && !bytes.HasPrefix(blob(256<<10), body) {
		o.Data = "a body that was not sent"
	}
	switch {
	case errors.Is(err, syscall.ECONNRESET):
		o.End = "reset"
	case err != nil:
		o.End = err.Error()
	}
	return o
}

// exchange makes a request in h2c and says whether it was answered in full. What has come of a body must be right.
func exchange(t *testing.T, url string) bool {
	t.Helper()
	client := httpClient(t, true)
	defer client.CloseIdleConnections()
	resp, err := client.Post(url, "", bytes.NewReader(blob(256<<10)))
	if err != nil {
		return false
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(resp.Body)
	if !bytes.HasPrefix(blob(256<<10), got) {
		t.Errorf("%s: a body that was not sent", url)
	}
	return err == nil && len(got) == 256<<10
}

// blobHandler takes a body and answers with another, without anything that changes with time.
var blobHandler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
	if n, err := io.Copy(io.Discard, r.Body); err != nil || n != 256<<10 {
		panic(http.ErrAbortHandler)
	}
	w.Header()["Date"] = nil
	w.Header().Set("Content-Length", fmt.Sprint(256<<10))
	w.Write(blob(256 << 10))
})

// serveBlobs does the same in a protocol of its own.
func serveBlobs(l net.Listener) {
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				if _, err := io.CopyN(io.Discard, conn, int64(len("GIVE\n"))+256<<10); err == nil {
					conn.Write(blob(256 << 10))
				}
			}()
		}
	}()
}

// startToxiproxy listens at addr and forwards to upstream.
func startToxiproxy(t *testing.T, addr, upstream string, toxic toxic) string {
	t.Helper()
	server := toxiproxy.NewServer(toxiproxy.NewMetricsContainer(nil), zerolog.Nop())
	p := toxiproxy.NewProxy(server, "app", addr, upstream)
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Stop)
	if toxic.kind != "" {
		b, err := json.Marshal(map[string]any{"type": toxic.kind, "stream": toxic.stream, "attributes": toxic.options})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := p.Toxics.AddToxicJson(strings.NewReader(string(b))); err != nil {
			t.Fatal(err)
		}
	}
	return p.Listen
}
