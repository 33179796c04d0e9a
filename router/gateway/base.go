package gateway

import (
	"fmt"
	"net/url"
	"regexp"
	"strconv"
	"strings"

	"github.com/detour-dev/detour/api"
)

// base is what the URLs of all previews have in common.
type base struct {
	scheme string
	domain string
	port   string // with its colon; "" is the scheme's own
}

// maxDomain leaves room for a label of 63 characters and a dot in a name of 253 (RFC 1035, section 2.3.4).
const maxDomain = 189

var domainPattern = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*$`)

func parseBase(s string) (base, error) {
	u, err := url.Parse(strings.TrimSuffix(strings.ToLower(s), "/"))
	if err != nil {
		return base{}, err
	}
	port, err := strconv.ParseUint(u.Port(), 10, 16)
	domain := u.Hostname()
	switch {
	case u.Scheme != "http" && u.Scheme != "https", u.String() != u.Scheme+"://"+u.Host, u.Port() != "" && (err != nil || port == 0):
		return base{}, fmt.Errorf("%q: want http:// or https://, a domain and perhaps a port, such as https://preview.example.com", s)
	case len(domain) > maxDomain || !domainPattern.MatchString(domain):
		return base{}, fmt.Errorf("%q: want the name of a domain of at most %d characters in it, such as preview.example.com", s, maxDomain)
	}
	b := base{scheme: u.Scheme, domain: domain}
	if port > 0 {
		b.port = ":" + u.Port()
	}
	return b, nil
}

func (b base) String() string { return b.scheme + "://" + b.domain + b.port }

// ownHost is that of the gateway itself.
func (b base) ownHost() string { return api.GatewayLabel + "." + b.domain }

// hostURL is the URL of one of the domain's hosts.
func (b base) hostURL(host string) string { return b.scheme + "://" + host + b.port }
