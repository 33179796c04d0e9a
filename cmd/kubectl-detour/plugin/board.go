package plugin

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/detour-dev/detour/api"
)

// board is what the router and the webhook say of a namespace in its ConfigMap [api.ConfigMapStatus].
type board struct {
	namespace string
	api.Status
	api.Notices
}

// readBoard returns nil where there is none: the namespace does not take part.
func (s *session) readBoard(ctx context.Context) (*board, error) {
	configMap, err := s.kube.CoreV1().ConfigMaps(s.namespace).Get(ctx, api.ConfigMapStatus, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading the status of namespace %s: %w", s.namespace, err)
	}
	return parseBoard(configMap)
}

// readBoards returns those of all namespaces.
func (s *session) readBoards(ctx context.Context) ([]*board, error) {
	options := metav1.ListOptions{FieldSelector: "metadata.name=" + api.ConfigMapStatus}
	list, err := s.kube.CoreV1().ConfigMaps("").List(ctx, options)
	if err != nil {
		return nil, fmt.Errorf("listing the ConfigMaps %s of all namespaces: %w", api.ConfigMapStatus, err)
	}
	var boards []*board
	for i := range list.Items {
		b, err := parseBoard(&list.Items[i])
		if err != nil {
			return nil, err
		}
		boards = append(boards, b)
	}
	return boards, nil
}

func parseBoard(configMap *corev1.ConfigMap) (*board, error) {
	b := &board{namespace: configMap.Namespace}
	for key, into := range map[string]any{api.ConfigMapStatusKey: &b.Status, api.ConfigMapNoticesKey: &b.Notices} {
		text, there := configMap.Data[key]
		if !there {
			continue
		}
		if err := json.Unmarshal([]byte(text), into); err != nil {
			return nil, fmt.Errorf("reading %s of ConfigMap %s/%s: %w", key, configMap.Namespace, configMap.Name, err)
		}
	}
	return b, nil
}

// preview is the status of the one that is named ("deployment/api-pr-42") and has the key; nil if it has none.
func (b *board) preview(name, key string) *api.PreviewStatus {
	if b == nil {
		return nil
	}
	i := slices.IndexFunc(b.Previews, func(p api.PreviewStatus) bool { return p.Preview == name && p.Key == key })
	if i < 0 {
		return nil
	}
	return &b.Previews[i]
}

// isGuest reports whether a preview of that name is of another namespace than its status.
func isGuest(name string) bool {
	home, _ := api.PreviewStatus{Preview: name}.Home()
	return home != ""
}

// previews are those with a key.
func (b *board) previews(key string) []api.PreviewStatus {
	if b == nil {
		return nil
	}
	return slices.DeleteFunc(slices.Clone(b.Previews), func(p api.PreviewStatus) bool { return p.Key != key })
}

func (b *board) service(name string) *api.ServiceStatus {
	i := slices.IndexFunc(b.Services, func(s api.ServiceStatus) bool { return s.Name == name })
	if i < 0 {
		return nil
	}
	return &b.Services[i]
}

// notTakingPart is the error of whoever needs a board where there is none.
func (s *session) notTakingPart() error {
	return fail(exitError, "namespace %s does not take part (it has no ConfigMap %s): run %s enable %s; if that has been done, %s version shows whether Detour is installed",
		s.namespace, api.ConfigMapStatus, s.self, s.namespace, s.self)
}
