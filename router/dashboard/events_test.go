package dashboard

import (
	"bufio"
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/detour-dev/detour/api"
	"github.com/detour-dev/detour/router/view"
	"github.com/detour-dev/detour/router/view/viewtest"
)

// running is a dashboard that runs and is served on a socket.
func running(t *testing.T, w *world) (url string, stop context.CancelFunc) {
	t.Helper()
	d := New(w.config())
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- d.Run(ctx) }()
	server := httptest.NewServer(d)
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
		server.Close() // waits for every stream
	})
	return server.URL, stop
}

// events opens a stream once the dashboard knows the namespace; each line of it is sent on.
func events(t *testing.T, url string) <-chan string {
	t.Helper()
	var resp *http.Response
	for deadline := time.Now().Add(10 * time.Second); ; {
		var err error
		if resp, err = http.Get(url + "/namespaces/shop/events"); err != nil {
			t.Fatal(err)
		}
		if resp.StatusCode == http.StatusOK {
			break
		}
		_ = resp.Body.Close()
		if time.Now().After(deadline) {
			t.Fatal(resp.Status)
		}
		time.Sleep(10 * time.Millisecond)
	}
	lines := make(chan string, 100)
	go func() {
		defer close(lines)
		defer func() { _ = resp.Body.Close() }()
		for s := bufio.NewScanner(resp.Body); s.Scan(); {
			if s.Text() != "" {
				lines <- s.Text()
			}
		}
	}()
	return lines
}

func next(t *testing.T, lines <-chan string) string {
	t.Helper()
	select {
	case line, open := <-lines:
		if !open {
			return "the end"
		}
		return line
	case <-time.After(10 * time.Second):
		t.Fatal("nothing came for ten seconds")
		return ""
	}
}

// TestEvents: a stream tells a version at once, another when something has changed, none when nothing has, and ends with
// the router.
func TestEvents(t *testing.T) {
	w := newWorld()
	v := viewtest.Acknowledged(viewtest.Shop())
	views := map[string]*view.View{"shop": v}
	w.set(views, viewtest.Acks(v))
	url, stop := running(t, w)
	lines := events(t, url)
	if got := next(t, lines); got != "event: version" {
		t.Fatalf("%q", got)
	}
	first := next(t, lines)

	w.set(views, viewtest.Acks(v)) // the same again
	w.set(views, counted(v, "deployment/api-pr-42", api.Counters{Requests: 7}))
	if got := next(t, lines); got != "event: version" {
		t.Fatalf("%q", got)
	}
	second := next(t, lines)
	if second == first || !strings.HasPrefix(second, "data: ") {
		t.Errorf("first %q, then %q", first, second)
	}

	w.set(map[string]*view.View{}, nil)
	_ = next(t, lines)
	if got := next(t, lines); got != "data: " {
		t.Errorf("%q for a namespace that is gone", got)
	}
	stop()
	if got := next(t, lines); got != "the end" {
		t.Errorf("%q after the end of the router", got)
	}
}

// TestStreamsAreBounded: one too many is refused, and an end makes room.
func TestStreamsAreBounded(t *testing.T) {
	d := shown(nil, viewtest.Acknowledged(viewtest.Shop()))
	for range maxStreams {
		d.streams <- struct{}{}
	}
	resp, _ := get(t, d, "/namespaces/shop/events")
	if resp.StatusCode != http.StatusServiceUnavailable || resp.Header.Get("Retry-After") == "" {
		t.Errorf("%s %v", resp.Status, resp.Header)
	}
	<-d.streams
	close(d.stopped)
	if resp, _ := get(t, d, "/namespaces/shop/events"); resp.StatusCode != http.StatusOK || len(d.streams) != maxStreams-1 {
		t.Errorf("%s, %d streams", resp.Status, len(d.streams))
	}
}

// TestHeartbeat: an idle stream says every 15 seconds that it is alive, and ends after a quarter of an hour.
func TestHeartbeat(t *testing.T) {
	d := shown(nil, viewtest.Acknowledged(viewtest.Shop()))
	synctest.Test(t, func(t *testing.T) {
		d.state.Store(&state{boards: d.state.Load().boards, newer: make(chan struct{})})
		d.stopped, d.streams = make(chan struct{}), make(chan struct{}, 1)
		began := time.Now()
		_, body := get(t, d, "/namespaces/shop/events")
		if lasted := time.Since(began); lasted != streamLife {
			t.Errorf("it lasted %s", lasted)
		}
		beats, most := strings.Count(body, ":\n\n"), int(streamLife/heartbeat)
		if beats < most-1 || beats > most || strings.Count(body, "event:") != 1 {
			t.Errorf("%d heartbeats and %d events", beats, strings.Count(body, "event:"))
		}
	})
}
