//go:build integration

package integration

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"sigs.k8s.io/controller-runtime/pkg/envtest"
)

// TestDoorsApply has an API server of its own take the manifests of docs/urls, with the CustomResourceDefinitions of those that
// are not its own.
func TestDoorsApply(t *testing.T) {
	environment := &envtest.Environment{CRDDirectoryPaths: []string{
		filepath.Join(moduleDir(t, "github.com/cert-manager/cert-manager"), "deploy/crds/cert-manager.io_certificates.yaml"),
		filepath.Join(moduleDir(t, "sigs.k8s.io/gateway-api"), "config/crd/standard/gateway.networking.k8s.io_gateways.yaml"),
		filepath.Join(moduleDir(t, "sigs.k8s.io/gateway-api"), "config/crd/standard/gateway.networking.k8s.io_httproutes.yaml"),
	}, ErrorIfCRDPathMissing: true}
	if _, err := environment.Start(); err != nil {
		t.Fatal(err)
	}
	defer environment.Stop()
	config := filepath.Join(t.TempDir(), "kubeconfig")
	if err := os.WriteFile(config, environment.KubeConfig, 0o600); err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob("../../docs/urls/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no files: %v", err)
	}
	for _, file := range append([]string{"../../manifests/base/namespace.yaml"}, files...) {
		apply := exec.CommandContext(t.Context(), filepath.Join(os.Getenv("KUBEBUILDER_ASSETS"), "kubectl"),
			"apply", "--kubeconfig", config, "--validate=strict", "-f", file)
		if out, err := apply.CombinedOutput(); err != nil || strings.Contains(string(out), "Warning") {
			t.Errorf("%s: %v\n%s", file, err, out)
		}
	}
}

// moduleDir is where the source of a dependency is.
func moduleDir(t *testing.T, module string) string {
	t.Helper()
	dir, err := exec.CommandContext(t.Context(), "go", "list", "-m", "-f", "{{.Dir}}", module).Output()
	if err != nil {
		t.Fatalf("go list -m %s: %v", module, err)
	}
	return strings.TrimSpace(string(dir))
}
