// Package e2e holds the tests that need a whole cluster: they install Detour, use it as its users do, with kubectl and
// requests, and remove it again. They run where the cluster's Services can be reached, with kubectl set up:
//
//	hack/cluster/cluster up --cert-manager && hack/images
//	CLUSTER=current hack/cluster/cluster exec bin/e2e.test -test.v
package e2e

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/detour-dev/detour/api"
)

// TestSelfManaged follows the whole way once: install, opt in, preview, use, break, remove.
func TestSelfManaged(t *testing.T) {
	script(t, "hack/deploy", "self-managed")
	installShop(t)

	t.Run("traffic", testTraffic)
	t.Run("websocket", testWebSocket)
	t.Run("redis", testRedis)
	t.Run("restricted", testRestricted)
	t.Run("kubectl", testKubectl)
	t.Run("stream", testStreamIsPrivate)
	t.Run("rules", testRules)
	t.Run("other namespace", testOtherNamespace)
	t.Run("gateway", testGateway)
	t.Run("github", testGitHub)
	t.Run("gitlab", testGitLab)
	t.Run("preview removed", testPreviewRemoved)
	t.Run("router away", testRouterAway)
	t.Run("bad input", testBadInput)
	t.Run("removed", testRemoved)
}

// installShop brings up the shop as if Detour were not there, then has it take part and adds two previews under one
// key. It waits until both are routed.
func installShop(t *testing.T) {
	t.Helper()
	apply(t, "hack/shop/manifests")
	rollOut(t, "shop")
	kubectl(t, "label", "namespace", "shop", "detour.dev/inject=enabled")
	restart(t, "shop", "deployment")

	apply(t, "hack/shop/preview")
	kubectl(t, "label", "deployment", "-n", "shop", "api-pr-42", "detour.dev/target=api", "detour.dev/key=pr-42")
	apply(t, "test/e2e/testdata/identity-pr-42.yaml")
	for _, name := range []string{"api", "identity"} {
		preview, took := waitForState(t, "shop", "deployment/"+name+"-pr-42", api.StateRouted)
		if preview.Routed != 2 || preview.Of != 2 {
			t.Errorf("%s is routed by %d of %d baseline Pods, want 2 of 2", preview.Preview, preview.Routed, preview.Of)
		}
		t.Logf("%s is routed after another %v", preview.Preview, took.Round(time.Millisecond))
	}
}

// apply applies a kustomization or a file with the images that were built.
func apply(t *testing.T, path string) {
	t.Helper()
	read := "with_images <" + path
	if !strings.HasSuffix(path, ".yaml") {
		read = "render " + path
	}
	script(t, "bash", "-c", "set -euo pipefail; source hack/env.sh; "+read+" | kubectl apply -f -")
}

func rollOut(t *testing.T, namespace string) {
	t.Helper()
	for name := range strings.FieldsSeq(kubectl(t, "get", "deployments", "-n", namespace, "-o", "name")) {
		kubectl(t, "rollout", "status", "-n", namespace, name, "--timeout=2m")
	}
}

// restart replaces the Pods of one or all Deployments and waits until the old ones, to which Services may lead for a
// moment longer, are gone.
func restart(t *testing.T, namespace, what string) {
	t.Helper()
	before := strings.Fields(kubectl(t, "get", "pods", "-n", namespace, "-o", "name"))
	kubectl(t, "rollout", "restart", "-n", namespace, what)
	rollOut(t, namespace)
	after := kubectl(t, "get", "pods", "-n", namespace, "-o", `go-template={{range .items}}{{if not .metadata.deletionTimestamp}}pod/{{.metadata.name}} {{end}}{{end}}`)
	old := slices.DeleteFunc(before, func(pod string) bool { return slices.Contains(strings.Fields(after), pod) })
	kubectl(t, append([]string{"wait", "-n", namespace, "--for=delete", "--timeout=2m"}, old...)...)
}

// serviceAddress is the cluster address and first port of a Service.
func serviceAddress(t *testing.T, namespace, name string) string {
	t.Helper()
	return strings.TrimSpace(kubectl(t, "get", "service", "-n", namespace, name,
		"-o", "jsonpath={.spec.clusterIP}:{.spec.ports[0].port}"))
}
