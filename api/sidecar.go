package api

import (
	"fmt"
	"net/netip"
	"net/url"
	"strings"
	"time"
)

// Environment variables of the sidecar. The webhook writes them at admission, those marked 'downward' as references
// to fields of the Pod; the proxy reads them once when it starts. The router reads [EnvPorts] from the Pod's spec.
const (
	EnvPorts     = "DETOUR_PORTS"         // [FormatPorts]
	EnvAdminPort = "DETOUR_ADMIN_PORT"    // where probes and metrics are served
	EnvRouter    = "DETOUR_ROUTER"        // https://host:port
	EnvNamespace = "DETOUR_POD_NAMESPACE" // downward: metadata.namespace
	EnvPod       = "DETOUR_POD_NAME"      // downward: metadata.name
	EnvPodIPs    = "DETOUR_POD_IPS"       // downward: status.podIPs, joined with commas

	EnvClientAddress = "DETOUR_CLIENT_ADDRESS" // [AnnotationClientAddress]; missing without one
	EnvGrace         = "DETOUR_GRACE"          // the Pod's terminationGracePeriodSeconds, as a duration: "30s"
)

// Files that the sidecar rereads whenever it connects to the router.
const (
	ProxyDir  = "/var/run/secrets/detour.dev"
	TokenFile = ProxyDir + "/token"  // a token for [Audience], bound to the Pod
	CAFile    = ProxyDir + "/ca.crt" // from [ConfigMapCA]; may be missing
)

// The webhook makes [ProxyProgram] with [ProxyDrain] the sidecar's preStop hook. It asks the proxy beside it, at
// [EnvAdminPort], to drain.
const (
	ProxyProgram = "/proxy" // in the proxy's image
	ProxyDrain   = "drain"
)

// Sidecar is the proxy's configuration.
type Sidecar struct {
	Ports     []TakenPort
	AdminPort uint16
	Router    string
	Namespace string
	Pod       string
	PodIPs    []netip.Addr // one a family; the app is dialled on the one of the client's

	ClientAddress ClientAddress
	// Grace is how long the Pod has once it begins to end; zero if that is not known.
	Grace time.Duration
}

// ClientAddress is how the app is told the address of its client.
type ClientAddress string

const (
	// ClientHidden is the default: the app sees the Pod's own address, and its bytes are left alone.
	ClientHidden ClientAddress = ""
	// ClientForwarded adds X-Forwarded-For and Forwarded (RFC 7239) to every HTTP request.
	ClientForwarded ClientAddress = "forwarded"
	// ClientProxyProtocol begins every connection to the app, whatever it speaks, with a PROXY protocol header,
	// version 2 (https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt).
	ClientProxyProtocol ClientAddress = "proxy-protocol"
)

// ParseClientAddress reads the value of [AnnotationClientAddress]. The error says what it may be.
func ParseClientAddress(s string) (ClientAddress, error) {
	switch c := ClientAddress(s); c {
	case ClientHidden, ClientForwarded, ClientProxyProtocol:
		return c, nil
	}
	return ClientHidden, fmt.Errorf("%q: want %q or %q", s, ClientForwarded, ClientProxyProtocol)
}

// Env renders the part of s that is known at admission, in the order in which it stands in the Pod; the rest is
// downward.
func (s Sidecar) Env() [][2]string {
	env := [][2]string{
		{EnvPorts, FormatPorts(s.Ports)},
		{EnvAdminPort, fmt.Sprint(s.AdminPort)},
		{EnvRouter, s.Router},
	}
	if s.ClientAddress != ClientHidden {
		env = append(env, [2]string{EnvClientAddress, string(s.ClientAddress)})
	}
	if s.Grace != 0 {
		env = append(env, [2]string{EnvGrace, s.Grace.String()})
	}
	return env
}

// ParseSidecar reads the configuration from the environment. The error names the variable and its value.
func ParseSidecar(getenv func(string) string) (Sidecar, error) {
	s := Sidecar{Router: getenv(EnvRouter), Namespace: getenv(EnvNamespace), Pod: getenv(EnvPod)}
	var err error
	if s.Ports, err = ParsePorts(getenv(EnvPorts)); err != nil {
		return s, fmt.Errorf("%s: %w", EnvPorts, err)
	}
	if s.AdminPort, err = parsePort(getenv(EnvAdminPort)); err != nil {
		return s, fmt.Errorf("%s: %w", EnvAdminPort, err)
	}
	if u, err := url.Parse(s.Router); s.Router != "" && (err != nil || u.Scheme != "https" || u.Host == "") {
		return s, fmt.Errorf("%s: %q is not an https URL", EnvRouter, s.Router)
	}
	if s.ClientAddress, err = ParseClientAddress(getenv(EnvClientAddress)); err != nil {
		return s, fmt.Errorf("%s: %w", EnvClientAddress, err)
	}
	if grace := getenv(EnvGrace); grace != "" {
		if s.Grace, err = time.ParseDuration(grace); err != nil || s.Grace < 0 {
			return s, fmt.Errorf("%s: %q is not a duration such as 30s", EnvGrace, grace)
		}
	}
	for part := range strings.SplitSeq(getenv(EnvPodIPs), ",") {
		ip, err := netip.ParseAddr(strings.TrimSpace(part))
		if err != nil {
			return s, fmt.Errorf("%s: %w", EnvPodIPs, err)
		}
		s.PodIPs = append(s.PodIPs, ip)
	}
	return s, nil
}
