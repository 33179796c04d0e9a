package main

import (
	"strings"
	"testing"
)

func TestRunSaysWhatIsWrong(t *testing.T) {
	t.Setenv("KUBECONFIG", "/nonexistent/kubeconfig")
	for want, args := range map[string][]string{
		`unexpected argument "serve"`: {"-peers", "", "serve"},
		"KUBECONFIG":                  nil,
	} {
		if err := run(t.Context(), args); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("router %s: %v, want an error with %s", strings.Join(args, " "), err, want)
		}
	}
}
