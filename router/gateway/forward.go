package gateway

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
	"time"

	"github.com/detour-dev/detour/api"
)

const (
	dialTimeout = 5 * time.Second
	// upstreamIdle is shorter than the time after which apps are known to close idle connections (2 to 5 seconds): a
	// request that is not repeated, such as a POST, must not meet one that has just been closed.
	upstreamIdle    = time.Second
	continueTimeout = time.Second
)

func newTransport(speak func(*http.Protocols, bool)) *http.Transport {
	t := &http.Transport{
		DialContext:           (&net.Dialer{Timeout: dialTimeout}).DialContext,
		DisableCompression:    true, // it is between the client and the app
		MaxIdleConnsPerHost:   32,
		IdleConnTimeout:       upstreamIdle,
		ExpectContinueTimeout: continueTimeout,
		HTTP2:                 &http.HTTP2Config{SendPingTimeout: pingAfter, PingTimeout: pingTimeout},
		Protocols:             &http.Protocols{},
	}
	speak(t.Protocols, true)
	return t
}

// exchange is one request on its way to a Service, and the answer on its way back.
type exchange struct {
	*Gateway
	target
	in *http.Request
}

func (g *Gateway) forward(w http.ResponseWriter, r *http.Request, t target) {
	if r.ProtoMajor == 1 {
		// Otherwise an answer could begin only once the body is read, which a stream in both directions never is.
		_ = http.NewResponseController(w).EnableFullDuplex()
	}
	x := exchange{g, t, r}
	g.cfg.Log.Debug("forwarding", "host", r.Host, "service", t.name.Namespace+"/"+t.name.Service, "key", t.name.Key)
	proxy := httputil.ReverseProxy{
		Transport: x.transport(), Rewrite: x.rewrite, ModifyResponse: x.keepOnHost, ErrorHandler: x.fail,
		FlushInterval: -1, // at once
		ErrorLog:      slog.NewLogLogger(g.cfg.Log.Handler(), slog.LevelDebug),
	}
	proxy.ServeHTTP(w, r)
}

// transport speaks HTTP/2 to a Service whose appProtocol says that it does, and for gRPC that comes as HTTP/2. Everything
// else is HTTP/1.1, which every app speaks: what the proxy in front of the gateway prefers says nothing about the app.
func (x exchange) transport() *http.Transport {
	grpc := x.in.ProtoMajor == 2 && isGRPC(x.in)
	if (grpc || x.entry.H2C) && x.in.Header.Get("Upgrade") == "" {
		return x.http2
	}
	return x.http1
}

// isGRPC leaves out gRPC-Web, which is made for HTTP/1.1.
func isGRPC(r *http.Request) bool {
	subtype, found := strings.CutPrefix(r.Header.Get("Content-Type"), "application/grpc")
	return found && (subtype == "" || subtype[0] == '+' || subtype[0] == ';')
}

// rewrite makes the request for the Service. Its host stays: the app makes its links, redirects and cookies from it.
// httputil has removed what is for one hop only by then, so that a Connection header cannot name what is set here.
func (x exchange) rewrite(r *httputil.ProxyRequest) {
	r.Out.URL.Scheme, r.Out.URL.Host = "http", x.entry.Address.String()
	r.Out.URL.RawQuery = r.In.URL.RawQuery // as it came, not as net/url would write it
	r.Out.Trailer = nil                    // it could carry a key past ReplaceKey
	if !strings.EqualFold(r.Out.Header.Get("Upgrade"), "websocket") {
		// A switch to HTTP/2 would let requests through that nobody has looked at.
		r.Out.Header.Del("Upgrade")
		r.Out.Header.Del("Connection")
	}
	x.setForwarded(r)
	r.Out.Header.Add("Via", viaMark)
	api.ReplaceKey(r.Out.Header, x.name.Key)
	hideSignature(r.Out)
}

// viaMark tells a request that has come through a gateway (RFC 9110, section 7.6.3).
const viaMark = "1.1 detour-gateway"

func cameThrough(r *http.Request) bool {
	for _, line := range r.Header["Via"] {
		if strings.Contains(line, viaMark) {
			return true
		}
	}
	return false
}

// setForwarded says who the client is.
func (x exchange) setForwarded(r *httputil.ProxyRequest) {
	if !x.cfg.TrustForwarded {
		for name := range r.Out.Header {
			if strings.HasPrefix(name, "X-Forwarded-") || name == "X-Real-Ip" {
				r.Out.Header.Del(name)
			}
		}
		r.SetXForwarded()
		return
	}
	r.Out.Header["X-Forwarded-For"] = r.In.Header["X-Forwarded-For"] // to be added to
	r.SetXForwarded()
	for _, name := range []string{"X-Forwarded-Host", "X-Forwarded-Proto", "Forwarded"} {
		if values := r.In.Header[name]; len(values) > 0 {
			r.Out.Header[name] = values
		}
	}
}

// keepOnHost keeps the client on the preview's host, and search engines away from it.
func (x exchange) keepOnHost(answer *http.Response) error {
	h := answer.Header
	h.Add("X-Robots-Tag", "noindex")
	if location := h.Get("Location"); location != "" {
		h.Set("Location", x.location(location))
	}
	for i, cookie := range h["Set-Cookie"] {
		h["Set-Cookie"][i] = withoutForeignDomain(cookie, hostname(x.in.Host))
	}
	return nil
}

// location leads to the preview's host what would lead to the Service past the gateway. The scheme is left to the
// client, which knows better than the gateway how it got here.
func (x exchange) location(location string) string {
	u, err := url.Parse(location)
	if err != nil || u.Host == "" {
		return location
	}
	host, ok := x.previewHost(u)
	if !ok {
		return location
	}
	_, rest, _ := strings.Cut(location, "//")
	if end := strings.IndexAny(rest, "/?#"); end >= 0 {
		return "//" + host + rest[end:]
	}
	return "//" + host
}

// previewHost is the preview's host of the Service that u leads to.
func (x exchange) previewHost(u *url.URL) (string, bool) {
	self := ServiceName{x.name.Namespace, x.name.Service}
	service, plain := x.cfg.PlainHosts[strings.ToLower(u.Host)]
	switch {
	case plain && service != self:
		name := api.HostName{Key: x.name.Key, Service: service.Name, Namespace: service.Namespace}
		return name.Label() + "." + x.base.domain + portOf(x.in.Host), true
	case plain, x.isOwn(u):
		return x.in.Host, true
	}
	return "", false
}

// isOwn reports whether u names the Service as the cluster does.
func (x exchange) isOwn(u *url.URL) bool {
	if port := u.Port(); port != "" && port != fmt.Sprint(x.entry.Address.Port()) {
		return false
	}
	name, short := hostname(u.Hostname()), x.name.Service+"."+x.name.Namespace
	return name == x.name.Service || name == short || name == short+".svc" || strings.HasPrefix(name, short+".svc.") ||
		name == x.entry.Address.Addr().String()
}

// portOf is a host's port with its colon, if it has one.
func portOf(host string) string {
	if _, port, err := net.SplitHostPort(host); err == nil {
		return ":" + port
	}
	return ""
}

// withoutForeignDomain keeps a cookie on the host: a Domain that is not the host itself would have browsers refuse it,
// or send it to other previews.
func withoutForeignDomain(cookie, host string) string {
	attributes := strings.Split(cookie, ";")
	kept := attributes[:1]
	for _, attribute := range attributes[1:] {
		name, value, _ := strings.Cut(attribute, "=")
		foreign := strings.ToLower(strings.TrimPrefix(strings.TrimSpace(value), ".")) != host
		if !strings.EqualFold(strings.TrimSpace(name), "Domain") || !foreign {
			kept = append(kept, attribute)
		}
	}
	return strings.Join(kept, ";")
}

// fail answers what the Service did not.
func (x exchange) fail(w http.ResponseWriter, r *http.Request, err error) {
	if errors.Is(err, context.Canceled) || r.Context().Err() != nil {
		panic(http.ErrAbortHandler) // the client has gone, or the gateway goes
	}
	x.cfg.Log.Debug("forwarding", "host", r.Host, "error", err)
	x.refuse(w, r, &refusal{http.StatusBadGateway, "unreachable",
		fmt.Sprintf("Service %s of namespace %s does not answer: %v", x.name.Service, x.name.Namespace, err), false})
}
