package plugin

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// countedByPods are the resources of a quota that every further Pod takes of, and what a preview is made of.
var countedByPods = []corev1.ResourceName{
	corev1.ResourcePods, "count/pods", "count/deployments.apps", "count/replicasets.apps",
	corev1.ResourceCPU, corev1.ResourceMemory, corev1.ResourceRequestsCPU, corev1.ResourceRequestsMemory,
	corev1.ResourceLimitsCPU, corev1.ResourceLimitsMemory,
}

// checkQuotas finds ResourceQuotas that have no room for a preview. Those with scopes are not for every Pod, and are left out.
func checkQuotas(f *facts) []finding {
	var found []finding
	for i := range f.quotas {
		quota := &f.quotas[i]
		if len(quota.Spec.Scopes) > 0 || quota.Spec.ScopeSelector != nil {
			continue
		}
		var full []string
		for _, name := range countedByPods {
			hard, limited := quota.Status.Hard[name]
			if used := quota.Status.Used[name]; limited && used.Cmp(hard) >= 0 {
				full = append(full, fmt.Sprintf("%s of %s %s", used.String(), hard.String(), name))
			}
		}
		if len(full) > 0 {
			found = append(found, finding{
				Severity: warning, Namespace: f.namespace, Object: "resourcequota/" + quota.Name, Reason: "QuotaExhausted",
				Message: fmt.Sprintf("%s are in use, so the API server refuses further Pods, those of previews included", strings.Join(full, ", ")),
				Remedy:  f.editing("resourcequota/" + quota.Name),
			})
		}
	}
	return found
}

// checkRanges finds LimitRanges that refuse further Pods of a preview, or of a workload that previews would be copies of. Of
// what they have against proxies the webhook tells.
func checkRanges(f *facts) []finding {
	var found []finding
	for _, w := range f.workloads {
		if !w.isPreview() && !slices.ContainsFunc(f.services, func(s corev1.Service) bool { return selects(&s, w.Spec.Template.Labels) }) {
			continue
		}
		for i := range f.ranges {
			why := outOfRange(&f.ranges[i], &w.Spec.Template.Spec)
			if why == "" {
				continue
			}
			object := "limitrange/" + f.ranges[i].Name
			found = append(found, finding{
				Severity: warning, Namespace: f.namespace, Object: object, Reason: "LimitRangeRejects", others: []string{w.String()},
				Message: fmt.Sprintf("it admits no further Pod of %s, nor of a preview that is a copy of it: %s", w, why),
				Remedy:  f.editing(object),
			})
		}
	}
	return found
}

// outOfRange says what a LimitRange has against one of the containers. What a container leaves open gets the LimitRange's
// defaults, which are within.
func outOfRange(limits *corev1.LimitRange, spec *corev1.PodSpec) string {
	for _, item := range limits.Spec.Limits {
		if item.Type != corev1.LimitTypeContainer {
			continue
		}
		for _, c := range slices.Concat(spec.InitContainers, spec.Containers) {
			if why := outOf(item, c.Resources); why != "" {
				return fmt.Sprintf("container %s: %s", c.Name, why)
			}
		}
	}
	return ""
}

func outOf(item corev1.LimitRangeItem, r corev1.ResourceRequirements) string {
	for _, name := range slices.Sorted(maps.Keys(item.Max)) {
		most := item.Max[name]
		if limit, set := r.Limits[name]; set && limit.Cmp(most) > 0 {
			return fmt.Sprintf("its limit of %s is %s, and %s is the most", name, limit.String(), most.String())
		}
		if request, set := r.Requests[name]; set && request.Cmp(most) > 0 {
			return fmt.Sprintf("its request of %s is %s, and %s is the most", name, request.String(), most.String())
		}
	}
	for _, name := range slices.Sorted(maps.Keys(item.Min)) {
		least := item.Min[name]
		if request, set := r.Requests[name]; set && request.Cmp(least) < 0 {
			return fmt.Sprintf("its request of %s is %s, and %s is the least", name, request.String(), least.String())
		}
	}
	return ""
}
