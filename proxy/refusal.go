package proxy

import (
	"bytes"
	"fmt"
	"net/http"
	"net/textproto"
	"strconv"
	"strings"

	"github.com/detour-dev/detour/api"
)

// refusal is an answer that we write ourselves.
type refusal struct {
	status  int
	reason  string // one word, for programs
	message string // for people: what is wrong and what to do
}

// refuse says whether a request beyond doubt is answered by us, and how.
func refuse(keys []string, d decision) (refusal, bool) {
	switch d.verdict {
	case withoutTable:
		return refusal{http.StatusServiceUnavailable, reasonNoTable,
			fmt.Sprintf("This Pod's proxy has not heard from the Detour router yet, so nobody knows where key %q leads; try again in a moment. Without the key the request would be served.", keys[0])}, true
	case unavailable:
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

// connectRefused is for a CONNECT that carries a key: what goes through its tunnel cannot be routed.
var connectRefused = refusal{http.StatusMethodNotAllowed, reasonConnect,
	"CONNECT cannot be routed; leave the key out and it is passed on to the service."}

// carrierHidden is for a request that tells the next hop to drop a header that carries the key (RFC 9110, section 7.6.1).
var carrierHidden = refusal{http.StatusBadRequest, reasonConnectionHeader,
	"The Connection header lists the header that carries the key, which would be lost on the next hop; take it out of Connection."}

// malformed is for a keyed request that could be read in two ways, and for one that a match has led to a preview when
// its body turned out to be such.
func malformed(why doubt) refusal {
	return refusal{http.StatusBadRequest, reasonMalformed,
		"The request is for a preview, but could be read in two ways: " + why.meaning() + ". It was not passed on as a whole. Mend it, or leave out what leads it there, such as its key."}
}

func (f refusal) body() string { return "Detour: " + f.message + "\n" }

// fields are the header of the answer to an ordinary request, its length included.
func (f refusal) fields() []field {
	fields := []field{
		{"content-type", "text/plain; charset=utf-8"},
		{"content-length", strconv.Itoa(len(f.body()))},
		{errorField, f.reason},
	}
	if f.reason == reasonNoTable {
		fields = append(fields, field{"retry-after", "1"})
	}
	return fields
}

// grpcFields are the whole answer to a gRPC call, apart from the status 200: what gRPC calls trailers-only.
func (f refusal) grpcFields() []field {
	const grpcUnavailable, grpcInternal = "14", "13"
	status := grpcUnavailable
	if f.status/100 == 4 {
		status = grpcInternal
	}
	return []field{
		{"content-type", "application/grpc"},
		{"grpc-status", status},
		{"grpc-message", grpcMessage("Detour: " + f.message)},
		{errorField, f.reason},
	}
}

var errorField = strings.ToLower(api.HeaderError)

// http1 is the whole answer as HTTP/1.1 has it, without its body if only the head was asked for.
func (f refusal) http1(isHEAD, ends bool) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "HTTP/1.1 %d %s\r\n", f.status, http.StatusText(f.status))
	for _, h := range f.fields() {
		fmt.Fprintf(&b, "%s: %s\r\n", textproto.CanonicalMIMEHeaderKey(h.name), h.value)
	}
	if ends {
		b.WriteString("Connection: close\r\n")
	}
	b.WriteString("\r\n")
	if !isHEAD {
		b.WriteString(f.body())
	}
	return b.Bytes()
}

// closes reports whether the request itself was wrong: then where the next one begins would be a guess.
func (f refusal) closes() bool { return f.status/100 == 4 }

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
