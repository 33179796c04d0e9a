package api

import (
	"net/http"
	"net/url"
	"strings"
)

// Carriers that apps may hand on, besides [HeaderKey] and [HeaderBaggage].
const (
	headerCorrelation = "Correlation-Context" // .NET's name for baggage
	headerTraceState  = "Tracestate"
	memberTraceState  = "detour"
	headerOpenTracing = "Ot-Baggage-" + BaggageMember
	headerJaeger      = "Uberctx-" + BaggageMember
)

// ReplaceKey leaves a key in a request's header, and takes out whatever else could carry one. What it takes out is more
// than what a proxy reads: an app that reads a member's name generously would hand it on as one that a proxy does read.
func ReplaceKey(h http.Header, key string) {
	for name := range h {
		if strings.Contains(name, "_") && isCarrier(strings.ReplaceAll(name, "_", "-")) {
			delete(h, name) // CGI and its heirs take it for the one with '-'
		}
	}
	h.Set(HeaderKey, key)
	h.Del(headerOpenTracing)
	h.Del(headerJaeger)
	setMembers(h, headerCorrelation, ",", without(h[headerCorrelation], ",", BaggageMember))
	setMembers(h, headerTraceState, ",", without(h[headerTraceState], ",", memberTraceState))
	RemoveCookie(h, BaggageMember)
	// The key comes first, where no limit on baggage cuts it off.
	baggage := without(h[HeaderBaggage], ",", BaggageMember)
	setMembers(h, HeaderBaggage, ",", append([]string{BaggageMember + "=" + key}, baggage...))
}

// RemoveCookie takes a cookie out of a request's header, by whatever spelling of its name someone might read it.
func RemoveCookie(h http.Header, name string) {
	setMembers(h, "Cookie", ";", without(h["Cookie"], ";", name))
}

func isCarrier(name string) bool {
	for _, carrier := range []string{
		HeaderKey, HeaderBaggage, headerCorrelation, headerTraceState, headerOpenTracing, headerJaeger,
	} {
		if strings.EqualFold(name, carrier) {
			return true
		}
	}
	return false
}

// without lists the members of lines as they are, but for those called name.
func without(lines []string, separator, name string) []string {
	var kept []string
	for _, line := range lines {
		for member := range strings.SplitSeq(line, separator) {
			if member = strings.TrimSpace(member); member != "" && !isCalled(member, name) {
				kept = append(kept, member)
			}
		}
	}
	return kept
}

// isCalled reads the name of a member as generously as anyone might.
func isCalled(member, name string) bool {
	member, _, _ = strings.Cut(member, "=")
	member, _, _ = strings.Cut(member, ";")
	if decoded, err := url.QueryUnescape(member); err == nil {
		member = decoded
	}
	return strings.EqualFold(strings.Trim(strings.TrimSpace(member), `"`), name)
}

// setMembers writes a list on one line; a header without members is removed.
func setMembers(h http.Header, header, separator string, members []string) {
	if len(members) == 0 {
		h.Del(header)
		return
	}
	if separator == ";" {
		separator = "; "
	}
	h.Set(header, strings.Join(members, separator))
}
