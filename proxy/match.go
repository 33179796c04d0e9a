package proxy

import (
	"iter"
	"net/http"
	"regexp"
	"slices"
	"strings"

	"github.com/detour-dev/detour/api"
)

// request is what decides where a request goes. What no match of its port looks at is left out.
type request struct {
	keys      []string
	method    string
	path      string // as it was sent, without the query; empty if the target has none
	authority string // of HTTP/2, or of a target that is a URL: it counts instead of Host
	fields    []field
	draw      string // what chance has given it, see share.go
}

// match is an [api.Match] made ready.
type match struct {
	route      *route
	conditions []condition
}

type condition struct {
	part   api.Part
	name   string // of a header
	cookie string // of the one in that header that is looked at
	test   func(string) bool
}

// compileMatches leaves out those that ask what we do not know: they are never met.
func compileMatches(of []api.Match, routes map[string]*route) []match {
	var matches []match
	for _, m := range of {
		if slices.ContainsFunc(m.Conditions, func(c api.Condition) bool { return !c.Known() }) {
			continue
		}
		compiled := match{route: routes[m.Key]}
		for _, c := range m.Conditions {
			compiled.conditions = append(compiled.conditions, conditionOf(m.Key, c))
		}
		matches = append(matches, compiled)
	}
	return matches
}

// conditionOf makes a condition ready, which has been checked.
func conditionOf(key string, c api.Condition) condition {
	if c.Part == api.PartShare {
		return shareOf(key, c)
	}
	return condition{part: c.Part, name: c.Name, test: testOf(c)}
}

// testOf makes the test of a condition.
func testOf(c api.Condition) func(string) bool {
	switch c.Test {
	case api.TestExact:
		return func(s string) bool { return s == c.Value }
	case api.TestPrefix:
		return func(s string) bool { return strings.HasPrefix(s, c.Value) }
	case api.TestRegex:
		return regexp.MustCompile(c.Value).MatchString
	}
	return func(string) bool { return true } // it is present
}

// namesIn lists the headers that matches look at.
func namesIn(matches []match) []string {
	var names []string
	for _, m := range matches {
		for _, c := range m.conditions {
			if c.name != "" && !slices.Contains(names, c.name) {
				names = append(names, c.name)
			}
		}
	}
	return names
}

// matching reports whether requests to the app's port have to be held against matches, or mirrors.
func (t *table) matching(port uint16) bool {
	if t == nil || !t.matches {
		return false
	}
	p := t.ports[port]
	return len(p.matches)+len(p.mirrors) > 0
}

// match is the route of the first match that r meets. What goes through a CONNECT cannot be routed, and not every preview
// takes the kind that opens a WebSocket.
func (t *table) match(port uint16, r request) *route {
	if r.method == http.MethodConnect {
		return nil
	}
	return firstMet(t.ports[port].matches, r)
}

// firstMet is the route of the first match that r meets.
func firstMet(matches []match, r request) *route {
	for _, m := range matches {
		if m.isMet(r) {
			return m.route
		}
	}
	return nil
}

func (m match) isMet(r request) bool {
	for _, c := range m.conditions {
		if !c.isMet(r) {
			return false
		}
	}
	return true
}

// maxLooked bounds what one condition looks at, in bytes: no request may keep others waiting while it is held against a
// regular expression.
const maxLooked = 8 << 10

func (c condition) isMet(r request) bool {
	looked := 0
	for value := range c.values(r) {
		if looked += len(value); looked > maxLooked {
			return false
		}
		if c.test(value) {
			return true
		}
	}
	return false
}

// values are those that the condition is about: several, if the header has several lines.
func (c condition) values(r request) iter.Seq[string] {
	switch c.part {
	case api.PartMethod:
		return oneLine(r.method)
	case api.PartPath:
		return oneLine(r.path)
	case api.PartShare:
		return c.toldApartBy(r)
	}
	return r.header(c.name)
}

// header are the lines of a header.
func (r request) header(name string) iter.Seq[string] {
	if name == "host" && r.authority != "" {
		return oneLine(r.authority)
	}
	return values(r.fields, name)
}

// read gives what decides about an HTTP/1 request to the app's port, whose head is b, and beyond doubt.
func (t *table) read(port uint16, b []byte, keys []string) request {
	r := request{keys: keys}
	if !t.matching(port) {
		return r
	}
	line, _, _ := cutLine(b)
	method, rest, _ := strings.Cut(string(line), " ")
	target := rest[:strings.LastIndexByte(rest, ' ')]
	r.method, r.path = method, pathOf(target)
	if target[0] != '/' && target[0] != '*' {
		r.authority = authority(b)
	}
	r.fields = namedFields(b, t.ports[port].names)
	return r
}

// request gives what decides about an HTTP/2 request.
func (h *h2Head) request(keys []string) request {
	return request{keys: keys, method: h.method, path: pathOf(h.path), authority: h.value(":authority"), fields: h.fields}
}

// pathOf cuts the path out of a request's target, which may be a URL. A target that is neither has none.
func pathOf(target string) string {
	if !strings.HasPrefix(target, "/") {
		_, rest, isURL := strings.Cut(target, "://")
		if !isURL {
			return ""
		}
		target = "/"
		if at := strings.IndexAny(rest, "/?"); at >= 0 && rest[at] == '/' {
			target = rest[at:]
		}
	}
	path, _, _ := strings.Cut(target, "?")
	return path
}
