package plugin

import (
	"context"
	"encoding/json"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/detour-dev/detour/api"
)

// setInjection labels the namespace, or removes the label.
func (s *session) setInjection(ctx context.Context, enabled bool) error {
	var value any // null removes it
	byHand := fmt.Sprintf("kubectl label namespace %s %s-", s.namespace, api.LabelInject)
	if enabled {
		value = api.InjectEnabled
		byHand = fmt.Sprintf("kubectl label namespace %s %s=%s", s.namespace, api.LabelInject, api.InjectEnabled)
	}
	if enabled && (s.namespace == system || s.namespace == metav1.NamespaceSystem) {
		return usageError("namespace %s cannot take part: nothing that Detour needs may depend on it", s.namespace)
	}
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"labels": map[string]any{api.LabelInject: value}}})
	if err != nil {
		return fmt.Errorf("writing the label: %w", err)
	}
	_, err = s.kube.CoreV1().Namespaces().Patch(ctx, s.namespace, types.MergePatchType, patch, metav1.PatchOptions{FieldManager: manager})
	switch {
	case apierrors.IsNotFound(err):
		return notFound("there is no namespace %q: kubectl get namespaces lists them", s.namespace)
	case apierrors.IsForbidden(err):
		return fail(exitError, "you may not label namespace %s: ask someone who may to run %s, or to bind you the role detour-namespace of manifests/roles", s.namespace, byHand)
	case err != nil:
		return fmt.Errorf("labelling namespace %s: %w", s.namespace, err)
	}
	return nil
}
