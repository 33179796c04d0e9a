//go:build integration

package integration

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	appsv1 "k8s.io/api/apps/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/detour-dev/detour/api"
)

// TestPodGetsProxy shows what the API server makes of a Pod of an opted-in namespace that enforces 'restricted'.
func TestPodGetsProxy(t *testing.T) {
	newNamespace(t, "inject")
	pod := newPod("inject", "api", map[string]string{"app": "api"}, 8080)
	create(t, pod)
	if !isInjected(pod) {
		t.Fatal("the Pod has no proxy")
	}
	taken := takenPorts(t, pod)
	if len(taken) != 1 || taken[0].Name != "http" || taken[0].App != 8080 {
		t.Errorf("the proxy serves %v, want http for 8080", taken)
	}

	out := newPod("inject", "opted-out", nil, 8080)
	out.Labels = map[string]string{api.LabelInject: api.InjectDisabled}
	create(t, out)
	if isInjected(out) {
		t.Error("a Pod that opted out has a proxy")
	}
	create(t, namespaceNamed("elsewhere"))
	create(t, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "default", Namespace: "elsewhere"}})
	other := newPod("elsewhere", "api", nil, 8080)
	create(t, other)
	if isInjected(other) {
		t.Error("a Pod of another namespace has a proxy")
	}
}

// TestServiceFollowsItsPods leads a Service with a numeric targetPort to the proxies and back, while its owner applies
// it again and again.
func TestServiceFollowsItsPods(t *testing.T) {
	newNamespace(t, "numeric")
	service := newService("numeric", "identity", intstr.FromInt32(8080))
	apply := func() {
		t.Helper()
		manifest := service.DeepCopy()
		manifest.TypeMeta = metav1.TypeMeta{APIVersion: "v1", Kind: "Service"}
		content, err := json.Marshal(map[string]any{
			"apiVersion": "v1", "kind": "Service",
			"metadata": map[string]any{"name": manifest.Name, "namespace": manifest.Namespace},
			"spec":     map[string]any{"selector": manifest.Spec.Selector, "ports": manifest.Spec.Ports},
		})
		if err != nil {
			t.Fatal(err)
		}
		patch := client.RawPatch("application/apply-patch+yaml", content)
		if err := kube.Patch(t.Context(), manifest, patch, client.FieldOwner("its-owner")); err != nil {
			t.Fatalf("applying the Service again: %v", err)
		}
	}
	apply()
	waitForTarget(t, service, "8080")
	waitUntilKnown(t, service)
	covered := newPod("numeric", "covered", map[string]string{"app": "identity"}, 0)
	create(t, covered)
	waitForTarget(t, service, "detour-8080")
	service.Spec.Ports[0].TargetPort = intstr.FromInt32(8080)
	apply()
	waitForTarget(t, service, "detour-8080")

	uncovered := newPod("numeric", "uncovered", map[string]string{"app": "identity", api.LabelInject: api.InjectDisabled}, 0)
	create(t, uncovered)
	waitForTarget(t, service, "8080")
	if err := kube.Delete(t.Context(), uncovered, client.GracePeriodSeconds(0)); err != nil {
		t.Fatal(err)
	}
	waitForTarget(t, service, "detour-8080")

	namespace := namespaceNamed("numeric")
	label := client.RawPatch("application/merge-patch+json", []byte(`{"metadata":{"labels":{"`+api.LabelInject+`":null}}}`))
	if err := kube.Patch(t.Context(), namespace, label); err != nil {
		t.Fatal(err)
	}
	waitForTarget(t, service, "8080")
	if _, left := service.Annotations[api.AnnotationTargetPorts]; left {
		t.Error("the Service keeps our annotation")
	}
	apply()
}

// TestPreviewIsRouted follows a preview from its label to 'routed': the proxy's stream, its acknowledgement, the
// status and the Events.
func TestPreviewIsRouted(t *testing.T) {
	newNamespace(t, "shop")
	service := newService("shop", "api", intstr.FromString("http"))
	service.Spec.Selector = map[string]string{"app": "api"}
	create(t, service)
	baseline := newPod("shop", "api-1", map[string]string{"app": "api"}, 8080)
	create(t, baseline)
	makeReady(t, baseline, "198.18.128.10")
	listen := takenPorts(t, baseline)[0].Listen
	create(t, endpointSlice(service, baseline, int32(listen)))

	next := openStream(t, tokenFor(t, baseline))
	deployment, pod := newPreview(t, "shop", "api-pr-42", "api", "pr-42")
	makeReady(t, pod, "198.18.128.11")
	want := []api.Port{{Port: 8080, Routes: []api.Route{{
		Key: "pr-42", Preview: "deployment/api-pr-42",
		Endpoints: []api.Endpoint{{Pod: "shop/" + pod.Name, Address: netip.MustParseAddrPort("198.18.128.11:8080")}},
	}}}}
	var table api.Table
	for !cmp.Equal(table.Ports, want, cmpopts.EquateComparable(netip.AddrPort{})) {
		table = next()
	}

	waitForState(t, "shop", "deployment/api-pr-42", api.StatePending)
	acknowledge(t, tokenFor(t, baseline), api.Ack{
		Version: table.Version, Previews: map[string]api.Counters{"deployment/api-pr-42": {Requests: 7}},
	})
	status := waitForState(t, "shop", "deployment/api-pr-42", api.StateRouted)
	if status.Routed != 1 || status.Of != 1 {
		t.Errorf("routed by %d of %d, want 1 of 1", status.Routed, status.Of)
	}
	waitForEvent(t, deployment, "Routed")
	if counted := trafficOf(t, "shop", "deployment/api-pr-42"); counted == nil || counted.Requests != 7 {
		t.Errorf("the router's API counts %+v, want the proxy's 7 requests", counted)
	}

	if err := kube.Delete(t.Context(), pod, client.GracePeriodSeconds(0)); err != nil {
		t.Fatal(err)
	}
	for len(next().Ports[0].Routes[0].Endpoints) != 0 { // it is told that there is none, not that there is no preview
	}
	waitForState(t, "shop", "deployment/api-pr-42", api.StateNotReady)
	if err := kube.Delete(t.Context(), deployment); err != nil {
		t.Fatal(err)
	}
	for len(next().Ports) != 0 {
	}
}

// TestRouterTurnsOthersAway shows that tables are for proxies only.
func TestRouterTurnsOthersAway(t *testing.T) {
	newNamespace(t, "away")
	unbound, err := newToken(t.Context(), "away", "default", nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, token := range map[string]string{"none": "", "nonsense": "nonsense", "bound to no Pod": unbound} {
		for _, path := range []string{api.PathRoutes, api.PathAcks} {
			if code, body := get(t, token, path); code != http.StatusUnauthorized {
				t.Errorf("token: %s: GET %s is answered %d, want 401: %s", name, path, code, body)
			}
		}
	}
}

func newPod(namespace, name string, labels map[string]string, port int32) *corev1.Pod {
	container := corev1.Container{
		Name: "app", Image: "app",
		SecurityContext: &corev1.SecurityContext{
			AllowPrivilegeEscalation: ptr.To(false),
			Capabilities:             &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
		},
	}
	if port != 0 {
		container.Ports = []corev1.ContainerPort{{Name: "http", ContainerPort: port}}
	}
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: namespace, Labels: labels},
		Spec: corev1.PodSpec{
			ServiceAccountName: "default",
			Containers:         []corev1.Container{container},
			SecurityContext: &corev1.PodSecurityContext{
				RunAsNonRoot:   ptr.To(true),
				SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
			},
		},
	}
}

func newService(namespace, name string, target intstr.IntOrString) *corev1.Service {
	return &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: namespace},
		Spec: corev1.ServiceSpec{
			Selector: map[string]string{"app": name},
			Ports:    []corev1.ServicePort{{Name: "http", Port: 80, Protocol: corev1.ProtocolTCP, TargetPort: target}},
		},
	}
}

// newDeployment has Pods with these labels.
func newDeployment(namespace, name string, labels map[string]string) *appsv1.Deployment {
	return &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: namespace},
		Spec: appsv1.DeploymentSpec{
			Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: labels},
				Spec:       newPod("", "", nil, 8080).Spec,
			},
		},
	}
}

// newPreview makes a labelled Deployment and, as its controllers would, a ReplicaSet and a Pod.
func newPreview(t *testing.T, namespace, name, target, key string) (*appsv1.Deployment, *corev1.Pod) {
	t.Helper()
	labels := map[string]string{"app": name}
	deployment := newDeployment(namespace, name, labels)
	deployment.Labels = map[string]string{api.LabelTarget: target, api.LabelKey: key}
	create(t, deployment)
	replicaSet := &appsv1.ReplicaSet{
		ObjectMeta: metav1.ObjectMeta{Name: name + "-1", Namespace: namespace, Labels: labels,
			OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(deployment, appsv1.SchemeGroupVersion.WithKind("Deployment"))}},
		Spec: appsv1.ReplicaSetSpec{Selector: &metav1.LabelSelector{MatchLabels: labels}, Template: deployment.Spec.Template},
	}
	create(t, replicaSet)
	pod := newPod(namespace, name+"-1-x", labels, 8080)
	pod.OwnerReferences = []metav1.OwnerReference{*metav1.NewControllerRef(replicaSet, appsv1.SchemeGroupVersion.WithKind("ReplicaSet"))}
	create(t, pod)
	return deployment, pod
}

// makeReady plays the kubelet.
func makeReady(t *testing.T, pod *corev1.Pod, ip string) {
	t.Helper()
	pod.Status = corev1.PodStatus{
		Phase: corev1.PodRunning, PodIP: ip, PodIPs: []corev1.PodIP{{IP: ip}},
		Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}},
	}
	if err := kube.Status().Update(t.Context(), pod); err != nil {
		t.Fatal(err)
	}
}

// endpointSlice plays the EndpointSlice controller.
func endpointSlice(service *corev1.Service, pod *corev1.Pod, port int32) *discoveryv1.EndpointSlice {
	return &discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{Name: service.Name + "-1", Namespace: service.Namespace, Labels: map[string]string{
			discoveryv1.LabelServiceName: service.Name,
		}},
		AddressType: discoveryv1.AddressTypeIPv4,
		Ports:       []discoveryv1.EndpointPort{{Name: ptr.To("http"), Port: ptr.To(port), Protocol: ptr.To(corev1.ProtocolTCP)}},
		Endpoints: []discoveryv1.Endpoint{{
			Addresses:  []string{pod.Status.PodIP},
			Conditions: discoveryv1.EndpointConditions{Ready: ptr.To(true)},
			TargetRef:  &corev1.ObjectReference{Kind: "Pod", Namespace: pod.Namespace, Name: pod.Name, UID: pod.UID},
		}},
	}
}

func isInjected(pod *corev1.Pod) bool {
	return slices.ContainsFunc(pod.Spec.InitContainers, func(c corev1.Container) bool { return c.Name == api.ContainerProxy })
}

func takenPorts(t *testing.T, pod *corev1.Pod) []api.TakenPort {
	t.Helper()
	for _, env := range pod.Spec.InitContainers[0].Env {
		if env.Name == api.EnvPorts {
			ports, err := api.ParsePorts(env.Value)
			if err != nil {
				t.Fatal(err)
			}
			return ports
		}
	}
	t.Fatalf("Pod %s: the proxy has no %s", pod.Name, api.EnvPorts)
	return nil
}

// tokenFor is the token that the kubelet would project into the Pod.
func tokenFor(t *testing.T, pod *corev1.Pod) string {
	t.Helper()
	token, err := newToken(t.Context(), pod.Namespace, "default", &authenticationv1.BoundObjectReference{
		APIVersion: "v1", Kind: "Pod", Name: pod.Name, UID: pod.UID,
	})
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// openStream returns a function that waits for the next table.
func openStream(t *testing.T, token string) func() api.Table {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, routerURL+api.PathRoutes, nil)
	if err != nil {
		t.Fatal(err)
	}
	response, err := routerClient(t, token).Do(request)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { response.Body.Close() })
	if response.StatusCode != http.StatusOK {
		t.Fatalf("the stream is answered %s", response.Status)
	}
	lines := bufio.NewScanner(response.Body)
	return func() api.Table {
		t.Helper()
		for lines.Scan() {
			if len(lines.Bytes()) == 0 {
				continue
			}
			var table api.Table
			if err := json.Unmarshal(lines.Bytes(), &table); err != nil {
				t.Fatalf("%s: %v", lines.Bytes(), err)
			}
			if table.Version != table.Hash() {
				t.Errorf("the table's version is %s, its hash %s", table.Version, table.Hash())
			}
			return table
		}
		t.Fatalf("the stream ended: %v", lines.Err())
		return api.Table{}
	}
}

func acknowledge(t *testing.T, token string, ack api.Ack) {
	t.Helper()
	content, err := json.Marshal(ack)
	if err != nil {
		t.Fatal(err)
	}
	response, err := routerClient(t, token).Post(routerURL+api.PathAcks, "application/json", bytes.NewReader(content))
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	if response.StatusCode/100 != 2 {
		t.Fatalf("the acknowledgement is answered %s", response.Status)
	}
}

// waitForState reads the status as its users do.
func waitForState(t *testing.T, namespace, preview string, state api.State) api.PreviewStatus {
	t.Helper()
	var found api.PreviewStatus
	eventually(t, preview+" is "+string(state), func() error {
		var configMap corev1.ConfigMap
		if err := kube.Get(t.Context(), client.ObjectKey{Namespace: namespace, Name: api.ConfigMapStatus}, &configMap); err != nil {
			return err
		}
		var status api.Status
		if err := json.Unmarshal([]byte(configMap.Data[api.ConfigMapStatusKey]), &status); err != nil {
			return err
		}
		for _, found = range status.Previews {
			if found.Preview == preview && found.State == state {
				return nil
			}
		}
		return errors.New(configMap.Data[api.ConfigMapStatusKey])
	})
	return found
}

// trafficOf asks the router's API as someone who may look at the namespace, once it has turned away someone who may not.
func trafficOf(t *testing.T, namespace, preview string) *api.Counters {
	t.Helper()
	token, err := newToken(t.Context(), namespace, "default", nil)
	if err != nil {
		t.Fatal(err)
	}
	if code, body := get(t, token, api.PathStatus+namespace); code != http.StatusForbidden {
		t.Errorf("whoever may not list Pods is answered %d: %s", code, body)
	}
	viewer := metav1.ObjectMeta{Name: "viewer", Namespace: namespace}
	create(t, &rbacv1.Role{ObjectMeta: viewer, Rules: []rbacv1.PolicyRule{
		{APIGroups: []string{""}, Resources: []string{"pods"}, Verbs: []string{"list"}},
	}})
	create(t, &rbacv1.RoleBinding{
		ObjectMeta: viewer,
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: viewer.Name},
		Subjects:   []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Name: "default", Namespace: namespace}},
	})
	var status api.Status
	eventually(t, "the router tells the status", func() error { // a new right takes a moment
		code, body := get(t, token, api.PathStatus+namespace)
		if code != http.StatusOK {
			return fmt.Errorf("answered %d: %s", code, body)
		}
		return json.Unmarshal(body, &status)
	})
	for _, p := range status.Previews {
		if p.Preview == preview {
			return p.Traffic
		}
	}
	return nil
}

// get asks the router.
func get(t *testing.T, token, path string) (int, []byte) {
	t.Helper()
	response, err := routerClient(t, token).Get(routerURL + path)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, body
}

func waitForEvent(t *testing.T, object client.Object, reason string) {
	t.Helper()
	eventually(t, object.GetName()+" gets the Event "+reason, func() error {
		var events corev1.EventList
		if err := kube.List(t.Context(), &events, client.MatchingFields{"involvedObject.name": object.GetName()}); err != nil {
			return err
		}
		var seen []string
		for _, e := range events.Items {
			if e.InvolvedObject.UID == object.GetUID() && e.Reason == reason {
				return nil
			}
			seen = append(seen, e.InvolvedObject.Name+" "+e.Reason)
		}
		return errors.New(strings.Join(seen, ", "))
	})
}
