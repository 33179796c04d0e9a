package api

import (
	"slices"
	"strings"
)

// Consents are the words that [ParseConsent] knows, but for those that begin with [AllowNamespace].
var Consents = []string{AllowMatch, AllowPercent, AllowMirror}

// ParseConsent reads the value of [AnnotationAllow]: words such as [AllowMatch], joined with commas. Words that it does not
// know consent to nothing.
func ParseConsent(s string) (known, unknown []string) {
	for word := range strings.SplitSeq(s, ",") {
		switch word = strings.TrimSpace(word); {
		case slices.Contains(known, word), slices.Contains(unknown, word):
		case slices.Contains(Consents, word), allowsNamespace(word):
			known = append(known, word)
		default:
			unknown = append(unknown, word)
		}
	}
	return known, unknown
}

func allowsNamespace(word string) bool {
	name, is := strings.CutPrefix(word, AllowNamespace)
	return is && ValidNamespace(name)
}

// ValidNamespace reports whether s can be the name of a namespace: an RFC 1123 label.
func ValidNamespace(s string) bool { return hostLabel(s) && len(s) <= maxHostLabel }
