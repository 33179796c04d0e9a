package webhook

import (
	"cmp"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/detour-dev/detour/api"
)

// sidecar is what every proxy of this installation has in common.
type sidecar struct {
	image  string
	router string
}

// injection is what [inject] made of a Pod.
type injection struct {
	pod    *corev1.Pod // a copy; the argument is never touched
	reason reason      // why there is no proxy; empty if there is one
	left   []leftPort  // the ports that stay with the app
}

// inject adds the proxy to a Pod, and lets it take over the ports that the Pod declares and those that Services
// address. What is around the Pod is the whole of its namespace; inject itself finds out what of it selects the Pod.
//
// It is idempotent: a Pod that has a proxy comes back as it is, and so does one that was left alone before.
func inject(pod *corev1.Pod, around surroundings, with sidecar) injection {
	before, pod := pod, pod.DeepCopy()
	if why := reasonAgainst(pod, around.namespace); why != "" {
		return leave(pod, why)
	}
	plan := planPorts(pod, around)
	if len(plan.taken) == 0 {
		return leavePorts(pod, plan.left)
	}
	plan.rename(pod)
	// Last, and so started just before the app and stopped just after it. It also means that the patch adds an
	// element at the end of the list, and shifts none whose fields we may not know.
	pod.Spec.InitContainers = append(pod.Spec.InitContainers, proxyContainer(pod, plan, with))
	pod.Spec.Volumes = append(pod.Spec.Volumes, proxyVolume())
	if why := rejectedWithProxy(before, pod, around); why != "" {
		return leave(before.DeepCopy(), why)
	}
	annotate(pod, api.AnnotationNotInjected, "")
	annotate(pod, api.AnnotationPortsNotTaken, formatLeft(plan.left))
	return injection{pod: pod, left: plan.left}
}

func leave(pod *corev1.Pod, why reason) injection {
	if why != reasonInjectedAlready {
		annotate(pod, api.AnnotationNotInjected, string(why))
	}
	return injection{pod: pod, reason: why}
}

// leavePorts leaves a Pod alone that keeps all of its ports.
func leavePorts(pod *corev1.Pod, left []leftPort) injection {
	barred := slices.ContainsFunc(left, func(p leftPort) bool { return p.reason == reasonNetworkPolicy })
	if !barred {
		return leave(pod, reasonNoPorts)
	}
	annotate(pod, api.AnnotationPortsNotTaken, formatLeft(left)) // it has the numbers that would have to be admitted
	return leave(pod, reasonNetworkPolicy)
}

// annotate sets an annotation, or removes it if the value is empty.
func annotate(object metav1.Object, name, value string) {
	annotations := object.GetAnnotations()
	if value == "" {
		delete(annotations, name)
		return
	}
	if annotations == nil {
		annotations = map[string]string{}
	}
	annotations[name] = value
	object.SetAnnotations(annotations)
}

// reasonAgainst says why a Pod gets no proxy whatever its ports are, or nothing.
func reasonAgainst(pod *corev1.Pod, namespace *corev1.Namespace) reason {
	if proxyOf(pod) != nil {
		return reasonInjectedAlready
	}
	why := cmp.Or(reasonInMetadata(pod), reasonInSpec(pod))
	if why == "" && inMesh(pod, namespace) {
		return reasonMesh
	}
	return why
}

// reasonInMetadata reads only what [stripPod] keeps.
func reasonInMetadata(pod *corev1.Pod) reason {
	switch {
	case pod.Labels[api.LabelInject] == api.InjectDisabled:
		return reasonOptedOut
	case pod.Labels[api.LabelTarget] != "":
		return reasonPreview // it is addressed on the app's own ports
	case pod.Annotations[corev1.MirrorPodAnnotationKey] != "":
		return reasonStatic
	case ownerJob(pod) != nil:
		return reasonJob
	}
	return ""
}

func reasonInSpec(pod *corev1.Pod) reason {
	switch {
	case pod.Spec.HostNetwork:
		return reasonHostNetwork
	case onWindows(pod):
		return reasonWindows
	case nameTaken(pod):
		return reasonNameTaken
	case pod.Spec.ServiceAccountName == "": // the API server would refuse the proxy's token
		return reasonNoAccount
	case badClientAddress(pod):
		return reasonClientAddress
	}
	return ""
}

func badClientAddress(pod *corev1.Pod) bool {
	_, err := api.ParseClientAddress(pod.Annotations[api.AnnotationClientAddress])
	return err != nil
}

// proxyOf returns the proxy of an injected Pod, or nil.
func proxyOf(pod *corev1.Pod) *corev1.Container {
	i := slices.IndexFunc(pod.Spec.InitContainers, isProxy)
	if i < 0 {
		return nil
	}
	return &pod.Spec.InitContainers[i]
}

func isProxy(c corev1.Container) bool {
	return c.Name == api.ContainerProxy
}

// ownerJob returns the Job that made the Pod, or nil.
func ownerJob(pod *corev1.Pod) *metav1.OwnerReference {
	owner := metav1.GetControllerOfNoCopy(pod)
	if owner == nil || owner.Kind != "Job" {
		return nil
	}
	return owner
}

func onWindows(pod *corev1.Pod) bool {
	if pod.Spec.OS != nil {
		return pod.Spec.OS.Name == corev1.Windows
	}
	return pod.Spec.NodeSelector[corev1.LabelOSStable] == string(corev1.Windows)
}

// nameTaken reports whether adding our container or volume would make the Pod invalid.
func nameTaken(pod *corev1.Pod) bool {
	return slices.ContainsFunc(pod.Spec.Containers, isProxy) ||
		slices.ContainsFunc(pod.Spec.Volumes, func(v corev1.Volume) bool { return v.Name == api.VolumeProxy })
}
