package gateway

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/detour-dev/detour/api"
)

// minSigningKey is how long a key has to be, in bytes: as long as what HMAC makes of it (RFC 2104, section 3).
const minSigningKey = sha256.Size

// signingKeys reads one key a line. The file is read anew for each request, so that a Secret that changes counts at once.
func signingKeys(file string) ([][]byte, error) {
	content, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("reading the keys of signed URLs: %w", err)
	}
	var keys [][]byte
	for line := range bytes.Lines(content) {
		key := bytes.TrimSpace(line)
		if len(key) == 0 {
			continue
		}
		if len(key) < minSigningKey {
			return nil, fmt.Errorf("reading the keys of signed URLs: %s has one of %d characters: use at least %d", file, len(key), minSigningKey)
		}
		keys = append(keys, key)
	}
	if len(keys) == 0 {
		return nil, fmt.Errorf("reading the keys of signed URLs: %s has none", file)
	}
	return keys, nil
}

// admit reports whether r may go on to a Service. Where it may not, or not yet, admit has answered it.
func (g *Gateway) admit(w http.ResponseWriter, r *http.Request) bool {
	if g.cfg.SigningKeys == "" {
		return true
	}
	keys, err := signingKeys(g.cfg.SigningKeys)
	if err != nil {
		g.cfg.Log.Error("letting nobody in", "error", err)
		g.refuse(w, r, &refusal{http.StatusServiceUnavailable, "no-signing-key", "the gateway cannot check signatures", false})
		return false
	}
	inURL := r.URL.Query().Get(api.ParameterSignature)
	expires, err := api.CheckSignature(keys, hostname(r.Host), inURL, time.Now())
	if err == nil && showsPages(r) && r.Header.Get("Upgrade") == "" {
		g.keepSignature(w, r, inURL, expires)
		return false
	}
	if err != nil {
		err = checkKept(keys, r, err)
	}
	if err != nil {
		g.refuse(w, r, notAdmitted(err))
	}
	return err == nil
}

// checkKept looks for a signature in the header and in the cookies. Of several errors the one that helps is returned:
// that a signature has expired.
func checkKept(keys [][]byte, r *http.Request, err error) error {
	shown := r.Header.Values(api.HeaderSignature)
	for _, cookie := range r.CookiesNamed(api.ParameterSignature) {
		shown = append(shown, cookie.Value)
	}
	for _, signature := range shown {
		_, e := api.CheckSignature(keys, hostname(r.Host), signature, time.Now())
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
		return &refusal{http.StatusForbidden, "expired", "this link to a preview has expired: ask for a new one", false}
	}
	return &refusal{http.StatusForbidden, "not-signed", "a preview is shown to those who have a signed link to it: ask for one", false}
}

// keepSignature has a browser keep the signature and come again without it in the URL, where it would be seen and shared.
func (g *Gateway) keepSignature(w http.ResponseWriter, r *http.Request, signature string, expires time.Time) {
	g.metrics.requests.WithLabelValues(resultSignedIn).Inc()
	http.SetCookie(w, &http.Cookie{ // host-only, as it has no Domain
		Name: api.ParameterSignature, Value: signature, Path: "/", Expires: expires, HttpOnly: true,
		Secure:   g.cfg.TrustForwarded && r.Header.Get("X-Forwarded-Proto") == "https",
		SameSite: http.SameSiteLaxMode,
	})
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
