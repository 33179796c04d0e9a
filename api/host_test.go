package api

import (
	"maps"
	"slices"
	"strings"
	"testing"
)

func TestPlainHostName(t *testing.T) {
	for want, name := range map[string]HostName{
		"pr-42--api--shop":                      {"pr-42", "api", "shop"},
		"42--api--shop":                         {"42", "api", "shop"},
		strings.Repeat("x", 52) + "--api--shop": {strings.Repeat("x", 52), "api", "shop"},
	} {
		if got := name.Label(); got != want {
			t.Errorf("%v: %s, want %s", name, got, want)
		}
		if got, ok := ParseHostLabel(want); !ok || got != name {
			t.Errorf("%s: %v, %v, want %v", want, got, ok, name)
		}
	}
}

// TestShortHostName also holds one digest: a label that somebody has bookmarked must not change.
func TestShortHostName(t *testing.T) {
	if got, want := (HostName{"PR_42", "api", "shop"}).Label(), "pr-42-api-shop---a4xnik3q63j45dgsvyrc5gtg"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	for name, stem := range map[HostName]string{
		{"v1.2.3", "api", "shop"}:                 "v1-2-3-api-shop",
		{"a--b", "api", "shop"}:                   "a-b-api-shop",
		{"a", "b--c", "d"}:                        "a-b-c-d",
		{"xn", "api", "shop"}:                     "xn-api-shop",
		{strings.Repeat("x", 53), "api", "shop"}:  strings.Repeat("x", 36),
		{strings.Repeat("x", 35), "a-b", "x-y"}:   strings.Repeat("x", 35) + "--a-b--x-y",
		{strings.Repeat("x", 35), "a--b", "shop"}: strings.Repeat("x", 35),
		{"", "", ""}:                              "preview",
	} {
		if got, _, _ := strings.Cut(name.Label(), digestSeparator); got != stem {
			t.Errorf("%v: %s, want it to begin with %s", name, name.Label(), stem)
		}
	}
}

func TestParseHostLabel(t *testing.T) {
	if got, ok := ParseHostLabel("pr-42--api"); !ok || got != (HostName{Key: "pr-42", Service: "api"}) {
		t.Errorf("without a namespace: %v, %v", got, ok)
	}
	for _, bad := range []string{
		"", "pr-42", "--", "pr-42--", "--api", "a--b--c--d", "a---b", "a---b--c", "a--b--", "A--b--c", "a.b--c--d",
		"xn--api--shop", "xn--api", HostName{"PR_42", "api", "shop"}.Label(),
	} {
		if got, ok := ParseHostLabel(bad); ok {
			t.Errorf("%q is read as %v", bad, got)
		}
	}
}

func TestFindHostLabel(t *testing.T) {
	keys := slices.Values([]string{"pr-42", "PR_42", "PR-42"})
	services := maps.All(map[string]string{"api": "shop", "frontend": "shop"})
	want := HostName{"PR-42", "frontend", "shop"}
	if got, ok := FindHostLabel(want.Label(), keys, services); !ok || got != want {
		t.Errorf("got %v, %v", got, ok)
	}
	_, digests, _ := strings.Cut(want.Label(), digestSeparator)
	for _, bad := range []string{
		HostName{"PR_43", "api", "shop"}.Label(), HostName{"PR_42", "web", "shop"}.Label(), "pr-42--api--shop",
		"another" + digestSeparator + digests, digestSeparator + digests, "x---y", "",
	} {
		if got, ok := FindHostLabel(bad, keys, services); ok {
			t.Errorf("%q is found as %v", bad, got)
		}
	}
}

// FuzzHostName has every name come back from its label, which can be one of a host name in any resolver.
func FuzzHostName(f *testing.F) {
	f.Add("pr-42", "api", "shop")
	f.Add("PR_42", "api", "shop")
	f.Add("a--b", "c", "d--e")
	f.Add("xn", "", strings.Repeat("x", 70))
	f.Fuzz(func(t *testing.T, key, service, namespace string) {
		name := HostName{key, service, namespace}
		label := name.Label()
		if len(label) > maxHostLabel || strings.HasPrefix(label, "xn--") || !isPlain(strings.ReplaceAll(label, "-", "x")) ||
			label[0] == '-' || label[len(label)-1] == '-' {
			t.Fatalf("%q is the label of %q", label, name)
		}
		got, ok := ParseHostLabel(label)
		if !ok {
			got, ok = FindHostLabel(label, slices.Values([]string{key}), maps.All(map[string]string{service: namespace}))
		}
		if !ok || got != name {
			t.Errorf("%q became %s, which is %q (%v)", name, label, got, ok)
		}
	})
}
