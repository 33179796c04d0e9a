package conformance

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/detour-dev/detour/api"
)

// TestVarnishPlain runs the scripts of testdata/vtc/plain twice: their client connected to their server directly, and
// through the proxy, with routes in force that no request has a key for. What each side receives must be the same, byte
// for byte.
func TestVarnishPlain(t *testing.T) {
	scripts(t, "plain", func(t *testing.T, script string) {
		app := addressFor(t, "127.0.0.1:0")
		direct := varnishtest(t, script, "app="+app, "front="+app)
		s := startSidecar(t, app, append(otherRoutes(20, 0), routeTo("127.0.0.2:9"))...)
		if diff := cmp.Diff(direct, varnishtest(t, script, "app="+app, "front="+s.addr)); diff != "" {
			t.Errorf("received (-directly +through the proxy):\n%s", diff)
		}
	})
}

// TestVarnishRouted runs the scripts of testdata/vtc/routed through the proxy with a preview beside the app. Lines
// that begin with '#<' name what an actor must receive, raw and in this order, with anything in between.
func TestVarnishRouted(t *testing.T) {
	scripts(t, "routed", func(t *testing.T, script string) {
		app, preview := addressFor(t, "127.0.0.1:0"), addressFor(t, "127.0.0.2:0")
		away := routeTo(addressFor(t, "127.0.0.2:0"))
		away.Key = "pr-away"
		s := startSidecar(t, app, routeTo(preview), away,
			api.Route{Key: "pr-none", Preview: "deployment/none"},
			api.Route{Key: "pr-fallback", Preview: "deployment/none", Fallback: true})
		got := varnishtest(t, script, "app="+app, "preview="+preview, "front="+s.addr)
		for actor, lines := range wanted(t, script) {
			if missing := missingFrom(got[actor], lines); missing != "" {
				t.Errorf("%s has not received, at its place: %s\nbut:\n%s", actor, missing, strings.Join(got[actor], "\n"))
			}
		}
	})
}

func scripts(t *testing.T, folder string, run func(t *testing.T, script string)) {
	t.Helper()
	found, err := filepath.Glob("testdata/vtc/" + folder + "/*.vtc")
	if err != nil || len(found) == 0 {
		t.Fatalf("no scripts in %s: %v", folder, err)
	}
	for _, script := range found {
		t.Run(strings.TrimSuffix(filepath.Base(script), ".vtc"), func(t *testing.T) {
			t.Parallel()
			run(t, script)
		})
	}
}

// addressFor is a free address for a server of a script to listen at.
func addressFor(t *testing.T, addr string) string {
	t.Helper()
	l := listenAt(t, addr)
	l.Close()
	return l.Addr().String()
}

// receivedLine is what varnishtest -v logs of bytes that a server (s1) or a client (c1) has received.
var receivedLine = regexp.MustCompile(`^\*+ +([sc]\d+) +(rxhdr|recv|len|chunk|c-l|eof|rest)\|(.*)$`)

// varnishtest runs a script and says what each actor received, by line.
func varnishtest(t *testing.T, script string, macros ...string) map[string][]string {
	t.Helper()
	args := []string{"-v", "-t", "20"}
	for _, m := range macros {
		args = append(args, "-D", m)
	}
	cmd := exec.CommandContext(t.Context(), "varnishtest", append(args, script)...)
	cmd.Env = append(os.Environ(), "TMPDIR="+t.TempDir())
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("varnishtest %s: %v\n%s", strings.Join(macros, " "), err, bytes.TrimSpace(out))
	}
	received := map[string][]string{}
	unfinished := map[string]bool{} // what 'recv' logs may end anywhere, where the bytes came in two parts
	for line := range strings.Lines(string(out)) {
		m := receivedLine.FindStringSubmatch(strings.TrimSuffix(line, "\n"))
		if m == nil {
			continue
		}
		actor, kind, text := m[1], m[2], m[3]
		if lines := received[actor]; kind == "recv" && unfinished[actor] {
			lines[len(lines)-1] += text
		} else {
			received[actor] = append(lines, text)
		}
		unfinished[actor] = kind == "recv" && !strings.HasSuffix(text, `\r`)
	}
	return received
}

// wanted are the '#<' lines of a script, by actor.
func wanted(t *testing.T, script string) map[string][]string {
	t.Helper()
	b, err := os.ReadFile(script)
	if err != nil {
		t.Fatal(err)
	}
	lines := map[string][]string{}
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(strings.TrimSuffix(line, "\n"), "#< "); ok {
			actor, text, _ := strings.Cut(rest, " ")
			lines[actor] = append(lines[actor], text)
		}
	}
	return lines
}

// missingFrom is the first of want that got lacks after the ones before it.
func missingFrom(got, want []string) string {
	for _, line := range got {
		if len(want) > 0 && line == want[0] {
			want = want[1:]
		}
	}
	if len(want) == 0 {
		return ""
	}
	return want[0]
}
