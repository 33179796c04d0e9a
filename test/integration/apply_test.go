//go:build integration

package integration

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/detour-dev/detour/api"
)

// way is one of those in which people bring a manifest to the cluster.
type way struct {
	create string                                    // arguments of kubectl, which reads the manifest
	again  func(t *testing.T, old, changed manifest) // errors end the test
}

var ways = map[string]way{
	"client-side apply": {"apply -f -", kubectlWith("apply -f -")},
	"server-side apply": {"apply --server-side -f -", kubectlWith("apply --server-side -f -")},
	"replace":           {"create -f -", kubectlWith("replace -f -")},
	"replace by force":  {"create -f -", kubectlWith("replace --force -f -")},
	"patch":             {"create -f -", kubectlPatch},
	"edit":              {"create -f -", kubectlEdit},
	"helm upgrade":      {"create -f -", helmUpgrade},
}

// TestManifestAppliedAgain brings a Service's manifest to the cluster again while the Service leads to proxies, in every
// way. An unchanged one must not lead it to the app for a moment, a changed one must count, and whoever goes on to apply it
// server-side must meet no conflict and own the targetPort.
func TestManifestAppliedAgain(t *testing.T) {
	newNamespace(t, "again")
	newSwitchedService(t, "again", "web") // brings a Pod that the other Services select as well
	for name, way := range ways {
		t.Run(name, func(t *testing.T) {
			unchanged := manifest{"again", strings.ReplaceAll(name, " ", "-"), 8080}
			changed := manifest{"again", unchanged.name, 9090}
			kubectl(t, unchanged.String(), strings.Fields(way.create)...)
			checkTarget(t, unchanged, "detour-8080", "80:8080")

			seen := follow(t, unchanged)
			way.again(t, unchanged, unchanged)
			checkTarget(t, unchanged, "detour-8080", "80:8080")
			if targets := seen(); slices.ContainsFunc(targets, func(target string) bool { return target != "detour-8080" }) {
				t.Errorf("it led to %v", targets)
			}
			way.again(t, unchanged, changed)
			checkTarget(t, unchanged, "9090", "")
			way.again(t, changed, unchanged)
			checkTarget(t, unchanged, "detour-8080", "80:8080")
			kubectl(t, unchanged.String(), "apply", "--server-side", "-f", "-")
			checkTarget(t, unchanged, "detour-8080", "80:8080")
			if owners := ownersOfTarget(unchanged.live(t)); !slices.Equal(owners, []string{"kubectl"}) {
				t.Errorf("applied server-side, the targetPort belongs to %q, want kubectl", owners)
			}
		})
	}
}

// TestDryRunShowsNoDrift compares the live Service with a dry run of its manifest, as Flux does, and Argo CD if it is told to.
func TestDryRunShowsNoDrift(t *testing.T) {
	newNamespace(t, "drift")
	newSwitchedService(t, "drift", "web")
	service := manifest{"drift", "applied", 8080}
	kubectl(t, service.String(), "apply", "--server-side", "-f", "-")
	checkTarget(t, service, "detour-8080", "80:8080")
	kubectl(t, service.String(), "diff", "--server-side", "-f", "-") // fails where there is a difference
}

// TestBackWithoutAdmission has the API server not reach the webhook, so that the reconciler has to write the number
// itself. Its owner meets no conflict for that.
func TestBackWithoutAdmission(t *testing.T) {
	newNamespace(t, "unanswered")
	newSwitchedService(t, "unanswered", "web")
	service := manifest{"unanswered", "applied", 8080}
	apply := kubectlWith("apply --server-side -f -")
	apply(t, service, service)
	checkTarget(t, service, "detour-8080", "80:8080")

	answer := disconnect(t, "unanswered")
	defer answer()
	uncovered := newPod("unanswered", "uncovered", map[string]string{"app": "web", api.LabelInject: api.InjectDisabled}, 0)
	create(t, uncovered)
	live := newService("unanswered", "applied", intstr.FromInt32(0))
	waitForTarget(t, live, "8080")
	eventually(t, "the reconciler owns nothing", func() error {
		if owners := ownersOfTarget(service.live(t)); len(owners) > 0 {
			return fmt.Errorf("the targetPort belongs to %q", owners)
		}
		return nil
	})
	apply(t, service, service)
	checkTarget(t, service, "8080", "")
}

// disconnect leads the API server's questions about Services nowhere, and returns a function that undoes it.
func disconnect(t *testing.T, namespace string) (undo func()) {
	t.Helper()
	live := &admissionregistrationv1.MutatingWebhookConfiguration{ObjectMeta: metav1.ObjectMeta{Name: "detour"}}
	if err := kube.Get(t.Context(), client.ObjectKeyFromObject(live), live); err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(live.Webhooks, func(w admissionregistrationv1.MutatingWebhook) bool { return w.Name == "services.detour.dev" })
	before := *live.Webhooks[i].ClientConfig.URL
	lead := func(url string, follows func(target string) bool) {
		patch := fmt.Sprintf(`[{"op": "replace", "path": "/webhooks/%d/clientConfig/url", "value": %q}]`, i, url)
		if err := kube.Patch(t.Context(), live, client.RawPatch(types.JSONPatchType, []byte(patch))); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the API server follows", func() error {
			probe := newService(namespace, "probe", intstr.FromString("detour-9999"))
			if err := kube.Create(t.Context(), probe, client.DryRunAll); err != nil {
				return err
			}
			if got := probe.Spec.Ports[0].TargetPort.String(); !follows(got) {
				return errors.New(got)
			}
			return nil
		})
	}
	lead("https://"+freeAddress()+"/", func(target string) bool { return target == "detour-9999" })
	return func() { lead(before, func(target string) bool { return target == "9999" }) }
}

// manifest is a Service's, of a namespace where Pods with app=web have a proxy for port 8080.
type manifest struct {
	namespace, name string
	target          int
}

func (m manifest) String() string {
	return fmt.Sprintf(`{"apiVersion": "v1", "kind": "Service", "metadata": {"name": %q, "namespace": %q},
		"spec": {"selector": {"app": "web"}, "ports": [{"name": "http", "port": 80, "targetPort": %d}]}}`, m.name, m.namespace, m.target)
}

// live is the Service as it is now.
func (m manifest) live(t *testing.T) *corev1.Service {
	t.Helper()
	var service corev1.Service
	if err := kube.Get(t.Context(), client.ObjectKey{Namespace: m.namespace, Name: m.name}, &service); err != nil {
		t.Fatal(err)
	}
	return &service
}

// checkTarget looks at what is there without waiting for it: admission has made the change when a write is done.
func checkTarget(t *testing.T, m manifest, target, note string) {
	t.Helper()
	service := m.live(t)
	if got := service.Spec.Ports[0].TargetPort.String(); got != target {
		t.Errorf("it leads to %s, want %s", got, target)
	}
	if got := service.Annotations[api.AnnotationTargetPorts]; got != note {
		t.Errorf("it is annotated %q, want %q", got, note)
	}
	if owners := ownersOfTarget(service); slices.Contains(owners, "detour-webhook") {
		t.Errorf("the targetPort belongs to %q", owners)
	}
}

// ownersOfTarget names the field managers of the targetPorts.
func ownersOfTarget(service *corev1.Service) []string {
	var owners []string
	for _, entry := range service.ManagedFields {
		if strings.Contains(entry.FieldsV1.String(), `"f:targetPort"`) {
			owners = append(owners, entry.Manager)
		}
	}
	return owners
}

// follow returns a function that says where each version of the Service from now on led.
func follow(t *testing.T, m manifest) func() []string {
	t.Helper()
	c, err := client.NewWithWatch(theWebhook.config, client.Options{})
	if err != nil {
		t.Fatal(err)
	}
	began := m.live(t).ResourceVersion
	watch, err := c.Watch(t.Context(), &corev1.ServiceList{}, &client.ListOptions{
		Namespace: m.namespace, FieldSelector: fields.OneTermEqualSelector("metadata.name", m.name),
		Raw: &metav1.ListOptions{ResourceVersion: began, TimeoutSeconds: ptr.To(int64(30))},
	})
	if err != nil {
		t.Fatal(err)
	}
	return func() []string {
		defer watch.Stop()
		var targets []string
		for version, last := began, m.live(t).ResourceVersion; version != last; {
			service, isService := (<-watch.ResultChan()).Object.(*corev1.Service)
			if !isService {
				t.Fatal("the watch has ended")
			}
			version = service.ResourceVersion
			targets = append(targets, service.Spec.Ports[0].TargetPort.String())
		}
		return targets
	}
}

// kubectl runs it as the cluster's administrator, with input for its stdin.
func kubectl(t *testing.T, input string, args ...string) {
	t.Helper()
	config := filepath.Join(t.TempDir(), "kubeconfig")
	if err := os.WriteFile(config, kubeConfig, 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), filepath.Join(os.Getenv("KUBEBUILDER_ASSETS"), "kubectl"), args...)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+config)
	cmd.Stdin = strings.NewReader(input)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("kubectl %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

func kubectlWith(args string) func(*testing.T, manifest, manifest) {
	return func(t *testing.T, _, changed manifest) {
		t.Helper()
		kubectl(t, changed.String(), strings.Fields(args)...)
	}
}

func kubectlPatch(t *testing.T, _, changed manifest) {
	t.Helper()
	patch := fmt.Sprintf(`{"spec": {"ports": [{"port": 80, "targetPort": %d}]}}`, changed.target)
	kubectl(t, "", "patch", "service", "-n", changed.namespace, changed.name, "-p", patch)
}

// kubectlEdit has an editor that writes the number over what it finds.
func kubectlEdit(t *testing.T, _, changed manifest) {
	t.Helper()
	t.Setenv("KUBE_EDITOR", fmt.Sprintf("sed -i 's/targetPort: .*/targetPort: %d/'", changed.target))
	kubectl(t, "", "edit", "service", "-n", changed.namespace, changed.name)
}

// helmUpgrade does what Helm 3 does: it patches the live object with what differs between the manifests of two releases.
func helmUpgrade(t *testing.T, old, changed manifest) {
	t.Helper()
	service := changed.live(t)
	live, err := json.Marshal(service)
	if err != nil {
		t.Fatal(err)
	}
	meta, err := strategicpatch.NewPatchMetaFromStruct(service)
	if err != nil {
		t.Fatal(err)
	}
	patch, err := strategicpatch.CreateThreeWayMergePatch([]byte(old.String()), []byte(changed.String()), live, meta, true)
	if err != nil {
		t.Fatal(err)
	}
	if err := kube.Patch(t.Context(), service, client.RawPatch(types.StrategicMergePatchType, patch), client.FieldOwner("helm")); err != nil {
		t.Fatal(err)
	}
}
