package proxy

import (
	"iter"
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

// field is one header line.
type field struct {
	name  string // in lower case
	value string
}

// values are those of all fields of a name, in order.
func values(fields []field, name string) iter.Seq[string] {
	return func(yield func(string) bool) {
		for _, f := range fields {
			if f.name == name && !yield(f.value) {
				return
			}
		}
	}
}

// Carriers in the form in which fields are named.
var (
	carrierKey     = strings.ToLower(api.HeaderKey)
	carrierBaggage = strings.ToLower(api.HeaderBaggage)
)

// memberName is in every carrier: it is the name of the baggage member, and of the header in lower case.
const memberName = api.BaggageMember

// keysOf lists the keys that a request carries in the order in which they count: those of Detour-Key before those of
// baggage, and within a carrier by position. What cannot be a key is left out.
func keysOf(fields []field) []string {
	return append(headerKeys(fields), baggageKeys(fields)...)
}

func headerKeys(fields []field) []string {
	return validKeys(nil, elements(values(fields, carrierKey)))
}

func baggageKeys(fields []field) []string {
	var keys []string
	for member := range elements(values(fields, carrierBaggage)) {
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

// carryOn is the member that has to be added to a request's baggage, so that the keys of Detour-Key are in it as well:
// instrumented apps pass baggage on where they drop headers that they do not know. None is needed without Detour-Key, and
// where baggage names a key already. Several keys share one member, separated by an encoded comma, because
// OpenTelemetry's SDKs keep only one member of a name. fits is false if baggage would grow beyond what others have to
// hand on: then it has to stay as it is.
//
// The member belongs at the end of the first baggage field, because some SDKs read no other.
func carryOn(fields []field) (member string, fits bool) {
	keys := headerKeys(fields)
	if len(keys) == 0 || len(baggageKeys(fields)) > 0 {
		return "", true
	}
	member = api.BaggageMember + "=" + strings.Join(keys, "%2C")
	size, members := len(member), 1
	for m := range elements(values(fields, carrierBaggage)) {
		size += len(m) + 1
		members++
	}
	if size > maxBaggage || members > maxBaggageMembers {
		return "", false
	}
	return member, true
}

// elements are those of a list that may be spread over several lines (RFC 9110, section 5.6.1).
func elements(lines iter.Seq[string]) iter.Seq[string] {
	return func(yield func(string) bool) {
		for line := range lines {
			for e := range strings.SplitSeq(line, ",") {
				if e = trim(e); e != "" && !yield(e) {
					return
				}
			}
		}
	}
}

// oneLine is a list on one line.
func oneLine(s string) iter.Seq[string] {
	return func(yield func(string) bool) { yield(s) }
}

// names reports whether a list field, such as Connection, has an element, whatever its case.
func names(fields []field, list, element string) bool {
	for e := range elements(values(fields, list)) {
		if strings.EqualFold(e, element) {
			return true
		}
	}
	return false
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
