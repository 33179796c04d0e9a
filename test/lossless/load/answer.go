package main

import (
	"bytes"
	"errors"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"strings"
)

// baseline is the version of every copy that is no preview; a preview's version is its key.
const baseline = "baseline"

// blob is up to 4 KiB that a seed stands for.
func blob(seed string) []byte {
	hash := fnv.New64a()
	hash.Write([]byte(seed))
	random := rand.NewChaCha8([32]byte(bytes.Repeat(hash.Sum(nil), 4)))
	b := make([]byte, random.Uint64()%4096)
	random.Read(b)
	return b
}

// split takes an answer apart: who signed it, and the bytes that must be want.
func split(answer, want []byte) (version string, err error) {
	signature, got, found := bytes.Cut(answer, []byte("\n"))
	version, _, signed := strings.Cut(string(signature), " ")
	if !found || !signed {
		return "", fmt.Errorf("an answer that is not the app's: %.200q", answer)
	}
	if !bytes.Equal(got, want) {
		return "", fmt.Errorf("other bytes than were sent: %d, want %d", len(got), len(want))
	}
	return version, nil
}

// refusal is one of the documented 503s that a request with a key may get: its Detour-Error.
type refusal string

func (r refusal) Error() string { return "refused: " + string(r) }

// errGoodBye: the app has ended the stream in the orderly way, with the last message unanswered.
var errGoodBye = errors.New("the app said good-bye")
