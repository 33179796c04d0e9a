package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path"
	"regexp"
	"strings"
	"testing"
	"text/template"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"sigs.k8s.io/yaml"
)

// krewPlugin is Krew's plugin manifest.
type krewPlugin struct {
	metav1.TypeMeta `json:",inline"`
	Metadata        struct {
		Name string `json:"name"`
	} `json:"metadata"`
	Spec struct {
		Version          string         `json:"version"`
		Homepage         string         `json:"homepage"`
		ShortDescription string         `json:"shortDescription"`
		Description      string         `json:"description"`
		Caveats          string         `json:"caveats"`
		Platforms        []krewPlatform `json:"platforms"`
	} `json:"spec"`
}

type krewPlatform struct {
	Selector metav1.LabelSelector `json:"selector"`
	URI      string               `json:"uri"`
	SHA256   string               `json:"sha256"`
	Bin      string               `json:"bin"`
}

// released is the manifest as krew-release-bot makes it from the template.
func released(t *testing.T, tag string) krewPlugin {
	t.Helper()
	uriAndSHA := func(uri, tag string) (string, error) {
		var filled strings.Builder
		inner, err := template.New("uri").Parse(uri)
		if err != nil {
			return "", err
		}
		err = inner.Execute(&filled, struct{ TagName string }{tag})
		return fmt.Sprintf("uri: %s\n    sha256: %s", filled.String(), strings.Repeat("a", 64)), err
	}
	manifest, err := template.New("krew.yaml").Funcs(template.FuncMap{"addURIAndSha": uriAndSHA}).ParseFiles("krew.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var filled bytes.Buffer
	if err := manifest.Execute(&filled, struct{ TagName string }{tag}); err != nil {
		t.Fatal(err)
	}
	var p krewPlugin
	if err := yaml.UnmarshalStrict(filled.Bytes(), &p); err != nil {
		t.Fatalf("%v\n%s", err, filled.String())
	}
	return p
}

// TestKrewManifest holds what Krew checks (internal/index/validation) and what its index asks for.
func TestKrewManifest(t *testing.T) {
	p := released(t, "v1.2.3")
	if p.APIVersion != "krew.googlecontainertools.github.com/v1alpha2" || p.Kind != "Plugin" {
		t.Errorf("it is a %s %s", p.APIVersion, p.Kind)
	}
	for what, c := range map[string]struct{ text, pattern string }{
		"name":              {p.Metadata.Name, `^[a-z0-9-]+$`},
		"version":           {p.Spec.Version, `^v1\.2\.3$`},
		"homepage":          {p.Spec.Homepage, `^https://`},
		"short description": {p.Spec.ShortDescription, `^[^\r\n]{1,50}$`},
		"description":       {p.Spec.Description, `\S`},
	} {
		if !regexp.MustCompile(c.pattern).MatchString(c.text) {
			t.Errorf("the %s %q does not match %s", what, c.text, c.pattern)
		}
	}
	for _, os := range []string{"linux", "darwin", "windows"} {
		for _, arch := range []string{"amd64", "arm64"} {
			checkKrewPlatform(t, p, os, arch)
		}
	}
}

// checkKrewPlatform: exactly one platform is for a machine, and it names the archive for it.
func checkKrewPlatform(t *testing.T, p krewPlugin, os, arch string) {
	t.Helper()
	var found []krewPlatform
	for _, platform := range p.Spec.Platforms {
		selector, err := metav1.LabelSelectorAsSelector(&platform.Selector)
		if err != nil {
			t.Fatal(err)
		}
		if selector.Matches(labels.Set{"os": os, "arch": arch}) {
			found = append(found, platform)
		}
	}
	if len(found) != 1 {
		t.Fatalf("%d platforms are for %s/%s", len(found), os, arch)
	}
	bin := "kubectl-detour"
	if os == "windows" {
		bin += ".exe"
	}
	archive := fmt.Sprintf("kubectl-detour_%s_%s_%s.tar.gz", p.Spec.Version, os, arch)
	if got := found[0]; got.Bin != bin || path.Base(got.URI) != archive || len(got.SHA256) != 64 {
		t.Errorf("%s/%s: %+v", os, arch, got)
	}
}

// TestBuildsForKrew builds for each system. Nothing in the plugin depends on the architecture, and nothing in it is C.
func TestBuildsForKrew(t *testing.T) {
	for _, system := range []string{"linux", "darwin", "windows"} {
		cmd := exec.CommandContext(t.Context(), "go", "build", "-o", os.DevNull, ".")
		cmd.Env = append(os.Environ(), "GOOS="+system, "GOARCH=amd64", "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", system, err, out)
		}
	}
}
