package e2e

import (
	"bytes"
	"encoding/json"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/detour-dev/detour/api"
)

// kubectl runs a command as a user would and returns what it printed; the test ends if it fails.
func kubectl(t *testing.T, args ...string) string {
	t.Helper()
	out, err := tryKubectl(t, args...)
	if err != nil {
		t.Fatalf("kubectl %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

// tryKubectl returns standard output, or all that was said and an error.
func tryKubectl(t *testing.T, args ...string) (string, error) {
	return run(t, "kubectl", args...)
}

// script runs one of the project's own scripts from its root.
func script(t *testing.T, args ...string) {
	t.Helper()
	if out, err := run(t, args[0], args[1:]...); err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

func run(t *testing.T, name string, args ...string) (string, error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Dir = "../.."
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return stdout.String() + stderr.String(), err
	}
	return stdout.String(), nil
}

// object asks for an object, or a list of them, as JSON.
func object[T any](t *testing.T, args ...string) T {
	t.Helper()
	var v T
	out := kubectl(t, append([]string{"get", "-o", "json"}, args...)...)
	if err := json.Unmarshal([]byte(out), &v); err != nil {
		t.Fatalf("kubectl get %s: %v", strings.Join(args, " "), err)
	}
	return v
}

// eventually polls until the condition holds and returns how long that took. What it last said is shown if it never
// does.
func eventually(t *testing.T, limit time.Duration, what string, holds func() (bool, string)) time.Duration {
	t.Helper()
	start := time.Now()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		ok, said := holds()
		if ok {
			return time.Since(start)
		}
		if time.Since(start) > limit {
			t.Fatalf("not within %v: %s; at last:\n%s", limit, what, said)
		}
		<-tick.C
	}
}

// event is the part of an Event that the tests look at.
type event struct {
	Reason, Message string
	InvolvedObject  struct{ Kind, Name string }
}

// waitForEvent waits until the object, as "Kind/name", has an Event with the reason, and returns its message.
func waitForEvent(t *testing.T, namespace, object, reason string) string {
	t.Helper()
	var message string
	eventually(t, 30*time.Second, object+" gets the Event "+reason, func() (bool, string) {
		out := kubectl(t, "get", "events", "-n", namespace, "-o", "json")
		var list struct{ Items []event }
		if err := json.Unmarshal([]byte(out), &list); err != nil {
			t.Fatal(err)
		}
		var seen []string
		for _, e := range list.Items {
			on := e.InvolvedObject.Kind + "/" + e.InvolvedObject.Name
			if strings.HasPrefix(on, object) && e.Reason == reason {
				message = e.Message
				return true, ""
			}
			seen = append(seen, on+" "+e.Reason+": "+e.Message)
		}
		return false, strings.Join(seen, "\n")
	})
	return message
}

// status reads the namespace's ConfigMap as any user may.
func status(t *testing.T, namespace string) api.Status {
	t.Helper()
	out, err := tryKubectl(t, "get", "configmap", api.ConfigMapStatus, "-n", namespace,
		"-o", `jsonpath={.data.status\.json}`)
	var s api.Status
	if err == nil && out != "" {
		if err := json.Unmarshal([]byte(out), &s); err != nil {
			t.Fatalf("%s: %v\n%s", api.ConfigMapStatus, err, out)
		}
	}
	return s
}

// waitForState waits until the status says that the preview, as "deployment/name", is in the state.
func waitForState(t *testing.T, namespace, preview string, state api.State) (api.PreviewStatus, time.Duration) {
	t.Helper()
	var found api.PreviewStatus
	took := eventually(t, 2*time.Minute, preview+" is "+string(state), func() (bool, string) {
		s := status(t, namespace)
		for _, found = range s.Previews {
			if found.Preview == preview && found.State == state {
				return true, ""
			}
		}
		said, _ := json.MarshalIndent(s, "", "  ")
		return false, string(said)
	})
	return found, took
}
