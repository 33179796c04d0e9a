package api

import (
	"slices"
	"strings"
)

// Consents are the words that [ParseConsent] knows.
var Consents = []string{AllowMatch, AllowPercent, AllowMirror}

// ParseConsent reads the value of [AnnotationAllow]: words such as [AllowMatch], joined with commas. Words that it does not
// know consent to nothing.
func ParseConsent(s string) (known, unknown []string) {
	for word := range strings.SplitSeq(s, ",") {
		switch word = strings.TrimSpace(word); {
		case slices.Contains(known, word), slices.Contains(unknown, word):
		case slices.Contains(Consents, word):
			known = append(known, word)
		default:
			unknown = append(unknown, word)
		}
	}
	return known, unknown
}
