package webhook

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/detour-dev/detour/api"
)

// Reasons of Events about what hurts, or would, although Pods have a proxy.
const (
	eventBarred         = "NetworkPolicyBarsProxy"
	eventRouterBarred   = "NetworkPolicyBarsRouter"
	eventPreviewsBarred = "NetworkPolicyBarsPreviews"
	eventOutOfRange     = "LimitRangeRejectsProxy"
	eventOverQuota      = "QuotaRejectsProxy"
	eventNoRoom         = "QuotaLeavesNoRoom"
	eventAutoscaler     = "AutoscalerCountsProxy"
	eventHeadless       = "Headless"
	eventAffinity       = "SessionAffinity"
	eventNotReady       = "PublishesNotReady"
	eventOVNKubernetes  = "OVNKubernetes"
)

// findings says what of a namespace's objects gets in the way of proxies.
func findings(around surroundings, pods []corev1.Pod) []notice {
	var notices []notice
	policies := parsePolicies(around.policies)
	for i := range pods {
		if barred := barredPorts(&pods[i], servedPorts(&pods[i]), policies); len(barred) > 0 && !ended(&pods[i]) {
			notices = append(notices, barredNotice(&pods[i], barred))
		}
	}
	return slices.Concat(notices, egressNotices(around, pods, policies), limitNotices(around, pods),
		autoscalerNotices(around, pods), serviceNotices(around.services), networkNotices(around.namespace, pods))
}

// warning is about an object of the namespace.
func warning(object corev1.ObjectReference, reason, format string, args ...any) notice {
	return notice{object: object, kind: corev1.EventTypeWarning, reason: reason, message: fmt.Sprintf(format, args...)}
}

// remark is about an object of the namespace that is in order as it is.
func remark(object corev1.ObjectReference, reason, format string, args ...any) notice {
	n := warning(object, reason, format, args...)
	n.kind = corev1.EventTypeNormal
	return n
}

func referenceTo(version, kind string, object metav1.Object) corev1.ObjectReference {
	return corev1.ObjectReference{APIVersion: version, Kind: kind, Namespace: object.GetNamespace(), Name: object.GetName(), UID: object.GetUID()}
}

func barredNotice(pod *corev1.Pod, barred []barredPort) notice {
	var ports []string
	for _, b := range barred {
		ports = append(ports, fmt.Sprintf("%d and %d, where its proxy serves it as %s (%.100s)", b.App, b.Listen, b.Name, strings.Join(b.policies, ", ")))
	}
	return warning(podReference(pod), eventBarred, "NetworkPolicies do not admit the same clients to these ports of Pod %s: %.300s. "+
		"Services that address the port by number lead past the proxy; by its name they lead clients to it who are kept out. "+
		"Admit the second number in each ingress rule that admits the first, and in no other, or restart the Pod: it then keeps the port",
		pod.Name, strings.Join(ports, "; "))
}

// limitNotices tells of LimitRanges and ResourceQuotas that stand against any proxy.
func limitNotices(around surroundings, pods []corev1.Pod) []notice {
	open, bare := 0, 0 // Pods that could have a proxy, and those of them that will have one
	for i := range pods {
		if !ended(&pods[i]) && reasonInMetadata(&pods[i]) == "" {
			open++
			if withoutReason(&pods[i]) {
				bare++
			}
		}
	}
	if open == 0 {
		return nil
	}
	proxy := &corev1.Pod{Spec: corev1.PodSpec{InitContainers: []corev1.Container{{Name: api.ContainerProxy, Resources: ordinaryResources()}}}}
	proxy = withDefaults(proxy, around.ranges)
	var notices []notice
	for i := range around.ranges {
		notices = append(notices, rangeNotices(&around.ranges[i], proxy)...)
	}
	for i := range around.quotas {
		notices = append(notices, quotaNotices(&around.quotas[i], proxy, bare)...)
	}
	return notices
}

// rangeNotices is about a Pod of nothing but a proxy, so it leaves out what the LimitRange has on whole Pods.
func rangeNotices(limits *corev1.LimitRange, proxy *corev1.Pod) []notice {
	for _, item := range limits.Spec.Limits {
		if item.Type != corev1.LimitTypeContainer {
			continue
		}
		if why := outOf(item, proxyOf(proxy).Resources); why != "" {
			return []notice{warning(referenceTo("v1", "LimitRange", limits), eventOutOfRange,
				"LimitRange %s admits no proxy but that of a Guaranteed Pod, so others get none: %s, and %s. Have it admit that, and restart the workloads", limits.Name, why, proxyAsks())}
		}
	}
	return nil
}

func quotaNotices(quota *corev1.ResourceQuota, proxy *corev1.Pod, bare int) []notice {
	object := referenceTo("v1", "ResourceQuota", quota)
	if why := overQuota(proxy, quota); why != "" {
		return []notice{warning(object, eventOverQuota,
			"ResourceQuota %s admits no proxy but that of a Guaranteed Pod, so others get none: %s, and %s. Have it admit that, or have a LimitRange give containers a default, and restart the workloads",
			quota.Name, why, proxyAsks())}
	}
	if why := noRoom(quota, proxy, bare); why != "" {
		return []notice{warning(object, eventNoRoom,
			"ResourceQuota %s leaves no room for the proxies of %d Pods that have none yet: %s. Raise it before they are restarted, or the API server refuses some of their successors",
			quota.Name, bare, why)}
	}
	return nil
}

// noRoom says which resource a quota lacks for some more proxies, or nothing.
func noRoom(quota *corev1.ResourceQuota, proxy *corev1.Pod, more int) string {
	if isScoped(quota) {
		return ""
	}
	each := counted(proxyOf(proxy).Resources)
	for _, name := range countedResources {
		hard, limited := quota.Status.Hard[name]
		used, take := quota.Status.Used[name], each[name]
		need := take.DeepCopy()
		need.Mul(int64(more))
		need.Add(used)
		if limited && more > 0 && need.Cmp(hard) > 0 {
			return fmt.Sprintf("%s is %s at most, %s are in use, and each proxy takes %s", name, hard.String(), used.String(), take.String())
		}
	}
	return ""
}

// serviceNotices tells of Services that do not behave quite as before, or pass the proxies by.
func serviceNotices(services []corev1.Service) []notice {
	var notices []notice
	for i := range services {
		service := &services[i]
		object := referenceTo("v1", "Service", service)
		if len(service.Spec.Selector) == 0 || service.Spec.Type == corev1.ServiceTypeExternalName {
			continue
		}
		if isHeadless(service) {
			notices = append(notices, remark(object, eventHeadless,
				"Service %s is headless (clusterIP: None): its clients address Pods themselves, and their requests reach the app without passing the proxy. "+
					"For requests that are to be routed, add a Service with a cluster IP", service.Name))
			continue
		}
		if service.Spec.SessionAffinity == corev1.ServiceAffinityClientIP {
			notices = append(notices, remark(object, eventAffinity,
				"Service %s has sessionAffinity: ClientIP. A client goes on reaching the same Pod, but may be given another one whenever the Service is led to proxies or back. "+
					"Requests with a key are spread over the Pods of their preview without regard to the client", service.Name))
		}
		if service.Spec.PublishNotReadyAddresses {
			notices = append(notices, remark(object, eventNotReady,
				"Service %s has publishNotReadyAddresses: it leads to Pods before their app listens. Where it does not, a proxy accepts the connection and then closes it; the app's own port would have refused it",
				service.Name))
		}
	}
	return notices
}

// annotationOVN is written by OVN-Kubernetes on each Pod that it connects.
const annotationOVN = "k8s.ovn.org/pod-networks"

// networkNotices tells of a network on which Services do not find each Pod at its own number.
func networkNotices(namespace *corev1.Namespace, pods []corev1.Pod) []notice {
	onOVN := func(pod corev1.Pod) bool { return pod.Annotations[annotationOVN] != "" && wantsProxy(&pod) }
	if !slices.ContainsFunc(pods, onOVN) {
		return nil
	}
	return []notice{namespaceNotice(namespace, corev1.EventTypeWarning, eventOVNKubernetes,
		"Pods of namespace %s are on OVN-Kubernetes, on which Detour has not been tried, and which takes the Pods of a Service to listen on one number "+
			"(https://github.com/ovn-kubernetes/ovn-kubernetes/issues/5908). While some Pods have a proxy and others do not, a Service with a named targetPort fails at one or the other: "+
			"have its workload replace all Pods at once (strategy: Recreate), or give the Service a numeric targetPort",
		namespace.Name)}
}
