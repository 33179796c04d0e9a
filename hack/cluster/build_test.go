package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestRequiredVersion(t *testing.T) {
	const inBlock = "module m\n\nrequire (\n\tk8s.io/api v0.35.4\n\tk8s.io/kubernetes v1.35.4 // why\n)\n"
	for name, test := range map[string]struct{ mod, want string }{
		"in a block":                {inBlock, "v1.35.4"},
		"on its own":                {"module m\n\nrequire k8s.io/kubernetes v1.2.3\n", "v1.2.3"},
		"a longer name is no match": {"module m\n\nrequire k8s.io/kubernetes/x v1.2.3\n", ""},
		"missing":                   {"module m\n", ""},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := requiredVersion(test.mod, "k8s.io/kubernetes")
			if got != test.want || (err == nil) != (test.want != "") {
				t.Errorf("got %q and error %v, want %q", got, err, test.want)
			}
		})
	}
}

func TestVersionStamp(t *testing.T) {
	got := versionStamp("v1.35.4")
	for _, want := range []string{
		" -X k8s.io/component-base/version.gitVersion=v1.35.4 ",
		" -X k8s.io/component-base/version.gitMajor=1 ",
		" -X k8s.io/client-go/pkg/version.gitMinor=35 ",
	} {
		if !strings.Contains(got+" ", want) {
			t.Errorf("%q lacks %q", got, want)
		}
	}
}

func TestBuildKey(t *testing.T) {
	files := map[string][]byte{"main.go": []byte("a"), "go.mod": []byte("b")}
	base := buildKey(files, []string{"-s"})
	for range 20 { // the order of a map changes from one time to the next
		if got := buildKey(files, []string{"-s"}); got != base {
			t.Fatalf("the same input gave %s and %s", base, got)
		}
	}
	for name, other := range map[string]string{
		"another setting": buildKey(files, []string{"-w"}),
		"settings joined": buildKey(files, []string{"-s", ""}),
		"changed file":    buildKey(map[string][]byte{"main.go": []byte("c"), "go.mod": []byte("b")}, []string{"-s"}),
		"swapped content": buildKey(map[string][]byte{"main.go": []byte("b"), "go.mod": []byte("a")}, []string{"-s"}),
		"fewer files":     buildKey(map[string][]byte{"main.go": []byte("a")}, []string{"-s"}),
	} {
		if other == base {
			t.Errorf("%s: the key stayed %s", name, base)
		}
	}
}

// A build is kept for as long as nothing that goes into it changes, and tests do not.
func TestSources(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"main.go", "main_test.go", "go.mod", "go.sum", "README.md"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(name), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := sources(dir)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string][]byte{"main.go": []byte("main.go"), "go.mod": []byte("go.mod"), "go.sum": []byte("go.sum")}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

func TestPruneKeepsTheYoungestOfItsProgram(t *testing.T) {
	cache := t.TempDir()
	for i, name := range []string{"node-oldest", "node-older", "node-young", "node-youngest", "dns-oldest"} {
		dir := filepath.Join(cache, name)
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		used := time.Unix(int64(i), 0)
		if err := os.Chtimes(dir, used, used); err != nil {
			t.Fatal(err)
		}
	}
	if err := prune(cache, "node"); err != nil {
		t.Fatal(err)
	}
	left, err := filepath.Glob(filepath.Join(cache, "*"))
	if err != nil {
		t.Fatal(err)
	}
	for i := range left {
		left[i] = filepath.Base(left[i])
	}
	if diff := cmp.Diff([]string{"dns-oldest", "node-young", "node-youngest"}, left); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

// Output comes in pieces that need not end where lines do.
func TestProgress(t *testing.T) {
	var p progress
	for _, piece := range []string{
		"go: downloading k8s.io/api v0.35.4\n", "k8s.io/ap", "i/core/v1\nruntime\n", "# runtime\nx.go:1:2: no such thing\n",
	} {
		fmt.Fprint(&p, piece)
	}
	if got, want := p.String(), "1 modules downloaded, 2 packages compiled, now runtime"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got, want := p.complaints(), "# runtime\nx.go:1:2: no such thing"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
