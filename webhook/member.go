package webhook

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/detour-dev/detour/api"
)

// members are the namespaces that take part.
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
	if err := m.cache.Get(ctx, client.ObjectKey{Name: name}, &namespace); err != nil || !m.includes(&namespace) {
		return nil
	}
	return &namespace
}

func (m members) includes(namespace *corev1.Namespace) bool {
	return namespace.Labels[api.LabelInject] == api.InjectEnabled &&
		namespace.Name != m.own && namespace.Name != metav1.NamespaceSystem
}
