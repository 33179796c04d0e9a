package proxy

import (
	"crypto/sha256"
	"encoding/binary"
	"iter"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"

	"github.com/detour-dev/detour/api"
)

// shareOf makes a condition ready that a share of the requests meets.
//
// Whether one does is a matter of what it is told apart by, a header, a cookie or what chance has given it, and of the key:
// so the same user is always treated alike, by every proxy and after every restart, and one preview's users are not just
// those of another, unless the two have the same key and so belong together.
func shareOf(key string, c api.Condition) condition {
	share, err := c.Share()
	if err != nil {
		panic(err) // it has been checked
	}
	made := condition{part: c.Part, name: c.ShareHeader(), cookie: c.ShareCookie()}
	if made.cookie != "" {
		made.name = "cookie"
	}
	made.test = func(value string) bool { return lot(key, value) < uint64(share) }
	return made
}

// lot is where among all, [0, api.WholeShare), a value stands for a key. It must not change: users would change sides.
func lot(key, value string) uint64 {
	sum := sha256.Sum256([]byte(key + "\x00" + value))
	return binary.BigEndian.Uint64(sum[:]) % api.WholeShare
}

// newDraw is what chance gives a request.
func newDraw() string { return strconv.FormatUint(rand.Uint64(), 36) }

// drawn reports whether chance has a say in one of the matches.
func drawn(matches []match) bool {
	return slices.ContainsFunc(matches, func(m match) bool {
		return slices.ContainsFunc(m.conditions, func(c condition) bool { return c.part == api.PartShare && c.name == "" })
	})
}

// draws reports whether chance has a say in where requests to the app's port go.
func (t *table) draws(port uint16) bool { return t != nil && t.ports[port].draws }

// toldApartBy is the value that decides about a share; none if the request has none.
func (c condition) toldApartBy(r request) iter.Seq[string] {
	found := oneLine(r.draw)
	switch {
	case c.cookie != "":
		found = cookies(r.header(c.name), c.cookie)
	case c.name != "":
		found = r.header(c.name)
	}
	if value := trim(first(found)); value != "" {
		return oneLine(value)
	}
	return values(nil, "")
}

func first(of iter.Seq[string]) string {
	for value := range of {
		return value
	}
	return ""
}

// cookies are the values of a cookie (RFC 6265, section 5.4; RFC 9113, section 8.2.3).
func cookies(lines iter.Seq[string], name string) iter.Seq[string] {
	return func(yield func(string) bool) {
		for line := range lines {
			for cookie := range strings.SplitSeq(line, ";") {
				if n, value, _ := strings.Cut(trim(cookie), "="); n == name && !yield(value) {
					return
				}
			}
		}
	}
}
