package plugin

import (
	"regexp"
	"strings"
)

// tagPattern is a tag of the OCI distribution specification.
var tagPattern = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$`)

// withTag is the same repository's image with another tag.
func withTag(image, tag string) string {
	image, _, _ = strings.Cut(image, "@")
	if colon := strings.LastIndex(image, ":"); colon > strings.LastIndex(image, "/") { // or it is the registry's port
		image = image[:colon]
	}
	return image + ":" + tag
}
