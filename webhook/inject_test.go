package webhook

import (
	"bytes"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/endpointslice"
	psa "k8s.io/pod-security-admission/api"
	"k8s.io/pod-security-admission/policy"
	sigsyaml "sigs.k8s.io/yaml"

	"github.com/detour-dev/detour/api"
)

var update = flag.Bool("update", false, "write the golden files")

var testSidecar = sidecar{image: "detour/proxy:test", router: "https://detour-router.detour-system.svc:8443"}

// injectCase is a file of testdata/inject: a Pod, and what is around it.
type injectCase struct {
	name   string
	pod    *corev1.Pod
	around surroundings
}

// injectCases finds the cases by walking the folder.
func injectCases(t *testing.T) []injectCase {
	t.Helper()
	files, err := filepath.Glob("testdata/inject/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no cases: %v", err)
	}
	var cases []injectCase
	for _, file := range files {
		if !strings.HasSuffix(file, ".golden.yaml") {
			cases = append(cases, readInjectCase(t, file))
		}
	}
	return cases
}

func readInjectCase(t *testing.T, file string) injectCase {
	t.Helper()
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	c := injectCase{name: strings.TrimSuffix(filepath.Base(file), ".yaml"), pod: &corev1.Pod{}}
	documents := yaml.NewYAMLOrJSONDecoder(bytes.NewReader(content), 4096)
	if err := documents.Decode(c.pod); err != nil || c.pod.Kind != "Pod" {
		t.Fatalf("%s: the first document is a %q, want a Pod: %v", file, c.pod.Kind, err)
	}
	for {
		var document unstructured.Unstructured
		err := documents.Decode(&document)
		if err == io.EOF {
			return c
		}
		if err == nil {
			err = c.around.add(document)
		}
		if err != nil {
			t.Fatalf("%s: a further document: %v", file, err)
		}
	}
}

// add puts an object where its kind belongs.
func (s *surroundings) add(object unstructured.Unstructured) error {
	switch kind := object.GetKind(); kind {
	case "Namespace":
		s.namespace = &corev1.Namespace{}
		return runtime.DefaultUnstructuredConverter.FromUnstructured(object.Object, s.namespace)
	case "Service":
		return addTo(&s.services, object)
	case "NetworkPolicy":
		return addTo(&s.policies, object)
	case "LimitRange":
		return addTo(&s.ranges, object)
	case "ResourceQuota":
		return addTo(&s.quotas, object)
	default:
		return fmt.Errorf("there is no place for a %q", kind)
	}
}

func addTo[T any](list *[]T, object unstructured.Unstructured) error {
	var typed T
	err := runtime.DefaultUnstructuredConverter.FromUnstructured(object.Object, &typed)
	*list = append(*list, typed)
	return err
}

func TestInjectGoldens(t *testing.T) {
	for _, c := range injectCases(t) {
		t.Run(c.name, func(t *testing.T) {
			before := c.pod.DeepCopy()
			once := inject(c.pod, c.around, testSidecar)
			if diff := cmp.Diff(before, c.pod); diff != "" {
				t.Errorf("the argument changed (-before +after)\n%s", diff)
			}
			checkGolden(t, filepath.Join("testdata/inject", c.name+".golden.yaml"), once.pod)
			twice := inject(once.pod, c.around, testSidecar)
			if diff := cmp.Diff(once.pod, twice.pod); diff != "" {
				t.Errorf("the second application changed the Pod (-once +twice)\n%s", diff)
			}
			if got := once.pod.Annotations[api.AnnotationNotInjected]; got != string(once.reason) {
				t.Errorf("annotated %q, want the reason %q", got, once.reason)
			}
		})
	}
}

func checkGolden(t *testing.T, file string, got any) {
	t.Helper()
	content, err := sigsyaml.Marshal(got)
	if err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile(file, content, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatalf("%v: write it with go test ./webhook -update", err)
	}
	if diff := cmp.Diff(string(want), string(content)); diff != "" {
		t.Errorf("not as in %s: if this is meant, go test ./webhook -update (-want +got)\n%s", file, diff)
	}
}

func TestNoGoldenIsStale(t *testing.T) {
	goldens, err := filepath.Glob("testdata/inject/*.golden.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, golden := range goldens {
		if _, err := os.Stat(strings.TrimSuffix(golden, ".golden.yaml") + ".yaml"); err != nil {
			t.Errorf("%s has no case any more: remove it", golden)
		}
	}
}

// A Pod that a level of the Pod Security Standards admits is admitted with its proxy, too.
func TestInjectedPodsPassPodSecurity(t *testing.T) {
	evaluator, err := policy.NewEvaluator(policy.DefaultChecks(), nil)
	if err != nil {
		t.Fatal(err)
	}
	forbidden := func(pod *corev1.Pod, level psa.Level) string {
		at := psa.LevelVersion{Level: level, Version: psa.LatestVersion()}
		result := policy.AggregateCheckResults(evaluator.EvaluatePod(at, &pod.ObjectMeta, &pod.Spec))
		return result.ForbiddenDetail()
	}
	tried := map[psa.Level]int{}
	for _, c := range injectCases(t) {
		for _, level := range []psa.Level{psa.LevelBaseline, psa.LevelRestricted} {
			if forbidden(c.pod, level) != "" {
				continue
			}
			tried[level]++
			if why := forbidden(inject(c.pod, c.around, testSidecar).pod, level); why != "" {
				t.Errorf("%s is forbidden at %s: %s", c.name, level, why)
			}
		}
	}
	if tried[psa.LevelBaseline] == 0 || tried[psa.LevelRestricted] == 0 {
		t.Errorf("no case passes by itself: %v", tried)
	}
}

// Kubernetes' own look-up of ports decides where a Service's endpoints lead: to the port that they led to before, or
// to where the proxy listens in its place.
func TestServicesFindTheAppOrItsProxy(t *testing.T) {
	taken := 0
	for _, c := range injectCases(t) {
		after := inject(c.pod, c.around, testSidecar).pod
		for _, service := range c.around.services {
			if !selects(&service, c.pod.Labels) {
				continue
			}
			plan := planService(&service, []corev1.Pod{*after})
			for i := range service.Spec.Ports {
				port, planned := defaulted(service.Spec.Ports[i]), defaulted(plan.Spec.Ports[i])
				if number, ours := originalPort(port); ours { // where it led before anything of ours
					port.TargetPort.Type, port.TargetPort.IntVal = 0, int32(number)
				}
				want, err := endpointslice.FindPort(c.pod, &port)
				if err != nil {
					t.Fatalf("%s: service %s leads nowhere before: %v", c.name, service.Name, err)
				}
				got, err := endpointslice.FindPort(after, &planned)
				if err != nil {
					t.Errorf("%s: service %s port %d leads nowhere: %v", c.name, service.Name, port.Port, err)
				} else if app := appOf(t, after, got); app != want {
					t.Errorf("%s: service %s port %d leads to %d, want %d", c.name, service.Name, port.Port, app, want)
				} else if got != want {
					taken++
				}
			}
		}
	}
	if taken == 0 {
		t.Error("no Service leads to a proxy")
	}
}

// appOf is the app's port behind a number of the Pod.
func appOf(t *testing.T, pod *corev1.Pod, number int) int {
	for _, p := range takenPorts(t, pod) {
		if int(p.Listen) == number {
			return int(p.App)
		}
	}
	return number
}

func takenPorts(t *testing.T, pod *corev1.Pod) []api.TakenPort {
	t.Helper()
	ports, err := takenBy(pod)
	if err != nil {
		t.Fatal(err)
	}
	return ports
}

// takenBy is what a Pod's proxy is told to take over; nothing if there is none.
func takenBy(pod *corev1.Pod) ([]api.TakenPort, error) {
	proxy := proxyOf(pod)
	if proxy == nil {
		return nil, nil
	}
	i := slices.IndexFunc(proxy.Env, func(e corev1.EnvVar) bool { return e.Name == api.EnvPorts })
	if i < 0 {
		return nil, fmt.Errorf("the proxy has no %s", api.EnvPorts)
	}
	return api.ParsePorts(proxy.Env[i].Value)
}

func defaulted(port corev1.ServicePort) corev1.ServicePort {
	if port.Protocol == "" {
		port.Protocol = corev1.ProtocolTCP
	}
	if port.TargetPort.StrVal == "" && port.TargetPort.IntVal == 0 {
		port.TargetPort.IntVal = port.Port
	}
	return port
}

// The API server refuses Pods whose ports are named wrongly, and two listeners cannot share a port.
func TestInjectedPortsAreValid(t *testing.T) {
	for _, c := range injectCases(t) {
		pod := inject(c.pod, c.around, testSidecar).pod
		if proxyOf(pod) == nil {
			continue
		}
		names := map[string]bool{}
		listening := map[int32]bool{}
		for _, port := range proxyOf(pod).Ports {
			if problems := validation.IsValidPortName(port.Name); len(problems) > 0 {
				t.Errorf("%s: port name %q: %v", c.name, port.Name, problems)
			}
			if names[port.Name] || listening[port.ContainerPort] {
				t.Errorf("%s: port %s %d is there twice", c.name, port.Name, port.ContainerPort)
			}
			names[port.Name], listening[port.ContainerPort] = true, true
		}
		for _, container := range pod.Spec.Containers {
			for _, port := range container.Ports {
				if listening[port.ContainerPort] {
					t.Errorf("%s: the proxy listens on the app's port %d", c.name, port.ContainerPort)
				}
				if problems := validation.IsValidPortName(port.Name); port.Name != "" && len(problems) > 0 {
					t.Errorf("%s: port name %q: %v", c.name, port.Name, problems)
				}
			}
		}
	}
}
