// Package dashboard shows in a browser what the router knows of each namespace: its Services and their previews, who
// waits for what, the requests of the last minutes, and how to reach each preview.
//
// # The story
//
// One goroutine, [Dashboard.Run], takes the router's newest views and what proxies have counted, keeps a quarter of an hour
// of those counts, and makes a board of each namespace: what status.json says, and a hash of it. Handlers read the newest
// boards and render them; nothing is computed twice. An open page holds a stream of server-sent events on which it is told
// the hash whenever that is another one; its script then fetches the page again and takes over what differs. Without the
// script the page is whole, and loads itself again.
//
// # Use
//
//	d := dashboard.New(dashboard.Config{Views: look, Acks: acks})
//	go d.Run(ctx)
//	http.Handle("detour.preview.example.com/", d)
//
// # What it does not do
//
// It changes nothing and asks nobody who they are: whoever mounts it decides who reaches /namespaces/<namespace>, and all
// below it. /assets/ and / tell nothing that is secret and may be open to all.
package dashboard

import (
	"context"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/detour-dev/detour/api"
	"github.com/detour-dev/detour/router/view"
)

// Config is the dashboard's configuration. Views and Acks are required.
type Config struct {
	// Views are the router's newest views by namespace, nil while caches fill, and a channel that is closed when there
	// are newer ones.
	Views func() (views map[string]*view.View, newer <-chan struct{})
	// Acks are what the proxies have told, to whichever replica. They are not changed once they are returned.
	Acks func() api.Acks
	// Open lists the namespaces on the first page, for everyone who reaches it; when false that page says how to get a
	// link to a namespace.
	Open bool
}

// Dashboard is an [http.Handler] that knows nothing until it is run.
type Dashboard struct {
	cfg     Config
	handler http.Handler
	now     func() time.Time
	history history
	state   atomic.Pointer[state]
	streams chan struct{} // holds one for each that is open
	stopped chan struct{} // closed when streams are to end
}

// state is what the dashboard knows at one moment. It is not changed once it is made.
type state struct {
	boards map[string]*board // by namespace, nil while its caches fill; the map is nil before the first
	newer  chan struct{}     // closed when there is a newer state
}

const (
	// coalesce is how long a change waits for company.
	coalesce = 500 * time.Millisecond
	// lookEvery has counts taken in although nothing else changes.
	lookEvery = 5 * time.Second
)

// New returns a dashboard that answers 503 until [Dashboard.Run] has seen the first views.
func New(cfg Config) *Dashboard {
	d := &Dashboard{cfg: cfg, now: time.Now, streams: make(chan struct{}, maxStreams), stopped: make(chan struct{})}
	d.state.Store(&state{newer: make(chan struct{})})
	d.handler = d.routes()
	return d
}

// Run keeps the pages up to date until ctx is done, and returns nil then; open streams end with it. It is called once.
func (d *Dashboard) Run(ctx context.Context) error {
	defer close(d.stopped)
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		views, newer := d.cfg.Views()
		d.take(views)
		select {
		case <-newer:
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
		select {
		case <-time.After(coalesce):
		case <-ctx.Done():
			return nil
		}
	}
}

// take makes the boards of new views and wakes the streams.
func (d *Dashboard) take(views map[string]*view.View) {
	if views == nil {
		return
	}
	acks := d.cfg.Acks()
	d.history.add(views, acks, d.now())
	made := &state{boards: map[string]*board{}, newer: make(chan struct{})}
	for namespace, v := range views {
		made.boards[namespace] = nil
		if v != nil {
			made.boards[namespace] = d.newBoard(namespace, v, acks)
		}
	}
	close(d.state.Swap(made).newer)
}

// ServeHTTP answers GET and HEAD.
func (d *Dashboard) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Content-Security-Policy", contentPolicy)
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "no-store")
	d.handler.ServeHTTP(w, r)
}

// contentPolicy lets a page use what this server sends, and nothing that is in the page itself.
const contentPolicy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; " +
	"frame-ancestors 'none'; base-uri 'none'; form-action 'none'"

// routes leaves other methods than GET and HEAD to the mux, which answers 405.
func (d *Dashboard) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", d.showNamespaces)
	mux.HandleFunc("GET /namespaces/{namespace}", d.ofBoard(d.showNamespace))
	mux.HandleFunc("GET /namespaces/{namespace}"+api.PageStatus, d.ofBoard(d.tellStatus))
	mux.HandleFunc("GET /namespaces/{namespace}/events", d.ofBoard(d.streamEvents))
	mux.HandleFunc("GET /namespaces/{namespace}/previews/{target}/{key}", d.ofBoard(d.showPreview))
	mux.HandleFunc("GET /assets/{name}", serveAsset)
	mux.HandleFunc("GET /", d.showNotFound)
	return mux
}
