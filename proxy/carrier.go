package proxy

import (
	"iter"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/detour-dev/detour/api"
)

// maxKeys bounds the work on one request; further keys are ignored.
const maxKeys = 64

// Limits up to which everyone has to hand baggage on (https://www.w3.org/TR/baggage/#limits).
const (
	maxBaggage        = 8192 // bytes
	maxBaggageMembers = 64
)

// keysOf lists the keys that a request carries in the order in which they count: those of Detour-Key before those of
// baggage, and within a carrier by position. What cannot be a key is left out.
func keysOf(h http.Header) []string {
	return append(headerKeys(h), baggageKeys(h)...)
}

func headerKeys(h http.Header) []string {
	return validKeys(nil, elements(h[api.HeaderKey]))
}

func baggageKeys(h http.Header) []string {
	var keys []string
	for member := range elements(h[api.HeaderBaggage]) {
		if value, ok := memberValue(member); ok {
			keys = validKeys(keys, strings.SplitSeq(value, ","))
		}
	}
	return keys
}

// memberValue is the decoded value of a baggage member if it is the one that carries keys. Its properties say nothing
// to us.
func memberValue(member string) (string, bool) {
	member, _, _ = strings.Cut(member, ";")
	name, value, found := strings.Cut(member, "=")
	if !found || trim(name) != api.BaggageMember {
		return "", false
	}
	value = trim(value)
	if strings.ContainsFunc(value, notBaggageOctet) {
		return "", false
	}
	value, err := url.PathUnescape(value)
	return value, err == nil
}

// notBaggageOctet tells what a member's value cannot hold (https://www.w3.org/TR/baggage/#definition).
func notBaggageOctet(r rune) bool {
	return r <= ' ' || r >= 0x7f || strings.ContainsRune("\",;\\", r)
}

// carryOn makes sure that the keys of Detour-Key are in baggage as well, which instrumented apps pass on where they drop
// headers that they do not know. Several keys share one member, separated by an encoded comma, because OpenTelemetry's
// SDKs keep only one member of a name. Baggage that names a key already is left alone, and so is everything if it
// would grow beyond what others have to hand on: then carryOn reports false.
func carryOn(h http.Header) bool {
	keys := headerKeys(h)
	if len(keys) == 0 || len(baggageKeys(h)) > 0 {
		return true
	}
	members := slices.Collect(elements(h[api.HeaderBaggage]))
	members = append(members, api.BaggageMember+"="+strings.Join(keys, "%2C"))
	joined := strings.Join(members, ",")
	if len(joined) > maxBaggage || len(members) > maxBaggageMembers {
		return false
	}
	h[api.HeaderBaggage] = []string{joined}
	return true
}

// elements are those of a list that may be spread over several lines (RFC 9110, section 5.6.1).
func elements(lines []string) iter.Seq[string] {
	return func(yield func(string) bool) {
		for _, line := range lines {
			for e := range strings.SplitSeq(line, ",") {
				if e = trim(e); e != "" && !yield(e) {
					return
				}
			}
		}
	}
}

// validKeys appends what can be a key and is not there yet.
func validKeys(keys []string, candidates iter.Seq[string]) []string {
	for k := range candidates {
		if len(keys) == maxKeys {
			break
		}
		if k = trim(k); api.ValidKey(k) && !slices.Contains(keys, k) {
			keys = append(keys, k)
		}
	}
	return keys
}

// trim cuts optional whitespace (RFC 9110, section 5.6.3).
func trim(s string) string { return strings.Trim(s, " \t") }
