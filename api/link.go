package api

import (
	"strings"
	"time"
)

// Where the router's gateway is, and what it says of itself. Its URL, "https://preview.example.com", is in
// [Status.Gateway]; beside the previews' hosts there is its own, the label [GatewayLabel] of the same domain.
const (
	// GatewayLabel is no preview's: those have "--" in them.
	GatewayLabel = "detour"

	// PathLinks of the gateway's own host takes a [LinkRequest] (POST) from whoever shows a token for [Audience] as
	// "Authorization: Bearer" and may list Pods in the namespace that the link leads to. It answers with a [Link], or
	// with {"error": "…"} and a [HeaderError].
	PathLinks = "/v1/links"

	// PathNamespaces of the gateway's own host, followed by a namespace, is the page of that namespace.
	PathNamespaces = "/namespaces/"

	// PageStatus below a namespace's page is the same for programs, with a [Status.Previews] whose traffic is the newest.
	PageStatus = "/status.json"
)

const (
	// DefaultLinkTime is how long a link lasts that nothing is said of.
	DefaultLinkTime = 24 * time.Hour

	// MaxLinkTime is how long one can last.
	MaxLinkTime = 30 * 24 * time.Hour
)

// Objects that links need.
const (
	// SecretGateway is the Secret in the router's own namespace that holds the keys of signatures under [SecretGatewayKeys],
	// one a line, the first of which signs. The manifests bring it empty, the router fills it and nobody else reads it.
	SecretGateway     = "detour-gateway"
	SecretGatewayKeys = "keys"

	// ServiceAccountLinks is the ServiceAccount of a namespace whose tokens kubectl's plugin asks for links with. Whoever
	// decides on the namespace makes it.
	ServiceAccountLinks = "detour-links"
)

// LinkRequest asks for a link: to a Host; to the Host of a Key, a Service and a Namespace; or, with a Namespace alone, to
// the page of that namespace.
type LinkRequest struct {
	Host      string `json:"host,omitempty"`
	Key       string `json:"key,omitempty"`
	Service   string `json:"service,omitempty"`
	Namespace string `json:"namespace,omitempty"`
	// Seconds is how long it is to last; [DefaultLinkTime] when zero, and at most [MaxLinkTime].
	Seconds int64 `json:"seconds,omitempty"`
}

// Link lets whoever has it in until it expires.
type Link struct {
	URL string `json:"url"`
	// Expires is zero where the gateway lets everyone in.
	Expires time.Time `json:"expires,omitzero"`
}

// PreviewURL is where a gateway serves n.
func PreviewURL(gateway string, n HostName) string { return beneath(gateway, n.Label()) + "/" }

// GatewayURL is the gateway's own host, without a path.
func GatewayURL(gateway string) string { return beneath(gateway, GatewayLabel) }

// NamespacePage is what is signed of the page of a namespace, in the place of a host: the gateway's own host, without a
// port, and the path.
func NamespacePage(domain, namespace string) string {
	return GatewayLabel + "." + domain + PathNamespaces + namespace
}

// beneath puts a label before the domain of a gateway's URL.
func beneath(gateway, label string) string {
	scheme, domain, _ := strings.Cut(gateway, "://")
	return scheme + "://" + label + "." + domain
}
