// Package test holds what is tested across programs: here, that their code keeps apart.
package test

import (
	"os/exec"
	"strings"
	"testing"
)

const module = "github.com/detour-dev/detour/"

// TestPartsKeepApart holds the table 'Parts' of the README: what a folder must not import, directly or through others.
func TestPartsKeepApart(t *testing.T) {
	for folder, forbidden := range map[string][]string{
		"api":                       {module, "k8s.io/", "sigs.k8s.io/", "golang.org/x/", "github.com/"},
		"proxy":                     {module + "webhook", module + "router", module + "cmd/kubectl-detour/plugin", "k8s.io/", "sigs.k8s.io/"},
		"router":                    {module + "webhook", module + "proxy", module + "cmd/kubectl-detour/plugin", module + "router/view/viewtest"},
		"router/view":               {module + "webhook", module + "proxy", "sigs.k8s.io/controller-runtime", "k8s.io/client-go"},
		"webhook":                   {module + "router", module + "proxy", module + "cmd/kubectl-detour/plugin"},
		"cmd/kubectl-detour/plugin": {module + "webhook", module + "router", module + "proxy", "sigs.k8s.io/controller-runtime"},
		// The gateway faces the world: it has no way to the API server.
		"router/gateway": {module + "webhook", module + "proxy", "sigs.k8s.io/controller-runtime", "k8s.io/client-go"},
		// So has the dashboard, which the gateway serves.
		"router/dashboard": {module + "webhook", module + "proxy", module + "router/gateway", module + "router/view/viewtest", "sigs.k8s.io/controller-runtime", "k8s.io/client-go"},
	} {
		out, err := exec.Command("go", "list", "-deps", module+folder).Output()
		if err != nil {
			t.Fatalf("go list -deps %s: %v", module+folder, err)
		}
		for dep := range strings.FieldsSeq(string(out)) {
			for _, prefix := range forbidden {
				if strings.HasPrefix(dep, prefix) && dep != module+folder {
					t.Errorf("%s imports %s", folder, dep)
				}
			}
		}
	}
}
