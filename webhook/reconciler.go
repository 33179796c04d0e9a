package webhook

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"time"

	"gomodules.xyz/jsonpatch/v2"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/utils/ptr"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/detour-dev/detour/api"
)

// fieldOwner is the field manager of everything that the package writes.
const fieldOwner = "detour-webhook"

// askAgain is how long the reconciler waits before it asks again for a switch that admission did not make.
const askAgain = 5 * time.Second

// serviceReconciler brings the Services of a namespace to their plan whenever its Pods or Services change, and tells
// in Events what keeps Pods and Services out.
type serviceReconciler struct {
	client  client.Client // reads from the cache
	members members
	tooOld  func() bool
	journal *journal
	board   *board
	metrics *metrics
	now     func() time.Time
	log     *slog.Logger
}

func (r *serviceReconciler) setup(mgr ctrl.Manager) error {
	return ctrl.NewControllerManagedBy(mgr).
		Named("services").
		WithOptions(controllerOptions()).
		For(&corev1.Namespace{}).
		Watches(&corev1.Service{}, handler.EnqueueRequestsFromMapFunc(namespaceOf)).
		Watches(&corev1.Pod{}, handler.EnqueueRequestsFromMapFunc(r.memberOf),
			builder.WithPredicates(predicate.Funcs{UpdateFunc: podChanged})).
		Watches(&networkingv1.NetworkPolicy{}, handler.EnqueueRequestsFromMapFunc(r.memberOf)).
		Watches(&corev1.LimitRange{}, handler.EnqueueRequestsFromMapFunc(r.memberOf)).
		Watches(&corev1.ResourceQuota{}, handler.EnqueueRequestsFromMapFunc(r.memberOf)).
		Complete(r)
}

// Reconcile handles the namespace that the request names.
func (r *serviceReconciler) Reconcile(ctx context.Context, req reconcile.Request) (reconcile.Result, error) {
	var namespace corev1.Namespace
	if err := r.client.Get(ctx, client.ObjectKey{Name: req.Name}, &namespace); err != nil {
		r.forget(req.Name)
		return reconcile.Result{}, client.IgnoreNotFound(err)
	}
	switch {
	case req.Name == r.members.own && namespace.DeletionTimestamp != nil:
		return r.dissolve(ctx)
	case namespace.DeletionTimestamp != nil:
		return reconcile.Result{}, nil
	}
	around, err := survey(ctx, r.client, req.Name)
	if err != nil {
		return reconcile.Result{}, err
	}
	around.namespace, around.home = &namespace, r.members.home(ctx)
	var pods corev1.PodList
	member := r.members.includes(ctx, &namespace)
	if member { // without Pods, every plan leads back
		if err := r.client.List(ctx, &pods, client.InNamespace(req.Name), client.UnsafeDisableDeepCopy); err != nil {
			return reconcile.Result{}, fmt.Errorf("listing pods: %w", err)
		}
	}
	suspension := suspensionOf(&namespace, pods.Items, r.now())
	wait, err := r.switchServices(ctx, around.services, admitted(suspension.covering(pods.Items), around.policies))
	if !member {
		r.forget(req.Name)
		return reconcile.Result{RequeueAfter: wait}, err
	}
	news := noticesOf(around, pods.Items, injectionState{r.tooOld(), suspension})
	wait = sooner(sooner(wait, suspension.ends), r.journal.tell(req.Name, news))
	again, postErr := r.board.post(ctx, req.Name, news)
	return reconcile.Result{RequeueAfter: sooner(wait, again)}, errors.Join(err, postErr)
}

// forget drops what was told of a namespace.
func (r *serviceReconciler) forget(namespace string) {
	r.journal.forget(namespace)
	r.board.forget(namespace)
}

// dissolve undoes what the package has done, in all namespaces: first the Services, which admission lets go back
// without a conflict for their owners, then the configurations, lest Pods wait for a webhook that ends.
func (r *serviceReconciler) dissolve(ctx context.Context) (reconcile.Result, error) {
	var services corev1.ServiceList
	if err := r.client.List(ctx, &services, client.UnsafeDisableDeepCopy); err != nil {
		return reconcile.Result{}, fmt.Errorf("listing services: %w", err)
	}
	r.log.Warn("our namespace is being deleted: all services go back to their apps", "namespace", r.members.own)
	wait, err := r.switchServices(ctx, services.Items, nil)
	errs := []error{err}
	for _, configuration := range configurations() {
		configuration.SetName(webhookConfiguration)
		errs = append(errs, client.IgnoreNotFound(r.client.Delete(ctx, configuration)))
	}
	return reconcile.Result{RequeueAfter: wait}, errors.Join(errs...)
}

// switchServices brings the Services to their plan, and returns how long to wait before it asks again for those that
// it could not. One that fails does not keep the others waiting.
func (r *serviceReconciler) switchServices(ctx context.Context, services []corev1.Service, pods []corev1.Pod) (time.Duration, error) {
	var wait time.Duration
	var errs []error
	for _, plan := range planServices(services, pods) {
		done, err := r.switchService(ctx, plan)
		if err != nil {
			r.metrics.errors.WithLabelValues("services").Inc()
			errs = append(errs, fmt.Errorf("switching service %s/%s: %w", plan.Namespace, plan.Name, err))
		}
		if !done {
			wait = askAgain
		}
	}
	return wait, errors.Join(errs...)
}

// switchService leaves the change of ports to the admission of its own write to the annotation. Field ownership is
// computed before admission, so the ports go on belonging to whoever applied them, who meets no conflict later.
//
// Where admission did not answer, the way to the proxies waits. The way back does not: it is written here, and the
// ownership that comes with it is given up again.
func (r *serviceReconciler) switchService(ctx context.Context, plan *corev1.Service) (bool, error) {
	got, err := r.patch(ctx, plan, types.MergePatchType, annotationPatch(plan))
	if err != nil {
		return false, client.IgnoreNotFound(err)
	}
	log := r.log.With("service", plan.Namespace+"/"+plan.Name)
	if back := backPatch(got, plan); len(back) > 0 {
		log.Info("admission left the service on its proxies, writing the app's ports")
		if got, err = r.patch(ctx, plan, types.JSONPatchType, back); err != nil {
			return false, client.IgnoreNotFound(err)
		}
		if err := r.release(ctx, got); err != nil {
			return false, client.IgnoreNotFound(err)
		}
	}
	if !portsAsPlanned(got, plan) {
		log.Debug("service not switched yet, asking again")
		return false, nil
	}
	to := "number"
	if plan.Annotations[api.AnnotationTargetPorts] != "" {
		to = "name"
	}
	r.metrics.switched.WithLabelValues(to).Inc()
	log.Info("service switched", "to", to, "ports", plan.Annotations[api.AnnotationTargetPorts])
	return true, nil
}

// patch returns the Service as the API server has it afterwards.
func (r *serviceReconciler) patch(ctx context.Context, service *corev1.Service, kind types.PatchType, content any) (*corev1.Service, error) {
	body, err := json.Marshal(content)
	if err != nil {
		return nil, fmt.Errorf("encoding the patch: %w", err)
	}
	answer := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: service.Namespace, Name: service.Name}}
	return answer, r.client.Patch(ctx, answer, client.RawPatch(kind, body), client.FieldOwner(fieldOwner))
}

// annotationPatch names the annotation even where it has its value already, because it is admission that is asked.
func annotationPatch(plan *corev1.Service) any {
	var value *string
	if v := plan.Annotations[api.AnnotationTargetPorts]; v != "" {
		value = &v
	}
	return map[string]any{"metadata": map[string]any{"annotations": map[string]any{api.AnnotationTargetPorts: value}}}
}

// backPatch writes the numbers of the plan where the live Service has a name of ours, and nothing else: the name of a port
// that is not TCP is the user's own, also if the plan is older than that port. It fails when the ports have changed in the
// meantime.
func backPatch(live, plan *corev1.Service) []jsonpatch.JsonPatchOperation {
	var patch []jsonpatch.JsonPatchOperation
	for i, port := range live.Spec.Ports {
		if i >= len(plan.Spec.Ports) || port.TargetPort.Type != intstr.String || !isTCP(port.Protocol) {
			continue
		}
		want := plan.Spec.Ports[i].TargetPort
		number, ours := api.OriginalPort(port.TargetPort.StrVal)
		if !ours || want != intstr.FromInt32(int32(number)) {
			continue
		}
		path := fmt.Sprintf("/spec/ports/%d/targetPort", i)
		patch = append(patch,
			jsonpatch.NewOperation("test", path, port.TargetPort),
			jsonpatch.NewOperation("replace", path, want))
	}
	return patch
}

// release gives up the fields that the package owns in a Service, now that none of them is its own.
func (r *serviceReconciler) release(ctx context.Context, service *corev1.Service) error {
	owners := slices.DeleteFunc(slices.Clone(service.ManagedFields), func(e metav1.ManagedFieldsEntry) bool {
		return e.Manager == fieldOwner
	})
	if len(owners) == 0 || len(owners) == len(service.ManagedFields) {
		return nil // an empty list would mean that the server is to keep the one it has
	}
	_, err := r.patch(ctx, service, types.MergePatchType, map[string]any{"metadata": map[string]any{
		"resourceVersion": service.ResourceVersion, "managedFields": owners,
	}})
	return err
}

// sooner returns the earlier of two waits, of which zero is none.
func sooner(a, b time.Duration) time.Duration {
	if a == 0 || b == 0 {
		return max(a, b)
	}
	return min(a, b)
}

func namespaceOf(_ context.Context, object client.Object) []reconcile.Request {
	return []reconcile.Request{{NamespacedName: types.NamespacedName{Name: object.GetNamespace()}}}
}

// memberOf is [namespaceOf] for namespaces that take part; in others, Pods decide nothing.
func (r *serviceReconciler) memberOf(ctx context.Context, object client.Object) []reconcile.Request {
	if !r.members.include(ctx, object.GetNamespace()) {
		return nil
	}
	return namespaceOf(ctx, object)
}

// podChanged reports whether an update of a Pod can change a plan or an Event. Most updates are heartbeats.
func podChanged(update event.UpdateEvent) bool {
	before, isPod := update.ObjectOld.(*corev1.Pod)
	after, alsoPod := update.ObjectNew.(*corev1.Pod)
	return !isPod || !alsoPod || ended(before) != ended(after) || cannotStart(before) != cannotStart(after) ||
		(before.DeletionTimestamp == nil) != (after.DeletionTimestamp == nil) || !maps.Equal(before.Labels, after.Labels) || !maps.Equal(before.Annotations, after.Annotations)
}

// controllerOptions are those of both reconcilers.
func controllerOptions() controller.Options {
	return controller.Options{
		MaxConcurrentReconciles: 4, // a namespace does not wait for a slow one
		// The default grows to a quarter of an hour, too long for a Service that has to go back.
		RateLimiter: workqueue.NewTypedItemExponentialFailureRateLimiter[reconcile.Request](10*time.Millisecond, 15*time.Second),
		// The name only tells metrics apart, and tests run several of each in one process.
		SkipNameValidation: ptr.To(true),
	}
}
