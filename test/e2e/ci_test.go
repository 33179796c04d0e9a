package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/detour-dev/detour/api"
	"github.com/detour-dev/detour/test/ci"
)

// testGitHub and testGitLab run the shell of docs/ci against the shop, as their runners would, with the plugin on the PATH.
// What GitHub is told goes to a program that takes it down.
func testGitHub(t *testing.T) {
	workflow, err := ci.ReadWorkflow("../../docs/ci/github.yaml")
	if err != nil {
		t.Fatal(err)
	}
	r := newRunner(t, "pr-7")
	run := func(name string) { r.run(t, find(t, workflow.Steps(), "preview/"+name)) }

	run("create")
	run("wait")
	run("links")
	run("report")
	run("comment")
	if said := r.read(t, "gh"); !strings.Contains(said, `"state": "success"`) || !strings.Contains(said, `"context": "preview/api"`) ||
		!strings.Contains(said, "is routed by 2 of 2 Pods") || !strings.Contains(said, "--method POST") {
		t.Errorf("GitHub was told:\n%s", said)
	}
	if comment := r.read(t, "comment.md"); !strings.Contains(comment, "requests with `Detour-Key: pr-7` reach commit "+r.env["COMMIT"]) {
		t.Errorf("the comment is:\n%s", comment)
	}
	r.env["EARLIER_COMMENT"] = "1234"
	run("comment")
	if said := r.read(t, "gh"); !strings.Contains(said, "--method PATCH repos/example/api/issues/comments/1234") {
		t.Errorf("GitHub was told:\n%s", said)
	}
	run("test")
	r.checkAnswer(t)

	remove := find(t, workflow.Steps(), "delete/delete")
	r.run(t, remove)
	r.run(t, remove) // of what is not there any more
	if left := status(t, "shop").Previews; contains(left, "pr-7") {
		t.Errorf("it is still there: %+v", left)
	}
}

func testGitLab(t *testing.T) {
	jobs, err := ci.ReadPipeline("../../docs/ci/gitlab.yaml")
	if err != nil {
		t.Fatal(err)
	}
	r := newRunner(t, "mr-7")
	r.env["CI_COMMIT_SHA"] = r.env["COMMIT"]
	r.run(t, find(t, jobs, "create"))
	if said := r.read(t, "preview.env"); !strings.HasPrefix(said, "PREVIEW_URL=http") {
		t.Errorf("the environment's link is %q", said)
	}
	r.run(t, find(t, jobs, "test-preview"))
	r.checkAnswer(t)
	r.run(t, find(t, jobs, "delete"))
	if left := status(t, "shop").Previews; contains(left, "mr-7") {
		t.Errorf("it is still there: %+v", left)
	}
}

func find(t *testing.T, steps []ci.Step, name string) ci.Step {
	t.Helper()
	for _, s := range steps {
		if s.Name == name {
			return s
		}
	}
	t.Fatalf("there is no step %s", name)
	return ci.Step{}
}

func contains(previews []api.PreviewStatus, key string) bool {
	for _, p := range previews {
		if p.Key == key {
			return true
		}
	}
	return false
}

// runner is what runs CI jobs: a folder, and variables.
type runner struct {
	dir string
	env map[string]string
}

// newRunner has CI deploy the image that the shop's api has, whose tag is taken for the commit.
func newRunner(t *testing.T, key string) *runner {
	t.Helper()
	image := kubectl(t, "get", "deployment", "-n", "shop", "api", "-o", "jsonpath={.spec.template.spec.containers[0].image}")
	colon := strings.LastIndex(image, ":")
	programs, err := filepath.Abs("../../bin")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	r := &runner{dir: dir, env: map[string]string{
		"NAMESPACE": "shop", "SERVICE": "api", "ENTRANCE": "frontend", "KEY": key, "NUMBER": "7",
		"IMAGE": image[:colon], "COMMIT": image[colon+1:], "TESTS": filepath.Join(dir, "tests"),
		"GITHUB_REPOSITORY": "example/api", "GITHUB_OUTPUT": filepath.Join(dir, "output"), "RUNNER_TEMP": dir,
		"GH_TOKEN": "", "LINK": "", "COMMIT_LINK": "", "EARLIER_COMMENT": "",
		"PATH": dir + ":" + programs + ":" + os.Getenv("PATH"),
	}}
	r.write(t, "gh", ghProgram)
	r.write(t, "tests", "#!/bin/sh\nexec curl --fail --silent --show-error \"${1}api\" >answer\n")
	return r
}

// ghProgram takes down what it is called with and what it gets, and has a comment if it is told to.
const ghProgram = `#!/bin/sh
echo "gh $*" >>"$RUNNER_TEMP/said-to-gh"
case "$*" in
*--paginate*) [ -z "$EARLIER_COMMENT" ] || echo "$EARLIER_COMMENT" ;;
*"--input -"*) cat >>"$RUNNER_TEMP/said-to-gh" ;;
esac
`

func (r *runner) write(t *testing.T, name, program string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(r.dir, name), []byte(program), 0o755); err != nil {
		t.Fatal(err)
	}
}

// read returns what a step has left; "gh" is what GitHub was told.
func (r *runner) read(t *testing.T, name string) string {
	t.Helper()
	if name == "gh" {
		name = "said-to-gh"
	}
	content, err := os.ReadFile(filepath.Join(r.dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

// run runs a step with the shell, and its options, that the workflow asks for.
func (r *runner) run(t *testing.T, s ci.Step) {
	t.Helper()
	start := time.Now()
	cmd := exec.CommandContext(t.Context(), "bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", s.Shell)
	cmd.Dir = r.dir
	cmd.Env = os.Environ()
	for name, value := range r.env {
		cmd.Env = append(cmd.Env, name+"="+value)
	}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", s.Name, err, out)
	}
	t.Logf("%s: %v\n%s", s.Name, time.Since(start).Round(time.Millisecond), out)
}

// checkAnswer looks whether the tests have met the application with the preview inside: the shop's frontend tells which
// copies had a part.
func (r *runner) checkAnswer(t *testing.T) {
	t.Helper()
	answer := r.read(t, "answer")
	if !strings.Contains(answer, `"pod":"api-`+r.env["KEY"]+"-") {
		t.Errorf("the tests were answered by the baseline:\n%s", answer)
	}
}
