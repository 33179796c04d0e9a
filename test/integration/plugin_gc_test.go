//go:build integration

package integration

import (
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/detour-dev/detour/api"
)

// TestPluginCollects has previews expire and deletes those of them that the plugin has made.
func TestPluginCollects(t *testing.T) {
	newNamespace(t, "plugin-gc")
	d := newDeveloper(t, "plugin-gc", "detour-previews")
	newBaseline(t, "plugin-gc", "api")
	for _, key := range []string{"stays", "goes"} {
		d.detour(t, "create", "api", "--key", key, "--image", "app:2", "--wait=false").check(t, 0, "applied", "")
	}
	newPreview(t, "plugin-gc", "by-hand", "api", "by-hand")
	for _, name := range []string{"api-goes", "by-hand"} {
		annotate(t, &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "plugin-gc"}}, api.AnnotationTTL, "1s")
		waitForState(t, "plugin-gc", "deployment/"+name, api.StateExpired)
	}

	const goes, byHand = "deployment/api-goes deleted from namespace plugin-gc", "deployment/by-hand in namespace plugin-gc stays: it was not made by kubectl detour"
	d.detour(t, "gc", "--dry-run=client").check(t, 0, goes+" (dry run)\n", byHand)
	d.detour(t, "gc", "--dry-run=server").check(t, 0, goes+" (server dry run)\n", "")
	d.detour(t, "gc", "--dry-run=perhaps").check(t, 2, "", "--dry-run=perhaps: use none, client or server")
	if a := d.detour(t, "gc", "--older-than", "1h"); a.code != 0 || a.out != "" {
		t.Errorf("what has just expired is deleted: %+v", a)
	}
	d.detour(t, "gc", "-A").check(t, 1, "", "forbidden") // with rights in one namespace
	d.detour(t, "gc").check(t, 0, goes+"\n", byHand)
	if a := d.detour(t, "gc"); a.code != 0 || a.out != "" {
		t.Errorf("nothing is left to delete: %+v", a)
	}
	if got, want := deploymentsOf(t, "plugin-gc"), "api api-stays by-hand"; got != want {
		t.Errorf("left are %s, want %s", got, want)
	}
	d.detour(t, "gc", "--force", "--wait=false").check(t, 0, "deployment/by-hand deleted from namespace plugin-gc\n", "")
}

// TestPluginCollectsEverywhere runs what manifests/gc runs, with the rights that it has.
func TestPluginCollectsEverywhere(t *testing.T) {
	newNamespace(t, "plugin-gc-all")
	d := newDeveloper(t, "plugin-gc-all", "detour-previews")
	newBaseline(t, "plugin-gc-all", "api")
	d.detour(t, "create", "api", "--key", "goes", "--image", "app:2", "--wait=false").check(t, 0, "applied", "")
	annotate(t, &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Name: "api-goes", Namespace: "plugin-gc-all"}}, api.AnnotationTTL, "1s")
	waitForState(t, "plugin-gc-all", "deployment/api-goes", api.StateExpired)
	job := &developer{kubeconfig: d.kubeconfig, namespace: "detour-system", account: "system:serviceaccount:detour-system:detour-gc"}
	job.detour(t, "gc", "--all-namespaces", "--wait=false").check(t, 0, "deployment/api-goes deleted from namespace plugin-gc-all\n", "")
}

func deploymentsOf(t *testing.T, namespace string) string {
	t.Helper()
	var list appsv1.DeploymentList
	if err := kube.List(t.Context(), &list, client.InNamespace(namespace)); err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, d := range list.Items {
		names = append(names, d.Name)
	}
	slices.Sort(names)
	return strings.Join(names, " ")
}
