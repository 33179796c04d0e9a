package conformance

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestTools has curl and nghttp make requests.
func TestTools(t *testing.T) {
	answer := func(name string) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			body, err := io.ReadAll(r.Body)
			if err != nil {
				panic(http.ErrAbortHandler)
			}
			w.Header().Set("Name", name)
			w.Write(body)
		})
	}
	app, preview := listenApp(t), listenPreview(t)
	httpServer(t, app, answer("app"))
	httpServer(t, preview, answer("preview"))
	s := startSidecar(t, app.Addr().String(), routeTo(preview.Addr().String()))
	file := filepath.Join(t.TempDir(), "upload")
	if err := os.WriteFile(file, blob(3<<20), 0o600); err != nil {
		t.Fatal(err)
	}

	// Over HTTP/2 curl 7.88 cannot upload twice on one connection, with us or without.
	for version, times := range map[string]int{"--http1.0": 3, "--http1.1": 3, "--http2-prior-knowledge": 1} {
		for name, header := range map[string]string{"app": "X-None: 1", "preview": "Detour-Key: pr-1"} {
			t.Run("curl "+version+" "+name, func(t *testing.T) {
				got := run(t, "curl", "-sS", version, "-H", header, "-D", "-", "-T", file, fmt.Sprintf("%s/[1-%d]", s.url(), times))
				if n := strings.Count(strings.ToLower(got), "name: "+name+"\r\n"); n != times {
					t.Errorf("%s has answered %d times, want %d", name, n, times)
				}
				if n := strings.Count(got, string(blob(3<<20))); n != times {
					t.Errorf("the file has come back %d times, want %d", n, times)
				}
				if n := strings.Count(strings.ToLower(got), "detour-served-by: "+servedBy+"\r\n"); n != map[string]int{"app": 0, "preview": times}[name] {
					t.Errorf("%d answers say that a preview gave them", n)
				}
			})
		}
	}
	for name, header := range map[string]string{"app": "x-none: 1", "preview": "detour-key: pr-1"} {
		t.Run("nghttp "+name, func(t *testing.T) {
			got := run(t, "nghttp", "-nv", "-m50", "-H", header, "-d", file, s.url())
			if n := strings.Count(got, "name: "+name+"\n"); n != 50 {
				t.Errorf("%s has answered %d times, want 50", name, n)
			}
			if n := strings.Count(got, "detour-served-by: "+servedBy+"\n"); n != map[string]int{"app": 0, "preview": 50}[name] {
				t.Errorf("%d answers say that a preview gave them", n)
			}
			if strings.Contains(got, "RST_STREAM") {
				t.Error("a stream was reset")
			}
		})
	}
}

// run is what a program prints. It must be there and end well.
func run(t *testing.T, program string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), program, args...)
	cmd.Stderr = new(output)
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v: %s", program, err, cmd.Stderr)
	}
	return string(out)
}
