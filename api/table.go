package api

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
)

// Table is everything that the proxy of one Pod needs to route. The router sends it whole, never a difference; a
// proxy keeps the one it has until it gets another. Readers share it and must not change it.
type Table struct {
	// Version is [Table.Hash]: two tables that route alike have the same one, whichever replica made them.
	Version string `json:"version"`
	// Ports lists the app's ports that have routes or a protocol, by number.
	Ports []Port `json:"ports,omitempty"`
}

// Port is what the table says of one port of the app.
type Port struct {
	Port     uint16   `json:"port"`
	Protocol Protocol `json:"protocol,omitempty"`
	Routes   []Route  `json:"routes,omitempty"`
	// Matches are for requests that carry none of the routes' keys: the first that is met counts. A proxy that does not
	// know them yet leaves such requests to the app.
	Matches []Match `json:"matches,omitempty"`
	// Mirrors are for requests that go to the app, and that no route is for: the preview of the first that is met gets a
	// copy. One without conditions is met by all. A proxy that does not know them yet makes no copies.
	Mirrors []Match `json:"mirrors,omitempty"`
}

// Protocol is what a connection to a port speaks.
type Protocol string

const (
	// ProtocolSniff leaves it to the proxy to find out; it is the default.
	ProtocolSniff Protocol = ""
	// ProtocolHTTP is HTTP/1.1.
	ProtocolHTTP Protocol = "http"
	// ProtocolH2C is HTTP/2 with prior knowledge, gRPC included.
	ProtocolH2C Protocol = "h2c"
	// ProtocolTCP is anything else. It is passed through and never routed.
	ProtocolTCP Protocol = "tcp"
)

// Route leads the requests that carry Key to a preview.
type Route struct {
	Key string `json:"key"`
	// Preview names the labelled object as [PreviewStatus] does.
	Preview string `json:"preview"`
	// Fallback sends requests to the baseline while Endpoints is empty; otherwise they are answered 503.
	Fallback bool `json:"fallback,omitempty"`
	// Endpoints are the preview's ready Pods, by name.
	Endpoints []Endpoint `json:"endpoints,omitempty"`
}

// Endpoint is one Pod of a preview, addressed on the app's own port.
type Endpoint struct {
	Pod     string         `json:"pod"` // "<namespace>/<name>"
	Address netip.AddrPort `json:"address"`
}

// Hash is a digest of what the table says, its Version left out.
func (t Table) Hash() string {
	t.Version = ""
	b, err := json.Marshal(t)
	if err != nil {
		panic(err) // a Table holds nothing that JSON cannot say
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:8])
}

// Check says what makes the table unusable: something written by hand, or by a router that this proxy does not know.
func (t Table) Check() error {
	ports := map[uint16]bool{}
	for _, p := range t.Ports {
		if p.Port == 0 || ports[p.Port] {
			return fmt.Errorf("port %d: missing or listed twice", p.Port)
		}
		ports[p.Port] = true
		if err := p.check(); err != nil {
			return fmt.Errorf("port %d: %w", p.Port, err)
		}
	}
	return nil
}

func (p Port) check() error {
	switch p.Protocol {
	case ProtocolSniff, ProtocolHTTP, ProtocolH2C, ProtocolTCP:
	default:
		return fmt.Errorf("protocol %q: want %q, %q, %q or none", p.Protocol, ProtocolHTTP, ProtocolH2C, ProtocolTCP)
	}
	keys := map[string]bool{}
	for _, r := range p.Routes {
		if !ValidKey(r.Key) {
			return fmt.Errorf("key %q: want 1 to 63 characters of [A-Za-z0-9._-]", r.Key)
		}
		if keys[r.Key] {
			return fmt.Errorf("key %q: listed twice", r.Key)
		}
		keys[r.Key] = true
		for _, e := range r.Endpoints {
			if !e.Address.IsValid() || e.Address.Port() == 0 {
				return fmt.Errorf("key %q: endpoint %q has no usable address", r.Key, e.Pod)
			}
		}
	}
	return p.checkMatches(keys)
}

func (p Port) checkMatches(keys map[string]bool) error {
	for _, m := range p.Matches {
		if len(m.Conditions) == 0 {
			return fmt.Errorf("match for key %q: there is no condition", m.Key)
		}
	}
	for _, m := range slices.Concat(p.Matches, p.Mirrors) {
		if !keys[m.Key] {
			return fmt.Errorf("match: key %q has no route", m.Key)
		}
		if err := m.check(); err != nil {
			return fmt.Errorf("match for key %q: %w", m.Key, err)
		}
	}
	return nil
}
