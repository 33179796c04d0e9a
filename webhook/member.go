package webhook

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/detour-dev/detour/api"
)

// members are the namespaces that take part; none once Detour's own is being deleted.
type members struct {
	cache client.Reader
	own   string // Detour's own namespace is never a member, nor is the cluster's
}

// include reports whether the namespace of this name takes part.
func (m members) include(ctx context.Context, name string) bool {
	return m.find(ctx, name) != nil
}

// find returns the namespace of this name, or nil if it does not take part. One that is not known (yet) does not.
func (m members) find(ctx context.Context, name string) *corev1.Namespace {
	var namespace corev1.Namespace
	if err := m.cache.Get(ctx, client.ObjectKey{Name: name}, &namespace); err != nil || !m.includes(ctx, &namespace) {
		return nil
	}
	return &namespace
}

// home returns Detour's own namespace, or nil if it is not known (yet).
func (m members) home(ctx context.Context) *corev1.Namespace {
	var namespace corev1.Namespace
	if err := m.cache.Get(ctx, client.ObjectKey{Name: m.own}, &namespace); err != nil {
		return nil
	}
	return &namespace
}

func (m members) includes(ctx context.Context, namespace *corev1.Namespace) bool {
	return namespace.Labels[api.LabelInject] == api.InjectEnabled &&
		namespace.Name != m.own && namespace.Name != metav1.NamespaceSystem && !m.dissolved(ctx)
}

// dissolved reports whether Detour's own namespace is being deleted. From then on no namespace takes part, whatever its
// labels say: what the package has done must be undone before the namespace's Pods, and this one with them, are deleted.
// The namespace controller begins with that after five seconds (namespaceDeletionGracePeriod).
func (m members) dissolved(ctx context.Context) bool {
	own := m.home(ctx)
	return own != nil && own.DeletionTimestamp != nil
}
