package proxy

import (
	"bytes"
	"iter"
	"strconv"
	"strings"
)

// This file reads the heads of HTTP/1 messages (RFC 9112), without changing or copying them. A head that could be read in
// two ways is in doubt; whoever reads it decides what that means.

// maxHead bounds the head of a request or an answer, and each line within a chunked body.
const maxHead = 64 << 10

// doubt names in which way a message could be read in two, or why it is no HTTP/1; empty if there is none. It is what the
// metric of connections that are passed through counts.
type doubt string

const (
	doubtNoHTTP     doubt = "no-http"
	doubtConnect    doubt = "connect"
	doubtTooLong    doubt = "head-too-long"
	doubtLineEnd    doubt = "line-end"
	doubtName       doubt = "field-name"
	doubtFold       doubt = "folded-field"
	doubtLength     doubt = "content-length"
	doubtCoding     doubt = "transfer-encoding"
	doubtBoth       doubt = "length-and-encoding"
	doubtCodingIn10 doubt = "encoding-in-http-1.0"
	doubtChunk      doubt = "chunk"
	doubtTrailer    doubt = "trailer"
	doubtIncomplete doubt = "incomplete"
	doubtHost       doubt = "host"
	doubtFragment   doubt = "fragment"
	doubtStatusLine doubt = "status-line"
	doubtUnasked    doubt = "unasked"
	doubtSwitch     doubt = "switch"
	doubtMany       doubt = "connections"
)

// meaning says to a person what is wrong with a request.
func (d doubt) meaning() string {
	return map[doubt]string{
		doubtNoHTTP:     "its first line is not one of HTTP/1.0 or 1.1",
		doubtConnect:    "CONNECT asks for a tunnel",
		doubtTooLong:    "its head is longer than 64 KiB",
		doubtLineEnd:    "a line does not end in CRLF, or there is a CR or a NUL within it",
		doubtName:       "a header has no colon, or a character before it that no name may have, such as a space",
		doubtFold:       "a header is continued on the next line",
		doubtLength:     "Content-Length is not one plain number",
		doubtCoding:     "Transfer-Encoding is not just 'chunked'",
		doubtBoth:       "it has both Content-Length and Transfer-Encoding",
		doubtCodingIn10: "it has Transfer-Encoding in HTTP/1.0",
		doubtChunk:      "its body is not chunked as RFC 9112 has it",
		doubtTrailer:    "its trailer has a field that belongs in the head",
		doubtIncomplete: "it breaks off",
		doubtHost:       "it has no Host header, or more than one",
		doubtFragment:   "its target has a fragment ('#')",
	}[d]
}

// headEnd is the length of the head that b begins with, up to and with the empty line that ends it in the most lenient
// reading; 0 if it is not there yet. The first from bytes have been looked at before.
func headEnd(b []byte, from int) int {
	for from > 0 && (b[from-1] == '\r' || b[from-1] == '\n') {
		from--
	}
	for at := from; ; {
		n := bytes.IndexByte(b[at:], '\n')
		if n < 0 {
			break
		}
		for at += n + 1; at < len(b) && b[at] == '\r'; at++ {
		}
		if at < len(b) && b[at] == '\n' {
			return at + 1
		}
	}
	// If its lines end in CR, what follows tells that from a line that ends in CR CR LF.
	if i := bytes.Index(b, []byte("\r\r")); i >= 0 && i+2 < len(b) && bytes.IndexByte(b, '\n') < 0 {
		return i + 2
	}
	return 0
}

// head is what the head of a message says.
type head struct {
	framing
	doubt doubt

	minor   byte // of the version: HTTP/1.minor
	isHEAD  bool
	connect bool
	status  int // of an answer

	carriers   bool    // it has a field that may carry a key
	fields     []field // those, once somebody has asked (headFields)
	upgrade    bool    // to something other than HTTP/2
	h2c        bool    // to HTTP/2
	expect     bool
	hosts      int
	fragment   bool
	absolute   bool // the target is a URL
	repeatable bool // the method may be repeated (RFC 9110, section 9.2.2), and there is no body
}

// readRequest reads a whole head.
func readRequest(b []byte) (h head) {
	line, rest, ok := cutLine(b)
	if !ok || !h.requestLine(line) {
		h.doubt = doubtNoHTTP
		return h
	}
	safe := h.repeatable
	h.readFields(b, rest)
	h.repeatable = safe && h.kind == bodyNone
	return h
}

// readAnswer reads a whole head. Where its body ends depends on the request as well, see [head.answering].
func readAnswer(b []byte) (h head) {
	line, rest, ok := cutLine(b)
	if !ok || !h.statusLine(line) {
		h.doubt = doubtStatusLine
		return h
	}
	h.kind = bodyUntilEnd
	h.readFields(b, rest)
	return h
}

// answering makes h's framing that of an answer to a request of which only the head may have been asked for (RFC 9112,
// section 6.3).
func (h *head) answering(isHEAD bool) {
	if isHEAD || h.status/100 == 1 || h.status == 204 || h.status == 304 {
		h.framing = framing{}
	}
}

// cutLine gives the first line without its end, which has to be CRLF.
func cutLine(b []byte) (line, rest []byte, ok bool) {
	n := bytes.IndexByte(b, '\n')
	if n < 1 || b[n-1] != '\r' {
		return nil, nil, false
	}
	return b[:n-1], b[n+1:], true
}

func (h *head) requestLine(line []byte) bool {
	first, last := bytes.IndexByte(line, ' '), bytes.LastIndexByte(line, ' ')
	if first < 1 || last <= first+1 || !h.version(line[last+1:]) {
		return false
	}
	method, target := line[:first], line[first+1:last]
	for _, c := range method {
		if !tokenBytes[c] {
			return false
		}
	}
	for _, c := range target {
		if c <= ' ' || c == 0x7f {
			return false
		}
		h.fragment = h.fragment || c == '#'
	}
	h.absolute = target[0] != '/' && target[0] != '*'
	switch string(method) {
	case "GET", "OPTIONS":
		h.repeatable = true
	case "HEAD":
		h.isHEAD, h.repeatable = true, true
	case "CONNECT":
		h.connect = true
	}
	return true
}

func (h *head) version(v []byte) bool {
	if len(v) != 8 || string(v[:7]) != "HTTP/1." {
		return false
	}
	h.minor = v[7] - '0'
	return h.minor <= 1
}

func (h *head) statusLine(line []byte) bool {
	if len(line) < 12 || !h.version(line[:8]) || line[8] != ' ' || len(line) > 12 && line[12] != ' ' {
		return false
	}
	status, err := strconv.ParseUint(string(line[9:12]), 10, 16)
	h.status = int(status)
	return err == nil && status >= 100
}

// readFields reads the lines behind the first one. whole is the head, to be searched for what no line may have.
func (h *head) readFields(whole, lines []byte) {
	if bytes.IndexByte(whole, 0) >= 0 || bytes.Count(whole, []byte{'\r'}) != bytes.Count(whole, []byte{'\n'}) {
		h.doubt = doubtLineEnd
		return
	}
	var length, coding []byte
	lengths, codings := 0, 0
	for {
		line, rest, ok := cutLine(lines)
		if !ok {
			h.doubt = doubtLineEnd
			return
		}
		if len(line) == 0 {
			break
		}
		lines = rest
		colon := nameEnd(line)
		if colon <= 0 {
			h.doubt = doubtName
			if line[0] == ' ' || line[0] == '\t' {
				h.doubt = doubtFold
			}
			return
		}
		switch fieldOf(line[:colon]) {
		case fieldLength:
			length = line[colon+1:]
			lengths++
		case fieldCoding:
			coding = line[colon+1:]
			codings++
		case fieldHost:
			h.hosts++
		case fieldKey:
			h.carriers = true
		case fieldBaggage:
			h.carriers = h.carriers || bytes.Contains(line[colon:], []byte(memberName))
		case fieldUpgrade:
			for protocol := range elements(oneLine(string(line[colon+1:]))) {
				h.h2c = h.h2c || strings.EqualFold(protocol, "h2c")
				h.upgrade = h.upgrade || !strings.EqualFold(protocol, "h2c")
			}
		case fieldExpect:
			h.expect = true
		}
	}
	h.frame(length, lengths, coding, codings)
}

// frame says how the body is framed (RFC 9112, section 6.3), if that is beyond doubt.
func (h *head) frame(length []byte, lengths int, coding []byte, codings int) {
	switch {
	case codings > 0 && lengths > 0:
		h.doubt = doubtBoth
	case codings > 1:
		h.doubt = doubtCoding
	case codings == 1 && h.minor == 0:
		h.doubt = doubtCodingIn10
	case codings == 1:
		if !strings.EqualFold(string(trimSpace(coding)), "chunked") {
			h.doubt = doubtCoding
		}
		h.framing = framing{kind: bodyChunked}
	case lengths > 1:
		h.doubt = doubtLength
	case lengths == 1:
		n, ok := parseLength(trimSpace(length))
		if !ok {
			h.doubt = doubtLength
		}
		h.framing = framing{kind: bodyLength, left: n}
		if n == 0 {
			h.framing = framing{}
		}
	}
}

// parseLength wants digits and nothing else.
func parseLength(b []byte) (n int64, ok bool) {
	if len(b) == 0 || len(b) > 18 {
		return 0, false
	}
	for _, c := range b {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + int64(c-'0')
	}
	return n, true
}

// nameEnd is where the colon behind the name is; 0 or less if there is no proper name.
func nameEnd(line []byte) int {
	for i, c := range line {
		if !tokenBytes[c] {
			if c == ':' {
				return i
			}
			return -1
		}
	}
	return -1
}

// tokenBytes are those of names and methods (RFC 9110, section 5.6.2).
var tokenBytes = func() (t [256]bool) {
	for c := range t {
		t[c] = c > ' ' && c < 0x7f && !strings.ContainsRune("\"(),/:;<=>?@[\\]{}", rune(c))
	}
	return t
}()

// knownField is a field that says something to us.
type knownField int

const (
	fieldOther knownField = iota
	fieldLength
	fieldCoding
	fieldHost
	fieldKey
	fieldBaggage
	fieldUpgrade
	fieldExpect
	fieldConnection
)

// fieldOf looks at the length first: most names need no more.
func fieldOf(name []byte) knownField {
	switch len(name) {
	case 4:
		return fieldIf(name, "host", fieldHost)
	case 6:
		return fieldIf(name, "expect", fieldExpect)
	case 7:
		if name[0]|0x20 == 'u' {
			return fieldIf(name, "upgrade", fieldUpgrade)
		}
		return fieldIf(name, carrierBaggage, fieldBaggage)
	case 10:
		if name[0]|0x20 == 'c' {
			return fieldIf(name, "connection", fieldConnection)
		}
		return fieldIf(name, carrierKey, fieldKey)
	case 14:
		return fieldIf(name, "content-length", fieldLength)
	case 17:
		return fieldIf(name, "transfer-encoding", fieldCoding)
	}
	return fieldOther
}

func fieldIf(name []byte, want string, f knownField) knownField {
	for i := range len(want) {
		if name[i]|0x20 != want[i] {
			return fieldOther
		}
	}
	return f
}

func trimSpace(b []byte) []byte { return bytes.Trim(b, " \t") }

func trimLeft(s string) string { return strings.TrimLeft(s, " \t") }

func containsFold(b []byte, lower string) bool {
	return bytes.Contains(bytes.ToLower(b), []byte(lower))
}

// headFields lists the fields of a head, which is beyond doubt, that may carry a key or hide one.
func headFields(b []byte) []field {
	var fields []field
	for name, value := range fieldsIn(b) {
		switch fieldOf(name) {
		case fieldKey:
			fields = append(fields, field{carrierKey, string(value)})
		case fieldBaggage:
			fields = append(fields, field{carrierBaggage, string(value)})
		case fieldConnection:
			fields = append(fields, field{"connection", string(value)})
		}
	}
	return fields
}

// namedFields lists the fields of a head, which is beyond doubt, that have one of the names.
func namedFields(b []byte, names []string) []field {
	var fields []field
	for name, value := range fieldsIn(b) {
		for _, wanted := range names {
			if strings.EqualFold(string(name), wanted) {
				fields = append(fields, field{wanted, string(value)})
			}
		}
	}
	return fields
}

// fieldsIn are the names and values in a head, which is beyond doubt.
func fieldsIn(b []byte) iter.Seq2[[]byte, []byte] {
	return func(yield func(name, value []byte) bool) {
		_, lines, _ := cutLine(b)
		for {
			line, rest, _ := cutLine(lines)
			if len(line) == 0 {
				return
			}
			lines = rest
			colon := nameEnd(line)
			if !yield(line[:colon], trimSpace(line[colon+1:])) {
				return
			}
		}
	}
}

// carriesKey reports whether b, which begins with a head that is in doubt, carries a key in any reading of that head:
// with lines that end in CRLF, LF or CR, and whether or not lines are continued. What does not even name HTTP in its first
// line has no head.
func carriesKey(b []byte) bool {
	b = bytes.TrimLeft(b[:min(len(b), 2*maxHead)], "\r\n")
	if end := bytes.Index(b, []byte("\r\n\r\n")); end >= 0 {
		b = b[:end] // no reading of the head goes further
	}
	if line, _ := firstLine(b); !containsFold(line, "http/") || !containsFold(b, memberName) { // which is in every carrier
		return false
	}
	s := string(b)
	for _, end := range [...]string{"\r\n", "\n", "\r"} {
		for _, folded := range [...]bool{false, true} {
			if len(keysOf(lenientFields(s, end, folded))) > 0 {
				return true
			}
		}
	}
	return false
}

func lenientFields(s, end string, folded bool) []field {
	var fields []field
	for line := range strings.SplitSeq(s, end) {
		if bare := strings.TrimLeft(line, "\r\n"); folded && len(fields) > 0 && bare != trimLeft(bare) {
			fields[len(fields)-1].value += " " + strings.TrimSpace(line)
			continue
		}
		name, value, _ := strings.Cut(line, ":")
		fields = append(fields, field{strings.ToLower(strings.TrimSpace(name)), strings.TrimSpace(value)})
	}
	return fields
}
