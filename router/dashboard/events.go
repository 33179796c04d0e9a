package dashboard

import (
	"fmt"
	"net/http"
	"time"
)

const (
	maxStreams = 250
	heartbeat  = 15 * time.Second
	// streamLife has a page ask for its stream again, so that whoever guards the dashboard can say no.
	streamLife   = 15 * time.Minute
	writeTimeout = 10 * time.Second
)

// streamEvents tells the version of a namespace's board at once, and whenever it is another
// (https://html.spec.whatwg.org/multipage/server-sent-events.html).
func (d *Dashboard) streamEvents(w http.ResponseWriter, r *http.Request, b *board) {
	select {
	case d.streams <- struct{}{}:
		defer func() { <-d.streams }()
	default:
		w.Header().Set("Retry-After", "30")
		http.Error(w, fmt.Sprintf("%d pages are kept live already: reload this one by hand", maxStreams), http.StatusServiceUnavailable)
		return
	}
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("X-Accel-Buffering", "no") // nginx would hold events back
	if r.Method == http.MethodHead {
		return
	}
	s := stream{w: w, rc: http.NewResponseController(w)}
	defer func() { _ = s.rc.SetWriteDeadline(time.Time{}) }()
	d.follow(r, b.Namespace.Namespace, s)
}

func (d *Dashboard) follow(r *http.Request, namespace string, s stream) {
	beat := time.NewTicker(heartbeat)
	defer beat.Stop()
	life := time.NewTimer(streamLife)
	defer life.Stop()
	told, first := "", true
	for {
		now := d.state.Load()
		if version := now.version(namespace); first || version != told {
			if !s.write("event: version\ndata: %s\n\n", version) {
				return
			}
			told, first = version, false
		}
		select {
		case <-now.newer:
		case <-beat.C:
			if !s.write(":\n\n") {
				return
			}
		case <-life.C:
			return
		case <-d.stopped:
			return
		case <-r.Context().Done():
			return
		}
	}
}

// version is empty when the namespace no longer takes part.
func (s *state) version(namespace string) string {
	if b := s.boards[namespace]; b != nil {
		return b.version
	}
	return ""
}

// stream is a client's; one that does not read is given up.
type stream struct {
	w  http.ResponseWriter
	rc *http.ResponseController
}

func (s stream) write(format string, args ...any) bool {
	_ = s.rc.SetWriteDeadline(time.Now().Add(writeTimeout))
	if _, err := fmt.Fprintf(s.w, format, args...); err != nil {
		return false
	}
	return s.rc.Flush() == nil
}
