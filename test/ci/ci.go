// Package ci reads the shell out of the files of docs/ci, so that tests can check it and run it.
package ci

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"sigs.k8s.io/yaml"
)

// Step is a piece of shell.
type Step struct {
	// Name is "<job>/<id>" of a step of GitHub's, and "<job>" of a job of GitLab's.
	Name  string
	Shell string
	// Env is what the file itself defines for it, with GitHub's expressions as they are.
	Env map[string]string
}

// Workflow is what docs/ci/github.yaml uses of GitHub's workflow syntax.
type Workflow struct {
	Name        string               `json:"name"`
	On          map[string]Trigger   `json:"true"` // which is how YAML 1.1 reads "on"
	Concurrency string               `json:"concurrency"`
	Permissions map[string]string    `json:"permissions"`
	Env         map[string]string    `json:"env"`
	Defaults    map[string]RunConfig `json:"defaults"`
	Jobs        map[string]Job       `json:"jobs"`
}

// Trigger says which activities of an event start a workflow.
type Trigger struct {
	Types []string `json:"types"`
}

// RunConfig is how steps are run.
type RunConfig struct {
	Shell string `json:"shell"`
}

// Job is one of a workflow's.
type Job struct {
	If             string            `json:"if"`
	RunsOn         string            `json:"runs-on"`
	TimeoutMinutes int               `json:"timeout-minutes"`
	Permissions    map[string]string `json:"permissions"`
	Steps          []JobStep         `json:"steps"`
}

// JobStep either uses an action or runs shell.
type JobStep struct {
	ID   string            `json:"id"`
	Name string            `json:"name"`
	If   string            `json:"if"`
	Uses string            `json:"uses"`
	With map[string]any    `json:"with"`
	Env  map[string]string `json:"env"`
	Run  string            `json:"run"`
}

// ReadWorkflow reads a workflow of GitHub's. A field that [Workflow] does not have is an error.
func ReadWorkflow(file string) (*Workflow, error) {
	content, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	w := &Workflow{}
	if err := yaml.UnmarshalStrict(content, w); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return w, nil
}

// Steps lists the steps that run shell, by job and then in their order.
func (w *Workflow) Steps() []Step {
	var steps []Step
	for _, name := range slices.Sorted(maps.Keys(w.Jobs)) {
		for _, s := range w.Jobs[name].Steps {
			if s.Run == "" {
				continue
			}
			env := maps.Clone(w.Env)
			maps.Copy(env, s.Env)
			steps = append(steps, Step{name + "/" + cmp.Or(s.ID, s.Name), s.Run, env})
		}
	}
	return steps
}

// ReadPipeline lists the jobs of a GitLab pipeline that run shell, by name.
func ReadPipeline(file string) ([]Step, error) {
	content, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var global struct {
		Variables map[string]string `json:"variables"`
	}
	all := map[string]any{}
	if err := errors.Join(yaml.Unmarshal(content, &global), yaml.UnmarshalStrict(content, &all)); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	var steps []Step
	for _, name := range slices.Sorted(maps.Keys(all)) {
		job, _ := all[name].(map[string]any)
		lines, _ := job["script"].([]any)
		if len(lines) == 0 {
			continue
		}
		steps = append(steps, Step{name, joined(lines), global.Variables})
	}
	return steps, nil
}

// joined is one script of a job's lines, which GitLab runs in one shell.
func joined(lines []any) string {
	var text []string
	for _, line := range lines {
		text = append(text, fmt.Sprint(line))
	}
	return strings.Join(text, "\n") + "\n"
}
