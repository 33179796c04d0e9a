//go:build integration

package integration

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"

	"github.com/detour-dev/detour/api"
)

// TestPluginUninstalls has an API server of its own, for it leaves nothing behind. Neither webhook nor router run there, as
// after an accident, so that the plugin has to do everything by itself.
func TestPluginUninstalls(t *testing.T) {
	environment := &envtest.Environment{}
	config, err := environment.Start()
	if err != nil {
		t.Fatal(err)
	}
	defer environment.Stop()
	there, err := client.New(config, client.Options{})
	if err != nil {
		t.Fatal(err)
	}
	add := func(objects ...client.Object) {
		t.Helper()
		for _, o := range objects {
			if err := there.Create(t.Context(), o); err != nil {
				t.Fatalf("creating %T %s: %v", o, o.GetName(), err)
			}
		}
	}
	admin := &developer{kubeconfig: filepath.Join(t.TempDir(), "kubeconfig"), namespace: "default", account: "admin", groups: []string{"system:masters"}}
	if err := os.WriteFile(admin.kubeconfig, environment.KubeConfig, 0o600); err != nil {
		t.Fatal(err)
	}

	service := newService("shop", "web", intstr.FromString("detour-8080"))
	service.Annotations = map[string]string{api.AnnotationTargetPorts: "80:8080"}
	pod := newPod("shop", "web-1", service.Spec.Selector, 8080)
	pod.Spec.InitContainers = []corev1.Container{{Name: api.ContainerProxy, Image: "proxy"}}
	add(namespaceNamed("shop"), &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "default", Namespace: "shop"}}, service, pod)
	pod.Status.Phase = corev1.PodRunning
	if err := there.Status().Update(t.Context(), pod); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{api.ConfigMapCA, api.ConfigMapStatus} {
		add(&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "shop", Labels: map[string]string{"app.kubernetes.io/managed-by": "detour"}}})
	}
	add(&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: api.ConfigMapCA, Namespace: "default"}}) // somebody else's
	for _, file := range []string{"base/namespace.yaml", "base/webhook.yaml", "base/router.yaml", "gc/gc.yaml"} {
		add(manifestsIn(t, "../../manifests/"+file)...)
	}
	namespace := namespaceNamed("shop")
	namespace.Labels = map[string]string{api.LabelInject: api.InjectEnabled}
	namespace.Annotations = map[string]string{api.AnnotationRetry: "2026-01-02T15:04:05Z"}
	if err := there.Patch(t.Context(), namespace, client.MergeFrom(namespaceNamed("shop"))); err != nil {
		t.Fatal(err)
	}

	stranger := &developer{kubeconfig: admin.kubeconfig, namespace: "default", account: "stranger"}
	stranger.detour(t, "uninstall").check(t, 1, "", "nothing was done, for you may not get namespaces; ")
	dry := admin.detour(t, "uninstall", "--dry-run")
	for _, want := range []string{
		"label of namespace/shop", "ports of service/web in namespace shop", "configmap/detour-ca in namespace shop", "configmap/detour-status in namespace shop",
		"mutatingwebhookconfiguration/detour", "namespace/detour-system", "clusterrole/detour-gc", "proxies of 1 Pods in namespace shop",
	} {
		dry.check(t, 0, want+" (dry run)\n", "")
	}
	if err := there.Get(t.Context(), client.ObjectKeyFromObject(namespace), namespace); err != nil || namespace.Labels[api.LabelInject] == "" {
		t.Fatalf("the namespace is taken out already: %v", err)
	}

	// No namespace controller ends the namespace, as where something in it does not go.
	admin.detour(t, "uninstall", "--restart=false", "--timeout", "1s").check(t, 4, "namespace/detour-system deleted\n", "namespace/detour-system is deleted, and after 1s still there")
	endNamespace(t, there, "detour-system")
	removed := admin.detour(t, "uninstall", "--restart=false")
	removed.check(t, 0, "configmap/detour-ca deleted from namespace shop\n", "1 Pods in namespace shop keep their proxy")
	removed.check(t, 0, "Detour is removed\n", "")
	admin.detour(t, "uninstall", "--restart=false").check(t, 0, "Detour is removed\n", "") // nothing is left to do

	if err := there.Get(t.Context(), client.ObjectKeyFromObject(service), service); err != nil {
		t.Fatal(err)
	}
	if got := service.Spec.Ports[0].TargetPort; got != intstr.FromInt32(8080) || len(service.Annotations) > 0 {
		t.Errorf("the Service leads to %v and has annotations %v", &got, service.Annotations)
	}
	for _, entry := range service.ManagedFields {
		if strings.Contains(entry.Manager, "uninstall") {
			t.Errorf("the plugin owns fields of the Service: %v", entry)
		}
	}
	if err := there.Get(t.Context(), client.ObjectKey{Namespace: "default", Name: api.ConfigMapCA}, &corev1.ConfigMap{}); err != nil {
		t.Errorf("somebody else's ConfigMap: %v", err)
	}
	if err := there.Get(t.Context(), client.ObjectKey{Name: "detour-router"}, &rbacv1.ClusterRole{}); !apierrors.IsNotFound(err) {
		t.Errorf("the router's role: %v", err)
	}

	add(namespaceNamed("detour-system"))
	admin.detour(t, "uninstall").check(t, 1, "", "namespace detour-system is not one that the manifests made")
}

// manifestsIn are the objects of a file, as the overlays place them.
func manifestsIn(t *testing.T, path string) []client.Object {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var all []client.Object
	for decoder := yaml.NewYAMLOrJSONDecoder(bytes.NewReader(content), 4096); ; {
		object := &unstructured.Unstructured{}
		err := decoder.Decode(object)
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		kind := object.GetKind()
		if !strings.HasPrefix(kind, "Cluster") && !strings.HasSuffix(kind, "WebhookConfiguration") && kind != "Namespace" {
			object.SetNamespace("detour-system")
		}
		all = append(all, object)
	}
}

// endNamespace plays the namespace controller.
func endNamespace(t *testing.T, c client.Client, name string) {
	t.Helper()
	namespace := namespaceNamed(name)
	if err := c.Get(context.Background(), client.ObjectKeyFromObject(namespace), namespace); err != nil {
		t.Fatal(err)
	}
	namespace.Spec.Finalizers = nil
	if err := c.SubResource("finalize").Update(context.Background(), namespace); err != nil {
		t.Fatal(err)
	}
}
