package ci

import (
	"bytes"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"

	"k8s.io/cli-runtime/pkg/genericiooptions"

	"github.com/detour-dev/detour/cmd/kubectl-detour/plugin"
)

const (
	github = "../../docs/ci/github.yaml"
	gitlab = "../../docs/ci/gitlab.yaml"
)

// steps are those of both files.
func steps(t *testing.T) []Step {
	t.Helper()
	w, err := ReadWorkflow(github)
	if err != nil {
		t.Fatal(err)
	}
	jobs, err := ReadPipeline(gitlab)
	if err != nil {
		t.Fatal(err)
	}
	if len(w.Steps()) < 10 || len(jobs) != 3 {
		t.Fatalf("%d steps and %d jobs run shell", len(w.Steps()), len(jobs))
	}
	return slices.Concat(w.Steps(), jobs)
}

func TestWorkflow(t *testing.T) {
	w, err := ReadWorkflow(github)
	if err != nil {
		t.Fatal(err)
	}
	for _, activity := range []string{"opened", "reopened", "synchronize", "closed"} {
		if !slices.Contains(w.On["pull_request"].Types, activity) || len(w.On) != 1 {
			t.Errorf("it is started by %v, want pull_request %s", w.On, activity)
		}
	}
	if w.Permissions == nil || len(w.Permissions) > 0 || w.Defaults["run"].Shell != "bash" {
		t.Errorf("permissions %v, want none; shell %q, want bash, which stops at errors in pipes", w.Permissions, w.Defaults["run"].Shell)
	}
	for name, job := range w.Jobs {
		if job.RunsOn == "" || job.TimeoutMinutes == 0 || !strings.Contains(job.If, "head.repo.full_name == github.repository") {
			t.Errorf("job %s runs on %q for %d minutes if %q", name, job.RunsOn, job.TimeoutMinutes, job.If)
		}
		for _, s := range job.Steps {
			if (s.Uses == "") == (s.Run == "") || s.Uses != "" && !strings.Contains(s.Uses, "@") {
				t.Errorf("job %s has a step that uses %q and runs %q", name, s.Uses, s.Run)
			}
		}
	}
}

// TestShell: bash understands it, nothing that others write becomes part of it, and every variable has a value.
func TestShell(t *testing.T) {
	variable := regexp.MustCompile(`\$\{?([A-Z][A-Z_]*)|\benv\.([A-Z_]+)`)
	for _, s := range steps(t) {
		check := exec.CommandContext(t.Context(), "bash", "-n")
		check.Stdin = strings.NewReader(s.Shell)
		if out, err := check.CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", s.Name, err, out)
		}
		if strings.Contains(s.Shell, "${{") {
			t.Errorf("%s: an expression is put into the shell: hand it over in env\n%s", s.Name, s.Shell)
		}
		for _, m := range variable.FindAllStringSubmatch(s.Shell, -1) {
			name := m[1] + m[2]
			_, defined := s.Env[name]
			if !defined && !strings.HasPrefix(name, "GITHUB_") && !strings.HasPrefix(name, "CI_") && name != "RUNNER_TEMP" {
				t.Errorf("%s: $%s has no value", s.Name, name)
			}
		}
	}
}

// TestCommands has the plugin know the flags that it is called with.
func TestCommands(t *testing.T) {
	command := regexp.MustCompile(`kubectl detour (\w+)([^|>&)\n]*)`)
	flag := regexp.MustCompile(`\s(--?[a-z-]+)`)
	called := map[string]bool{}
	for _, s := range steps(t) {
		for _, m := range command.FindAllStringSubmatch(s.Shell, -1) {
			verb, rest := m[1], m[2]
			called[verb] = true
			if strings.Contains(m[0], "failed") {
				continue
			}
			help := helpOf(t, verb)
			for _, f := range flag.FindAllStringSubmatch(rest, -1) {
				if !regexp.MustCompile(`(?m)^\s.*` + regexp.QuoteMeta(f[1]) + `\b`).MatchString(help) {
					t.Errorf("%s: kubectl detour %s has no flag %s", s.Name, verb, f[1])
				}
			}
		}
	}
	for _, verb := range []string{"create", "wait", "url", "forward", "delete"} {
		if !called[verb] {
			t.Errorf("nobody calls kubectl detour %s", verb)
		}
	}
}

func helpOf(t *testing.T, verb string) string {
	t.Helper()
	var out bytes.Buffer
	streams := genericiooptions.IOStreams{In: strings.NewReader(""), Out: &out, ErrOut: &out}
	if code := plugin.Run(t.Context(), plugin.Name, []string{verb, "--help"}, streams); code != 0 {
		t.Fatalf("kubectl detour %s --help: exit code %d\n%s", verb, code, out.String())
	}
	return out.String()
}
