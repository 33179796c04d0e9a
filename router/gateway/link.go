package gateway

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"

	"github.com/detour-dev/detour/api"
)

// Reviewer knows users and what they may.
type Reviewer interface {
	// User is whoever shows the bearer token of r. An error that wraps [ErrUnauthorized] says what is wrong with it.
	User(r *http.Request) (authenticationv1.UserInfo, error)
	// MayListPods reports whether a user may list the Pods of a namespace.
	MayListPods(ctx context.Context, user authenticationv1.UserInfo, namespace string) (bool, error)
}

// ErrUnauthorized is wrapped by the errors that say why a caller is not let in.
var ErrUnauthorized = errors.New("unauthorized")

// Limits of requests for links.
const (
	linksPerSecond = 10 // of one replica; each may ask the API server twice
	linksAtOnce    = 50
	maxLinkRequest = 4 << 10
	linkTimeout    = 15 * time.Second
)

// serveLinks answers those alone who bring a token in a header of their own accord: a page of another site cannot.
func (g *Gateway) serveLinks(w http.ResponseWriter, r *http.Request) {
	rc := http.NewResponseController(w)
	_ = rc.SetReadDeadline(time.Now().Add(linkTimeout))
	link, why := g.link(w, r)
	if why != nil {
		g.refuseLink(w, why)
		return
	}
	g.metrics.requests.WithLabelValues(resultLinked).Inc()
	writeJSON(w, http.StatusOK, link)
}

func (g *Gateway) link(w http.ResponseWriter, r *http.Request) (api.Link, *refusal) {
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		return api.Link{}, &refusal{http.StatusMethodNotAllowed, "method", "use POST, with a body such as " + exampleRequest, false}
	}
	request, why := readLinkRequest(http.MaxBytesReader(w, r.Body, maxLinkRequest))
	if why != nil {
		return api.Link{}, why
	}
	if !g.reviews.Allow() {
		return api.Link{}, &refusal{http.StatusTooManyRequests, "too-many-requests", "too many ask for links: try again in a moment", true}
	}
	ctx, cancel := context.WithTimeout(r.Context(), linkTimeout)
	defer cancel()
	return g.linkFor(r.WithContext(ctx), request)
}

// linkFor looks at who asks before it looks for what they ask for, which may be none of their business.
func (g *Gateway) linkFor(r *http.Request, request api.LinkRequest) (api.Link, *refusal) {
	if g.cfg.Open {
		p, why := g.placeOf(request)
		return api.Link{URL: p.url}, why
	}
	user, err := g.cfg.Reviewer.User(r)
	if err != nil {
		return api.Link{}, g.unreviewed(err)
	}
	p, why := g.placeOf(request)
	if why != nil {
		return api.Link{}, why
	}
	allowed, err := g.cfg.Reviewer.MayListPods(r.Context(), user, p.namespace)
	if err != nil {
		return api.Link{}, g.unreviewed(err)
	}
	if !allowed {
		return api.Link{}, &refusal{http.StatusForbidden, "forbidden",
			fmt.Sprintf("%s may not list pods in namespace %s, and so may have no links to it: bind it a role that allows it", user.Username, p.namespace), false}
	}
	return g.sign(p, request)
}

func (g *Gateway) sign(p place, request api.LinkRequest) (api.Link, *refusal) {
	keys := g.cfg.Keys()
	if len(keys) == 0 {
		return api.Link{}, noSigningKey()
	}
	lasts := cmp.Or(time.Duration(request.Seconds)*time.Second, api.DefaultLinkTime)
	expires := time.Now().Add(lasts).Truncate(time.Second).UTC()
	return api.Link{URL: p.url + "?" + api.ParameterSignature + "=" + api.SignHost(keys[0], p.signed, expires), Expires: expires}, nil
}

const exampleRequest = `{"key": "pr-42", "service": "frontend", "namespace": "shop", "seconds": 7200}`

// readLinkRequest reads one request and nothing after it.
func readLinkRequest(body io.Reader) (api.LinkRequest, *refusal) {
	var request api.LinkRequest
	decoder := json.NewDecoder(body)
	decoder.DisallowUnknownFields() // one that is misspelt would give a link to something else
	err := decoder.Decode(&request)
	if _, end := decoder.Token(); err == nil && !errors.Is(end, io.EOF) {
		err = errors.New("there is more than one JSON object")
	}
	if err != nil {
		return request, badRequest("the body is not what was expected (%v): send %s", err, exampleRequest)
	}
	if most := int64(api.MaxLinkTime / time.Second); request.Seconds < 0 || request.Seconds > most {
		return request, badRequest("a link cannot last %d seconds: ask for 1 to %d", request.Seconds, most)
	}
	return request, nil
}

// place is what a link leads to.
type place struct {
	namespace string
	signed    string // what is signed in the name of a host
	url       string
}

// namePattern is that of namespaces (RFC 1123), and of Services, some of which must not begin with a digit.
var namePattern = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)

func (g *Gateway) placeOf(request api.LinkRequest) (place, *refusal) {
	name := api.HostName{Key: request.Key, Service: request.Service, Namespace: request.Namespace}
	switch {
	case request.Host != "" && name == (api.HostName{}):
		return g.placeAt(hostname(request.Host))
	case request.Host != "":
		return place{}, badRequest("the body has a host and what a host is made of: leave one of them out")
	case !namePattern.MatchString(name.Namespace):
		return place{}, badRequest("%q is not the name of a namespace", name.Namespace)
	case name.Key == "" && name.Service == "":
		page := api.NamespacePage(g.base.domain, name.Namespace)
		return place{name.Namespace, page, g.base.hostURL(g.base.ownHost()) + api.PathNamespaces + name.Namespace}, nil
	case !api.ValidKey(name.Key):
		return place{}, badRequest("%q cannot be a key", name.Key)
	case !namePattern.MatchString(name.Service):
		return place{}, badRequest("%q is not the name of a Service", name.Service)
	}
	host := name.Label() + "." + g.base.domain
	return place{name.Namespace, host, g.base.hostURL(host) + "/"}, nil
}

// placeAt reads a host. There need not be a preview yet, unless the host is a short one.
func (g *Gateway) placeAt(host string) (place, *refusal) {
	label, ok := g.labelOf(host)
	views, _ := g.views()
	name, named := directory(views).name(label, g.cfg.Namespace)
	if !ok || !named {
		return place{}, badRequest("%q is not <key>--<service>--<namespace>.%s, nor the short form of a preview that exists", host, g.base.domain)
	}
	return place{name.Namespace, host, g.base.hostURL(host) + "/"}, nil
}

func badRequest(format string, args ...any) *refusal {
	return &refusal{http.StatusBadRequest, "bad-request", fmt.Sprintf(format, args...), false}
}

// unreviewed says what is wrong with a token; what is wrong with the API server is for the log.
func (g *Gateway) unreviewed(err error) *refusal {
	if errors.Is(err, ErrUnauthorized) {
		return &refusal{http.StatusUnauthorized, "unauthorized", err.Error(), false}
	}
	g.cfg.Log.Error("asking who may have a link", "error", err)
	return &refusal{http.StatusServiceUnavailable, "no-review", "the router cannot ask the API server who you are: try again", true}
}

// refuseLink is for programs, whatever they say that they accept.
func (g *Gateway) refuseLink(w http.ResponseWriter, why *refusal) {
	g.metrics.requests.WithLabelValues(why.reason).Inc()
	h := w.Header()
	h.Set(api.HeaderError, why.reason)
	switch why.status {
	case http.StatusUnauthorized:
		h.Set("WWW-Authenticate", "Bearer")
	case http.StatusServiceUnavailable, http.StatusTooManyRequests:
		h.Set("Retry-After", retryAfter)
	}
	writeJSON(w, why.status, map[string]string{"error": why.message})
}

func writeJSON(w http.ResponseWriter, code int, body any) {
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-store")
	w.WriteHeader(code)
	encoder := json.NewEncoder(w)
	encoder.SetEscapeHTML(false) // '&' in a message
	_ = encoder.Encode(body)     // the client has gone
}
