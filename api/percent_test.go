package api

import (
	"strings"
	"testing"
)

func TestParsePercent(t *testing.T) {
	for text, want := range map[string]struct {
		condition Condition
		share     int
	}{
		"10":                        {Condition{PartShare, "", TestPercent, "10"}, 1000},
		" 12.5 ":                    {Condition{PartShare, "", TestPercent, "12.5"}, 1250},
		"0.01":                      {Condition{PartShare, "", TestPercent, "0.01"}, 1},
		"0":                         {Condition{PartShare, "", TestPercent, "0"}, 0},
		"100.00":                    {Condition{PartShare, "", TestPercent, "100.00"}, WholeShare},
		"10 by header X-User":       {Condition{PartShare, "header x-user", TestPercent, "10"}, 1000},
		"10\tby  cookie  SessionID": {Condition{PartShare, "cookie SessionID", TestPercent, "10"}, 1000},
	} {
		got, err := ParsePercent(text)
		if got != want.condition || err != nil {
			t.Errorf("%q: %v, %v", text, got, err)
		}
		if n, err := got.Share(); n != want.share || err != nil {
			t.Errorf("%q: a share of %d, %v", text, n, err)
		}
	}
}

func TestParsePercentNamesWhatIsWrong(t *testing.T) {
	for text, bad := range map[string]string{
		"":                          "want a percentage",
		"10 %":                      "want a percentage",
		"10 by header":              "want a percentage",
		"10 of header x":            "want a percentage",
		"10 by header x or so":      "want a percentage",
		"10%":                       `"10%" is no percentage`,
		"-1":                        `"-1" is no percentage`,
		"+1":                        `"+1" is no percentage`,
		"1e1":                       `"1e1" is no percentage`,
		".5":                        `".5" is no percentage`,
		"5.":                        `"5." is no percentage`,
		"1,5":                       `"1,5" is no percentage`,
		"0.125":                     `"0.125" is no percentage`,
		"100.01":                    `"100.01" is no percentage`,
		"101":                       `"101" is no percentage`,
		"1_0":                       `"1_0" is no percentage`,
		strings.Repeat("0", 99_999): `is no percentage`,
		"10 by query user":          `"query user" cannot be told apart by`,
		"10 by header x:y":          `"x:y" is not the name of a header`,
		"10 by cookie a=b":          `"a=b" is not the name of a cookie`,
	} {
		_, err := ParsePercent(text)
		if err == nil || !strings.Contains(err.Error(), bad) {
			t.Errorf("%.100q: error %v, want one with %s", text, err, bad)
		} else if len(err.Error()) > 400 {
			t.Errorf("%.100q: an error of %d bytes", text, len(err.Error()))
		}
	}
}

// FuzzParsePercent checks that what is accepted makes a table that a proxy accepts, and can tell requests apart by.
func FuzzParsePercent(f *testing.F) {
	for _, text := range []string{"10", "0.5 by header x-user", "100 by cookie s", "10 by", "99999999999999999999.1", "10 by header \x00"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		c, err := ParsePercent(text)
		if err != nil {
			return
		}
		table := Table{Ports: []Port{{Port: 1, Routes: []Route{{Key: "a"}}, Matches: []Match{{"a", []Condition{c}}}}}}
		if err := table.Check(); err != nil || !c.Known() {
			t.Errorf("%q: the table is refused: %v, known: %v", text, err, c.Known())
		}
		if n, err := c.Share(); err != nil || n < 0 || n > WholeShare {
			t.Errorf("%q: a share of %d, %v", text, n, err)
		}
		if by := c.ShareHeader() + c.ShareCookie(); (by == "") != (c.Name == "") {
			t.Errorf("%q: told apart by %q, of %q", text, by, c.Name)
		}
	})
}
