package api

import (
	"crypto/sha256"
	"encoding/base32"
	"iter"
	"strings"
)

// HostName is what the first label of a preview's host name says: which key goes into a request, and which Service, not
// necessarily the key's target, the request enters.
type HostName struct{ Key, Service, Namespace string }

const (
	// maxHostLabel is the length that DNS allows one label of a host name (RFC 1035, section 2.3.4).
	maxHostLabel = 63

	hostSeparator   = "--"
	digestSeparator = "---" // no plain label has it
	digestLength    = 12    // 60 bits
)

// Label is the label that says n, for every n one and for each another:
//
//   - "<key>--<service>--<namespace>", where that is an unambiguous label of at most 63 characters: lower-case letters,
//     digits and single '-' only, and no key "xn", which would make it look like an encoded international name
//     (RFC 5890, section 2.3.1);
//   - otherwise "<the beginning of that>---<24 letters and digits>", digests of the key and of the Service, which
//     [FindHostLabel] turns back with the help of the keys and Services that there are.
func (n HostName) Label() string {
	label := n.Key + hostSeparator + n.Service + hostSeparator + n.Namespace
	if n.isPlain() && isPlain(n.Namespace) && len(label) <= maxHostLabel {
		return label
	}
	digests := digest(n.Key) + serviceDigest(n.Service, n.Namespace)
	stem := hostStem(label, maxHostLabel-len(digestSeparator)-len(digests))
	return stem + digestSeparator + digests
}

// ParseHostLabel is the inverse of [HostName.Label] for plain labels. It reads "<key>--<service>" too, where the
// Namespace is left to whoever has a default for it.
func ParseHostLabel(label string) (HostName, bool) {
	parts := append(strings.Split(label, hostSeparator), "")
	n := HostName{Key: parts[0], Service: parts[1]}
	switch len(parts) - 1 {
	case 2:
		return n, n.isPlain()
	case 3:
		n.Namespace = parts[2]
		return n, n.isPlain() && isPlain(n.Namespace)
	}
	return HostName{}, false
}

// FindHostLabel is the inverse of [HostName.Label] for short labels: it finds the name among keys and services, which
// yields the name and the namespace of each Service. It computes a digest for each of them.
func FindHostLabel(label string, keys iter.Seq[string], services iter.Seq2[string, string]) (HostName, bool) {
	_, digests, found := strings.Cut(label, digestSeparator)
	if !found || len(digests) != 2*digestLength {
		return HostName{}, false
	}
	for key := range keys {
		if digest(key) != digests[:digestLength] {
			continue
		}
		for service, namespace := range services {
			n := HostName{key, service, namespace}
			if serviceDigest(service, namespace) == digests[digestLength:] && n.Label() == label {
				return n, true
			}
		}
	}
	return HostName{}, false
}

// isPlain reports whether the key and the Service can be read back from a label.
func (n HostName) isPlain() bool { return isPlain(n.Key) && n.Key != "xn" && isPlain(n.Service) }

// isPlain reports whether s can be part of a label of a host name, and has an end there.
func isPlain(s string) bool { return hostLabel(s) && !strings.Contains(s, hostSeparator) }

// hostLabel reports whether s, but for its length, can be a label of a host name in lower case.
func hostLabel(s string) bool {
	for i := range len(s) {
		inner := i > 0 && i < len(s)-1
		if c := s[i]; !lowerAlphanumeric(c) && !(inner && c == '-') {
			return false
		}
	}
	return s != ""
}

// hostStem shows a person what a short label is about.
func hostStem(s string, length int) string {
	var stem []byte
	for i := range len(s) {
		c := s[i]
		if c >= 'A' && c <= 'Z' {
			c += 'a' - 'A'
		}
		switch {
		case lowerAlphanumeric(c):
			stem = append(stem, c)
		case len(stem) > 0 && stem[len(stem)-1] != '-':
			stem = append(stem, '-')
		}
	}
	if short := strings.TrimRight(string(stem[:min(len(stem), length)]), "-"); short != "" {
		return short
	}
	return "preview"
}

func lowerAlphanumeric(c byte) bool { return alphanumeric(c) && !(c >= 'A' && c <= 'Z') }

func serviceDigest(service, namespace string) string { return digest(service + "/" + namespace) }

var digestEncoding = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

func digest(s string) string {
	sum := sha256.Sum256([]byte(s))
	return digestEncoding.EncodeToString(sum[:])[:digestLength]
}
