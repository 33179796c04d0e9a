package api

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
