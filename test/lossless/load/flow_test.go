package main

import (
	"errors"
	"strings"
	"testing"

	"github.com/detour-dev/detour/test/lossless/result"
)

// TestJudge: the whole test is worth as much as this.
func TestJudge(t *testing.T) {
	broken := errors.New("broken")
	failed, wrong, refused := result.Tally{Failed: 1}, result.Tally{WrongCopy: 1}, result.Tally{Refused: 1}
	for _, tc := range []struct {
		key, version string
		err          error
		who          result.Strictness
		want         result.Tally
	}{
		{"", baseline, nil, result.Strict, result.Tally{}},
		{"", "pr-1", nil, result.Strict, wrong},
		{"", "", broken, result.Strict, failed},
		{"", "", refusal("no-table"), result.Strict, failed},
		{"pr-1", "pr-1", nil, result.Strict, result.Tally{}},
		{"pr-1", baseline, nil, result.Strict, wrong},
		{"pr-1", "pr-2", nil, result.Loose, wrong},
		{"pr-1", baseline, nil, result.Loose, result.Tally{}},
		{"pr-1", "", broken, result.Loose, failed},
		{"pr-1", "", broken, result.Lenient, result.Tally{}},
		{"pr-1", "pr-2", nil, result.Lenient, wrong},
		{"pr-1", "", refusal("no-endpoint"), result.Strict, refused},
	} {
		tc.want.Requests = 1
		f := &flow{key: tc.key}
		if got := f.judge(tc.version, tc.err, tc.who); got != tc.want {
			t.Errorf("%+v: %+v", tc, got)
		}
	}
}

func TestSplit(t *testing.T) {
	content := blob("seed")
	if version, err := split(append([]byte("pr-1 pod-0\n"), content...), content); version != "pr-1" || err != nil {
		t.Errorf("version %q, %v", version, err)
	}
	for name, answer := range map[string]string{
		"one byte less": "pr-1 pod-0\n" + string(content[:len(content)-1]),
		"twice":         "pr-1 pod-0\n" + strings.Repeat(string(content), 2),
		"not the app's": "404 page not found\n",
		"empty":         "",
	} {
		if version, err := split([]byte(answer), content); err == nil {
			t.Errorf("%s: taken for an answer of %q", name, version)
		}
	}
}
