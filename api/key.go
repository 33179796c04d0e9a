package api

import (
	"fmt"
	"regexp"
)

// maxHostLabel is the length that DNS allows one label of a host name (RFC 1035, section 2.3.4).
const maxHostLabel = 63

// keyPattern is what Kubernetes allows a label's value. It leaves out everything that would need quoting in a
// header, in baggage or in a URL.
var keyPattern = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$`)

var hostLabelPattern = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]*[a-z0-9])?$`)

// ValidKey reports whether s can be a key: 1 to 63 characters that Kubernetes accepts as a label's value.
func ValidKey(s string) bool {
	return keyPattern.MatchString(s)
}

// HostLabel is the first label of a preview's host name: "<key>--<service>--<namespace>". The error says why there
// can be none; the key works in headers all the same.
func HostLabel(key, service, namespace string) (string, error) {
	label := key + "--" + service + "--" + namespace
	if !hostLabelPattern.MatchString(label) {
		return "", fmt.Errorf("key %q cannot be part of a host name: use lower-case letters, digits and '-' only", key)
	}
	if over := len(label) - maxHostLabel; over > 0 {
		return "", fmt.Errorf("key %q makes the host name %q %d characters longer than the %d that DNS allows: use a shorter key",
			key, label, over, maxHostLabel)
	}
	return label, nil
}
