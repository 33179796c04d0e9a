//go:build integration

package integration

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/detour-dev/detour/api"
)

// TestTargetChanges does to a target what its owners do in the life of a preview, with nothing restarted but the target.
func TestTargetChanges(t *testing.T) {
	newNamespace(t, "changing")
	service := newService("changing", "api", intstr.FromString("http"))
	create(t, service)
	deployment, pod := newPreview(t, "changing", "api-pr-1", "api", "pr-1")
	makeReady(t, pod, "198.18.130.1")
	become := func(state api.State, reason string) api.PreviewStatus {
		t.Helper()
		return waitForReason(t, "changing", "deployment/api-pr-1", state, reason)
	}
	become(api.StatePending, "NoBaseline")
	baseline := startBaseline(t, service, "api-1", "http", 8080)
	become(api.StateRouted, "")

	stopBaseline(t, baseline)
	become(api.StatePending, "NoBaseline")
	waitForEvent(t, deployment, "NoBaseline")
	baseline = startBaseline(t, service, "api-renamed", "http", 8080)
	become(api.StateRouted, "")

	stopBaseline(t, baseline)
	baseline = startBaseline(t, service, "api-9090", "http", 9090)
	become(api.StateRouted, "")
	checkRoute(t, baseline, 9090, "198.18.130.1:8080")
	stopBaseline(t, baseline)
	baseline = startBaseline(t, service, "api-web", "web", 8080)
	missing := become(api.StatePending, "").Missing
	if len(missing) != 1 || !strings.HasPrefix(missing[0].Reason, "it has no port named http, where Service api leads") {
		t.Errorf("missing are %v", missing)
	}
	changeService(t, service, func() { service.Spec.Ports[0].TargetPort = intstr.FromString("web") })
	become(api.StateInvalid, "NoPort")
	annotate(t, deployment, api.AnnotationPorts, "web:http")
	become(api.StateRouted, "")

	again := func(selector string) {
		t.Helper()
		if err := kube.Delete(t.Context(), service); err != nil {
			t.Fatal(err)
		}
		become(api.StateInvalid, "UnknownTarget")
		service = newService("changing", "api", intstr.FromString("web"))
		service.Spec.Selector["app"] = selector
		create(t, service)
	}
	again("api")
	become(api.StateRouted, "")
	again("other")
	become(api.StatePending, "NoBaseline")
	changeService(t, service, func() { service.Spec.Selector["app"] = "api-pr-1" })
	become(api.StateInvalid, "Pollutes")
	waitForEvent(t, deployment, "Pollutes")
	changeService(t, service, func() { service.Spec.Selector["app"] = "api" })
	become(api.StateRouted, "")

	namespace, next := namespaceNamed("changing"), openStream(t, tokenFor(t, baseline))
	relabel(t, namespace, "")
	for len(next().Ports) != 0 {
	}
	eventually(t, "the status is gone", func() error {
		status := &corev1.ConfigMap{}
		err := kube.Get(t.Context(), client.ObjectKey{Namespace: "changing", Name: api.ConfigMapStatus}, status)
		if err == nil {
			return fmt.Errorf("there is %v", status.Data)
		}
		return client.IgnoreNotFound(err)
	})
	relabel(t, namespace, api.InjectEnabled)
	become(api.StateRouted, "")
}

// TestNumericTargetChanges has the app listen on another port, which its Service has by number.
func TestNumericTargetChanges(t *testing.T) {
	newNamespace(t, "renumbered")
	service := newService("renumbered", "api", intstr.FromInt32(8080))
	create(t, service)
	waitUntilKnown(t, service)
	_, pod := newPreview(t, "renumbered", "api-pr-1", "api", "pr-1")
	makeReady(t, pod, "198.18.130.1")
	become := func(state api.State) api.PreviewStatus {
		t.Helper()
		return waitForReason(t, "renumbered", "deployment/api-pr-1", state, "")
	}
	baseline := startBaseline(t, service, "api-1", "", 8080)
	become(api.StateRouted)

	changeService(t, service, func() { service.Spec.Ports[0].TargetPort = intstr.FromInt32(9090) })
	missing := become(api.StatePending).Missing
	if len(missing) != 1 || missing[0].Reason != "its proxy serves no port of Service api: covered after its next restart" {
		t.Errorf("missing are %v", missing)
	}
	waitForTarget(t, service, "9090")
	stopBaseline(t, baseline)
	baseline = startBaseline(t, service, "api-2", "", 9090)
	become(api.StateRouted)
	checkRoute(t, baseline, 9090, "198.18.130.1:9090")
}

// TestOlderHasTheKey has two previews ask for one key, and the older one end.
func TestOlderHasTheKey(t *testing.T) {
	newNamespace(t, "older")
	newBaseline(t, "older", "api")
	older, pod := newPreview(t, "older", "api-a", "api", "pr-1")
	makeReady(t, pod, "198.18.130.1")
	younger, pod := newPreview(t, "older", "api-b", "api", "pr-1")
	makeReady(t, pod, "198.18.130.2")
	if older.CreationTimestamp.Equal(&younger.CreationTimestamp) && older.UID > younger.UID { // made within one second
		older, younger = younger, older
	}
	waitForState(t, "older", nameOf(older), api.StateRouted)
	conflict := waitForReason(t, "older", nameOf(younger), api.StateConflict, "Conflict")
	if !strings.Contains(conflict.Problem.Message, nameOf(older)) {
		t.Errorf("it is told %q, which does not name the older one", conflict.Problem.Message)
	}
	waitForEvent(t, younger, "Conflict")

	annotate(t, older, api.AnnotationTTL, "1ms")
	waitForReason(t, "older", nameOf(older), api.StateExpired, "Expired")
	waitForEvent(t, older, "Expired")
	waitForState(t, "older", nameOf(younger), api.StateRouted)
	annotate(t, older, api.AnnotationUpdated, time.Now().Add(time.Hour).Format(time.RFC3339))
	waitForState(t, "older", nameOf(older), api.StateRouted)
	waitForState(t, "older", nameOf(younger), api.StateConflict)
	if err := kube.Delete(t.Context(), older); err != nil {
		t.Fatal(err)
	}
	waitForState(t, "older", nameOf(younger), api.StateRouted)
}

func nameOf(d *appsv1.Deployment) string { return "deployment/" + d.Name }

// waitForReason waits for a state with that problem, or with none for "".
func waitForReason(t *testing.T, namespace, preview string, state api.State, reason string) api.PreviewStatus {
	t.Helper()
	var status api.PreviewStatus
	eventually(t, preview+" is "+string(state)+" "+reason, func() error {
		status = waitForState(t, namespace, preview, state)
		if problem := status.Problem; (problem == nil) != (reason == "") || problem != nil && problem.Reason != reason {
			return fmt.Errorf("its problem is %v", problem)
		}
		return nil
	})
	return status
}

// startBaseline makes a ready Pod behind the Service, whose proxy puts every table in force.
func startBaseline(t *testing.T, service *corev1.Service, name, portName string, port int32) *corev1.Pod {
	t.Helper()
	pod := newPod(service.Namespace, name, map[string]string{"app": "api"}, port)
	if portName == "" {
		pod.Spec.Containers[0].Ports = nil
	} else {
		pod.Spec.Containers[0].Ports[0].Name = portName
	}
	create(t, pod)
	makeReady(t, pod, "198.18.130.10")
	create(t, endpointSlice(service, pod, int32(takenPorts(t, pod)[0].Listen)))
	acknowledgeAll(t, tokenFor(t, pod))
	return pod
}

func stopBaseline(t *testing.T, pod *corev1.Pod) {
	t.Helper()
	if err := kube.Delete(t.Context(), pod, client.GracePeriodSeconds(0)); err != nil {
		t.Fatal(err)
	}
	if err := kube.DeleteAllOf(t.Context(), &discoveryv1.EndpointSlice{}, client.InNamespace(pod.Namespace)); err != nil {
		t.Fatal(err)
	}
}

func changeService(t *testing.T, service *corev1.Service, change func()) {
	t.Helper()
	if err := kube.Get(t.Context(), client.ObjectKeyFromObject(service), service); err != nil {
		t.Fatal(err)
	}
	before := service.DeepCopy()
	change()
	if err := kube.Patch(t.Context(), service, client.MergeFrom(before)); err != nil {
		t.Fatal(err)
	}
}

// checkRoute reads where a baseline Pod's proxy leads requests to a port of its app with the key.
func checkRoute(t *testing.T, pod *corev1.Pod, port uint16, address string) {
	t.Helper()
	ports := openStream(t, tokenFor(t, pod))().Ports
	if len(ports) != 1 || ports[0].Port != port || len(ports[0].Routes) != 1 {
		t.Fatalf("it routes %v, want port %d only", ports, port)
	}
	endpoints := ports[0].Routes[0].Endpoints
	if len(endpoints) != 1 || endpoints[0].Address != netip.MustParseAddrPort(address) {
		t.Errorf("it leads to %v, want %s", endpoints, address)
	}
}
