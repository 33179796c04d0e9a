package gateway

import (
	"errors"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/detour-dev/detour/api"
)

// admit reports whether r may go on to what is signed by the name of host: a host, or a page that is named like one. Where
// it may not, or not yet, admit has answered it. Beneath path a browser keeps the signature.
func (g *Gateway) admit(w http.ResponseWriter, r *http.Request, host, path string) bool {
	if g.cfg.Open {
		return true
	}
	keys := g.cfg.Keys()
	if len(keys) == 0 {
		g.refuse(w, r, noSigningKey())
		return false
	}
	inURL := r.URL.Query().Get(api.ParameterSignature)
	expires, err := api.CheckSignature(keys, host, inURL, time.Now())
	if err == nil && showsPages(r) && r.Header.Get("Upgrade") == "" {
		g.keepSignature(w, r, &http.Cookie{Value: inURL, Path: path, Expires: expires})
		return false
	}
	if err != nil {
		err = checkKept(keys, host, r, err)
	}
	if err != nil {
		g.refuse(w, r, notAdmitted(err))
	}
	return err == nil
}

// checkKept looks for a signature in the header and in the cookies. Of several errors the one that helps is returned:
// that a signature has expired.
func checkKept(keys [][]byte, host string, r *http.Request, err error) error {
	shown := r.Header.Values(api.HeaderSignature)
	for _, cookie := range r.CookiesNamed(api.ParameterSignature) {
		shown = append(shown, cookie.Value)
	}
	for _, signature := range shown {
		_, e := api.CheckSignature(keys, host, signature, time.Now())
		if e == nil {
			return nil
		}
		if errors.Is(e, api.ErrExpired) {
			err = e
		}
	}
	return err
}

func notAdmitted(err error) *refusal {
	if errors.Is(err, api.ErrExpired) {
		return &refusal{http.StatusForbidden, "expired", "this link has expired: ask for a new one; kubectl detour url makes it", false}
	}
	return &refusal{http.StatusForbidden, "not-signed", "this is shown to those who have a link to it: ask for one; kubectl detour url makes it", false}
}

func noSigningKey() *refusal {
	return &refusal{http.StatusServiceUnavailable, "no-signing-key", "the gateway has no key to make or check links with; the router's log says why", false}
}

// keepSignature has a browser keep the signature and come again without it in the URL, where it would be seen and shared.
func (g *Gateway) keepSignature(w http.ResponseWriter, r *http.Request, cookie *http.Cookie) {
	g.metrics.requests.WithLabelValues(resultSignedIn).Inc()
	cookie.Name = api.ParameterSignature
	cookie.HttpOnly = true
	cookie.Secure = g.base.scheme == "https"
	cookie.SameSite = http.SameSiteLaxMode
	http.SetCookie(w, cookie) // host-only, as it has no Domain
	clean := url.URL{Host: r.Host, Path: r.URL.Path, RawPath: r.URL.RawPath, RawQuery: withoutSignature(r.URL.RawQuery)}
	h := w.Header()
	h.Set("Location", clean.String()) // with its host, or a path of two slashes would name another
	h.Set("Cache-Control", "no-store")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("X-Robots-Tag", "noindex")
	w.WriteHeader(http.StatusSeeOther)
}

// hideSignature takes a request's signature out, which is between the client and the gateway.
func hideSignature(r *http.Request) {
	r.Header.Del(api.HeaderSignature)
	api.RemoveCookie(r.Header, api.ParameterSignature)
	r.URL.RawQuery = withoutSignature(r.URL.RawQuery)
}

// withoutSignature leaves the rest of a query as it is.
func withoutSignature(query string) string {
	var kept []string
	for parameter := range strings.SplitSeq(query, "&") {
		name, _, _ := strings.Cut(parameter, "=")
		if name, err := url.QueryUnescape(name); err != nil || name != api.ParameterSignature {
			kept = append(kept, parameter)
		}
	}
	return strings.Join(kept, "&")
}
