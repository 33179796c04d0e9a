package proxy

import (
	"fmt"
	"net/http"
	"strings"

	"golang.org/x/net/http/httpguts"

	"github.com/detour-dev/detour/api"
)

// refusal is an answer that we write ourselves.
type refusal struct {
	status  int
	reason  string // one word, for programs
	message string // for people: what is wrong and what to do
}

// refuse says whether a request is answered by us, and how.
func refuse(r *http.Request, keys []string, d decision) (refusal, bool) {
	switch {
	case r.Method == http.MethodConnect:
		return refusal{http.StatusMethodNotAllowed, reasonConnect,
			"CONNECT cannot be routed here; open a connection of its own for it."}, true
	case len(keys) > 0 && dropsCarrier(r.Header):
		return refusal{http.StatusBadRequest, reasonConnectionHeader,
			"The Connection header lists the header that carries the key, which would be lost on the next hop; take it out of Connection."}, true
	case d.verdict == withoutTable:
		return refusal{http.StatusServiceUnavailable, reasonNoTable,
			fmt.Sprintf("This Pod's proxy has not heard from the Detour router yet, so nobody knows where key %q leads; try again in a moment. Without the key the request would be served.", keys[0])}, true
	case d.verdict == unavailable:
		return refusal{http.StatusServiceUnavailable, reasonNoEndpoint,
			fmt.Sprintf("Key %q leads to %s, which has no ready Pod; %s", d.route.key, d.route.preview, remedy)}, true
	}
	return refusal{}, false
}

const remedy = "wait for it or look at its Pods (kubectl get pods), leave the key out, or annotate it with " +
	api.AnnotationFallback + "=" + api.FallbackBaseline + " to be served by the baseline meanwhile."

// unreachable is for a route none of whose endpoints accepts a connection.
func unreachable(r *route) refusal {
	return refusal{http.StatusServiceUnavailable, reasonUnreachable,
		fmt.Sprintf("Key %q leads to %s, but none of its ready Pods (%d) accepts a connection; %s", r.key, r.preview, len(r.endpoints), remedy)}
}

// dropsCarrier reports whether the next hop is told to drop a header that carries the key (RFC 9110, section 7.6.1).
func dropsCarrier(h http.Header) bool {
	return httpguts.HeaderValuesContainsToken(h["Connection"], api.HeaderKey) ||
		httpguts.HeaderValuesContainsToken(h["Connection"], api.HeaderBaggage)
}

func (f refusal) write(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set(api.HeaderError, f.reason)
	if f.reason == reasonNoTable {
		h.Set("Retry-After", "1")
	}
	if isGRPC(r.Header.Get("Content-Type")) {
		f.writeGRPC(w)
		return
	}
	if f.status/100 == 4 && r.ProtoMajor == 1 {
		h.Set("Connection", "close")
	}
	h.Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(f.status)
	fmt.Fprintf(w, "Detour: %s\n", f.message)
}

// writeGRPC answers with a status and nothing else, in the way that gRPC calls trailers-only.
func (f refusal) writeGRPC(w http.ResponseWriter) {
	const grpcUnavailable = "14"
	h := w.Header()
	h.Set("Content-Type", "application/grpc")
	h.Set("Grpc-Status", grpcUnavailable)
	h.Set("Grpc-Message", grpcMessage("Detour: "+f.message))
	h["Content-Length"] = nil // gRPC has none
	w.WriteHeader(http.StatusOK)
}

// isGRPC leaves out gRPC-Web, whose answers have another form.
func isGRPC(contentType string) bool {
	rest, ok := strings.CutPrefix(contentType, "application/grpc")
	return ok && (rest == "" || rest[0] == '+' || rest[0] == ';')
}

// grpcMessage encodes what a header cannot hold (gRPC over HTTP/2, Responses).
func grpcMessage(s string) string {
	var b strings.Builder
	for _, c := range []byte(s) {
		if c < ' ' || c > '~' || c == '%' {
			fmt.Fprintf(&b, "%%%02X", c)
			continue
		}
		b.WriteByte(c)
	}
	return b.String()
}
