package api

import (
	"encoding/json"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseConditions(t *testing.T) {
	for text, want := range map[string][]Condition{
		"header X-User exact alice":                           {{PartHeader, "x-user", TestExact, "alice"}},
		"header x-user exact  alice in  chains ":              {{PartHeader, "x-user", TestExact, "alice in  chains"}},
		"header x_beta present":                               {{PartHeader, "x_beta", TestPresent, ""}},
		"\theader\tuser-agent\tregex\t^curl/\\d+ \\(x; y\\)$": {{PartHeader, "user-agent", TestRegex, `^curl/\d+ \(x; y\)$`}},
		"path prefix /api/\n\n  method exact POST\r\n": {
			{PartPath, "", TestPrefix, "/api/"}, {PartMethod, "", TestExact, "POST"},
		},
		"path regex ^/v[12]/": {{PartPath, "", TestRegex, "^/v[12]/"}},
	} {
		if got, err := ParseConditions(text); !cmp.Equal(want, got) || err != nil {
			t.Errorf("%q: %v, %v", text, got, err)
		}
	}
}

func TestParseConditionsNamesWhatIsWrong(t *testing.T) {
	for text, bad := range map[string]string{
		"":                                 "no condition",
		" \n\n":                            "no condition",
		"cookie x exact y":                 `line 1, "cookie x exact y": "cookie" is no part`,
		"share percent 10":                 `"share" is no part`,
		"path percent 10":                  `"percent" is no test`,
		"path prefix /\nheader":            `line 2, "header": "" is not the name of a header`,
		"header x:y present":               `"x:y" is not the name`,
		"header :path exact /":             `":path" is not the name`,
		"header ü present":                 `"ü" is not the name`,
		"header x":                         `"" is no test`,
		"header x alice":                   `"alice" is no test`,
		"header x exact":                   "value is missing",
		"header x present alice":           `takes no value: "alice"`,
		"path present":                     "always present",
		"path prefix api":                  `"api": a path begins`,
		"path exact /a?b=c":                "a query",
		"method exact post":                "in capitals",
		"header x regex (":                 `"(" is no regular expression`,
		"header x regex (?=a)":             "is no regular expression",
		`header x regex (a)\1`:             "is no regular expression",
		"header x regex (x{100}){3}":       "too large",
		`header x regex \pL{900}`:          "too large",
		"header x regex ((a{30}){30}){30}": "is no regular expression",
		"header x exact a\x00b":            "control character",
		"header x exact " + strings.Repeat("x", 257):      "257 bytes",
		strings.Repeat("header x present\n", 9):           "line 9: more than 8",
		"header " + strings.Repeat("x", 257) + " present": "is not the name",
		strings.Repeat("x", 100_000):                      "is no part",
	} {
		_, err := ParseConditions(text)
		if err == nil || !strings.Contains(err.Error(), bad) {
			t.Errorf("%.100q: error %v, want one with %s", text, err, bad)
		} else if len(err.Error()) > 700 {
			t.Errorf("%.100q: an error of %d bytes", text, len(err.Error()))
		}
	}
}

func TestParseConsent(t *testing.T) {
	for text, want := range map[string][2][]string{
		"match":                   {{"match"}, nil},
		" match , match":          {{"match"}, nil},
		"mirror,percent,match":    {{"mirror", "percent", "match"}, nil},
		"Match,match,all,":        {{"match"}, {"Match", "all", ""}},
		"":                        {nil, {""}},
		"everything else as well": {nil, {"everything else as well"}},

		"namespace/team-b,match,namespace/b": {{"namespace/team-b", "match", "namespace/b"}, nil},
		"namespace/*,namespace/,namespace":   {nil, {"namespace/*", "namespace/", "namespace"}},
		"namespace/a/b,Namespace/b":          {nil, {"namespace/a/b", "Namespace/b"}},
	} {
		known, unknown := ParseConsent(text)
		if diff := cmp.Diff(want, [2][]string{known, unknown}); diff != "" {
			t.Errorf("%q: -want +got\n%s", text, diff)
		}
	}
}

// FuzzParseConditions checks that what is accepted makes a table that a proxy accepts, on the other side of its JSON.
func FuzzParseConditions(f *testing.F) {
	f.Add("header X-User exact alice\npath prefix /api/")
	f.Add("header user-agent regex (a|b)*c{2,9}$\nmethod exact POST")
	f.Add("header x present\r\n\x00")
	f.Fuzz(func(t *testing.T, text string) {
		conditions, err := ParseConditions(text)
		if err != nil {
			return
		}
		b, err := json.Marshal(Table{Ports: []Port{{Port: 1, Routes: []Route{{Key: "a"}}, Matches: []Match{{"a", conditions}}}}})
		if err != nil {
			t.Fatal(err)
		}
		var table Table
		if err := json.Unmarshal(b, &table); err != nil {
			t.Fatal(err)
		}
		if err := table.Check(); err != nil {
			t.Errorf("%q: the table is refused: %v", text, err)
		}
	})
}

// TestEarlierVersions: a proxy that does not know matches and mirrors reads, but for them, what it always did, and a table without any
// has the version that routers gave it before there were some.
func TestEarlierVersions(t *testing.T) {
	table := Table{Ports: []Port{{Port: 8080, Protocol: ProtocolH2C, Routes: []Route{{
		Key: "pr-42", Preview: "deployment/api-pr-42", Fallback: true,
		Endpoints: []Endpoint{{Pod: "shop/api-pr-42-x", Address: netip.MustParseAddrPort("10.0.0.9:8080")}},
	}}}}}
	if got, want := table.Hash(), "b25538dc473bbfe6"; got != want {
		t.Errorf("the version is %s, want %s", got, want)
	}
	want := fieldsOf(t, table.Ports[0])
	table.Ports[0].Matches = []Match{{"pr-42", []Condition{{PartHeader, "x", TestPresent, ""}}}}
	table.Ports[0].Mirrors = []Match{{"pr-42", nil}}
	got := fieldsOf(t, table.Ports[0])
	delete(got, "matches")
	delete(got, "mirrors")
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-without matches +with\n%s", diff)
	}
}

// fieldsOf is v as JSON has it.
func fieldsOf(t *testing.T, v any) (fields map[string]any) {
	t.Helper()
	b, err := json.Marshal(v)
	if err == nil {
		err = json.Unmarshal(b, &fields)
	}
	if err != nil {
		t.Fatal(err)
	}
	return fields
}

func TestMatchesAreChecked(t *testing.T) {
	good := Condition{PartHeader, "x", TestPresent, ""}
	for name, c := range map[string]struct {
		match Match
		bad   bool
	}{
		"good":               {Match{"a", []Condition{good}}, false},
		"a share":            {Match{"a", []Condition{{PartShare, "cookie a", TestPercent, "0.5"}}}, false},
		"a later share":      {Match{"a", []Condition{{PartShare, "query a", TestPercent, "0.5"}}}, false},
		"a bad share":        {Match{"a", []Condition{{PartShare, "", TestPercent, "101"}}}, true},
		"of a later version": {Match{"a", []Condition{good, {Part: "cookie", Name: "x", Test: "present"}}}, false},
		"no route":           {Match{"b", []Condition{good}}, true},
		"without a condition, which everything would meet": {Match{"a", nil}, true},
		"too many":  {Match{"a", make([]Condition, 9)}, true},
		"a bad one": {Match{"a", []Condition{good, {PartHeader, "X", TestPresent, ""}}}, true},
	} {
		err := (Table{Ports: []Port{{Port: 1, Routes: []Route{{Key: "a"}}, Matches: []Match{c.match}}}}).Check()
		if (err != nil) != c.bad {
			t.Errorf("%s: %v", name, err)
		}
		mirrors := (Table{Ports: []Port{{Port: 1, Routes: []Route{{Key: "a"}}, Mirrors: []Match{c.match}}}}).Check()
		if bad := c.bad && len(c.match.Conditions) > 0; (mirrors != nil) != bad {
			t.Errorf("%s, as a mirror: %v", name, mirrors)
		}
	}
}
