package api

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"strconv"
	"strings"
	"time"
)

// Where a request shows its signature to the router's gateway. Clients write it, the gateway reads it and takes it out.
const (
	// ParameterSignature is the parameter of a URL. The cookie by which the gateway has a browser keep the signature has
	// the same name.
	ParameterSignature = "detour-signature"

	// HeaderSignature is for programs that make their own URLs.
	HeaderSignature = "Detour-Signature"
)

// Errors of [CheckSignature].
var (
	ErrNotSigned = errors.New("not signed for this host")
	ErrExpired   = errors.New("the signature has expired")
)

// SignHost is the signature of a preview's host name, without a port, that lets requests in until expires:
// "<seconds since 1970>.<base64url of an HMAC>". The HMAC is SHA-256 over "detour-url-v1", the host in lower case and the
// seconds, with a line feed between them.
func SignHost(key []byte, host string, expires time.Time) string {
	seconds := strconv.FormatInt(expires.Unix(), 10)
	return seconds + "." + base64.RawURLEncoding.EncodeToString(hostMAC(key, host, seconds))
}

// CheckSignature returns until when a signature lets requests for host in, if one of the keys made it.
func CheckSignature(keys [][]byte, host, signature string, now time.Time) (time.Time, error) {
	seconds, encoded, _ := strings.Cut(signature, ".")
	sum, err := base64.RawURLEncoding.DecodeString(encoded)
	if err != nil {
		return time.Time{}, ErrNotSigned
	}
	for _, key := range keys {
		if !hmac.Equal(sum, hostMAC(key, host, seconds)) {
			continue
		}
		unix, err := strconv.ParseInt(seconds, 10, 64)
		if err != nil || !now.Before(time.Unix(unix, 0)) {
			return time.Time{}, ErrExpired
		}
		return time.Unix(unix, 0), nil
	}
	return time.Time{}, ErrNotSigned
}

func hostMAC(key []byte, host, seconds string) []byte {
	mac := hmac.New(sha256.New, key)
	_, _ = mac.Write([]byte("detour-url-v1\n" + strings.ToLower(host) + "\n" + seconds)) // it never fails
	return mac.Sum(nil)
}
