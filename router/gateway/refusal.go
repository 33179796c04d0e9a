package gateway

import (
	"html/template"
	"net/http"
	"net/url"
	"strings"

	"github.com/detour-dev/detour/api"
)

// refusal is an answer that the gateway writes itself.
type refusal struct {
	status  int
	reason  string // a word for programs, in Detour-Error and in the metric
	message string // what a person needs to know
	passing bool   // it is likely to be over in a moment
}

// retryAfter is in seconds; a browser's page loads itself again after as long.
const retryAfter = "2"

func (g *Gateway) refuse(w http.ResponseWriter, r *http.Request, why *refusal) {
	g.metrics.requests.WithLabelValues(why.reason).Inc()
	g.cfg.Log.Debug("refusing", "host", r.Host, "reason", why.reason)
	h := w.Header()
	h.Set(api.HeaderError, why.reason)
	h.Set("X-Robots-Tag", "noindex")
	h.Set("Cache-Control", "no-store")
	if why.status == http.StatusServiceUnavailable {
		h.Set("Retry-After", retryAfter)
	}
	switch {
	case isGRPC(r):
		why.tellGRPC(h)
	case why.title() != "" && showsPages(r):
		why.tellBrowser(w)
	default:
		http.Error(w, why.message, why.status)
	}
}

// title is that of the page for a browser; "" means that a line of text does.
func (why *refusal) title() string {
	switch why.status {
	case http.StatusServiceUnavailable:
		return "This preview is not ready"
	case http.StatusForbidden:
		return "This is not for everyone"
	}
	return ""
}

// showsPages reports whether a person waits for the answer, in a browser that may ask again by itself.
func showsPages(r *http.Request) bool {
	return (r.Method == http.MethodGet || r.Method == http.MethodHead) &&
		strings.Contains(strings.Join(r.Header["Accept"], ","), "text/html")
}

// tellGRPC answers with a status in the place of trailers (https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md).
func (why *refusal) tellGRPC(h http.Header) {
	const notFound, denied, internal, unavailable = "5", "7", "13", "14"
	status := internal
	switch why.status {
	case http.StatusNotFound, http.StatusGone:
		status = notFound
	case http.StatusForbidden:
		status = denied
	case http.StatusServiceUnavailable, http.StatusBadGateway:
		status = unavailable
	}
	h.Set("Content-Type", "application/grpc")
	h.Set("Grpc-Status", status)
	h.Set("Grpc-Message", url.PathEscape(why.message))
}

func (why *refusal) tellBrowser(w http.ResponseWriter) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'")
	w.WriteHeader(why.status)
	content := struct{ Title, Message, Reload string }{why.title(), why.message, w.Header().Get("Retry-After")}
	_ = page.Execute(w, content) // the client has gone
}

var page = template.Must(template.New("page").Parse(`<!DOCTYPE html>
<html lang="en">
<meta charset="utf-8">
{{with .Reload}}<meta http-equiv="refresh" content="{{.}}">{{end}}
<meta name="viewport" content="width=device-width">
<title>{{.Title}}</title>
<style>body { font: 1rem/1.5 system-ui, sans-serif; margin: 15vh auto; max-width: 40rem; padding: 0 1rem }</style>
<h1>{{.Title}}</h1>
<p>{{.Message}}</p>
{{with .Reload}}<p>This page looks again every {{.}} seconds.</p>{{end}}
</html>
`))
