package main

import (
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	env := func(string) string { return "detour-system" }
	c, err := parse([]string{"-proxy-image", "proxy:1", "-cert-dir", "/certs"}, env)
	if err != nil {
		t.Fatal(err)
	}
	if c.Image != "proxy:1" || c.CertDir != "/certs" || c.Namespace != "detour-system" || c.Listen != ":9443" {
		t.Errorf("got %+v", c)
	}
}

func TestParseSaysWhatIsMissing(t *testing.T) {
	for _, c := range []struct {
		args string
		env  string
		want string
	}{
		{"", "detour-system", "-proxy-image"},
		{"-proxy-image=proxy:1", "", "POD_NAMESPACE"},
		{"-proxy-image=proxy:1 stray", "detour-system", `"stray"`},
	} {
		_, err := parse(strings.Fields(c.args), func(string) string { return c.env })
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q: error %v, want one with %q", c.args, err, c.want)
		}
	}
}
