package ci

import (
	"os"
	"strings"
	"testing"
	"text/template"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/api/types"
	"sigs.k8s.io/kustomize/kyaml/filesys"
	"sigs.k8s.io/yaml"
)

// applicationSet is what docs/ci/applicationset.yaml uses of Argo CD's type.
type applicationSet struct {
	metav1.TypeMeta `json:",inline"`
	Metadata        metadata `json:"metadata"`
	Spec            struct {
		GoTemplate        bool                        `json:"goTemplate"`
		GoTemplateOptions []string                    `json:"goTemplateOptions"`
		Generators        []map[string]map[string]any `json:"generators"`
		Template          struct {
			Metadata metadata    `json:"metadata"`
			Spec     application `json:"spec"`
		} `json:"template"`
	} `json:"spec"`
}

type metadata struct {
	Name       string   `json:"name"`
	Namespace  string   `json:"namespace"`
	Finalizers []string `json:"finalizers"`
}

type application struct {
	Project string `json:"project"`
	Source  struct {
		RepoURL        string `json:"repoURL"`
		TargetRevision string `json:"targetRevision"`
		Path           string `json:"path"`
		Kustomize      struct {
			Images  []string      `json:"images"`
			Patches []types.Patch `json:"patches"`
		} `json:"kustomize"`
	} `json:"source"`
	Destination struct {
		Server    string `json:"server"`
		Namespace string `json:"namespace"`
	} `json:"destination"`
	SyncPolicy struct {
		Automated struct {
			Prune    bool `json:"prune"`
			SelfHeal bool `json:"selfHeal"`
		} `json:"automated"`
	} `json:"syncPolicy"`
}

// pullRequest is what the generator says of one.
var pullRequest = map[string]any{"number": 7, "head_sha": "3f2c1ab0c4c8603d9e93db6ad0d8d27366fa4db7"}

// generated is the ApplicationSet with a pull request filled in. Argo CD fills in each string; here it is the whole file.
func generated(t *testing.T) applicationSet {
	t.Helper()
	content, err := os.ReadFile("../../docs/ci/applicationset.yaml")
	if err != nil {
		t.Fatal(err)
	}
	file, err := template.New("").Option("missingkey=error").Parse(string(content))
	if err != nil {
		t.Fatal(err)
	}
	var filled strings.Builder
	if err := file.Execute(&filled, pullRequest); err != nil {
		t.Fatal(err)
	}
	var set applicationSet
	if err := yaml.UnmarshalStrict([]byte(filled.String()), &set); err != nil {
		t.Fatalf("%v\n%s", err, filled.String())
	}
	return set
}

// TestApplicationSet builds what Argo CD would from a preview that the plugin has printed for another key.
func TestApplicationSet(t *testing.T) {
	set := generated(t)
	if set.APIVersion != "argoproj.io/v1alpha1" || set.Kind != "ApplicationSet" || !set.Spec.GoTemplate || set.Spec.Generators[0]["pullRequest"] == nil {
		t.Errorf("it is %+v", set)
	}
	printed := readDeployment(t, "../../cmd/kubectl-detour/plugin/testdata/preview/deployment.golden.yaml")
	got := kustomized(t, set.Spec.Template.Spec, printed)

	want := printed.DeepCopy()
	want.Name = "api-pr-7"
	want.Labels["detour.dev/commit"] = pullRequest["head_sha"].(string)
	for _, labels := range []map[string]string{want.Labels, want.Spec.Selector.MatchLabels, want.Spec.Template.Labels} {
		labels["detour.dev/key"] = "pr-7"
	}
	for i, c := range want.Spec.Template.Spec.Containers {
		if c.Name == "api" {
			want.Spec.Template.Spec.Containers[i].Image = "registry.example/api:" + pullRequest["head_sha"].(string)
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}

func readDeployment(t *testing.T, file string) *appsv1.Deployment {
	t.Helper()
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return parseDeployment(t, content)
}

func parseDeployment(t *testing.T, content []byte) *appsv1.Deployment {
	t.Helper()
	deployment := &appsv1.Deployment{}
	if err := yaml.UnmarshalStrict(content, deployment); err != nil {
		t.Fatalf("%v\n%s", err, content)
	}
	return deployment
}

// kustomized puts an application's options into the kustomization, as Argo CD does, and builds it.
func kustomized(t *testing.T, app application, resource *appsv1.Deployment) *appsv1.Deployment {
	t.Helper()
	kustomization := types.Kustomization{Resources: []string{"preview.yaml"}, Patches: app.Source.Kustomize.Patches}
	for _, image := range app.Source.Kustomize.Images {
		name, tag, _ := strings.Cut(image, ":")
		kustomization.Images = append(kustomization.Images, types.Image{Name: name, NewTag: tag})
	}
	files := filesys.MakeFsInMemory()
	for name, object := range map[string]any{"kustomization.yaml": kustomization, "preview.yaml": resource} {
		content, err := yaml.Marshal(object)
		if err == nil {
			err = files.WriteFile(name, content)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	built, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(files, ".")
	if err != nil {
		t.Fatal(err)
	}
	content, err := built.AsYaml()
	if err != nil {
		t.Fatal(err)
	}
	return parseDeployment(t, content)
}
