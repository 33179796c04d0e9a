package plugin

import (
	"bytes"
	"flag"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apimachinery/pkg/util/yaml"
)

var update = flag.Bool("update", false, "write the golden files")

// previewCase is a file of testdata/preview: what is asked for, the namespace's Services and one workload.
type previewCase struct {
	Service   string            `json:"service"`
	Key       string            `json:"key"`
	Image     string            `json:"image"`
	Tag       string            `json:"tag"`
	Container string            `json:"container"`
	Env       map[string]string `json:"env"`
	Replicas  int32             `json:"replicas"`
	Commit    string            `json:"commit"`
	TTL       string            `json:"ttl"`

	name     string
	services []corev1.Service
	workload *workload
}

func (c *previewCase) preview(w *workload) (*appsv1.Deployment, []string, error) {
	change := change{key: c.Key, image: c.Image, tag: c.Tag, container: c.Container, replicas: c.Replicas, commit: c.Commit, ttl: c.TTL}
	change.now = time.Date(2026, 1, 2, 16, 4, 5, 6, time.FixedZone("", 3600))
	for _, name := range slices.Sorted(maps.Keys(c.Env)) {
		change.env = append(change.env, corev1.EnvVar{Name: name, Value: c.Env[name]})
	}
	i := slices.IndexFunc(c.services, func(s corev1.Service) bool { return s.Name == c.Service })
	return previewOf(w, &c.services[i], c.services, change)
}

// previewCases finds the cases by walking the folder.
func previewCases(t *testing.T) []*previewCase {
	t.Helper()
	files, err := filepath.Glob("testdata/preview/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no cases: %v", err)
	}
	var cases []*previewCase
	for _, file := range files {
		if strings.HasSuffix(file, ".golden.yaml") {
			continue
		}
		c, err := readPreviewCase(file)
		if err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		cases = append(cases, c)
	}
	return cases
}

func readPreviewCase(file string) (*previewCase, error) {
	content, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	c := &previewCase{name: strings.TrimSuffix(filepath.Base(file), ".yaml")}
	documents := yaml.NewYAMLOrJSONDecoder(bytes.NewReader(content), 4096)
	if err := documents.Decode(c); err != nil {
		return nil, err
	}
	for {
		var object unstructured.Unstructured
		err := documents.Decode(&object)
		if err == io.EOF {
			return c, nil
		}
		if err == nil {
			err = c.add(&object)
		}
		if err != nil {
			return nil, err
		}
	}
}

func (c *previewCase) add(object *unstructured.Unstructured) (err error) {
	if object.GetKind() == "Service" {
		var service corev1.Service
		err = runtime.DefaultUnstructuredConverter.FromUnstructured(object.Object, &service)
		c.services = append(c.services, service)
		return err
	}
	c.workload, err = decodeWorkload(object)
	return err
}

func TestPreviewGoldens(t *testing.T) {
	for _, c := range previewCases(t) {
		t.Run(c.name, func(t *testing.T) {
			before := *c.workload
			before.Spec.Template = *c.workload.Spec.Template.DeepCopy()
			once, notes, err := c.preview(c.workload)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(&before, c.workload); diff != "" {
				t.Errorf("the argument changed (-before +after)\n%s", diff)
			}
			checkGolden(t, filepath.Join("testdata/preview", c.name+".golden.yaml"), once, notes)

			twice, _, err := c.preview(asWorkload(t, once))
			if err != nil {
				t.Fatal(err)
			}
			twice.Name = once.Name // which goes by the workload's
			if diff := cmp.Diff(once, twice); diff != "" {
				t.Errorf("the preview of the preview is another (-once +twice)\n%s", diff)
			}
		})
	}
}

// asWorkload is a Deployment as the API server would hand it out.
func asWorkload(t *testing.T, deployment *appsv1.Deployment) *workload {
	t.Helper()
	object, err := runtime.DefaultUnstructuredConverter.ToUnstructured(deployment)
	if err != nil {
		t.Fatal(err)
	}
	w, err := decodeWorkload(&unstructured.Unstructured{Object: object})
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func checkGolden(t *testing.T, file string, preview *appsv1.Deployment, notes []string) {
	t.Helper()
	manifest, err := manifestOf(preview)
	if err != nil {
		t.Fatal(err)
	}
	var got bytes.Buffer
	for _, note := range notes {
		fmt.Fprintln(&got, "# note:", note)
	}
	if err := printObject(&got, "yaml", manifest); err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile(file, got.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatalf("%v: write it with go test ./cmd/kubectl-detour/plugin -update", err)
	}
	if diff := cmp.Diff(string(want), got.String()); diff != "" {
		t.Errorf("not as in %s: if this is meant, go test ./cmd/kubectl-detour/plugin -update (-want +got)\n%s", file, diff)
	}
}

func TestNoGoldenIsStale(t *testing.T) {
	goldens, err := filepath.Glob("testdata/preview/*.golden.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, golden := range goldens {
		if _, err := os.Stat(strings.TrimSuffix(golden, ".golden.yaml") + ".yaml"); err != nil {
			t.Errorf("%s has no case any more: remove it", golden)
		}
	}
}

// Whatever the labels, the Services and the key, nobody else's requests or selectors reach a preview's Pods, and the API
// server takes its names and labels.
func TestPreviewIsNobodyElses(t *testing.T) {
	for seed := range uint64(5000) {
		r := rand.New(rand.NewPCG(seed, 42))
		w, services := randomShop(r)
		preview, _, err := previewOf(w, &services[0], services, change{key: randomKey(r), tag: "2", replicas: 1})
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		podLabels := preview.Spec.Template.Labels
		for i := range services {
			if selects(&services[i], podLabels) {
				t.Errorf("seed %d: a Service with the selector %v selects %v", seed, services[i].Spec.Selector, podLabels)
			}
		}
		if w.owns(&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Labels: podLabels}}) {
			t.Errorf("seed %d: the original's selector %v is for %v", seed, w.Spec.Selector, podLabels)
		}
		if !asWorkload(t, preview).owns(&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Labels: podLabels}}) {
			t.Errorf("seed %d: the preview's selector %v is not for its own Pods %v", seed, preview.Spec.Selector, podLabels)
		}
		checkNames(t, preview)
	}
}

// checkNames: a Pod's host has the Deployment's name and what its controllers append, in 63 characters.
func checkNames(t *testing.T, preview *appsv1.Deployment) {
	t.Helper()
	if wrong := validation.IsDNS1123Label(preview.Name + "-7d95d54895-gpsbd"); len(wrong) > 0 {
		t.Errorf("%s: %v", preview.Name, wrong)
	}
	for _, labels := range []map[string]string{preview.Labels, preview.Spec.Selector.MatchLabels, preview.Spec.Template.Labels} {
		if wrong := metav1validation.ValidateLabels(labels, field.NewPath("labels")); len(wrong) > 0 {
			t.Errorf("%s: %v", preview.Name, wrong)
		}
	}
}

func randomShop(r *rand.Rand) (*workload, []corev1.Service) {
	w := &workload{TypeMeta: metav1.TypeMeta{Kind: "Deployment"}, ObjectMeta: metav1.ObjectMeta{
		Name: strings.Repeat("x", 1+r.IntN(63)), Namespace: "shop",
	}}
	w.Spec.Template.Labels = randomLabels(r)
	w.Spec.Template.Labels["app"] = "a"
	w.Spec.Selector = &metav1.LabelSelector{MatchLabels: map[string]string{"app": "a"}}
	w.Spec.Template.Spec.Containers = []corev1.Container{{Name: "web", Image: "web"}}
	services := make([]corev1.Service, 1+r.IntN(5))
	for i := range services {
		services[i].Name = fmt.Sprint("service-", i)
		services[i].Spec.Selector = randomLabels(r)
	}
	return w, services
}

func randomLabels(r *rand.Rand) map[string]string {
	names := []string{"app", "tier", "app.kubernetes.io/name", "app.kubernetes.io/instance", rolloutHash, "team"}
	labels := map[string]string{}
	for _, name := range names {
		if r.IntN(2) == 0 {
			labels[name] = string("ab"[r.IntN(2)])
		}
	}
	return labels
}

func randomKey(r *rand.Rand) string {
	const inner, outer = "abcXYZ019._-", "abcXYZ019"
	key := []byte{outer[r.IntN(len(outer))]}
	for range r.IntN(61) {
		key = append(key, inner[r.IntN(len(inner))])
	}
	return string(append(key, outer[r.IntN(len(outer))]))
}

func TestPreviewErrors(t *testing.T) {
	service := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: "web"}}
	service.Spec.Ports = []corev1.ServicePort{{Name: "http", Port: 80}}
	w := &workload{TypeMeta: metav1.TypeMeta{Kind: "Deployment"}, ObjectMeta: metav1.ObjectMeta{Name: "web"}}
	w.Spec.Template.Spec.Containers = []corev1.Container{{Name: "one"}, {Name: "two"}}
	for want, container := range map[string]string{
		"deployment/web: 0 of its containers have a port of Service web: choose the one to change with --container, of one, two": "",
		`deployment/web: it has no container "three": --container can be one of one, two`:                                        "three",
	} {
		_, _, err := previewOf(w, service, nil, change{key: "k", container: container})
		if err == nil || err.Error() != want || exitCode(err) != exitUsage {
			t.Errorf("got %v (%d), want %s", err, exitCode(err), want)
		}
	}
}

func TestPreviewName(t *testing.T) {
	for _, c := range [][3]string{
		{"api", "pr-42", "api-pr-42"},
		{"api", "PR-42", "api-pr-42-3d3ed12f"},
		{"api", "pr_42", "api-pr-42-1f53ca56"},
	} {
		if got := previewName(c[0], c[1]); got != c[2] {
			t.Errorf("previewName(%q, %q) = %q, want %q", c[0], c[1], got, c[2])
		}
	}
	long := strings.Repeat("x", 63)
	if a, b := previewName(long, "pr-1"), previewName(long, "pr-2"); a == b || len(a) > maxName {
		t.Errorf("%q and %q are to be different and at most %d long", a, b, maxName)
	}
}

func TestWithTag(t *testing.T) {
	for image, want := range map[string]string{
		"web":                             "web:2",
		"web:1":                           "web:2",
		"registry:5000/web":               "registry:5000/web:2",
		"registry:5000/web:1":             "registry:5000/web:2",
		"registry/web@sha256:abc":         "registry/web:2",
		"registry:5000/web:1@sha256:0abc": "registry:5000/web:2",
	} {
		if got := withTag(image, "2"); got != want {
			t.Errorf("withTag(%q) = %q, want %q", image, got, want)
		}
	}
}

func TestCreationCheck(t *testing.T) {
	for name, c := range map[string]struct {
		change
		want string
	}{
		"tag of the commit": {change{commit: "3f2c1ab"}, ""},
		"tag and commit":    {change{commit: "3f2c1ab", tag: "main-3f2c1ab"}, ""},
		"ttl":               {change{tag: "2", ttl: "1h30m"}, ""},
		"no commit":         {change{commit: "main"}, `"main" cannot be a commit: use 7 to 40 hexadecimal digits in lower case`},
		"days":              {change{tag: "2", ttl: "3d"}, `--ttl "3d": use a positive duration in hours, minutes and seconds, such as 72h or 1h30m`},
		"no time":           {change{tag: "2", ttl: "0s"}, `--ttl "0s": use a positive duration in hours, minutes and seconds, such as 72h or 1h30m`},
	} {
		c.key, c.replicas = "pr-42", 1
		creation := creation{change: c.change, dryRun: dryRunNone}
		err := creation.check()
		if c.want == "" {
			tag := c.tag
			if tag == "" {
				tag = c.commit
			}
			if err != nil || creation.tag != tag {
				t.Errorf("%s: tag %q, want %q: %v", name, creation.tag, tag, err)
			}
		} else if err == nil || err.Error() != c.want || exitCode(err) != exitUsage {
			t.Errorf("%s: %v, want %s", name, err, c.want)
		}
	}
}
