package proxy

import (
	"bufio"
	"bytes"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/detour-dev/detour/api"
)

// gathered is a copy of a request, as far as it has come. It says what the app was sent.
type gathered struct {
	to       *route
	head     []byte  // of HTTP/1
	fields   []field // of HTTP/2
	body     []byte  // as it was framed, in HTTP/1
	trailers []field // of HTTP/2
	size     int     // what is reserved for it
}

// gatheredOverhead is what a copy takes besides its bytes, roughly.
const gatheredOverhead = 512

var carrierMirror = strings.ToLower(api.HeaderMirror)

// mirror is the route of the first mirror that r meets; nil if none is, or if it leads to no other Pod.
func (t *table) mirror(port uint16, r request) *route {
	mirrors := t.ports[port].mirrors
	isCopy := func(f field) bool { return f.name == carrierMirror }
	if len(mirrors) == 0 || r.method == http.MethodConnect || slices.ContainsFunc(r.fields, isCopy) {
		return nil
	}
	if found := firstMet(mirrors, r); found != nil && found.elsewhere() != nil {
		return found
	}
	return nil
}

// elsewhere is the endpoint whose turn it is, of those that are not this Pod.
func (r *route) elsewhere() *endpoint {
	if len(r.endpoints) == 0 {
		return nil
	}
	for _, e := range r.candidates() {
		if !e.own {
			return &e
		}
	}
	return nil
}

// gather begins a copy of a request of so many bytes; nil if there is to be none.
func (p *pair) gather(g *gathered, size int) *gathered {
	m := p.proxy.mirror
	if !m.reserve(g, size+gatheredOverhead) {
		m.drop(g, dropMemory)
		return nil
	}
	if p.gathering == nil {
		p.gathering = map[*gathered]struct{}{}
	}
	p.gathering[g] = struct{}{}
	return g
}

// gatherBody adds to a copy. It returns nil once there is none any more.
func (p *pair) gatherBody(g *gathered, b []byte) *gathered {
	switch {
	case g == nil:
		return nil
	case len(g.body)+len(b) > maxMirrored:
		p.dropGathered(g, dropTooLarge)
		return nil
	case !p.proxy.mirror.reserve(g, len(b)):
		p.dropGathered(g, dropMemory)
		return nil
	}
	g.body = append(g.body, b...)
	return g
}

// gatherTrailers adds trailers of so many bytes.
func (p *pair) gatherTrailers(g *gathered, trailers []field, size int) *gathered {
	if g == nil {
		return nil
	}
	if !p.proxy.mirror.reserve(g, size) {
		p.dropGathered(g, dropMemory)
		return nil
	}
	g.trailers = slices.Clone(trailers)
	return g
}

// sendGathered has a copy sent that is complete.
func (p *pair) sendGathered(g *gathered) {
	if g != nil {
		delete(p.gathering, g)
		p.proxy.mirror.hand(g)
	}
}

// dropGathered forgets a copy that was not complete.
func (p *pair) dropGathered(g *gathered, why string) {
	if _, is := p.gathering[g]; is {
		delete(p.gathering, g)
		p.proxy.mirror.drop(g, why)
	}
}

// dropAllGathered is called when nobody will say any more where requests end.
func (p *pair) dropAllGathered() {
	for g := range p.gathering {
		p.dropGathered(g, dropIncomplete)
	}
}

// request is what a preview is sent of HTTP/1.
func (g *gathered) request() (*http.Request, error) {
	req, err := g.http1Request()
	if err != nil {
		return nil, err
	}
	req.URL.Scheme, req.URL.Host = "http", g.to.elsewhere().Address.String()
	req.Header.Set(api.HeaderMirror, g.to.key)
	req.Header.Del("Expect") // all of it is here
	if req.Header.Get("User-Agent") == "" {
		req.Header.Set("User-Agent", "") // or there would be one of ours
	}
	return req, nil
}

// hopByHop belong to a connection (RFC 9110, section 7.6.1).
var hopByHop = []string{
	"Connection", "Keep-Alive", "Proxy-Connection", "Te", "Trailer", "Transfer-Encoding", "Upgrade", "Http2-Settings",
}

func (g *gathered) http1Request() (*http.Request, error) {
	read, err := http.ReadRequest(bufio.NewReader(io.MultiReader(bytes.NewReader(g.head), bytes.NewReader(g.body))))
	if err != nil {
		return nil, err
	}
	body, err := io.ReadAll(read.Body)
	if err != nil {
		return nil, err
	}
	for name := range elements(slices.Values(read.Header["Connection"])) {
		read.Header.Del(name)
	}
	for _, name := range hopByHop {
		read.Header.Del(name)
	}
	req := &http.Request{
		Method: read.Method, Host: read.Host, Header: read.Header, ContentLength: read.ContentLength, Trailer: read.Trailer,
	}
	setBody(req, body)
	req.URL, err = targetOf(read.RequestURI)
	return req, err
}

// setBody gives a request its body, whose ContentLength says how it was framed: -1 means without a length.
func setBody(req *http.Request, body []byte) {
	if len(body) == 0 && req.Trailer == nil {
		req.ContentLength = 0
		return
	}
	if req.Trailer != nil {
		req.ContentLength = -1
	}
	req.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(body)), nil }
	req.Body, _ = req.GetBody()
}

// targetOf has a request's target written as it came: parsed, it would be normalised. A URL is, and a path that begins like
// an authority.
func targetOf(target string) (*url.URL, error) {
	if target == "" || strings.HasPrefix(target, "//") || target[0] != '/' && target != "*" {
		return url.ParseRequestURI(target)
	}
	return &url.URL{Opaque: target}, nil
}
