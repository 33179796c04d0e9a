package e2e

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/detour-dev/detour/api"
)

// testRestricted shows that the shop's namespace enforces Pod Security 'restricted', and that injected Pods run in it.
func testRestricted(t *testing.T) {
	out, err := tryKubectl(t, "run", "root", "-n", "shop", "--image=ghcr.io/detour-dev/shop:dev", "--dry-run=server")
	if err == nil || !strings.Contains(out, `violates PodSecurity "restricted`) {
		t.Fatalf("an ordinary Pod is admitted, so the namespace shows nothing: %s", out)
	}
	pods := object[struct {
		Items []struct {
			Metadata struct{ Name string }
			Spec     struct {
				InitContainers []struct{ Name string }
			}
		}
	}](t, "pods", "-n", "shop", "-l", "app in (frontend,api,identity,db)")
	if len(pods.Items) < 7 {
		t.Errorf("%d Pods, want 7", len(pods.Items))
	}
	for _, p := range pods.Items {
		if len(p.Spec.InitContainers) != 1 || p.Spec.InitContainers[0].Name != api.ContainerProxy {
			t.Errorf("Pod %s has the init containers %v, want the proxy", p.Metadata.Name, p.Spec.InitContainers)
		}
	}
}

// testKubectl shows that what people do to Pods every day goes on working on injected ones.
func testKubectl(t *testing.T) {
	if logs := kubectl(t, "logs", "-n", "shop", "deployment/api"); !strings.Contains(logs, `"serving"`) {
		t.Errorf("kubectl logs shows not the app's log:\n%s", logs)
	}
	if logs := kubectl(t, "logs", "-n", "shop", "deployment/api", "-c", api.ContainerProxy); !strings.Contains(logs, "{") {
		t.Errorf("kubectl logs -c %s shows no log:\n%s", api.ContainerProxy, logs)
	}
	if out := kubectl(t, "exec", "-n", "shop", "deployment/db", "--", "redis-cli", "ping"); strings.TrimSpace(out) != "PONG" {
		t.Errorf("kubectl exec: %q, want PONG", out)
	}
	for _, forward := range []string{"service/api", "service/identity", "deployment/api"} {
		port := "80"
		if strings.HasPrefix(forward, "deployment") {
			port = "8080"
		}
		testForward(t, forward, port)
	}
}

// testForward asks through 'kubectl port-forward' to a free local port.
func testForward(t *testing.T, to, port string) {
	ctx, cancel := context.WithCancel(t.Context())
	cmd := exec.CommandContext(ctx, "kubectl", "port-forward", "-n", "shop", to, ":"+port)
	stderr := new(strings.Builder)
	cmd.Stderr = stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer cancel()
	line, _ := bufio.NewReader(stdout).ReadString('\n')
	_, local, _ := strings.Cut(line, "Forwarding from ")
	local, _, _ = strings.Cut(local, " ")
	resp, err := http.Get("http://" + local + "/")
	if err != nil {
		t.Errorf("port-forward to %s: %v (kubectl said %q, %s)", to, err, line, stderr)
		return
	}
	defer resp.Body.Close()
	if body, _ := io.ReadAll(resp.Body); !strings.Contains(string(body), "served_by") {
		t.Errorf("port-forward to %s: %s: %s", to, resp.Status, body)
	}
}

// toRouter is a client of the router's API. Who is asked does not matter to the tests.
var toRouter = &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{
	TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true,
}}

// testStreamIsPrivate shows that the router tells its routes to proxies only.
func testStreamIsPrivate(t *testing.T) {
	token := func(audience string) string {
		return strings.TrimSpace(kubectl(t, "create", "token", "default", "-n", "shop", "--audience", audience))
	}
	router := "https://" + serviceAddress(t, "detour-system", "detour-router")
	for name, bearer := range map[string]string{
		"no token":               "",
		"nonsense":               "nonsense",
		"another audience":       token("https://kubernetes.default.svc"),
		"not bound to a Pod":     token(api.Audience),
		"another audience, long": strings.Repeat("x", 10_000),
	} {
		for _, path := range []string{api.PathRoutes, api.PathAcks} {
			req, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, router+path, nil)
			if bearer != "" {
				req.Header.Set("Authorization", "Bearer "+bearer)
			}
			resp, err := toRouter.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			if resp.StatusCode != http.StatusUnauthorized {
				t.Errorf("%s: %s says %s, want 401", name, path, resp.Status)
			}
		}
	}
}

// testRouterAway removes the router: proxies that have routes keep them, one that starts without serves its app and
// tells keyed requests to come back.
func testRouterAway(t *testing.T) {
	kubectl(t, "scale", "-n", "detour-system", "deployment/detour-router", "--replicas=0")
	kubectl(t, "wait", "-n", "detour-system", "--for=delete", "pod", "-l", "app.kubernetes.io/name=detour-router", "--timeout=60s")

	ask := askHTTP(t, serviceAddress(t, "shop", "api"), "http1")
	for _, k := range []string{key, ""} {
		if r, err := ask(t.Context(), k); err != nil || r.check("api", "http1", k) != nil {
			t.Errorf("without a router, key %q: %v, %v", k, err, r.check("api", "http1", k))
		}
	}

	restart(t, "shop", "deployment/frontend")
	ask = askHTTP(t, serviceAddress(t, "shop", "frontend"), "http1")
	if r, err := ask(t.Context(), ""); err != nil || r.check("frontend", "http1", "") != nil {
		t.Errorf("a proxy that never had a table: %v, %v", err, r.check("frontend", "http1", ""))
	}
	if _, err := ask(t.Context(), key); err == nil || !strings.Contains(err.Error(), "503") {
		t.Errorf("a proxy that never had a table answers a keyed request with %v, want 503", err)
	}

	kubectl(t, "scale", "-n", "detour-system", "deployment/detour-router", "--replicas=2")
	kubectl(t, "rollout", "status", "-n", "detour-system", "deployment/detour-router", "--timeout=2m")
	took := eventually(t, time.Minute, "the new proxies have routes", func() (bool, string) {
		r, err := ask(t.Context(), key)
		if err == nil {
			err = r.check("frontend", "http1", key)
		}
		return err == nil, fmt.Sprint(err)
	})
	t.Logf("keyed requests through new proxies work %v after the router is back", took.Round(time.Millisecond))
}

// testPreviewRemoved deletes a preview under its key, which then means the baseline again, and brings it back.
func testPreviewRemoved(t *testing.T) {
	ask := askHTTP(t, serviceAddress(t, "shop", "identity"), "http1")
	version := func() (string, error) {
		r, err := ask(t.Context(), key)
		if err != nil {
			return "", err
		}
		return r.ServedBy[0].Version, nil
	}
	if v, err := version(); v != key {
		t.Fatalf("before: version %q (%v), want %q", v, err, key)
	}
	kubectl(t, "delete", "-n", "shop", "deployment", "identity-pr-42", "--wait=false")
	took := eventually(t, 30*time.Second, "the key answers from the baseline", func() (bool, string) {
		v, err := version()
		return v == "baseline", fmt.Sprint(v, err)
	})
	t.Logf("the key answers from the baseline %v after kubectl delete returned", took.Round(time.Millisecond))

	apply(t, "test/e2e/testdata/identity-pr-42.yaml")
	took = eventually(t, time.Minute, "the key answers from the preview", func() (bool, string) {
		v, err := version()
		return v == key, fmt.Sprint(v, err)
	})
	t.Logf("the key answers from a new preview %v after kubectl apply returned", took.Round(time.Millisecond))
}

func testRemoved(t *testing.T) {
	script(t, "hack/undeploy")
	checkRemoved(t)
}

// checkRemoved looks for what is left of Detour, while the shop goes on.
func checkRemoved(t *testing.T) {
	t.Helper()
	ask := askHTTP(t, serviceAddress(t, "shop", "frontend"), "http1")
	if r, err := ask(t.Context(), ""); err != nil || r.check("frontend", "http1", "") != nil {
		t.Errorf("the shop after Detour: %v, %v", err, r.check("frontend", "http1", ""))
	}
	port := kubectl(t, "get", "service", "-n", "shop", "identity", "-o", "jsonpath={.spec.ports[0].targetPort}")
	if port != "8080" {
		t.Errorf("Service identity has targetPort %q, want 8080 again", port)
	}
	out := kubectl(t, "get", "mutatingwebhookconfigurations,validatingwebhookconfigurations,clusterroles,clusterrolebindings,namespaces,configmaps", "-A", "-o", "name")
	if strings.Contains(out, "detour") {
		t.Errorf("left behind:\n%s", out)
	}
	kubectl(t, "delete", "namespace", "shop", "--wait")
	if out := kubectl(t, "get", "namespaces", "--show-labels"); strings.Contains(out, "detour") {
		t.Errorf("left behind:\n%s", out)
	}
}
