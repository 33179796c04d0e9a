package gateway

import (
	"net/http"
	"path"
	"strings"

	"github.com/detour-dev/detour/api"
)

// serveOwn answers on the gateway's own host: it makes links, and has the dashboard serve the rest.
func (g *Gateway) serveOwn(w http.ResponseWriter, r *http.Request) {
	switch {
	case r.URL.Path == api.PathLinks:
		g.serveLinks(w, r)
	case g.cfg.Dashboard == nil || !isClean(r):
		g.refuse(w, r, &refusal{http.StatusNotFound, "unknown-path", "there is no such page: POST " + api.PathLinks + " makes links", false})
	case r.Method != http.MethodGet && r.Method != http.MethodHead:
		w.Header().Set("Allow", "GET, HEAD")
		g.refuse(w, r, &refusal{http.StatusMethodNotAllowed, "method", "pages are read only: use GET", false})
	default:
		g.serveDashboard(w, r)
	}
}

// serveDashboard asks for a signature where a page tells of a namespace.
func (g *Gateway) serveDashboard(w http.ResponseWriter, r *http.Request) {
	if below, ok := strings.CutPrefix(r.URL.Path+"/", api.PathNamespaces); ok {
		namespace, _, _ := strings.Cut(below, "/")
		if !g.admit(w, r, api.NamespacePage(g.base.domain, namespace), api.PathNamespaces+namespace) {
			return
		}
	}
	g.metrics.requests.WithLabelValues(resultDashboard).Inc()
	r = r.Clone(r.Context())
	hideSignature(r)
	g.cfg.Dashboard.ServeHTTP(w, r)
}

// isClean reports whether a path can be read in one way only, so that the dashboard serves the page that has been asked
// a signature for.
func isClean(r *http.Request) bool {
	p := r.URL.Path
	return r.URL.RawPath == "" && (p == "/" || strings.HasPrefix(p, "/") && path.Clean(p) == strings.TrimSuffix(p, "/"))
}
