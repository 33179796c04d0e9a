package plugin

import (
	"context"
	"fmt"
	"strings"

	authorizationv1 "k8s.io/api/authorization/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// right is to do something to a kind of objects.
type right struct {
	verbs     string // with commas between them
	group     string
	resource  string
	namespace string // "" is all
}

// uninstallRights are what uninstall needs, the last of them to replace Pods.
func uninstallRights(restart bool) []right {
	const admission, rbac = "admissionregistration.k8s.io", "rbac.authorization.k8s.io"
	rights := []right{
		{"get,list,patch,delete", "", "namespaces", ""},
		{"list,patch", "", "services", ""},
		{"list", "", "pods", ""},
		{"list,delete", "", "configmaps", ""},
		{"get", "apps", "deployments", system},
		{"get", "", "pods/proxy", system},
		{"get,delete", admission, "mutatingwebhookconfigurations", ""},
		{"get,delete", admission, "validatingwebhookconfigurations", ""},
		{"get,delete", rbac, "clusterroles", ""},
		{"get,delete", rbac, "clusterrolebindings", ""},
	}
	if restart {
		rights = append(rights, right{"list", "apps", "replicasets", ""})
		for _, resource := range []string{"deployments", "statefulsets", "daemonsets"} {
			rights = append(rights, right{"get,list,patch", "apps", resource, ""})
		}
	}
	return rights
}

// missing asks the API server which of the rights the user does not have.
func (s *session) missing(ctx context.Context, rights []right) ([]string, error) {
	var missing []string
	for _, r := range rights {
		for verb := range strings.SplitSeq(r.verbs, ",") {
			allowed, err := s.allowed(ctx, r, verb)
			if err != nil {
				return nil, fmt.Errorf("asking whether you may %s %s: %w", verb, r.resource, err)
			}
			if !allowed {
				missing = append(missing, verb+" "+r.text())
			}
		}
	}
	return missing, nil
}

func (s *session) allowed(ctx context.Context, r right, verb string) (bool, error) {
	resource, subresource, _ := strings.Cut(r.resource, "/")
	review := &authorizationv1.SelfSubjectAccessReview{Spec: authorizationv1.SelfSubjectAccessReviewSpec{
		ResourceAttributes: &authorizationv1.ResourceAttributes{
			Verb: verb, Group: r.group, Resource: resource, Subresource: subresource, Namespace: r.namespace,
		},
	}}
	review, err := s.kube.AuthorizationV1().SelfSubjectAccessReviews().Create(ctx, review, metav1.CreateOptions{})
	if err != nil {
		return false, err
	}
	return review.Status.Allowed, nil
}

func (r right) text() string {
	if r.namespace != "" {
		return r.resource + " in namespace " + r.namespace
	}
	return r.resource
}
