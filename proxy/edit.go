package proxy

import (
	"bytes"
	"net/netip"
	"strings"

	"github.com/detour-dev/detour/api"
)

// edited is a request's head as it is sent on: as it came, but for what would escape routing, what carries a key on, and
// what was asked for.
func (h *http1) edited(b []byte, head head, preview bool) []byte {
	e := edit{h2c: head.h2c, upgrade: head.h2c && !head.upgrade}
	if h.proxy.cfg.Sidecar.ClientAddress == api.ClientForwarded {
		e.client = h.client.remote.Addr()
	}
	if head.carriers {
		fields := headFields(b)
		var fits bool
		if e.member, fits = carryOn(fields); !fits {
			h.proxy.meters.failed(reasonBaggageFull)
		}
		if head.absolute && preview {
			e.host = authority(b)
		}
	}
	if e == (edit{}) {
		return b
	}
	return e.apply(b)
}

// edit says what is to be changed in a head.
type edit struct {
	h2c     bool       // offers to go on in HTTP/2 are dropped: such a tunnel could not be routed (RFC 7540, section 3.2)
	upgrade bool       // and there is no other
	member  string     // added to baggage
	host    string     // replaces the Host field (RFC 9112, section 3.2.2)
	client  netip.Addr // added to X-Forwarded-For and Forwarded
}

// apply changes a head that is beyond doubt.
func (e edit) apply(b []byte) []byte {
	out := make([]byte, 0, len(b)+256)
	for line := range bytes.SplitAfterSeq(b[:len(b)-2], []byte("\r\n")) {
		out = append(out, e.line(line)...)
		if name, _, _ := bytes.Cut(line, []byte(":")); fieldOf(name) == fieldBaggage {
			e.member = ""
		}
	}
	if e.member != "" {
		out = append(out, api.HeaderBaggage+": "+e.member+"\r\n"...)
	}
	if e.client.IsValid() {
		out = append(out, "X-Forwarded-For: "+e.client.Unmap().String()+"\r\nForwarded: for="+forwardedNode(e.client)+"\r\n"...)
	}
	return append(out, "\r\n"...)
}

// line is what becomes of one line; nothing if it is dropped.
func (e edit) line(line []byte) []byte {
	name, value, _ := bytes.Cut(line, []byte(":"))
	text := trim(strings.TrimSuffix(string(value), "\r\n"))
	switch lower := strings.ToLower(string(name)); {
	case lower == carrierBaggage && e.member != "":
		if text != "" {
			text += ","
		}
		return []byte(string(name) + ": " + text + e.member + "\r\n")
	case lower == "host" && e.host != "":
		return []byte(string(name) + ": " + e.host + "\r\n")
	case e.h2c && lower == "http2-settings":
		return nil
	case e.h2c && (lower == "upgrade" || lower == "connection"):
		return e.without(line, string(name), text)
	}
	return line
}

// without drops HTTP/2 from a list of protocols, or of connection options, and the line if nothing is left.
func (e edit) without(line []byte, name, list string) []byte {
	var all, rest []string
	for element := range elements(oneLine(list)) {
		all = append(all, element)
		switch lower := strings.ToLower(element); {
		case lower == "h2c", lower == "http2-settings", lower == "upgrade" && e.upgrade:
		default:
			rest = append(rest, element)
		}
	}
	switch len(rest) {
	case len(all):
		return line
	case 0:
		return nil
	}
	return []byte(name + ": " + strings.Join(rest, ", ") + "\r\n")
}

// authority is that of a request whose target is a URL.
func authority(b []byte) string {
	_, target, _ := bytes.Cut(b, []byte(" "))
	target, _, _ = bytes.Cut(target, []byte(" "))
	_, rest, _ := bytes.Cut(target, []byte("://"))
	if end := bytes.IndexAny(rest, "/?"); end >= 0 {
		rest = rest[:end]
	}
	return string(rest[bytes.LastIndexByte(rest, '@')+1:])
}

// forwardedNode is an address as RFC 7239 has it, section 6.
func forwardedNode(a netip.Addr) string {
	if a = a.Unmap(); a.Is6() {
		return `"[` + a.String() + `]"`
	}
	return a.String()
}
