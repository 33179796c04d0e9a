package e2e

import (
	"strings"
	"testing"

	"github.com/detour-dev/detour/api"
)

// testBadInput shows that each mistake is said clearly on the object at fault, and disturbs nothing beside it.
func testBadInput(t *testing.T) {
	apply(t, "test/e2e/testdata/bad.yaml")

	for _, want := range []struct{ namespace, object, reason, message string }{
		{"bad", "Deployment/no-such-target", "UnknownTarget", "nowhere"},
		{"bad", "Deployment/no-ports", "NoPort", "named http"},
		{"bad", "Pod/on-the-host", "NotInjected", "hostNetwork"},
		{"bad", "Job/once", "NotInjected", "Job"},
		{"empty", "Namespace/empty", "NoServices", "empty"},
	} {
		message := waitForEvent(t, want.namespace, want.object, want.reason)
		t.Logf("%s: %s: %s", want.object, want.reason, message)
		if !strings.Contains(message, want.message) {
			t.Errorf("%s: the message does not name %s", want.object, want.message)
		}
	}

	out, err := tryKubectl(t, "label", "deployment", "-n", "bad", "web", "detour.dev/target=web", "detour.dev/key=pr-3")
	if err == nil || !strings.Contains(out, "Service web selects its Pods (app=web)") {
		t.Errorf("labelling a preview that would receive ordinary traffic: %v\n%s", err, out)
	}

	waitForState(t, "bad", "deployment/works", api.StateRouted)
	ask := askHTTP(t, serviceAddress(t, "bad", "web"), "http1")
	for k, want := range map[string]string{"": "baseline", "good": "good"} {
		if r, err := ask(t.Context(), k); err != nil || r.ServedBy[0].Version != want {
			t.Errorf("key %q: %+v (%v), want version %q", k, r, err, want)
		}
	}
	for _, name := range []string{"detour-webhook", "detour-router"} {
		restarts := kubectl(t, "get", "pods", "-n", "detour-system", "-l", "app.kubernetes.io/name="+name,
			"-o", "jsonpath={.items[*].status.containerStatuses[*].restartCount}")
		if strings.Trim(restarts, "0 ") != "" {
			t.Errorf("%s restarted: %s", name, restarts)
		}
	}
	kubectl(t, "delete", "namespace", "bad", "empty", "--wait")
}
