package router

import (
	"encoding/json"
	"net/http"
	"time"

	"github.com/detour-dev/detour/api"
)

// streamRoutes sends a proxy its Pod's table, and again whenever it changes, until the proxy goes away or the router
// stops. A proxy that reads slowly gets the newest table when it is ready for one; one that does not read at all
// loses its connection.
func (s *server) streamRoutes(w http.ResponseWriter, r *http.Request) error {
	pod, err := s.auth.pod(r)
	if err != nil {
		return err
	}
	s.metrics.proxies.Inc()
	defer s.metrics.proxies.Dec()
	s.log.Debug("proxy connected", "pod", pod.String())
	defer s.log.Debug("proxy disconnected", "pod", pod.String())

	w.Header().Set("Content-Type", "application/x-ndjson")
	w.Header().Set("Cache-Control", "no-store")
	line := lineWriter(w)
	keepAlive := time.NewTicker(api.KeepAlive)
	defer keepAlive.Stop()
	// Whatever goes wrong from here on is the connection's: the proxy comes back.
	if line(nil) != nil {
		return nil
	}
	sent := ""
	for {
		snapshot, changed := s.latest.get()
		if table, known := snapshot.table(pod.Namespace, pod.uid); known && table.Version != sent {
			if sendTable(line, table) != nil {
				return nil
			}
			sent = table.Version
			s.log.Debug("sent a table", "pod", pod.String(), "version", sent)
		}
		select {
		case <-changed:
		case <-keepAlive.C:
			if line(nil) != nil {
				return nil
			}
		case <-s.closing:
			return nil
		case <-r.Context().Done():
			return nil
		}
	}
}

func sendTable(line func([]byte) error, table *api.Table) error {
	b, err := json.Marshal(table)
	if err != nil {
		return err
	}
	return line(b)
}

// lineWriter writes lines that arrive at once or break the connection. A stream is read and written for as long as
// it lasts, so the deadlines of its request are replaced by one a line.
func lineWriter(w http.ResponseWriter) func([]byte) error {
	rc := http.NewResponseController(w)
	_ = rc.SetReadDeadline(time.Time{})
	return func(line []byte) error {
		if err := rc.SetWriteDeadline(time.Now().Add(requestTimeout)); err != nil {
			return err
		}
		if _, err := w.Write(append(line, '\n')); err != nil {
			return err
		}
		return rc.Flush()
	}
}
