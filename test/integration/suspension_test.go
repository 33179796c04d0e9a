//go:build integration

package integration

import (
	"errors"
	"fmt"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/detour-dev/detour/api"
)

// TestProxiesThatCannotStart has the kubelet fail to start two proxies, and shows that the apps after them are not held
// up.
func TestProxiesThatCannotStart(t *testing.T) {
	newNamespace(t, "stuck")
	service := newService("stuck", "web", intstr.FromInt32(8080))
	create(t, service)
	next := func() *corev1.Pod { return newPod("stuck", "next", map[string]string{"app": "web"}, 8080) }
	eventually(t, "the webhook knows the Service", func() error {
		pod := next()
		if err := kube.Create(t.Context(), pod, client.DryRunAll); err != nil || len(takenPorts(t, pod)) != 2 {
			return fmt.Errorf("the proxy would not have both ports (%v)", err)
		}
		return nil
	})
	for _, name := range []string{"one", "two"} {
		pod := next()
		pod.Name = name
		create(t, pod)
		waitForTarget(t, service, "detour-8080")
		cannotStart(t, pod)
	}
	waitForTarget(t, service, "8080")
	waitForInjection := func(want string) {
		t.Helper()
		eventually(t, "the next Pod is annotated "+want, func() error {
			pod := next()
			if err := kube.Create(t.Context(), pod, client.DryRunAll); err != nil {
				return err
			}
			if got := pod.Annotations[api.AnnotationNotInjected]; got != want || isInjected(pod) != (want == "") {
				return errors.New(got)
			}
			return nil
		})
	}
	waitForInjection("proxy-cannot-start")
	namespace := namespaceNamed("stuck")
	if err := kube.Get(t.Context(), client.ObjectKeyFromObject(namespace), namespace); err != nil {
		t.Fatal(err)
	}
	waitForEvent(t, namespace, "InjectionSuspended")

	before := namespace.DeepCopy()
	namespace.Annotations = map[string]string{api.AnnotationRetry: time.Now().UTC().Format(time.RFC3339)}
	if err := kube.Patch(t.Context(), namespace, client.MergeFrom(before)); err != nil {
		t.Fatal(err)
	}
	waitForInjection("")
	waitForTarget(t, service, "detour-8080")
}

// cannotStart plays a kubelet that does not get the proxy's image.
func cannotStart(t *testing.T, pod *corev1.Pod) {
	t.Helper()
	pod.Status = corev1.PodStatus{Phase: corev1.PodPending, InitContainerStatuses: []corev1.ContainerStatus{{
		Name:  api.ContainerProxy,
		State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "ImagePullBackOff"}},
	}}}
	if err := kube.Status().Update(t.Context(), pod); err != nil {
		t.Fatal(err)
	}
}
