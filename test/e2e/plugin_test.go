package e2e

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/detour-dev/detour/api"
)

// TestPlugin goes the whole way with the plugin, and with the certificates of cert-manager. What a namespace's developers do
// is done with the rights of manifests/roles alone.
func TestPlugin(t *testing.T) {
	script(t, "hack/deploy", "cert-manager")
	kubectl(t, "wait", "-n", "detour-system", "--for=condition=Ready", "certificates", "--all", "--timeout=60s")
	kubectl(t, "apply", "-k", "manifests/roles")
	apply(t, "hack/shop/manifests")
	rollOut(t, "shop")
	admin := plugin{kubeconfig: os.Getenv("KUBECONFIG")}
	developer := plugin{kubeconfig: newUser(t, "developer", "detour-previews")}

	t.Run("enable", func(t *testing.T) { testEnable(t, admin) })
	t.Run("create", func(t *testing.T) { testCreate(t, developer) })
	t.Run("traffic", testTraffic)
	t.Run("list", func(t *testing.T) { testList(t, developer) })
	t.Run("doctor", func(t *testing.T) { testDoctor(t, admin, developer) })
	t.Run("forward", func(t *testing.T) { testPluginForward(t, developer) })
	t.Run("url", func(t *testing.T) { testURL(t, developer) })
	t.Run("fails", func(t *testing.T) { testFailures(t, developer) })
	t.Run("no rights", func(t *testing.T) { testNoRights(t, plugin{kubeconfig: newUser(t, "nobody", "")}) })
	t.Run("gc", func(t *testing.T) { testGC(t, developer) })
	t.Run("delete", func(t *testing.T) { testDelete(t, developer) })
	t.Run("disable", func(t *testing.T) { testDisable(t, admin) })
	t.Run("uninstall", func(t *testing.T) { testUninstall(t, admin) })
}

// plugin is somebody who uses the plugin.
type plugin struct{ kubeconfig string }

// said is what a call of the plugin came to.
type said struct {
	out, err string
	code     int
}

// do calls the plugin as kubectl does, in the shop's namespace.
func (p plugin) do(t *testing.T, args ...string) said {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "kubectl", append([]string{"detour", "-n", "shop"}, args...)...)
	cmd.Dir = "../.."
	cmd.Env = append(os.Environ(), "KUBECONFIG="+p.kubeconfig)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	s := said{stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()}
	t.Logf("$ kubectl detour -n shop %s\n%s%s[exit code %d]", strings.Join(args, " "), s.err, s.out, s.code)
	return s
}

// must has the call end well.
func (p plugin) must(t *testing.T, args ...string) said {
	t.Helper()
	s := p.do(t, args...)
	if s.code != 0 {
		t.Fatalf("exit code %d", s.code)
	}
	return s
}

// mustFail has the call end with a code, and say each of the words on stderr.
func (p plugin) mustFail(t *testing.T, code int, words []string, args ...string) {
	t.Helper()
	s := p.do(t, args...)
	if s.code != code {
		t.Errorf("exit code %d, want %d", s.code, code)
	}
	for _, word := range words {
		if !strings.Contains(s.err, word) {
			t.Errorf("stderr does not say %q", word)
		}
	}
}

// newUser is the kubeconfig of somebody who has a ClusterRole in the shop's namespace, or none.
func newUser(t *testing.T, name, role string) string {
	t.Helper()
	kubectl(t, "create", "serviceaccount", name, "-n", "shop")
	if role != "" {
		kubectl(t, "create", "rolebinding", name, "-n", "shop", "--clusterrole", role, "--serviceaccount", "shop:"+name)
	}
	content, err := os.ReadFile(os.Getenv("KUBECONFIG"))
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "kubeconfig")
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	token := strings.TrimSpace(kubectl(t, "create", "token", name, "-n", "shop", "--duration=1h"))
	kubectl(t, "config", "set-credentials", name, "--token", token, "--kubeconfig", path)
	kubectl(t, "config", "set-context", "--current", "--user", name, "--kubeconfig", path)
	return path
}

func testEnable(t *testing.T, admin plugin) {
	s := admin.must(t, "enable", "shop", "--restart")
	for _, covered := range []string{"api 2/2 -", "db 1/1 -", "frontend 2/2 -", "identity 2/2 -"} {
		if !strings.Contains(strings.Join(strings.Fields(s.out), " "), covered) {
			t.Errorf("the answer does not say %q", covered)
		}
	}
}

// testCreate makes two previews under one key, and brings one up to date.
func testCreate(t *testing.T, developer plugin) {
	for _, service := range []string{"api", "identity"} {
		s := developer.must(t, "create", service, "--key", key, "--env", "VERSION=before")
		want := "Detour-Key: pr-42\ncurl -H 'Detour-Key: pr-42' http://" + service + ".shop/\n"
		if !strings.HasPrefix(s.out, want) {
			t.Errorf("the answer is not how to reach it:\n%s", want)
		}
		developer.must(t, "create", service, "--key", key, "--env", "VERSION="+key)
	}
	developer.must(t, "wait", key)

	manifest := developer.must(t, "create", "api", "--key", "gitops", "--env", "VERSION=gitops", "--dry-run=client", "-o", "yaml").out
	path := filepath.Join(t.TempDir(), "preview.yaml")
	if err := os.WriteFile(path, []byte(manifest), 0o600); err != nil {
		t.Fatal(err)
	}
	kubectl(t, "apply", "-n", "shop", "-f", path)
	developer.must(t, "wait", "gitops")
	ask := askHTTP(t, serviceAddress(t, "shop", "api"), "http1")
	if r, err := ask(t.Context(), "gitops"); err != nil || r.ServedBy[0].Version != "gitops" {
		t.Errorf("what --dry-run=client printed answers %+v (%v)", r, err)
	}
	developer.must(t, "delete", "gitops")
}

func testList(t *testing.T, developer plugin) {
	if s := developer.must(t, "list", "-o", "name"); s.out != "deployment/api-pr-42\ndeployment/identity-pr-42\n" {
		t.Errorf("list -o name: %q", s.out)
	}
	s := developer.must(t, "status", key)
	if strings.Count(s.out, "2/2") != 2 {
		t.Error("status does not say that both are routed by 2 of 2 Pods")
	}
	if !strings.Contains(s.err, "could not be asked: namespace shop has no ServiceAccount detour-links") {
		t.Error("status does not say why it does not tell the last request")
	}
}

// testDoctor finds nothing in what works, and says what is wrong with a preview that does not.
func testDoctor(t *testing.T, admin, developer plugin) {
	admin.must(t, "doctor")
	developer.must(t, "doctor", key)
	kubectl(t, "label", "deployment", "api-pr-42", "-n", "shop", "--overwrite", "detour.dev/target=nowhere")
	waitForState(t, "shop", "deployment/api-pr-42", api.StateInvalid)
	if s := developer.do(t, "doctor", key); s.code != 6 || !strings.Contains(s.out, "nowhere") {
		t.Errorf("of a preview without a target it says nothing, or exit code %d, want 6", s.code)
	}
	kubectl(t, "label", "deployment", "api-pr-42", "-n", "shop", "--overwrite", "detour.dev/target=api")
	developer.must(t, "wait", key)
}

// testPluginForward asks a local port without a key, while the Pods that it leads to are replaced.
func testPluginForward(t *testing.T, developer plugin) {
	ctx, cancel := context.WithCancel(t.Context())
	cmd := exec.CommandContext(ctx, "kubectl", "detour", "forward", key, "-n", "shop", "--service", "frontend")
	cmd.Env = append(os.Environ(), "KUBECONFIG="+developer.kubeconfig)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.Stderr = os.Stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, _ := bufio.NewReader(stdout).ReadString('\n')
	address := strings.TrimSuffix(strings.TrimPrefix(strings.TrimSpace(line), "http://"), "/")
	for via, ask := range map[string]ask{"http1": askHTTP(t, address, "http1"), "grpc": askGRPC(t, address)} {
		for range 2 {
			if r, err := ask(t.Context(), ""); err != nil || r.check("frontend", via, key) != nil {
				t.Errorf("%s: %v, %v", via, err, r.check("frontend", via, key))
			}
			restart(t, "shop", "deployment/frontend")
		}
	}
	cancel()
	if err := cmd.Wait(); cmd.ProcessState.ExitCode() != 0 {
		t.Errorf("interrupted, it ends with %v", err)
	}
}

// testURL follows links as someone does who was sent them.
func testURL(t *testing.T, developer plugin) {
	openGateway(t)
	mends := "kubectl create serviceaccount detour-links -n shop"
	developer.mustFail(t, 1, []string{mends}, "url", key, "--service", "frontend")
	kubectl(t, strings.Fields(mends)[1:]...)
	kubectl(t, "create", "rolebinding", "detour-links", "-n", "shop", "--clusterrole=detour-links", "--serviceaccount=shop:detour-links")
	link := strings.TrimSpace(developer.must(t, "url", key, "--service", "frontend", "--share", "1m").out)
	resp, body := fetch(t, &http.Client{Transport: local}, link, nil)
	var r reply
	if err := json.Unmarshal([]byte(body), &r); err != nil || r.check("frontend", "http1", key) != nil {
		t.Errorf("%s, %s (%v)", resp.Status, body, err)
	}
	page := strings.TrimSpace(developer.must(t, "url", "--dashboard").out)
	if resp, body := fetch(t, &http.Client{Transport: local}, page, nil); resp.StatusCode != http.StatusOK || !strings.Contains(body, key) {
		t.Errorf("the namespace's page: %s, %s", resp.Status, body)
	}
	eventually(t, time.Minute, "status tells the last requests", func() (bool, string) {
		s := developer.must(t, "status", key)
		return strings.Count(s.out, "\n  requests ") == 2 && strings.Count(s.out, "; the last ") == 2 && s.err == "", s.out + s.err
	})
}

// testFailures has a preview fail in each of the ways in which previews do, and looks for the reason in what is said.
func testFailures(t *testing.T, developer plugin) {
	for _, c := range []struct {
		name   string
		before func(t *testing.T)
		code   int
		words  []string
		args   []string
		after  func(t *testing.T)
	}{
		{
			name: "no such image", code: 5, words: []string{"shop:none", "Events of Pod api-no-image-"},
			args: []string{"create", "api", "--key", "no-image", "--tag", "none"},
		}, {
			name: "crash loop", code: 5, words: []string{"CrashLoopBackOff", "Last lines of container api", "nonsense"},
			args: []string{"create", "api", "--key", "crash", "--env", "LISTEN=nonsense"},
		}, {
			name: "quota", code: 5, words: []string{"exceeded quota: no-more"},
			args:   []string{"create", "api", "--key", "quota", "--env", "VERSION=quota"},
			before: func(t *testing.T) { kubectl(t, "create", "quota", "no-more", "-n", "shop", "--hard=pods=1") },
			after:  func(t *testing.T) { kubectl(t, "delete", "quota", "no-more", "-n", "shop") },
		}, {
			name: "key taken", code: 5, words: []string{"deployment/api-taken-before"},
			args: []string{"create", "api", "--key", "taken", "--env", "VERSION=taken"},
			before: func(t *testing.T) {
				kubectl(t, "create", "deployment", "api-taken-before", "-n", "shop", "--image=ghcr.io/detour-dev/shop:none", "--replicas=0")
				kubectl(t, "label", "deployment", "api-taken-before", "-n", "shop", "detour.dev/target=api", "detour.dev/key=taken")
				holder, _ := waitForState(t, "shop", "deployment/api-taken-before", api.StateNotReady)
				eventually(t, 5*time.Second, "what is created now is younger, to the second", func() (bool, string) {
					return time.Since(holder.Created) >= time.Second, holder.Created.String()
				})
			},
			after: func(t *testing.T) { kubectl(t, "delete", "deployment", "api-taken-before", "-n", "shop") },
		}, {
			name: "name taken", code: 1, words: []string{"Deployment api-name is there already"},
			args: []string{"create", "api", "--key", "name", "--env", "VERSION=name"},
			before: func(t *testing.T) {
				kubectl(t, "create", "deployment", "api-name", "-n", "shop", "--image=ghcr.io/detour-dev/shop:none", "--replicas=0")
			},
			after: func(t *testing.T) { kubectl(t, "delete", "deployment", "api-name", "-n", "shop") },
		}, {
			name: "no such service", code: 3, words: []string{"nowhere"},
			args: []string{"create", "nowhere", "--key", "pr-1", "--tag", "none"},
		}, {
			name: "no such key", code: 3, words: []string{"pr-404", "list -n shop"},
			args: []string{"status", "pr-404"},
		}, {
			name: "router away", code: 4, words: []string{"the router has not seen it yet", "status away"},
			args: []string{"create", "api", "--key", "away", "--env", "VERSION=away", "--timeout=15s"},
			before: func(t *testing.T) {
				kubectl(t, "scale", "-n", "detour-system", "deployment/detour-router", "--replicas=0")
				kubectl(t, "wait", "-n", "detour-system", "--for=delete", "pod", "-l", "app.kubernetes.io/name=detour-router", "--timeout=60s")
			},
			after: func(t *testing.T) {
				kubectl(t, "scale", "-n", "detour-system", "deployment/detour-router", "--replicas=2")
				developer.must(t, "wait", "away")
			},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.before != nil {
				c.before(t)
			}
			developer.mustFail(t, c.code, c.words, c.args...)
			if c.after != nil {
				c.after(t)
			}
		})
	}
	for _, failed := range []string{"no-image", "crash", "quota", "taken", "away"} {
		developer.must(t, "delete", failed)
	}
}

// testNoRights has each verb say what may not be done, or whom to ask.
func testNoRights(t *testing.T, nobody plugin) {
	for _, args := range [][]string{
		{"create", "api", "--key", "pr-1", "--tag", "none"}, {"list"}, {"status", key}, {"delete", key},
	} {
		nobody.mustFail(t, 1, []string{"forbidden", "system:serviceaccount:shop:nobody"}, args...)
	}
	nobody.mustFail(t, 1, []string{"detour-namespace of manifests/roles"}, "enable", "shop")
}

// testGC has the CronJob of manifests/gc delete what has expired, and nothing else. It stays, for uninstall to remove.
func testGC(t *testing.T, developer plugin) {
	apply(t, "manifests/gc")
	developer.must(t, "create", "api", "--key", "old", "--env", "VERSION=old", "--ttl", "72h")
	kubectl(t, "annotate", "deployment", "api-old", "-n", "shop", "--overwrite", "detour.dev/ttl=1s")
	developer.must(t, "wait", "old", "--for", "expired")
	developer.must(t, "gc", "--dry-run=client")
	kubectl(t, "create", "job", "gc", "-n", "detour-system", "--from=cronjob/detour-gc")
	kubectl(t, "wait", "job", "gc", "-n", "detour-system", "--for=condition=Complete", "--timeout=60s")
	developer.must(t, "wait", "old", "--for", "deleted")
	developer.must(t, "wait", key)
}

func testDelete(t *testing.T, developer plugin) {
	developer.must(t, "delete", key)
	ask := askHTTP(t, serviceAddress(t, "shop", "api"), "http1")
	if r, err := ask(t.Context(), key); err != nil || r.ServedBy[0].Version != "baseline" {
		t.Errorf("once delete has returned, its key gets %+v (%v), want the baseline", r, err)
	}
}

// testDisable takes the namespace out and in again, whose Pods keep their proxies.
func testDisable(t *testing.T, admin plugin) {
	admin.must(t, "disable", "shop")
	port := kubectl(t, "get", "service", "-n", "shop", "identity", "-o", "jsonpath={.spec.ports[0].targetPort}")
	if port != "8080" {
		t.Errorf("once disable has returned, Service identity has targetPort %q, want 8080 again", port)
	}
	admin.must(t, "enable", "shop")
}

// testUninstall removes Detour while the namespace takes part.
func testUninstall(t *testing.T, admin plugin) {
	kubectl(t, "delete", "-k", "manifests/roles")
	admin.must(t, "uninstall", "--dry-run")
	admin.must(t, "uninstall")
	if out := kubectl(t, "get", "pods", "-n", "shop", "-o", "jsonpath={.items[*].spec.initContainers[*].name}"); out != "" {
		t.Errorf("Pods have init containers: %s", out)
	}
	checkRemoved(t)
}
