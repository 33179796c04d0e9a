package proxy

import (
	"bytes"
	"net/http"
	"strings"

	"github.com/detour-dev/detour/api"
)

// protocol is what a connection carries.
type protocol int

const (
	protocolTCP protocol = iota // anything else
	protocolHTTP1
	protocolHTTP2
	protocols
)

func (p protocol) String() string { return [...]string{"tcp", "http1", "h2c"}[p] }

// preface opens HTTP/2 with prior knowledge (RFC 9113, section 3.4).
const preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

const (
	maxMethod      = 32       // longer than any registered method
	maxRequestLine = 16 << 10 // a longer one is passed through unread
)

// sniffing is a connection of which nobody knows yet what it carries: whichever side speaks first decides.
//
// Where a Service declares what it speaks (appProtocol), "tcp" is never looked at, and with "http" and "h2c" nothing that
// the app says first decides. A client that opens with neither a request line nor the HTTP/2 preface is in doubt and
// passed through even so. An app that closes before anyone has spoken leaves a connection to copy, that is to close.
type sniffing struct {
	*pair
	declared api.Protocol
}

func (s *sniffing) connected(*socket)     {}
func (s *sniffing) clogged(*socket, bool) {}

func (s *sniffing) data(from *socket, b []byte) int {
	if from == s.app {
		s.appSpoke(b)
		return 0
	}
	if s.declared == api.ProtocolTCP {
		s.settle(protocolTCP)
	} else if carries, enough := classify(b); enough {
		if carries == protocolTCP && carriesKey(b) {
			carries = protocolHTTP1 // which refuses it
		}
		s.settle(carries)
	}
	return 0
}

// appSpoke lets the app's first bytes decide. HTTP/2 servers may send their SETTINGS at once, gRPC's do; that decides
// nothing.
func (s *sniffing) appSpoke(b []byte) {
	switch {
	case s.declared == api.ProtocolTCP, s.declared == api.ProtocolSniff && !isSettings(b):
		s.settle(protocolTCP)
	default:
		s.app.hold(holdWaiting)
	}
}

func (s *sniffing) ended(*socket, []byte) { s.settle(protocolTCP) }

func (s *sniffing) closed(who *socket, err error) {
	if who == s.app && who.dialling {
		// What the client would see if we were not there.
		s.proxy.meters.failed(reasonAppRefused)
		s.proxy.log.Debug("dialling the app", "port", s.port.Name, "error", err)
	}
	s.abort(err)
}

func (s *sniffing) settle(p protocol) {
	if p != protocolTCP {
		if s.routed = s.proxy.routed.Add(1) <= maxRouted; !s.routed {
			s.proxy.routed.Add(-1)
			s.proxy.meters.passed(doubtMany)
			p = protocolTCP
		}
	}
	s.carry(p)
	switch p {
	case protocolTCP:
		s.become(&relay{pair: s.pair, a: s.client, b: s.app}, s.app)
	case protocolHTTP1:
		s.become(newHTTP1(s.pair), s.app)
	case protocolHTTP2:
		s.become(newHTTP2(s.pair), s.app)
	}
}

// maxRouted bounds the connections whose requests are looked at, and so the memory that they take; those beyond it are
// passed through.
const maxRouted = 50_000

const frameHeader = 9

// isSettings reports whether b begins with the header of an HTTP/2 SETTINGS frame of reasonable length: type 4, no flags,
// stream 0 (RFC 9113, sections 4.1 and 6.5). Nobody sends less than that at once.
func isSettings(b []byte) bool {
	return len(b) >= frameHeader && b[0] == 0 && string(b[3:frameHeader]) == "\x04\x00\x00\x00\x00\x00"
}

// classify says what a client that begins with b speaks, and whether that is certain. What names HTTP in its first line is
// taken for HTTP/1; whether it is in doubt shows when its head is complete.
func classify(b []byte) (carries protocol, enough bool) {
	if n := min(len(b), len(preface)); string(b[:n]) == preface[:n] {
		return protocolHTTP2, n == len(preface)
	}
	line, complete := firstLine(b[:min(len(b), maxRequestLine)])
	method, rest, found := strings.Cut(string(line), " ")
	switch {
	case !isMethod(method), found && !isTarget(method, rest):
		return protocolTCP, true
	case !complete:
		return protocolTCP, len(b) >= maxRequestLine
	case !containsFold(line, "http/"):
		return protocolTCP, true
	}
	return protocolHTTP1, true
}

// firstLine is the first line in the reading that has the shortest, and whether it is complete in all readings.
func firstLine(b []byte) (line []byte, complete bool) {
	end := bytes.IndexAny(b, "\r\n")
	if end < 0 {
		return b, false
	}
	return b[:end], b[end] == '\n' || end+1 < len(b)
}

// isMethod reports whether s can be a method or begin one.
func isMethod(s string) bool {
	for i := range len(s) {
		if !tokenBytes[s[i]] {
			return false
		}
	}
	return s != "" && len(s) <= maxMethod
}

// isTarget reports whether s can begin what follows a method: a path, "*" or a URL, or an authority after CONNECT, and no
// byte that a line of text would not have. It lets a binary protocol through at its first strange byte instead of waiting
// for the line's end.
func isTarget(method, s string) bool {
	if s == "" {
		return true
	}
	c := s[0] | 0x20
	if s[0] != '/' && s[0] != '*' && (c < 'a' || c > 'z') && method != http.MethodConnect {
		return false
	}
	return !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f })
}
