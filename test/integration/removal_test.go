//go:build integration

package integration

import (
	"errors"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/detour-dev/detour/api"
)

// TestOurNamespaceIsDeleted removes Detour without asking. Here is no namespace controller, so that nothing but the
// webhook can put things back, and there is time to look whether they stay there.
func TestOurNamespaceIsDeleted(t *testing.T) {
	newNamespace(t, "brutal")
	service := newSwitchedService(t, "brutal", "web")
	defer reinstall(t)
	if err := kube.Delete(t.Context(), namespaceNamed("detour-system")); err != nil {
		t.Fatal(err)
	}
	waitForTarget(t, service, "8080")
	if note, left := service.Annotations[api.AnnotationTargetPorts]; left {
		t.Errorf("the Service keeps our annotation %q", note)
	}
	for _, configuration := range theWebhook.configurations() {
		eventually(t, "the configuration is gone", func() error {
			err := kube.Get(t.Context(), client.ObjectKeyFromObject(configuration), configuration)
			if apierrors.IsNotFound(err) {
				return nil
			}
			return fmt.Errorf("a %T is there (%v)", configuration, err)
		})
	}

	later := newPod("brutal", "later", service.Spec.Selector, 8080)
	create(t, later) // wakes the reconciler up as well
	if isInjected(later) {
		t.Error("a new Pod has a proxy")
	}
	if err := kube.Delete(t.Context(), later, client.GracePeriodSeconds(0)); err != nil {
		t.Fatal(err)
	}
	other := newService("brutal", "other", intstr.FromString("detour-8080")) // as a backup would bring it back
	create(t, other)
	waitForTarget(t, other, "8080")
	waitForTarget(t, service, "8080")
}

// reinstall plays the namespace controller, which ends the namespace, and installs again.
func reinstall(t *testing.T) {
	t.Helper()
	theWebhook.stop()
	namespace := namespaceNamed("detour-system")
	if err := kube.Get(t.Context(), client.ObjectKeyFromObject(namespace), namespace); err != nil {
		t.Fatal(err)
	}
	namespace.Spec.Finalizers = nil
	if err := kube.SubResource("finalize").Update(t.Context(), namespace); err != nil {
		t.Fatal(err)
	}
	create(t, namespaceNamed("detour-system"))
	for _, configuration := range theWebhook.configurations() {
		configuration.SetResourceVersion("")
		configuration.SetUID("")
		create(t, configuration)
	}
	theWebhook.start()
}

// TestInstallingAgainRepairs starts a webhook that finds what a removal without one leaves behind.
func TestInstallingAgainRepairs(t *testing.T) {
	labels := map[string]map[string]string{
		"leftover-outside": nil,
		"leftover-inside":  {api.LabelInject: api.InjectEnabled},
	}
	theWebhook.away(func() {
		for name := range labels {
			leaveBehind(t, name)
			if err := label(t, namespaceNamed(name), labels[name]); err != nil {
				t.Fatal(err)
			}
		}
	})
	for name := range labels {
		service := newService(name, "web", intstr.FromInt32(8080))
		waitForTarget(t, service, "8080")
		if note, left := service.Annotations[api.AnnotationTargetPorts]; left {
			t.Errorf("namespace %s: the Service keeps our annotation %q", name, note)
		}
	}
	bundle := readConfigMap(t, "detour-system", api.ConfigMapCA).Data
	eventually(t, "the ConfigMaps are as they should be", func() error {
		outside := []*corev1.ConfigMap{
			readConfigMap(t, "leftover-outside", api.ConfigMapCA), readConfigMap(t, "leftover-outside", api.ConfigMapStatus),
		}
		if outside[0] != nil || outside[1] != nil {
			return fmt.Errorf("outside: %v", outside)
		}
		inside := readConfigMap(t, "leftover-inside", api.ConfigMapCA)
		if diff := cmp.Diff(bundle, inside.Data); diff != "" {
			return errors.New(diff)
		}
		return nil
	})
}

// leaveBehind makes a namespace that looks as if Detour had been torn out of it.
func leaveBehind(t *testing.T, name string) {
	t.Helper()
	create(t, namespaceNamed(name))
	create(t, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "default", Namespace: name}})
	service := newService(name, "web", intstr.FromString("detour-8080"))
	service.Annotations = map[string]string{api.AnnotationTargetPorts: "80:8080"}
	create(t, service)
	create(t, newPod(name, "web-1", service.Spec.Selector, 8080)) // nobody is asked about it
	for _, configMap := range []string{api.ConfigMapCA, api.ConfigMapStatus} {
		create(t, &corev1.ConfigMap{
			ObjectMeta: metav1.ObjectMeta{Name: configMap, Namespace: name, Labels: map[string]string{"app.kubernetes.io/managed-by": "detour"}},
			Data:       map[string]string{api.ConfigMapCAKey: "of an authority that is gone"},
		})
	}
}

// readConfigMap returns nil if there is none.
func readConfigMap(t *testing.T, namespace, name string) *corev1.ConfigMap {
	t.Helper()
	var found corev1.ConfigMap
	err := kube.Get(t.Context(), client.ObjectKey{Namespace: namespace, Name: name}, &found)
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		t.Fatal(err)
	}
	return &found
}

// newSwitchedService makes a Service with a numeric targetPort, and a Pod with a proxy behind it, and waits until one
// leads to the other.
func newSwitchedService(t *testing.T, namespace, name string) *corev1.Service {
	t.Helper()
	service := newService(namespace, name, intstr.FromInt32(8080))
	create(t, service)
	waitUntilKnown(t, service)
	create(t, newPod(namespace, name+"-1", service.Spec.Selector, 0))
	waitForTarget(t, service, "detour-8080")
	return service
}

// waitUntilKnown waits for the webhook to know a Service that addresses a port by number: a Pod that declares none gets its
// proxy for the Services of then.
func waitUntilKnown(t *testing.T, service *corev1.Service) {
	t.Helper()
	eventually(t, "the webhook knows the Service", func() error {
		probe := newPod(service.Namespace, "probe", service.Spec.Selector, 0)
		if err := kube.Create(t.Context(), probe, client.DryRunAll); err != nil || !isInjected(probe) {
			return fmt.Errorf("a Pod would get no proxy (%v)", err)
		}
		return nil
	})
}

// waitForTarget reads the Service until its first port leads to want.
func waitForTarget(t *testing.T, service *corev1.Service, want string) {
	t.Helper()
	eventually(t, "Service "+service.Name+" leads to "+want, func() error {
		if err := kube.Get(t.Context(), client.ObjectKeyFromObject(service), service); err != nil {
			return err
		}
		if got := service.Spec.Ports[0].TargetPort.String(); got != want {
			return fmt.Errorf("it leads to %s", got)
		}
		return nil
	})
}
