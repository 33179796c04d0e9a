package webhook

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/detour-dev/detour/api"
)

// planService returns the Service as it should be, given the Pods of its namespace: each TCP port that the user
// addresses by number leads to the proxies' name for it if every selected Pod that has not ended exposes that name,
// and to the number otherwise. Without Pods, planService undoes what it did.
//
// The number is always safe, because the app listens there with and without a proxy. It is found in the name itself;
// the annotation only tells people what it was.
//
// The result depends on the Service and its own Pods alone, so all Services over the same Pods switch together.
func planService(service *corev1.Service, pods []corev1.Pod) *corev1.Service {
	plan := service.DeepCopy()
	covered := coveredPorts(service, pods)
	var switched []string
	for i := range plan.Spec.Ports {
		port := &plan.Spec.Ports[i]
		number, numeric := originalPort(*port)
		if !numeric || !isTCP(port.Protocol) {
			continue
		}
		if name := api.PortName(number); covered[name] {
			port.TargetPort = intstr.FromString(name)
			switched = append(switched, fmt.Sprintf("%d:%d", port.Port, number))
		} else if port.TargetPort.Type == intstr.String {
			port.TargetPort = intstr.FromInt32(int32(number))
		}
	}
	annotate(plan, api.AnnotationTargetPorts, strings.Join(switched, ","))
	return plan
}

// planServices returns the plans of the Services that are not as they should be.
func planServices(services []corev1.Service, pods []corev1.Pod) []*corev1.Service {
	var plans []*corev1.Service
	for i := range services {
		if plan := planService(&services[i], pods); !asPlanned(&services[i], plan) {
			plans = append(plans, plan)
		}
	}
	return plans
}

// asPlanned compares what [planService] decides.
func asPlanned(service, plan *corev1.Service) bool {
	return portsAsPlanned(service, plan) &&
		service.Annotations[api.AnnotationTargetPorts] == plan.Annotations[api.AnnotationTargetPorts]
}

func portsAsPlanned(service, plan *corev1.Service) bool {
	return slices.EqualFunc(service.Spec.Ports, plan.Spec.Ports, func(a, b corev1.ServicePort) bool {
		return a.Port == b.Port && a.Protocol == b.Protocol && a.TargetPort == b.TargetPort
	})
}

// coveredPorts returns the names that the proxies of all Pods behind a Service expose.
func coveredPorts(service *corev1.Service, pods []corev1.Pod) map[string]bool {
	if isHeadless(service) || service.Spec.Type == corev1.ServiceTypeExternalName {
		return nil
	}
	var covered map[string]bool
	for i := range pods {
		pod := &pods[i]
		if ended(pod) || !selects(service, pod.Labels) {
			continue
		}
		names := proxyNames(pod)
		if covered == nil {
			covered = names
		}
		maps.DeleteFunc(covered, func(name string, _ bool) bool { return !names[name] })
	}
	return covered
}

// proxyNames returns the port names that a Pod's proxy exposes; none if it has no proxy.
func proxyNames(pod *corev1.Pod) map[string]bool {
	names := map[string]bool{}
	if proxy := proxyOf(pod); proxy != nil {
		for _, port := range proxy.Ports {
			names[port.Name] = true
		}
	}
	return names
}

// originalPort returns the number that a Service's user addresses, also after it was switched to a name. It reports
// false for names that are the user's own.
func originalPort(port corev1.ServicePort) (uint16, bool) {
	target := port.TargetPort
	switch {
	case target.Type == intstr.String:
		return api.OriginalPort(target.StrVal)
	case target.IntVal == 0:
		return uint16(port.Port), validPort(port.Port) // what the API server's defaulting does
	}
	return uint16(target.IntVal), validPort(target.IntVal)
}

// selects reports whether a Service picks a Pod with these labels. A Service without a selector picks none.
func selects(service *corev1.Service, labels map[string]string) bool {
	for name, value := range service.Spec.Selector {
		if got, found := labels[name]; !found || got != value {
			return false
		}
	}
	return len(service.Spec.Selector) > 0
}

// ended reports whether a Pod will never serve again. One that is being deleted still may.
func ended(pod *corev1.Pod) bool {
	return pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed
}

func isHeadless(service *corev1.Service) bool {
	return service.Spec.ClusterIP == corev1.ClusterIPNone
}
