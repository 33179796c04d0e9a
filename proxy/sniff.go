package proxy

import (
	"bytes"
	"errors"
	"net/http"
	"os"
	"strings"
	"time"

	"golang.org/x/net/http/httpguts"

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

// sniff waits until one side speaks and says what the connection carries. What was read stays in the head of both.
//
// Where a Service declares what it speaks (appProtocol), "tcp" is never looked at, and with "http" and "h2c" nothing that
// the app says first decides. A client that opens with neither a request line nor the HTTP/2 preface is in doubt and
// passed through even so. An app that closes before anyone has spoken leaves a connection to copy, that is to close.
func sniff(client, app *conn, declared api.Protocol) protocol {
	if declared == api.ProtocolTCP {
		return protocolTCP
	}
	appFirst := make(chan bool, 1)
	go func() { // ends with the deadline below
		first := spoke(app, declared)
		if first {
			client.SetReadDeadline(past)
		}
		appFirst <- first
	}()
	carries := protocolTCP
	err := client.peek(maxRequestLine, func(b []byte) (enough bool) {
		carries, enough = classify(b)
		return enough
	})
	app.SetReadDeadline(past)
	first := <-appFirst
	client.SetReadDeadline(time.Time{})
	app.SetReadDeadline(time.Time{})
	if first || err != nil { // whoever has come to an end will do so again for the one who copies
		return protocolTCP
	}
	return carries
}

// past interrupts a read.
var past = time.Unix(1, 0)

// spoke waits for the app and reports whether it decides what the connection carries, by speaking first or by ending.
// HTTP/2 servers may send their SETTINGS at once, gRPC's do; that decides nothing.
func spoke(app *conn, declared api.Protocol) bool {
	err := app.peek(frameHeader, func(b []byte) bool { return !maybeSettings(b) || len(b) == frameHeader })
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded): // the client was quicker
		return false
	case err != nil:
		return true
	case declared != api.ProtocolSniff:
		return false
	}
	return !maybeSettings(app.head)
}

const frameHeader = 9

// maybeSettings reports whether b, up to its first nine bytes, begins an HTTP/2 SETTINGS frame of reasonable length: type
// 4, no flags, stream 0 (RFC 9113, sections 4.1 and 6.5).
func maybeSettings(b []byte) bool {
	b = b[:min(len(b), frameHeader)]
	for i, c := range b {
		switch {
		case i == 3 && c != 4,
			i != 1 && i != 2 && i != 3 && c != 0:
			return false
		}
	}
	return true
}

// classify says what a client that begins with b speaks, and whether that is certain. One that begins with CONNECT asks
// for a tunnel, and what goes through that cannot be routed.
func classify(b []byte) (carries protocol, enough bool) {
	if n := min(len(b), len(preface)); string(b[:n]) == preface[:n] {
		return protocolHTTP2, n == len(preface)
	}
	line, _, complete := bytes.Cut(b, []byte("\n"))
	method, rest, found := strings.Cut(string(line), " ")
	switch {
	case !isMethod(method), found && (method == http.MethodConnect || !isTarget(rest)):
		return protocolTCP, true
	case !complete:
		return protocolTCP, len(b) >= maxRequestLine
	}
	rest = strings.TrimSuffix(rest, "\r")
	if !strings.HasSuffix(rest, " HTTP/1.1") && !strings.HasSuffix(rest, " HTTP/1.0") {
		return protocolTCP, true
	}
	return protocolHTTP1, true
}

// isMethod reports whether s can be a method or begin one.
func isMethod(s string) bool {
	return s != "" && len(s) <= maxMethod && httpguts.ValidHeaderFieldName(s)
}

// isTarget reports whether s can begin what follows a method: a path, "*" or a URL, and no byte that a line of text
// would not have. It lets a binary protocol through at its first strange byte instead of waiting for the line's end.
func isTarget(s string) bool {
	if s == "" {
		return true
	}
	c := s[0] | 0x20
	if s[0] != '/' && s[0] != '*' && (c < 'a' || c > 'z') {
		return false
	}
	return !strings.ContainsFunc(strings.TrimSuffix(s, "\r"), func(r rune) bool { return r < ' ' || r == 0x7f })
}
