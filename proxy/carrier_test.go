package proxy

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/detour-dev/detour/api"
)

// fieldsOf reads lines of "Name: value".
func fieldsOf(lines ...string) []field {
	var fields []field
	for _, line := range lines {
		name, value, _ := strings.Cut(line, ":")
		fields = append(fields, field{strings.ToLower(name), strings.TrimPrefix(value, " ")})
	}
	return fields
}

func TestKeysOf(t *testing.T) {
	for name, c := range map[string]struct {
		lines []string
		want  []string
	}{
		"none":                       {nil, nil},
		"one":                        {[]string{"detour-key: pr-42"}, []string{"pr-42"}},
		"several":                    {[]string{"Detour-Key: b, a ,,\tc"}, []string{"b", "a", "c"}},
		"several lines":              {[]string{"Detour-Key: b", "Detour-Key: a,c"}, []string{"b", "a", "c"}},
		"twice":                      {[]string{"Detour-Key: a,b,a"}, []string{"a", "b"}},
		"invalid":                    {[]string{"Detour-Key: -a, b c, ü, " + strings.Repeat("x", 64) + ", ok"}, []string{"ok"}},
		"empty":                      {[]string{"Detour-Key: "}, nil},
		"baggage":                    {[]string{"baggage: detour-key=pr-42"}, []string{"pr-42"}},
		"header before baggage":      {[]string{"Baggage: detour-key=b", "Detour-Key: a"}, []string{"a", "b"}},
		"among other members":        {[]string{"Baggage: user=1,detour-key=a,detour-keys=x"}, []string{"a"}},
		"baggage lines":              {[]string{"Baggage: user=1", "Baggage: detour-key=a"}, []string{"a"}},
		"whitespace":                 {[]string{"Baggage: user = 1 ,\t detour-key\t=  a  ; p = 1 "}, []string{"a"}},
		"properties":                 {[]string{"Baggage: detour-key=a;detour-key=b;ttl=5,user=1;detour-key=c"}, []string{"a"}},
		"percent":                    {[]string{"Baggage: detour-key=%70r%2D42"}, []string{"pr-42"}},
		"several in a member":        {[]string{"Baggage: detour-key=a%2Cb"}, []string{"a", "b"}},
		"bad percent":                {[]string{"Baggage: detour-key=%zz,detour-key=a%2,detour-key=ok"}, []string{"ok"}},
		"quotes":                     {[]string{`Baggage: detour-key="a",detour-key=ok`}, []string{"ok"}},
		"space inside":               {[]string{"Baggage: detour-key=a b,detour-key=ok"}, []string{"ok"}},
		"no value":                   {[]string{"Baggage: detour-key,detour-key=,=,;,detour-key=ok"}, []string{"ok"}},
		"other case is another name": {[]string{"Baggage: Detour-Key=a"}, nil},
		"decodes to no key":          {[]string{"Baggage: detour-key=%00%ff"}, nil},
	} {
		if diff := cmp.Diff(c.want, keysOf(fieldsOf(c.lines...))); diff != "" {
			t.Errorf("%s: -want +got\n%s", name, diff)
		}
	}
}

func TestKeysAreBounded(t *testing.T) {
	var b strings.Builder
	for i := range 100_000 {
		fmt.Fprintf(&b, "k%d,", i)
	}
	if got := len(keysOf([]field{{carrierKey, b.String()}})); got != maxKeys {
		t.Errorf("%d keys, want %d", got, maxKeys)
	}
}

func TestCarryOn(t *testing.T) {
	members := strings.TrimSuffix(strings.Repeat("m=1,", maxBaggageMembers), ",")
	full := "m=" + strings.Repeat("x", maxBaggage-2)
	fits := "m=" + strings.Repeat("x", maxBaggage-2-len(",detour-key=a"))
	for name, c := range map[string]struct {
		lines []string
		want  string
		fits  bool
	}{
		"no key":            {nil, "", true},
		"no key, baggage":   {[]string{"Baggage: user=1"}, "", true},
		"key in baggage":    {[]string{"Baggage: detour-key=a , user=1"}, "", true},
		"invalid key":       {[]string{"Detour-Key: ,-"}, "", true},
		"added":             {[]string{"Detour-Key: a"}, "detour-key=a", true},
		"added to others":   {[]string{"Detour-Key: a", "Baggage: user=1;p, x=%20"}, "detour-key=a", true},
		"several keys":      {[]string{"Detour-Key: a,b"}, "detour-key=a%2Cb", true},
		"has another key":   {[]string{"Detour-Key: a", "Baggage: detour-key=b"}, "", true},
		"has a broken one":  {[]string{"Detour-Key: a", "Baggage: detour-key=%"}, "detour-key=a", true},
		"too many members":  {[]string{"Detour-Key: a", "Baggage: " + members}, "", false},
		"too long":          {[]string{"Detour-Key: a", "Baggage: " + full}, "", false},
		"just not too long": {[]string{"Detour-Key: a", "Baggage: " + fits}, "detour-key=a", true},
		"one byte too long": {[]string{"Detour-Key: a", "Baggage: " + fits + "x"}, "", false},
	} {
		if got, fits := carryOn(fieldsOf(c.lines...)); got != c.want || fits != c.fits {
			t.Errorf("%s: %q, %v", name, got, fits)
		}
	}
}

// FuzzCarriers checks that whatever comes gives valid keys only, and that what is carried on can be read again.
func FuzzCarriers(f *testing.F) {
	f.Add("pr-42", "user=1")
	f.Add("a,b", "detour-key=c")
	f.Add(" , ,", "detour-key=%70%")
	f.Add("\x00", "=;,;=,detour-key;=a,detour-key=a;b=\"c,d\"")
	f.Add("a", strings.Repeat("m=1,", 64))
	f.Fuzz(func(t *testing.T, key, baggage string) {
		fields := []field{{carrierKey, key}, {carrierBaggage, baggage}}
		for _, k := range keysOf(fields) {
			if !api.ValidKey(k) {
				t.Errorf("%q is no key", k)
			}
		}
		member, _ := carryOn(fields)
		if member == "" {
			return
		}
		if diff := cmp.Diff(headerKeys(fields), baggageKeys([]field{{carrierBaggage, baggage + "," + member}})); diff != "" {
			t.Errorf("not all keys are carried on: -want +got\n%s", diff)
		}
	})
}
