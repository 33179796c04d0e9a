package webhook

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/detour-dev/detour/api"
)

// labelManagedBy marks what the package creates, and so may delete.
const (
	labelManagedBy = "app.kubernetes.io/managed-by"
	managedBy      = "detour"
)

// lookAgain is how often a namespace is looked at although nothing is known to have changed: someone may have deleted
// the status, which is not watched, or the last injected Pod may be gone.
const lookAgain = time.Minute

// namespaceReconciler keeps the two ConfigMaps of each namespace that takes part: the status, of which the router
// writes the content, and the CA bundle, a copy of the one in Detour's own namespace. The second is there for as
// long as a Pod can mount it, and marks the namespaces that have something left to clear away.
type namespaceReconciler struct {
	client  client.Client // of ConfigMaps, its cache holds those named [api.ConfigMapCA]
	live    client.Reader // asks the API server
	members members
	log     *slog.Logger
}

func (r *namespaceReconciler) setup(mgr ctrl.Manager) error {
	return ctrl.NewControllerManagedBy(mgr).
		Named("namespaces").
		WithOptions(controllerOptions()).
		For(&corev1.Namespace{}).
		Watches(&corev1.ConfigMap{}, handler.EnqueueRequestsFromMapFunc(r.holding)).
		Complete(r)
}

// holding maps a CA bundle to the namespaces that have to look at it.
func (r *namespaceReconciler) holding(ctx context.Context, bundle client.Object) []reconcile.Request {
	if bundle.GetNamespace() != r.members.own {
		return namespaceOf(ctx, bundle)
	}
	var namespaces corev1.NamespaceList
	if err := r.client.List(ctx, &namespaces); err != nil {
		r.log.Error("the new CA bundle reaches the namespaces later", "error", err)
		return nil
	}
	var requests []reconcile.Request
	for _, n := range namespaces.Items {
		requests = append(requests, reconcile.Request{NamespacedName: types.NamespacedName{Name: n.Name}})
	}
	return requests
}

// Reconcile handles the namespace that the request names.
func (r *namespaceReconciler) Reconcile(ctx context.Context, req reconcile.Request) (reconcile.Result, error) {
	var namespace corev1.Namespace
	if err := r.client.Get(ctx, client.ObjectKey{Name: req.Name}, &namespace); err != nil {
		return reconcile.Result{}, client.IgnoreNotFound(err)
	}
	switch {
	case namespace.DeletionTimestamp != nil || req.Name == r.members.own:
		return reconcile.Result{}, nil
	case r.members.includes(ctx, &namespace):
		return reconcile.Result{RequeueAfter: lookAgain}, r.furnish(ctx, req.Name)
	}
	left, err := r.clear(ctx, req.Name)
	if left {
		return reconcile.Result{RequeueAfter: lookAgain}, err
	}
	return reconcile.Result{}, err
}

// furnish makes sure that the namespace has both ConfigMaps, and the current bundle.
func (r *namespaceReconciler) furnish(ctx context.Context, namespace string) error {
	var bundle corev1.ConfigMap
	if err := r.client.Get(ctx, client.ObjectKey{Namespace: r.members.own, Name: api.ConfigMapCA}, &bundle); err != nil {
		return client.IgnoreNotFound(err) // its creation comes back here
	}
	if err := writeBundle(ctx, r.client, namespace, bundle.Data[api.ConfigMapCAKey]); err != nil {
		return err
	}
	var status corev1.ConfigMap
	err := r.live.Get(ctx, client.ObjectKey{Namespace: namespace, Name: api.ConfigMapStatus}, &status)
	if !apierrors.IsNotFound(err) {
		return err
	}
	status = ourConfigMap(namespace, api.ConfigMapStatus)
	status.Data = map[string]string{api.ConfigMapStatusKey: "{}"}
	err = r.client.Create(ctx, &status, client.FieldOwner(fieldOwner))
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("creating the status: %w", err)
	}
	r.log.Info("namespace takes part", "namespace", namespace)
	return nil
}

// clear removes what [namespaceReconciler.furnish] made, and reports whether it has to come again, because injected
// Pods are left that hold the bundle.
func (r *namespaceReconciler) clear(ctx context.Context, namespace string) (bool, error) {
	var bundle corev1.ConfigMap
	err := r.client.Get(ctx, client.ObjectKey{Namespace: namespace, Name: api.ConfigMapCA}, &bundle)
	if err != nil || bundle.Labels[labelManagedBy] != managedBy {
		return false, client.IgnoreNotFound(err)
	}
	status := ourConfigMap(namespace, api.ConfigMapStatus)
	if err := r.client.Delete(ctx, &status); client.IgnoreNotFound(err) != nil {
		return true, fmt.Errorf("deleting the status: %w", err)
	}
	var pods corev1.PodList
	if err := r.client.List(ctx, &pods, client.InNamespace(namespace), client.UnsafeDisableDeepCopy); err != nil {
		return true, fmt.Errorf("listing pods: %w", err)
	}
	if slices.ContainsFunc(pods.Items, func(p corev1.Pod) bool { return proxyOf(&p) != nil && !ended(&p) }) {
		return true, nil
	}
	if err := r.client.Delete(ctx, &bundle); client.IgnoreNotFound(err) != nil {
		return true, fmt.Errorf("deleting the CA bundle: %w", err)
	}
	r.log.Info("namespace cleared", "namespace", namespace)
	return false, nil
}

// writeBundle makes the CA bundle of a namespace what it should be.
func writeBundle(ctx context.Context, c client.Client, namespace, bundle string) error {
	cm := ourConfigMap(namespace, api.ConfigMapCA)
	_, err := controllerutil.CreateOrUpdate(ctx, ownedBy(c), &cm, func() error {
		cm.Labels = withLabel(cm.Labels)
		cm.Data = map[string]string{api.ConfigMapCAKey: bundle}
		return nil
	})
	if err != nil {
		return fmt.Errorf("writing the CA bundle: %w", err)
	}
	return nil
}

func ownedBy(c client.Client) client.Client {
	return client.WithFieldOwner(c, fieldOwner)
}

func ourConfigMap(namespace, name string) corev1.ConfigMap {
	return corev1.ConfigMap{ObjectMeta: ourMeta(namespace, name)}
}

func ourMeta(namespace, name string) metav1.ObjectMeta {
	return metav1.ObjectMeta{Namespace: namespace, Name: name, Labels: withLabel(nil)}
}

func withLabel(labels map[string]string) map[string]string {
	if labels == nil {
		labels = map[string]string{}
	}
	labels[labelManagedBy] = managedBy
	return labels
}
