package plugin

import (
	"context"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/detour-dev/detour/api"
)

// service finds a Service that can have previews, and all Services of its namespace.
func (s *session) service(ctx context.Context, name string) (*corev1.Service, []corev1.Service, error) {
	list, err := s.kube.CoreV1().Services(s.namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, nil, fmt.Errorf("listing the Services of namespace %s: %w", s.namespace, err)
	}
	i := slices.IndexFunc(list.Items, func(service corev1.Service) bool { return service.Name == name })
	if i < 0 {
		return nil, nil, notFound("namespace %s has no Service %q: %s", s.namespace, name, choices(list.Items))
	}
	service := &list.Items[i]
	if why := unsupported(service); why != "" {
		return nil, nil, fail(exitUnroutable, "Service %s %s: name a Service with a cluster IP, a selector and a TCP port", name, why)
	}
	return service, list.Items, nil
}

func choices(services []corev1.Service) string {
	var names []string
	for i := range services {
		if unsupported(&services[i]) == "" {
			names = append(names, services[i].Name)
		}
	}
	if len(names) == 0 {
		return "and none that can have previews; -n chooses another namespace"
	}
	return "it has " + strings.Join(names, ", ") + "; -n chooses another namespace"
}

// unsupported says why requests to a Service cannot be routed to previews.
func unsupported(service *corev1.Service) string {
	switch {
	case service.Spec.Type == corev1.ServiceTypeExternalName:
		return "is of type ExternalName, so there are no Pods behind it to copy"
	case service.Spec.ClusterIP == corev1.ClusterIPNone:
		return "is headless (clusterIP: None), so its clients address Pods themselves and no proxy could route their requests"
	case len(selectorOf(service)) == 0:
		return "has no selector, so there are no Pods behind it to copy"
	case len(tcpPorts(service)) == 0:
		return "has no TCP port, and other protocols are not routed"
	}
	return ""
}

// checkInterception refuses a preview that no request could reach: of a Service none of whose Pods has a proxy.
func (s *session) checkInterception(b *board, service string) error {
	if b == nil {
		return s.notTakingPart()
	}
	status := b.service(service)
	if status == nil || status.Covered > 0 || status.Problem == nil || status.Problem.Reason != "NotInjected" {
		return nil // the rest is a matter of time, or of single ports
	}
	return fail(exitUnroutable, "no request to Service %s passes a proxy, so none would reach the preview: %s; run %s enable %s --restart, which says what stays as it is",
		service, status.Problem.Message, s.self, s.namespace)
}

func problemText(problem *api.Problem, otherwise string, args ...any) string {
	if problem != nil {
		return problem.Message
	}
	return fmt.Sprintf(otherwise, args...)
}
