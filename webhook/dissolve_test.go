package webhook

import (
	"context"
	"encoding/json"
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/detour-dev/detour/api"
)

// dissolving is the shop, and all that keeps it with its proxies, while Detour's own namespace is being deleted.
func dissolving(t *testing.T, services ...corev1.Service) client.WithWatch {
	t.Helper()
	own, covered := testNamespace("detour-system", false), testPod("covered", "detour-8080")
	own.Finalizers = []string{"example.com/busy"}
	c := shop(true, own, &covered)
	for i := range services {
		if err := c.Create(t.Context(), &services[i], client.FieldOwner("user")); err != nil {
			t.Fatal(err)
		}
	}
	for _, configuration := range testConfigurations() {
		if err := c.Create(t.Context(), configuration); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.Delete(t.Context(), own); err != nil {
		t.Fatal(err)
	}
	return c
}

func reconcileOwn(t *testing.T, r reconcile.Reconciler) error {
	t.Helper()
	_, err := r.Reconcile(t.Context(), reconcile.Request{NamespacedName: types.NamespacedName{Name: "detour-system"}})
	return err
}

func checkNoConfigurations(t *testing.T, c client.Client) {
	t.Helper()
	for _, configuration := range configurations() {
		if err := c.Get(t.Context(), client.ObjectKey{Name: webhookConfiguration}, configuration); !apierrors.IsNotFound(err) {
			t.Errorf("a %T is there (%v)", configuration, err)
		}
	}
}

func TestOwnNamespaceDeleted(t *testing.T) {
	answering := func(c client.WithWatch) client.WithWatch { return admitting(t, c, time.Now) }
	silent := func(c client.WithWatch) client.WithWatch { return c }
	for name, admission := range map[string]func(client.WithWatch) client.WithWatch{
		"admission answers": answering, "admission is gone": silent,
	} {
		t.Run(name, func(t *testing.T) {
			service := testService("api", "detour-8080")
			service.Annotations = map[string]string{api.AnnotationTargetPorts: "80:8080"}
			c := admission(dissolving(t, service))
			r, _ := testReconciler(t, c)
			for range 2 {
				if err := reconcileOwn(t, r); err != nil {
					t.Fatal(err)
				}
				reconcileShop(t, r)
				checkTarget(t, c, "8080", "")
				checkNoConfigurations(t, c)
			}
		})
	}
}

// One Service that somebody's policy protects does not keep the others, nor the Pods that are waiting.
func TestOwnNamespaceDeletedDespiteAnError(t *testing.T) {
	protected, service := testService("a-protected", "detour-8080"), testService("api", "detour-8080")
	refusal := errors.New("protected")
	c := interceptor.NewClient(dissolving(t, protected, service), interceptor.Funcs{
		Patch: func(ctx context.Context, c client.WithWatch, object client.Object, patch client.Patch, options ...client.PatchOption) error {
			if object.GetName() == protected.Name {
				return refusal
			}
			return c.Patch(ctx, object, patch, options...)
		},
	})
	r, _ := testReconciler(t, c)
	if err := reconcileOwn(t, r); !errors.Is(err, refusal) {
		t.Errorf("error %v, so it does not come again, want %v", err, refusal)
	}
	checkTarget(t, c, "8080", "")
	checkNoConfigurations(t, c)
}

func TestAdmissionWhileOwnNamespaceIsDeleted(t *testing.T) {
	a := testAdmitter(t, dissolving(t))
	pod := testPod("new")
	pod.Spec.ServiceAccountName = "default"
	pod.Spec.Containers = []corev1.Container{{Name: "app", Ports: []corev1.ContainerPort{{ContainerPort: 8080}}}}
	req := request("shop", pod)
	if resp := a.handler("pod", changed(a.mutatePod)).Handle(t.Context(), req); !resp.Allowed || len(resp.Patches) > 0 {
		t.Errorf("a Pod is answered %+v, want it left as it is", resp)
	}

	service := testService("api", "detour-8080")
	req = request("shop", service)
	got, err := json.Marshal(patched(t, req, a.handler("service", changed(a.mutateService)).Handle(t.Context(), req)))
	if err != nil {
		t.Fatal(err)
	}
	back, err := decode[corev1.Service](got)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"8080"}, targets(back)); diff != "" {
		t.Errorf("a Service leads elsewhere: -want +got\n%s", diff)
	}
}

// A certificate or a configuration that is deleted with our namespace stays away.
func TestKeeperLeavesADeletedNamespaceAlone(t *testing.T) {
	k := newKeeping(t)
	k.client = dissolving(t)
	k.members.cache = k.client
	before := k.configurations()
	if err := k.keep(t.Context()); err != nil {
		t.Fatal(err)
	}
	var secrets corev1.SecretList
	if err := k.client.List(t.Context(), &secrets); err != nil || len(secrets.Items) > 0 {
		t.Errorf("it made %d secrets (%v)", len(secrets.Items), err)
	}
	if diff := cmp.Diff(before, k.configurations()); diff != "" {
		t.Errorf("it changed the configurations: -before +after\n%s", diff)
	}
}
