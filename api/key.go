package api

import "fmt"

// maxHostLabel is the length that DNS allows one label of a host name (RFC 1035, section 2.3.4).
const maxHostLabel = 63

// maxKey is the length that Kubernetes allows a label's value.
const maxKey = 63

// ValidKey reports whether s can be a key: 1 to 63 characters that Kubernetes accepts as a label's value. That leaves out
// everything that would need quoting in a header, in baggage or in a URL.
func ValidKey(s string) bool {
	for i := range len(s) {
		inner := i > 0 && i < len(s)-1
		if c := s[i]; !alphanumeric(c) && !(inner && (c == '.' || c == '_' || c == '-')) {
			return false
		}
	}
	return s != "" && len(s) <= maxKey
}

func alphanumeric(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
}

// hostLabel reports whether s, but for its length, can be a label of a host name in lower case.
func hostLabel(s string) bool {
	for i := range len(s) {
		inner := i > 0 && i < len(s)-1
		if c := s[i]; !(c >= 'a' && c <= 'z' || c >= '0' && c <= '9') && !(inner && c == '-') {
			return false
		}
	}
	return s != ""
}

// HostLabel is the first label of a preview's host name: "<key>--<service>--<namespace>". The error says why there
// can be none; the key works in headers all the same.
func HostLabel(key, service, namespace string) (string, error) {
	label := key + "--" + service + "--" + namespace
	if !hostLabel(label) {
		return "", fmt.Errorf("key %q cannot be part of a host name: use lower-case letters, digits and '-' only", key)
	}
	if over := len(label) - maxHostLabel; over > 0 {
		return "", fmt.Errorf("key %q makes the host name %q %d characters longer than the %d that DNS allows: use a shorter key",
			key, label, over, maxHostLabel)
	}
	return label, nil
}
