package proxy

import (
	"bytes"
	"fmt"
	"net/netip"
	"net/textproto"
	"strings"

	"github.com/detour-dev/detour/api"
)

// edited is a request's head as it is sent on, valid until that has been done: as it came, but for what would escape routing, what carries a key on, and
// what was asked for.
func (h *http1) edited(b []byte, head head, preview bool) []byte {
	e := edit{h2c: head.h2c, upgrade: head.h2c && !head.upgrade}
	if h.forwards() {
		e.client = h.client.remote.Addr()
	}
	if head.carriers {
		var fits bool
		if e.member, fits = carryOn(head.fields); !fits {
			h.proxy.meters.failed(reasonBaggageFull)
		}
	}
	if head.absolute && preview {
		e.host = authority(b)
	}
	if e == (edit{}) {
		return b
	}
	return e.apply(b, h.loop.room(len(b) + editRoom)[:0])
}

// editRoom is enough for what is added as a rule.
const editRoom = 256

// edit says what is to be changed in a head.
type edit struct {
	h2c     bool       // offers to go on in HTTP/2 are dropped: such a tunnel could not be routed (RFC 7540, section 3.2)
	upgrade bool       // and there is no other
	member  string     // added to baggage
	host    string     // replaces the Host field (RFC 9112, section 3.2.2)
	client  netip.Addr // added to X-Forwarded-For and Forwarded
}

// apply changes a head that is beyond doubt. The result is appended to out.
func (e edit) apply(b, out []byte) []byte {
	for line := range bytes.SplitAfterSeq(b[:len(b)-2], []byte("\r\n")) {
		name, value, _ := bytes.Cut(line, []byte(":"))
		known := fieldOf(name)
		switch {
		case known == fieldBaggage && e.member != "":
			out = fmt.Appendf(out, "%s: %s\r\n", name, joined(trimLine(value), e.member))
			e.member = ""
		case known == fieldHost && e.host != "":
			out = fmt.Appendf(out, "%s: %s\r\n", name, e.host)
		case e.h2c && (known == fieldUpgrade || known == fieldConnection):
			out = append(out, e.without(line, string(name), trimLine(value))...)
		case e.h2c && bytes.EqualFold(name, []byte("http2-settings")):
		default:
			out = append(out, line...)
		}
	}
	if e.member != "" {
		out = append(out, api.HeaderBaggage+": "+e.member+"\r\n"...)
	}
	if e.client.IsValid() {
		for _, f := range forwardedFields(e.client) {
			out = append(out, textproto.CanonicalMIMEHeaderKey(f.name)+": "+f.value+"\r\n"...)
		}
	}
	return append(out, "\r\n"...)
}

func trimLine(value []byte) string { return trim(strings.TrimSuffix(string(value), "\r\n")) }

// joined adds a member to baggage.
func joined(baggage, member string) string {
	if baggage == "" {
		return member
	}
	return baggage + "," + member
}

// withClose is an answer's head that says that its connection ends (RFC 9112, section 9.6). Its other connection options
// stay.
func withClose(b []byte) []byte {
	out := make([]byte, 0, len(b)+32)
	options := "close"
	for line := range bytes.SplitAfterSeq(b[:len(b)-2], []byte("\r\n")) {
		name, value, _ := bytes.Cut(line, []byte(":"))
		if !strings.EqualFold(string(name), "connection") {
			out = append(out, line...)
			continue
		}
		for option := range elements(oneLine(strings.TrimSuffix(string(value), "\r\n"))) {
			if !strings.EqualFold(option, "keep-alive") {
				options += ", " + option
			}
		}
	}
	return append(out, "Connection: "+options+"\r\n\r\n"...)
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

// forwards reports whether the app wants requests to say who its client is.
func (p *pair) forwards() bool { return p.proxy.cfg.Sidecar.ClientAddress == api.ClientForwarded }

// forwardedFields tell a client's address. They stand behind those that others have added, in lines of their own.
func forwardedFields(client netip.Addr) []field {
	client = client.Unmap()
	node := client.String()
	if client.Is6() {
		node = `"[` + node + `]"` // RFC 7239, section 6
	}
	return []field{{"x-forwarded-for", client.String()}, {"forwarded", "for=" + node}}
}
