package proxy

import (
	"net/http"
	"strconv"
)

// h2Head is what a header block says: a request's head, or its trailers. A loop has one, which is used again and again.
type h2Head struct {
	fields []field
	never  []bool // which of them must not be indexed by anyone (RFC 7541, section 7.1.3)
	size   int    // of all, as SETTINGS_MAX_HEADER_LIST_SIZE counts it
	block  []byte // scratch for encode
	text   []byte // and for decode

	method  string
	path    string
	length  int64 // what content-length says, or -1
	pseudo  h2Pseudo
	regular bool // there is a field that is no pseudo-header
	flawed  bool // it is malformed (RFC 9113, section 8.1.1)
	carrier bool // there is a field that may carry a key
}

// h2Pseudo is a set of pseudo-headers.
type h2Pseudo uint8

const (
	pseudoMethod h2Pseudo = 1 << iota
	pseudoScheme
	pseudoPath
	pseudoAuthority
	pseudoProtocol
	pseudoStatus
)

const (
	pseudoRequest = pseudoMethod | pseudoScheme | pseudoPath
	pseudoConnect = pseudoMethod | pseudoAuthority
)

// fieldOverhead is added to the length of each field (RFC 9113, section 6.5.2).
const fieldOverhead = 32

// decode reads a header block into l.head; false means that nothing which follows on the connection can be read.
func (l *loop) decode(t *h2Table, block []byte) bool {
	if l.head == nil {
		l.head = &h2Head{}
	}
	h := l.head
	clear(h.fields)
	*h = h2Head{fields: h.fields[:0], never: h.never[:0], block: h.block[:0], text: h.text[:0], length: -1}
	return t.decode(block, h)
}

// long says that the block says more than we want to know. Then the rest of it was dropped.
func (h *h2Head) long() bool { return h.size > maxBlock }

func (h *h2Head) add(e *h2Entry, never bool) {
	if h.size += e.size(); h.long() {
		return
	}
	h.fields = append(h.fields, e.field)
	h.never = append(h.never, never)
	switch e.class {
	case classFlawed:
		h.flawed = true
	case classCarrier:
		h.carrier, h.regular = true, true
	case classLength:
		h.regular = true
		h.noteLength(e.value)
	case classOther:
		h.regular = true
	default:
		h.notePseudo(e)
	}
}

func (h *h2Head) notePseudo(e *h2Entry) {
	p := h2Pseudo(e.class)
	if h.regular || h.pseudo&p != 0 {
		h.flawed = true
	}
	h.pseudo |= p
	switch p {
	case pseudoMethod:
		h.method = e.value
	case pseudoPath:
		h.path = e.value
	}
}

func (h *h2Head) noteLength(value string) {
	n, err := strconv.ParseUint(value, 10, 63)
	if err != nil || h.length >= 0 && h.length != int64(n) {
		h.flawed = true
		return
	}
	h.length = int64(n)
}

// h2Class is what a field means to us: below classOther it is a pseudo-header, namely that h2Pseudo.
type h2Class uint8

const (
	classOther h2Class = iota + 1<<7
	classCarrier
	classLength
	classFlawed // it must not stand anywhere (RFC 9113, section 8.2)
)

func classOf(name, value string) h2Class {
	for i := range len(value) {
		if badInValue[value[i]] {
			return classFlawed
		}
	}
	if name == "" || name[0] == ':' {
		return pseudoClass(name)
	}
	for i := range len(name) {
		if badInName[name[i]] {
			return classFlawed
		}
	}
	switch name {
	case "connection", "proxy-connection", "keep-alive", "transfer-encoding", "upgrade":
		return classFlawed
	case "te":
		if value != "trailers" {
			return classFlawed
		}
	case "content-length":
		return classLength
	case carrierKey, carrierBaggage:
		return classCarrier
	}
	return classOther
}

func pseudoClass(name string) h2Class {
	switch name {
	case ":method":
		return h2Class(pseudoMethod)
	case ":scheme":
		return h2Class(pseudoScheme)
	case ":path":
		return h2Class(pseudoPath)
	case ":authority":
		return h2Class(pseudoAuthority)
	case ":protocol":
		return h2Class(pseudoProtocol)
	case ":status":
		return h2Class(pseudoStatus)
	}
	return classFlawed
}

// isRequest reports whether it is a well-formed head of a request. Extended CONNECT (RFC 8441) counts where it was
// offered.
func (h *h2Head) isRequest(extended bool) bool {
	switch {
	case h.flawed || h.pseudo&pseudoStatus != 0:
		return false
	case h.pseudo&pseudoProtocol != 0:
		return extended && h.method == http.MethodConnect && h.pseudo&pseudoRequest == pseudoRequest && h.path != ""
	case h.method == http.MethodConnect:
		return h.pseudo == pseudoConnect
	}
	return h.pseudo&pseudoRequest == pseudoRequest && h.path != ""
}

// isTrailers reports whether it is a well-formed trailer section.
func (h *h2Head) isTrailers() bool { return !h.flawed && h.pseudo == 0 }

// informational reports whether it is the head of an answer that is not the final one.
func (h *h2Head) informational() bool {
	return len(h.fields) > 0 && h.fields[0].name == ":status" && len(h.fields[0].value) == 3 && h.fields[0].value[0] == '1'
}

// value is that of the first field of a name.
func (h *h2Head) value(name string) string {
	for v := range values(h.fields, name) {
		return v
	}
	return ""
}

// append adds a field.
func (h *h2Head) append(name, value string) {
	h.fields = append(h.fields, field{name, value})
	h.never = append(h.never, false)
}

// carryOn does what [carryOn] says, and reports whether anything was changed.
func (h *h2Head) carryOn() (edited, fits bool) {
	member, fits := carryOn(h.fields)
	if member == "" {
		return false, fits
	}
	for i := range h.fields {
		if f := &h.fields[i]; f.name == carrierBaggage {
			if trim(f.value) != "" {
				member = f.value + "," + member
			}
			f.value = member
			return true, true
		}
	}
	h.append(carrierBaggage, member)
	return true, true
}

// encode makes a header block that any decoder understands, whatever it has seen before: nothing in it refers to a
// dynamic table or changes one. It is valid until the next.
func (h *h2Head) encode() []byte {
	b := h.block[:0]
	for i, f := range h.fields {
		b = appendField(b, f, h.never[i])
	}
	h.block = b
	return b
}

// appendField encodes f as a literal that is not indexed (RFC 7541, sections 6.2.2 and 6.2.3).
func appendField(b []byte, f field, never bool) []byte {
	var form byte
	if never {
		form = 0x10
	}
	if name := staticName(f.name); name > 0 {
		b = append(b, form|name)
	} else {
		b = appendString(append(b, form), f.name)
	}
	return appendString(b, f.value)
}

// staticName is the index of a name that nearly every head has (RFC 7541, appendix A).
func staticName(name string) byte {
	switch name {
	case ":authority":
		return 1
	case ":method":
		return 2
	case ":path":
		return 4
	case ":scheme":
		return 6
	case ":status":
		return 8
	}
	return 0
}

// appendString encodes s without compressing it (RFC 7541, section 5.2).
func appendString(b []byte, s string) []byte {
	const prefix = 1<<7 - 1
	n := len(s)
	if n < prefix {
		return append(append(b, byte(n)), s...)
	}
	b = append(b, prefix)
	for n -= prefix; n >= 1<<7; n >>= 7 {
		b = append(b, byte(n)|1<<7)
	}
	return append(append(b, byte(n)), s...)
}

// What RFC 9113, section 8.2.1, forbids in names, and in values.
var badInName, badInValue = func() (name, value [256]bool) {
	for c := range 256 {
		name[c] = c <= ' ' || c >= 0x7f || 'A' <= c && c <= 'Z' || c == ':'
	}
	value[0], value['\r'], value['\n'] = true, true, true
	return name, value
}()
