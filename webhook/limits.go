package webhook

import (
	"fmt"
	"maps"
	"math"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	podresource "k8s.io/component-helpers/resource"
)

// rejectedWithProxy says why the API server would refuse a Pod with its proxy but not without, or nothing. LimitRanges and
// ResourceQuotas are enforced on what admission has made of a Pod, and a refused Pod would stop its owner's rollout.
//
// How much of a quota is in use does not count: that is known only once the API server counts this Pod in.
func rejectedWithProxy(before, after *corev1.Pod, around surroundings) reason {
	after = withDefaults(after, around.ranges)
	switch {
	case outOfRanges(after, around.ranges) && !outOfRanges(before, around.ranges):
		return reasonLimitRange
	case overQuotas(after, around.quotas) && !overQuotas(before, around.quotas):
		return reasonQuota
	}
	return ""
}

// withDefaults gives the proxy what LimitRanges have for containers that say nothing, as the API server does after us:
// it asks its own plugins again when a webhook has changed something. The app's containers have theirs already.
func withDefaults(pod *corev1.Pod, ranges []corev1.LimitRange) *corev1.Pod {
	pod = pod.DeepCopy()
	proxy := proxyOf(pod)
	for _, r := range ranges {
		for _, item := range r.Spec.Limits {
			if item.Type == corev1.LimitTypeContainer {
				proxy.Resources.Limits = filledIn(proxy.Resources.Limits, item.Default)
				proxy.Resources.Requests = filledIn(proxy.Resources.Requests, item.DefaultRequest)
			}
		}
	}
	return pod
}

func filledIn(list, defaults corev1.ResourceList) corev1.ResourceList {
	filled := corev1.ResourceList{}
	maps.Copy(filled, defaults)
	maps.Copy(filled, list)
	return filled
}

func outOfRanges(pod *corev1.Pod, ranges []corev1.LimitRange) bool {
	return slices.ContainsFunc(ranges, func(r corev1.LimitRange) bool { return outOfRange(pod, &r) != "" })
}

// outOfRange says what a LimitRange has against a Pod, or nothing.
func outOfRange(pod *corev1.Pod, limits *corev1.LimitRange) string {
	for _, item := range limits.Spec.Limits {
		for _, resources := range measured(pod, item.Type) {
			if why := outOf(item, resources); why != "" {
				return why
			}
		}
	}
	return ""
}

// measured returns what a LimitRange's item of a type is about.
func measured(pod *corev1.Pod, kind corev1.LimitType) []corev1.ResourceRequirements {
	switch kind {
	case corev1.LimitTypePod:
		return []corev1.ResourceRequirements{total(pod)}
	case corev1.LimitTypeContainer:
		var each []corev1.ResourceRequirements
		for _, c := range slices.Concat(pod.Spec.InitContainers, pod.Spec.Containers) {
			each = append(each, c.Resources)
		}
		return each
	}
	return nil
}

func total(pod *corev1.Pod) corev1.ResourceRequirements {
	options := podresource.PodResourcesOptions{ExcludeOverhead: true}
	return corev1.ResourceRequirements{Requests: podresource.PodRequests(pod, options), Limits: podresource.PodLimits(pod, options)}
}

// outOf compares as the API server's LimitRanger does. A request above a default limit makes the Pod invalid.
func outOf(item corev1.LimitRangeItem, r corev1.ResourceRequirements) string {
	for _, name := range sortedNames(item.Min) {
		if least := item.Min[name]; below(r.Requests, name, least) {
			return fmt.Sprintf("%s of a %s must be %s at least", name, item.Type, least.String())
		}
	}
	for _, name := range sortedNames(item.Max) {
		most := item.Max[name]
		if _, set := r.Limits[name]; !set || above(r.Limits, name, most) || above(r.Requests, name, most) {
			return fmt.Sprintf("%s of a %s must be %s at most", name, item.Type, most.String())
		}
	}
	for _, name := range sortedNames(item.MaxLimitRequestRatio) {
		if most := item.MaxLimitRequestRatio[name]; ratio(r, name) > most.AsApproximateFloat64() {
			return fmt.Sprintf("the limit of %s of a %s must be %s times its request at most", name, item.Type, most.String())
		}
	}
	for _, name := range sortedNames(r.Requests) {
		if limit, set := r.Limits[name]; set && above(r.Requests, name, limit) {
			return fmt.Sprintf("the limit of %s of a %s is %s, which is less than its request", name, item.Type, limit.String())
		}
	}
	return ""
}

func below(list corev1.ResourceList, name corev1.ResourceName, least resource.Quantity) bool {
	q := list[name] // what is not set is too little
	return q.Cmp(least) < 0
}

func above(list corev1.ResourceList, name corev1.ResourceName, most resource.Quantity) bool {
	q := list[name]
	return q.Cmp(most) > 0
}

// ratio is how many times the request the limit is; without one of them, no ratio is allowed.
func ratio(r corev1.ResourceRequirements, name corev1.ResourceName) float64 {
	limit, request := r.Limits[name], r.Requests[name]
	if limit.IsZero() || request.IsZero() {
		return math.Inf(1)
	}
	return float64(limit.MilliValue()) / float64(request.MilliValue())
}

func sortedNames(list corev1.ResourceList) []corev1.ResourceName {
	return slices.Sorted(maps.Keys(list))
}

func overQuotas(pod *corev1.Pod, quotas []corev1.ResourceQuota) bool {
	return slices.ContainsFunc(quotas, func(q corev1.ResourceQuota) bool { return overQuota(pod, &q) != "" })
}

// countedResources are those of a quota that a proxy has a part in. Each container must say how much it takes of one
// that is in a quota.
var countedResources = []corev1.ResourceName{
	corev1.ResourceCPU, corev1.ResourceRequestsCPU, corev1.ResourceLimitsCPU,
	corev1.ResourceMemory, corev1.ResourceRequestsMemory, corev1.ResourceLimitsMemory,
}

// overQuota says what a ResourceQuota has against a Pod, however little of it is in use, or nothing. Quotas with a scope are
// not for every Pod, and are not looked at.
func overQuota(pod *corev1.Pod, quota *corev1.ResourceQuota) string {
	if isScoped(quota) {
		return ""
	}
	for _, name := range countedResources {
		hard, limited := quota.Spec.Hard[name]
		switch {
		case !limited:
		case above(counted(total(pod)), name, hard):
			return fmt.Sprintf("%s of the namespace must be %s at most", name, hard.String())
		case pod.Spec.Resources == nil && !eachHas(pod, name):
			return fmt.Sprintf("each container must have %s", name)
		}
	}
	return ""
}

func isScoped(quota *corev1.ResourceQuota) bool {
	return len(quota.Spec.Scopes) > 0 || quota.Spec.ScopeSelector != nil
}

func eachHas(pod *corev1.Pod, name corev1.ResourceName) bool {
	return !slices.ContainsFunc(slices.Concat(pod.Spec.InitContainers, pod.Spec.Containers), func(c corev1.Container) bool {
		_, has := counted(c.Resources)[name]
		return !has
	})
}

// counted names resources as quotas do.
func counted(r corev1.ResourceRequirements) corev1.ResourceList {
	list := corev1.ResourceList{}
	count := func(from corev1.ResourceList, name corev1.ResourceName, as ...corev1.ResourceName) {
		if quantity, set := from[name]; set {
			for _, n := range as {
				list[n] = quantity
			}
		}
	}
	count(r.Requests, corev1.ResourceCPU, corev1.ResourceCPU, corev1.ResourceRequestsCPU)
	count(r.Requests, corev1.ResourceMemory, corev1.ResourceMemory, corev1.ResourceRequestsMemory)
	count(r.Limits, corev1.ResourceCPU, corev1.ResourceLimitsCPU)
	count(r.Limits, corev1.ResourceMemory, corev1.ResourceLimitsMemory)
	return list
}
