package webhook

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"testing"
	"time"

	jsonpatch "github.com/evanphx/json-patch/v5"
	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"

	"github.com/detour-dev/detour/api"
)

func uid(s string) types.UID { return types.UID(s) }

func testNamespace(name string, member bool) *corev1.Namespace {
	n := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, UID: uid("namespace " + name)}}
	if member {
		n.Labels = map[string]string{api.LabelInject: api.InjectEnabled}
	}
	return n
}

func testMetrics(t *testing.T) *metrics {
	t.Helper()
	m, err := newMetrics(prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func count(t *testing.T, counter prometheus.Counter) float64 {
	t.Helper()
	var m dto.Metric
	if err := counter.Write(&m); err != nil {
		t.Fatal(err)
	}
	return m.GetCounter().GetValue()
}

func testAdmitter(t *testing.T, cache client.Reader) *admitter {
	return &admitter{
		cache: cache, members: members{cache: cache, own: "detour-system"}, sidecar: testSidecar,
		tooOld: func() bool { return false }, metrics: testMetrics(t), events: &events{}, now: time.Now, log: slog.New(slog.DiscardHandler),
	}
}

func request(namespace string, object any) admission.Request {
	raw, isRaw := object.(string)
	if !isRaw {
		b, err := json.Marshal(object)
		if err != nil {
			panic(err)
		}
		raw = string(b)
	}
	return admission.Request{AdmissionRequest: admissionv1.AdmissionRequest{
		Namespace: namespace, Object: runtime.RawExtension{Raw: []byte(raw)},
	}}
}

// patched is the object that the API server makes of a request and its answer.
func patched(t *testing.T, req admission.Request, resp admission.Response) map[string]any {
	t.Helper()
	if !resp.Allowed {
		t.Fatalf("refused: %v", resp.Result)
	}
	operations, err := json.Marshal(resp.Patches)
	if err != nil {
		t.Fatal(err)
	}
	result := req.Object.Raw
	if len(resp.Patches) > 0 {
		patch, err := jsonpatch.DecodePatch(operations)
		if err != nil {
			t.Fatal(err)
		}
		if result, err = patch.Apply(result); err != nil {
			t.Fatalf("%v: %s", err, operations)
		}
	}
	var object map[string]any
	if err := json.Unmarshal(result, &object); err != nil {
		t.Fatal(err)
	}
	return object
}

// Fields that a newer API server knows and our types do not must come out as they went in.
func TestUnknownFieldsSurvive(t *testing.T) {
	const pod = `{
		"metadata": {"generateName": "api-", "labels": {"app": "api"}, "unknown": 1},
		"unknown": {"a": [1, 2]},
		"spec": {
			"unknown": {"b": "c"}, "serviceAccountName": "default",
			"initContainers": [{"name": "setup", "image": "setup", "unknown": true}],
			"containers": [
				{"name": "api", "image": "api", "unknown": [{"d": 1}], "readinessProbe": {"httpGet": {"port": "http", "unknown": 2}},
				 "ports": [{"name": "http", "containerPort": 8080, "unknown": "e"}, {"containerPort": 9000, "unknown": "f"}]},
				{"name": "helper", "image": "helper", "unknown": "g"}],
			"volumes": [{"name": "data", "unknownSource": {"h": 1}}]}}`
	a := testAdmitter(t, fake.NewClientBuilder().Build())
	req := request("shop", pod)
	got := patched(t, req, a.handler("pod", changed(a.mutatePod)).Handle(t.Context(), req))
	if !hasInitContainer(got, api.ContainerProxy) {
		t.Fatal("not injected")
	}
	var want map[string]any
	if err := json.Unmarshal([]byte(pod), &want); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(unknownFields("", want), unknownFields("", got)); diff != "" {
		t.Errorf("-before +after\n%s", diff)
	}
}

// unknownFields lists, by path, everything whose name begins with "unknown".
func unknownFields(path string, value any) map[string]any {
	found := map[string]any{}
	collect := func(path string, value any) {
		for p, v := range unknownFields(path, value) {
			found[p] = v
		}
	}
	switch v := value.(type) {
	case map[string]any:
		for name, field := range v {
			if len(name) >= 7 && name[:7] == "unknown" {
				found[path+"/"+name] = field
			}
			collect(path+"/"+name, field)
		}
	case []any:
		for i, element := range v {
			collect(path+"/"+string(rune('0'+i)), element)
		}
	}
	return found
}

func hasInitContainer(pod map[string]any, name string) bool {
	spec, _ := pod["spec"].(map[string]any)
	containers, _ := spec["initContainers"].([]any)
	for _, c := range containers {
		if c.(map[string]any)["name"] == name {
			return true
		}
	}
	return false
}

// A Pod that a ReplicaSet creates says no namespace: the request does, and its Services count.
func TestNamespaceComesFromTheRequest(t *testing.T) {
	here, there := testService("here", "8080"), testService("there", "9090")
	there.Namespace = "elsewhere"
	a := testAdmitter(t, fake.NewClientBuilder().WithObjects(&here, &there).Build())
	pod := testPod("p")
	pod.Namespace = ""
	req := request("shop", pod)
	got := patched(t, req, a.handler("pod", changed(a.mutatePod)).Handle(t.Context(), req))
	var injected corev1.Pod
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(got, &injected); err != nil {
		t.Fatal(err)
	}
	want := []api.TakenPort{{Name: "detour-8080", Listen: 15401, App: 8080}}
	if diff := cmp.Diff(want, takenPorts(t, &injected)); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}

func TestEveryFailureAdmitsUnchanged(t *testing.T) {
	broken := interceptor.NewClient(fake.NewClientBuilder().Build(), interceptor.Funcs{
		List: func(context.Context, client.WithWatch, client.ObjectList, ...client.ListOption) error {
			return errors.New("the cache is broken")
		},
	})
	a := testAdmitter(t, broken)
	for name, c := range map[string]struct {
		decide decision
		object any
	}{
		"panic":             {func(context.Context, admission.Request) (admission.Response, error) { panic("a bug") }, testPod("p")},
		"cache":             {changed(a.mutatePod), testPod("p")},
		"no object":         {changed(a.mutatePod), ""},
		"not a pod":         {changed(a.mutatePod), `{"spec": []}`},
		"not a service":     {changed(a.mutateService), `{"spec": 1}`},
		"not a workload":    {a.checkWorkload, `{"metadata": 1}`},
		"preview":           {a.checkWorkload, `{"metadata": {}}`},
		"cannot be encoded": {changed(func(context.Context, admission.Request) (any, any, error) { return func() {}, nil, nil }), "{}"},
	} {
		before := count(t, a.metrics.errors.WithLabelValues("admission"))
		told := &events{}
		a.events = told
		req := request("shop", c.object)
		resp := a.handler("object", c.decide).Handle(t.Context(), req)
		if !resp.Allowed || len(resp.Patches) > 0 {
			t.Errorf("%s: allowed %v with patches %v, want it admitted unchanged", name, resp.Allowed, resp.Patches)
		}
		if count(t, a.metrics.errors.WithLabelValues("admission")) != before+1 {
			t.Errorf("%s: not counted", name)
		}
		req.DryRun = ptr.To(true)
		a.handler("object", c.decide).Handle(t.Context(), req)
		if diff := cmp.Diff(&events{"AdmissionFailed Namespace/shop"}, told); diff != "" {
			t.Errorf("%s: told of once for real and once in a dry run (-want +got)\n%s", name, diff)
		}
	}
}

func TestOldServerGetsNoProxies(t *testing.T) {
	a := testAdmitter(t, fake.NewClientBuilder().Build())
	a.tooOld = func() bool { return true }
	req := request("shop", `{"metadata": {"name": "p"}, "spec": {"containers": [{"name": "a", "ports": [{"containerPort": 8080}]}]}}`)
	got := patched(t, req, a.handler("pod", changed(a.mutatePod)).Handle(t.Context(), req))
	annotations := got["metadata"].(map[string]any)["annotations"]
	if diff := cmp.Diff(map[string]any{api.AnnotationNotInjected: "api-server-too-old"}, annotations); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	if n := count(t, a.metrics.notInjected.WithLabelValues("api-server-too-old")); n != 1 {
		t.Errorf("counted %v times, want once", n)
	}
}

func TestServiceIsSwitchedWhenItIsApplied(t *testing.T) {
	pod := testPod("p", "detour-8080")
	other := testPod("q", "detour-8080")
	other.Namespace = "off"
	a := testAdmitter(t, fake.NewClientBuilder().WithObjects(
		testNamespace("shop", true), testNamespace("off", false), &pod, &other).Build())
	for namespace, want := range map[string]any{"shop": "detour-8080", "off": float64(8080), "unknown": float64(8080)} {
		service := testService("api", "8080")
		service.Namespace = namespace
		req := request(namespace, service)
		got := patched(t, req, a.handler("service", changed(a.mutateService)).Handle(t.Context(), req))
		port := got["spec"].(map[string]any)["ports"].([]any)[0].(map[string]any)["targetPort"]
		if port != want {
			t.Errorf("in namespace %s the targetPort is %v, want %v", namespace, port, want)
		}
	}
}
