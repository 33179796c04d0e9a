package router

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"time"

	"github.com/detour-dev/detour/api"
	"github.com/detour-dev/detour/router/view"
)

// server answers the router's API.
type server struct {
	auth    *authenticator
	latest  *latest[snapshot]
	acks    *ackStore
	metrics *metrics
	log     *slog.Logger
	closing chan struct{} // closed when streams are to end
}

const (
	requestTimeout = 15 * time.Second // for reading a body or writing one answer, or one line of a stream
	maxAckBytes    = 256 << 10
	maxAckPreviews = 1000
	maxVersion     = 64
)

// httpError is an error that knows its status code.
type httpError struct {
	code    int
	message string
}

func (e httpError) Error() string { return e.message }

// handler answers whoever shows a token; everyone else is told to show one, whatever the path.
func (s *server) handler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET "+api.PathRoutes, s.answer(s.streamRoutes))
	mux.Handle("POST "+api.PathAcks, s.answer(s.takeAck))
	mux.Handle("GET "+api.PathAcks, s.answer(s.tellAcks))
	mux.Handle("GET "+api.PathStatus+"{namespace}", s.answer(s.tellStatus))
	mux.Handle("/", s.answer(s.notFound))
	return mux
}

// answer turns a handler's error into an answer that a person can read.
func (s *server) answer(handle func(http.ResponseWriter, *http.Request) error) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		rc := http.NewResponseController(w)
		deadline := time.Now().Add(requestTimeout)
		_ = rc.SetReadDeadline(deadline)
		_ = rc.SetWriteDeadline(deadline)
		err := handle(w, r)
		if err == nil {
			return
		}
		code, message := http.StatusServiceUnavailable, err.Error()
		if e, ok := errors.AsType[httpError](err); ok {
			code = e.code
		} else if errors.Is(err, errUnauthorized) {
			code = http.StatusUnauthorized
			w.Header().Set("WWW-Authenticate", "Bearer")
		} else {
			s.log.Error("answering a request", "path", r.URL.Path, "error", err)
			message = "the router cannot tell at the moment: try again"
			w.Header().Set("Retry-After", "1")
		}
		writeJSON(w, code, map[string]string{"error": message})
	})
}

func writeJSON(w http.ResponseWriter, code int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", "  ")
	_ = encoder.Encode(body) // the client has gone
}

func (s *server) notFound(_ http.ResponseWriter, r *http.Request) error {
	if _, err := s.auth.user(r); err != nil {
		return err
	}
	return httpError{http.StatusNotFound, fmt.Sprintf("%s %s: there are GET %s, GET and POST %s, and GET %s<namespace>",
		r.Method, r.URL.Path, api.PathRoutes, api.PathAcks, api.PathStatus)}
}

// takeAck notes what a proxy says of itself.
func (s *server) takeAck(w http.ResponseWriter, r *http.Request) error {
	pod, err := s.auth.pod(r)
	if err != nil {
		return err
	}
	ack, err := parseAck(http.MaxBytesReader(w, r.Body, maxAckBytes))
	if err != nil {
		return httpError{http.StatusBadRequest, err.Error()}
	}
	s.metrics.acks.Inc()
	s.acks.put(pod, ack)
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// parseAck reads one Ack and nothing after it. Fields that it does not know may come from a newer proxy.
func parseAck(body io.Reader) (api.Ack, error) {
	var ack api.Ack
	decoder := json.NewDecoder(body)
	if err := decoder.Decode(&ack); err != nil {
		return ack, fmt.Errorf("reading an acknowledgement: %w", err)
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return ack, errors.New("reading an acknowledgement: there is more than one JSON object")
	}
	if len(ack.Version) > maxVersion || len(ack.Previews) > maxAckPreviews {
		return ack, fmt.Errorf("an acknowledgement has a version of at most %d characters and at most %d previews", maxVersion, maxAckPreviews)
	}
	return ack, nil
}

// tellAcks answers another replica.
func (s *server) tellAcks(w http.ResponseWriter, r *http.Request) error {
	if err := s.auth.peer(r); err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, s.acks.fresh())
	return nil
}

// tellStatus answers with one namespace's status and its traffic.
func (s *server) tellStatus(w http.ResponseWriter, r *http.Request) error {
	user, err := s.auth.user(r)
	if err != nil {
		return err
	}
	namespace := r.PathValue("namespace")
	allowed, err := s.auth.reviewer.mayListPods(r.Context(), user, namespace)
	if err != nil {
		return fmt.Errorf("asking the API server what %s may do: %w", user.Username, err)
	}
	if !allowed {
		return httpError{http.StatusForbidden, fmt.Sprintf("%s may not list pods in namespace %s, and so may not read its status", user.Username, namespace)}
	}
	snapshot, _ := s.latest.get()
	v, takesPart := snapshot[namespace]
	switch {
	case snapshot == nil, takesPart && v == nil:
		return fmt.Errorf("the caches of namespace %s are not filled yet", namespace)
	case !takesPart:
		return httpError{http.StatusNotFound, fmt.Sprintf("namespace %s does not take part: label it %s=%s", namespace, api.LabelInject, api.InjectEnabled)}
	}
	writeJSON(w, http.StatusOK, withTraffic(v, s.acks.fresh()))
	return nil
}

func withTraffic(v *view.View, acks api.Acks) api.Status {
	counted := v.Traffic(acks)
	status := v.Status
	status.Previews = nil
	for _, p := range v.Status.Previews {
		counters := counted[p.Preview]
		p.Traffic = &counters
		status.Previews = append(status.Previews, p)
	}
	return status
}
