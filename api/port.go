package api

import (
	"fmt"
	"strconv"
	"strings"
	"unicode"
)

// PortNamePrefix begins the names under which the proxy exposes app ports that have no name of their own.
const PortNamePrefix = "detour-"

// PortMetrics is the name of the container port that serves the proxy's probes and metrics.
const PortMetrics = "detour-metrics"

// The proxy's listening ports are taken from this one upwards, skipping those that the Pod declares; the first of
// them serves probes and metrics.
const FirstProxyPort = 15400

// PortName is the name under which the proxy takes over a port that Services address by number, such as
// "detour-8080". It has at most 12 characters (RFC 6335 allows a port name 15).
func PortName(app uint16) string {
	return PortNamePrefix + strconv.Itoa(int(app))
}

// OriginalPort is the inverse of [PortName]: the number that a Service's targetPort had before it was turned into
// name. It reports false for every other name.
func OriginalPort(name string) (uint16, bool) {
	digits, found := strings.CutPrefix(name, PortNamePrefix)
	port, err := strconv.ParseUint(digits, 10, 16)
	if !found || err != nil || PortName(uint16(port)) != name {
		return 0, false
	}
	return uint16(port), port != 0
}

// TakenPort is one port of an app that the proxy serves in its place.
type TakenPort struct {
	Name   string // the container port's name, by which Services find the proxy
	Listen uint16 // where the proxy listens
	App    uint16 // where the app listens
}

// FormatPorts renders ports as "name:listen:app" joined with commas, the form of [EnvPorts].
func FormatPorts(ports []TakenPort) string {
	parts := make([]string, len(ports))
	for i, p := range ports {
		parts[i] = fmt.Sprintf("%s:%d:%d", p.Name, p.Listen, p.App)
	}
	return strings.Join(parts, ",")
}

// ParsePorts is the inverse of [FormatPorts].
func ParsePorts(s string) ([]TakenPort, error) {
	var ports []TakenPort
	for part := range strings.SplitSeq(s, ",") {
		fields := strings.Split(part, ":")
		if len(fields) != 3 || fields[0] == "" {
			return nil, fmt.Errorf("port %q: want name:listen:app", part)
		}
		listen, err := parsePort(fields[1])
		if err != nil {
			return nil, fmt.Errorf("port %q: %w", part, err)
		}
		app, err := parsePort(fields[2])
		if err != nil {
			return nil, fmt.Errorf("port %q: %w", part, err)
		}
		ports = append(ports, TakenPort{Name: fields[0], Listen: listen, App: app})
	}
	return ports, nil
}

func parsePort(s string) (uint16, error) {
	port, err := strconv.ParseUint(s, 10, 16)
	if err != nil || port == 0 {
		return 0, fmt.Errorf("%q is not a port number (1 to 65535)", s)
	}
	return uint16(port), nil
}

// PortRef is a port of a Pod: a number, or else the name of a container's port.
type PortRef struct {
	Name   string
	Number uint16
}

func (r PortRef) String() string {
	if r.Name != "" {
		return r.Name
	}
	return strconv.Itoa(int(r.Number))
}

// PortPair has what is meant for a port of the target's app go to another port of the preview.
type PortPair struct{ Target, Preview PortRef }

// ParsePortPairs reads the value of [AnnotationPorts]: pairs "target:preview" of numbers or names, joined with commas.
// The error names the part that is wrong.
func ParsePortPairs(s string) ([]PortPair, error) {
	var pairs []PortPair
	for part := range strings.SplitSeq(s, ",") {
		part = strings.TrimSpace(part)
		target, preview, found := strings.Cut(part, ":")
		if !found {
			return nil, fmt.Errorf("%.100q: want target:preview, such as 8080:9090", part)
		}
		var pair PortPair
		var err error
		if pair.Target, err = parsePortRef(target); err == nil {
			pair.Preview, err = parsePortRef(preview)
		}
		if err != nil {
			return nil, fmt.Errorf("%.100q: %w", part, err)
		}
		pairs = append(pairs, pair)
	}
	return pairs, nil
}

// maxPortName is the length that Kubernetes allows the name of a container's port (RFC 6335, section 5.1).
const maxPortName = 15

func parsePortRef(s string) (PortRef, error) {
	if number, err := parsePort(s); err == nil {
		return PortRef{Number: number}, nil
	}
	if !hostLabel(s) || len(s) > maxPortName || !strings.ContainsFunc(s, unicode.IsLetter) {
		return PortRef{}, fmt.Errorf("%.100q is neither a port number (1 to 65535) nor the name of a container's port", s)
	}
	return PortRef{Name: s}, nil
}
