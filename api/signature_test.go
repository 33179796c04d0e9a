package api

import (
	"errors"
	"testing"
	"time"
)

// TestSignature holds what the recipe in docs/urls.md makes of its example.
func TestSignature(t *testing.T) {
	const host, want = "pr-42--api--shop.preview.test", "2000000000.2C0x0adVlvlScFCdNagdJ_GxqFATsnaIU6bWQArNLIA"
	key, expires := []byte("0123456789abcdef0123456789abcdef"), time.Unix(2000000000, 0)
	if got := SignHost(key, host, expires); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	keys := [][]byte{[]byte("the next one"), key}
	before := expires.Add(-time.Second)
	for _, spelling := range []string{host, "PR-42--Api--Shop.preview.test"} {
		if got, err := CheckSignature(keys, spelling, want, before); err != nil || !got.Equal(expires) {
			t.Errorf("%s: %v, %v", spelling, got, err)
		}
	}
	for name, c := range map[string]struct {
		host, signature string
		now             time.Time
		err             error
	}{
		"expired":       {host, want, expires, ErrExpired},
		"another host":  {"x" + host, want, before, ErrNotSigned},
		"another time":  {host, "3" + want[1:], before, ErrNotSigned},
		"another key":   {host, SignHost([]byte("guessed"), host, expires), before, ErrNotSigned},
		"nothing":       {host, "", before, ErrNotSigned},
		"no HMAC":       {host, "2000000000.", before, ErrNotSigned},
		"half an HMAC":  {host, want[:len(want)-4], before, ErrNotSigned},
		"not base64url": {host, want + "=", before, ErrNotSigned},
	} {
		if _, err := CheckSignature(keys, c.host, c.signature, c.now); !errors.Is(err, c.err) {
			t.Errorf("%s: %v, want %v", name, err, c.err)
		}
	}
}
