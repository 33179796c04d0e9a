package webhook

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"

	"github.com/detour-dev/detour/api"
)

// workload is what the package reads of a Deployment, a StatefulSet or a ReplicaSet.
type workload struct {
	metav1.TypeMeta
	metav1.ObjectMeta `json:"metadata"`
	Spec              struct {
		Template struct {
			metav1.ObjectMeta `json:"metadata"`
		} `json:"template"`
	} `json:"spec"`
}

// targets names the Services of its own namespace that a workload is labelled as a preview of. The labels of its Pod template
// count, because its Pods inherit them and are then a preview too.
func (w *workload) targets(namespace string) []string {
	if w.targetNamespace(namespace) != namespace {
		return nil // no Service selects Pods of another namespace
	}
	var targets []string
	for _, labels := range []map[string]string{w.Labels, w.Spec.Template.Labels} {
		if target := labels[api.LabelTarget]; target != "" && labels[api.LabelKey] != "" {
			targets = append(targets, target)
		}
	}
	return targets
}

// targetNamespace reads the annotation as the router does.
func (w *workload) targetNamespace(own string) string {
	for _, annotations := range []map[string]string{w.Annotations, w.Spec.Template.Annotations} {
		if named, set := annotations[api.AnnotationTargetNamespace]; set {
			return named
		}
	}
	return own
}

// pollutes reports whether a workload is labelled as a preview of a Service that selects the workload's Pods: they
// receive the requests of everyone.
func (w *workload) pollutes(service *corev1.Service) bool {
	return slices.Contains(w.targets(service.Namespace), service.Name) &&
		service.Spec.Type != corev1.ServiceTypeExternalName && selects(service, w.Spec.Template.Labels)
}

// refusal says why a workload must not become what a request makes of it, or nothing. Before is nil if the request
// creates it; the Services are those of its namespace.
//
// Only what makes matters worse is refused: a workload that pollutes already can be changed in every other way. What a
// controller creates is not refused either, because it was its owner that was labelled.
func refusal(before, after *workload, services []corev1.Service) string {
	if before == nil && metav1.GetControllerOfNoCopy(after) != nil {
		return ""
	}
	for i := range services {
		service := &services[i]
		if after.pollutes(service) && (before == nil || !before.pollutes(service)) {
			return pollution(after, service)
		}
	}
	return ""
}

func pollution(w *workload, service *corev1.Service) string {
	names := slices.Sorted(maps.Keys(service.Spec.Selector))
	var selector []string
	for _, name := range names {
		selector = append(selector, name+"="+service.Spec.Selector[name])
	}
	change := names[0]
	if len(names) > 1 {
		change = "one of " + strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s %s cannot be a preview (%s=%s): its Pod template has the labels by which Service %s selects its Pods (%s), so its Pods would receive ordinary traffic. "+
		"Give it another value of %s, in spec.template and in spec.selector; where spec.selector is in the way, create it anew",
		w.Kind, cmp.Or(w.Name, w.GenerateName), api.LabelTarget, service.Name, service.Name, strings.Join(selector, ","), change)
}

// checkWorkload is [refusal] behind admission.
func (a *admitter) checkWorkload(ctx context.Context, req admission.Request) (admission.Response, error) {
	after, err := decode[workload](req.Object.Raw)
	if err != nil {
		return admission.Response{}, err
	}
	var before *workload
	if len(req.OldObject.Raw) > 0 {
		if before, err = decode[workload](req.OldObject.Raw); err != nil {
			return admission.Response{}, err
		}
	}
	var services corev1.ServiceList
	if err := a.cache.List(ctx, &services, client.InNamespace(req.Namespace), client.UnsafeDisableDeepCopy); err != nil {
		return admission.Response{}, fmt.Errorf("listing the services of namespace %s: %w", req.Namespace, err)
	}
	why := refusal(before, after, services.Items)
	if why == "" {
		return admission.Allowed(""), nil
	}
	a.metrics.refused.Inc()
	a.log.Info("preview refused", "preview", nameOf(req), "reason", why)
	return admission.Denied(why), nil
}
