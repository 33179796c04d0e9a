package webhook

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/detour-dev/detour/api"
)

// events is a recorder that remembers "Reason Kind/name".
type events []string

func (e *events) Eventf(regarding, _ runtime.Object, _, reason, _, _ string, _ ...any) {
	object := regarding.(*corev1.ObjectReference)
	*e = append(*e, reason+" "+object.Kind+"/"+object.Name)
}

// admitting answers writes of Services as the API server does whose webhook answers.
func admitting(t *testing.T, c client.WithWatch, now func() time.Time) client.WithWatch {
	a := testAdmitter(t, c)
	a.now = now
	return interceptor.NewClient(c, interceptor.Funcs{
		Patch: func(ctx context.Context, c client.WithWatch, object client.Object, patch client.Patch, options ...client.PatchOption) error {
			if err := c.Patch(ctx, object, patch, options...); err != nil {
				return err
			}
			service, isService := object.(*corev1.Service)
			if !isService {
				return nil
			}
			pods, suspension, err := a.pods(ctx, service.Namespace)
			if err != nil {
				return err
			}
			planService(service, suspension.covering(pods)).DeepCopyInto(service)
			return c.Update(ctx, service, client.FieldOwner("admission"))
		},
	})
}

func testReconciler(t *testing.T, c client.Client) (*serviceReconciler, *events) {
	var told events
	return &serviceReconciler{
		client: c, members: members{cache: c, own: "detour-system"}, tooOld: func() bool { return false },
		journal: newJournal(&told, slog.New(slog.DiscardHandler), time.Now), board: newBoard(c, time.Now), metrics: testMetrics(t), now: time.Now, log: slog.New(slog.DiscardHandler),
	}, &told
}

func reconcileShop(t *testing.T, r reconcile.Reconciler) reconcile.Result {
	t.Helper()
	result, err := r.Reconcile(t.Context(), reconcile.Request{NamespacedName: types.NamespacedName{Name: "shop"}})
	if err != nil {
		t.Fatal(err)
	}
	return result
}

func liveService(t *testing.T, c client.Client) *corev1.Service {
	t.Helper()
	var service corev1.Service
	if err := c.Get(t.Context(), client.ObjectKey{Namespace: "shop", Name: "api"}, &service); err != nil {
		t.Fatal(err)
	}
	return &service
}

func checkTarget(t *testing.T, c client.Client, want, note string) {
	t.Helper()
	service := liveService(t, c)
	if got := targets(service)[0]; got != want {
		t.Errorf("the targetPort is %s, want %s", got, want)
	}
	if got := service.Annotations[api.AnnotationTargetPorts]; got != note {
		t.Errorf("annotated %q, want %q", got, note)
	}
}

func shop(member bool, objects ...client.Object) client.WithWatch {
	return fake.NewClientBuilder().WithReturnManagedFields().
		WithObjects(testNamespace("shop", member)).WithObjects(objects...).Build()
}

func TestServiceFollowsItsPods(t *testing.T) {
	service, covered := testService("api", "8080"), testPod("covered", "detour-8080")
	c := admitting(t, shop(true, &service, &covered), time.Now)
	r, _ := testReconciler(t, c)

	reconcileShop(t, r)
	checkTarget(t, c, "detour-8080", "80:8080")

	bare := testPod("bare")
	if err := c.Create(t.Context(), &bare); err != nil {
		t.Fatal(err)
	}
	reconcileShop(t, r)
	checkTarget(t, c, "8080", "")

	if err := c.Delete(t.Context(), &bare); err != nil {
		t.Fatal(err)
	}
	reconcileShop(t, r)
	checkTarget(t, c, "detour-8080", "80:8080")
}

// Writing the port itself would take its ownership from whoever applied the Service.
func TestForwardWaitsForAdmission(t *testing.T) {
	service, covered := testService("api", "8080"), testPod("covered", "detour-8080")
	c := shop(true, &service, &covered)
	r, _ := testReconciler(t, c)
	if result := reconcileShop(t, r); result.RequeueAfter != askAgain {
		t.Errorf("comes again after %v, want %v", result.RequeueAfter, askAgain)
	}
	if got := targets(liveService(t, c))[0]; got != "8080" {
		t.Errorf("the targetPort is %s, want 8080", got)
	}
}

func TestBackDoesNotWaitForAdmission(t *testing.T) {
	service, bare := testService("api", "detour-8080", "http"), testPod("bare")
	service.Annotations = map[string]string{api.AnnotationTargetPorts: "80:8080"}
	status := ourConfigMap("shop", api.ConfigMapStatus)
	c := fake.NewClientBuilder().WithReturnManagedFields().WithObjects(testNamespace("shop", true), &bare, &status).Build()
	if err := c.Create(t.Context(), &service, client.FieldOwner("user")); err != nil {
		t.Fatal(err)
	}
	r, _ := testReconciler(t, c)
	if result := reconcileShop(t, r); result.RequeueAfter < settling {
		t.Errorf("comes again after %v", result.RequeueAfter)
	}
	checkTarget(t, c, "8080", "")
	for _, f := range liveService(t, c).ManagedFields {
		if f.Manager == fieldOwner {
			t.Errorf("fields are still ours: %s", f.FieldsV1)
		}
	}
}

// The user has turned the port into a UDP one, with a name of his own, since the plan was made.
func TestBackLeavesPortsThatAreNotOurs(t *testing.T) {
	live, plan := testService("api", "detour-8080", "detour-9000", "http"), testService("api", "8080", "8080", "8080")
	live.Spec.Ports[0].Protocol = corev1.ProtocolUDP
	if patch := backPatch(&live, &plan); len(patch) > 0 {
		t.Errorf("writes %v", patch)
	}
}

func TestNamespaceThatLeftGetsItsPortsBack(t *testing.T) {
	service, covered := testService("api", "detour-8080"), testPod("covered", "detour-8080")
	c := shop(false, &service, &covered)
	r, told := testReconciler(t, c)
	reconcileShop(t, r)
	checkTarget(t, c, "8080", "")
	if len(*told) > 0 {
		t.Errorf("told %v of a namespace that does not take part", *told)
	}
}

func TestReconcileWritesNothingWhenNothingIsToDo(t *testing.T) {
	service, covered := testService("api", "detour-8080"), testPod("covered", "detour-8080")
	service.Annotations = map[string]string{api.AnnotationTargetPorts: "80:8080"}
	c := shop(true, &service, &covered)
	before := liveService(t, c).ResourceVersion
	r, _ := testReconciler(t, c)
	reconcileShop(t, r)
	if after := liveService(t, c).ResourceVersion; after != before {
		t.Errorf("the Service went from version %s to %s", before, after)
	}
}

func TestNamespaceHasItsConfigMaps(t *testing.T) {
	bundle := ourConfigMap("detour-system", api.ConfigMapCA)
	bundle.Data = map[string]string{api.ConfigMapCAKey: "first"}
	injected := testPod("p", "detour-8080")
	c := shop(true, testNamespace("detour-system", false), &bundle, &injected)
	r := &namespaceReconciler{client: c, live: c, members: members{cache: c, own: "detour-system"}, log: slog.New(slog.DiscardHandler)}

	reconcileShop(t, r)
	checkConfigMap(t, c, api.ConfigMapCA, map[string]string{api.ConfigMapCAKey: "first"})
	checkConfigMap(t, c, api.ConfigMapStatus, map[string]string{api.ConfigMapStatusKey: "{}"})

	status := ourConfigMap("shop", api.ConfigMapStatus)
	status.Data = map[string]string{api.ConfigMapStatusKey: `{"services":[]}`}
	bundle.Data[api.ConfigMapCAKey] = "second"
	mustUpdate(t, c, &status, &bundle)
	reconcileShop(t, r)
	checkConfigMap(t, c, api.ConfigMapCA, map[string]string{api.ConfigMapCAKey: "second"})
	checkConfigMap(t, c, api.ConfigMapStatus, status.Data)

	mustUpdate(t, c, testNamespace("shop", false))
	if result := reconcileShop(t, r); result.RequeueAfter == 0 {
		t.Error("does not come again for the last injected Pod")
	}
	checkConfigMap(t, c, api.ConfigMapStatus, nil)
	checkConfigMap(t, c, api.ConfigMapCA, map[string]string{api.ConfigMapCAKey: "second"})

	if err := c.Delete(t.Context(), &injected); err != nil {
		t.Fatal(err)
	}
	reconcileShop(t, r)
	checkConfigMap(t, c, api.ConfigMapCA, nil)
}

func TestStrangersConfigMapStays(t *testing.T) {
	theirs := corev1.ConfigMap{Data: map[string]string{"a": "b"}}
	theirs.Namespace, theirs.Name = "shop", api.ConfigMapCA
	c := shop(false, &theirs)
	r := &namespaceReconciler{client: c, live: c, members: members{cache: c, own: "detour-system"}, log: slog.New(slog.DiscardHandler)}
	reconcileShop(t, r)
	checkConfigMap(t, c, api.ConfigMapCA, map[string]string{"a": "b"})
}

// checkConfigMap wants a ConfigMap of namespace shop to hold data, or not to be there if data is nil.
func checkConfigMap(t *testing.T, c client.Client, name string, data map[string]string) {
	t.Helper()
	var cm corev1.ConfigMap
	err := c.Get(t.Context(), client.ObjectKey{Namespace: "shop", Name: name}, &cm)
	if err != nil && !apierrors.IsNotFound(err) {
		t.Fatal(err)
	}
	if diff := cmp.Diff(data, cm.Data); diff != "" {
		t.Errorf("%s: (-want +got)\n%s", name, diff)
	}
}

func mustUpdate(t *testing.T, c client.Client, objects ...client.Object) {
	t.Helper()
	for _, o := range objects {
		o.SetResourceVersion("")
		if err := c.Update(t.Context(), o); err != nil {
			t.Fatal(err)
		}
	}
}
