package api

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// PartShare is no part of a request: a [Condition] of it, whose test is [TestPercent], is met by a share of them.
//
// Without a Name every request is decided on its own. With "header <name>" or "cookie <name>" all that have the same value
// there are decided alike, everywhere and for good; those that have none do not meet it.
const PartShare Part = "share"

// TestPercent is the only test of [PartShare]: Value is a number from 0 to 100 with up to two decimals.
const TestPercent Test = "percent"

// WholeShare is all requests, in hundredths of a percent.
const WholeShare = 100_00

// What a share's name begins with.
const (
	byHeader = "header"
	byCookie = "cookie"
)

// ParsePercent reads the value of [AnnotationPercent]:
//
//	10
//	12.5 by header x-user
//	0.25 by cookie session
//
// The error names the part that is wrong.
func ParsePercent(text string) (Condition, error) {
	words := strings.Fields(text)
	c := Condition{Part: PartShare, Test: TestPercent}
	switch {
	case len(words) == 1:
	case len(words) == 4 && words[1] == "by" && words[2] == byHeader:
		c.Name = byHeader + " " + strings.ToLower(words[3])
	case len(words) == 4 && words[1] == "by":
		c.Name = words[2] + " " + words[3]
	default:
		return Condition{}, errors.New("want a percentage, such as 10, and perhaps what decides alike, such as '10 by header x-user' or '10 by cookie session'")
	}
	c.Value = words[0]
	if err := c.checkShare(); err != nil {
		return Condition{}, err
	}
	return c, nil
}

// Share is how many of [WholeShare] requests meet a condition of [PartShare].
func (c Condition) Share() (int, error) {
	whole, decimals, dotted := strings.Cut(c.Value, ".")
	n, err := strconv.ParseUint(whole+(decimals + "00")[:2], 10, 16)
	if err != nil || n > WholeShare || whole == "" || len(whole) > 3 || dotted && (decimals == "" || len(decimals) > 2) {
		return 0, fmt.Errorf("%.100q is no percentage: want a number from 0 to 100 with up to two decimals", c.Value)
	}
	return int(n), nil
}

// ShareHeader is the header whose value decides alike, and ShareCookie the cookie; both are empty where there is none.
func (c Condition) ShareHeader() string { return c.sharedBy(byHeader) }
func (c Condition) ShareCookie() string { return c.sharedBy(byCookie) }

func (c Condition) sharedBy(kind string) string {
	if of, name, _ := strings.Cut(c.Name, " "); of == kind {
		return name
	}
	return ""
}

// knownShare reports whether this version knows how requests are to be told apart.
func (c Condition) knownShare() bool {
	kind, _, named := strings.Cut(c.Name, " ")
	return c.Test == TestPercent && (c.Name == "" || named && (kind == byHeader || kind == byCookie))
}

func (c Condition) checkShare() error {
	if !c.knownShare() {
		return fmt.Errorf("%.100q cannot be told apart by: want 'header <name>' or 'cookie <name>'", c.Name)
	}
	switch kind, name, _ := strings.Cut(c.Name, " "); {
	case c.Name == "":
	case kind == byHeader && !isHeaderName(name):
		return fmt.Errorf("%.100q is not the name of a header", name)
	case kind == byCookie && !isHeaderName(strings.ToLower(name)): // both are tokens (RFC 6265, section 4.1.1)
		return fmt.Errorf("%.100q is not the name of a cookie", name)
	}
	_, err := c.Share()
	return err
}
