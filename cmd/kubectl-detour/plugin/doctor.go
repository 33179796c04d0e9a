package plugin

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/detour-dev/detour/api"
)

// examination looks for what is wrong.
type examination struct {
	argument string
	output   string
}

// patient is what is looked at.
type patient struct{ kind, name string }

// Kinds of patients.
const (
	patientKey       = "key"
	patientService   = "service"
	patientNamespace = "namespace"
)

const doctorLong = `Look for what is wrong with a namespace, one of its Services or the previews of a key, and with the installation, and say
how to mend it.

Without an argument, the namespace of -n is looked at. key/NAME, service/NAME and namespace/NAME say what NAME is; a NAME
alone is looked for in this order: as a key, as a Service, and as a namespace.

A developer's rights in the namespace are enough. What the user may not read is named and not looked at, which is no error.
Nothing is changed and no connection to a Pod is made: what a preview answers, the traffic, policies of other kinds than
NetworkPolicy, and the networks of the nodes are not looked at.

The exit code is 6 if there are errors or warnings, and 0 if there are none but notes.`

func (p *plugin) doctorCommand() *cobra.Command {
	e := &examination{}
	cmd := &cobra.Command{
		Use:   "doctor [KEY | SERVICE | NAMESPACE]",
		Short: "Say what is wrong with a namespace, a Service or a preview, and how to mend it",
		Long:  doctorLong,
		Example: fmt.Sprintf(`  # Everything in the namespace of -n, and the installation
  %[1]s doctor -n shop

  # Why requests with the key pr-42 do not arrive
  %[1]s doctor key/pr-42 -n shop`, p.name),
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: p.completing(patients),
		RunE: p.verb(func(ctx context.Context, s *session, args []string) error {
			if len(args) > 0 {
				e.argument = args[0]
			}
			return e.run(ctx, s)
		}),
	}
	cmd.Flags().StringVarP(&e.output, "output", "o", "", "json or yaml")
	return cmd
}

// patients are the arguments that say what they are.
func patients(ctx context.Context, s *session) ([]string, error) {
	var all []string
	for word, list := range map[string]func(context.Context, *session) ([]string, error){patientKey: keys, patientService: serviceNames} {
		names, err := list(ctx, s)
		if err != nil {
			return nil, err
		}
		for _, name := range names {
			all = append(all, word+"/"+name)
		}
	}
	return all, nil
}

func (e *examination) run(ctx context.Context, s *session) error {
	if err := checkOutput(e.output, "json", "yaml"); err != nil {
		return err
	}
	f, p, err := e.find(ctx, s)
	if err != nil {
		return err
	}
	d := diagnosis{Namespace: f.namespace, NotLookedAt: f.unread, Findings: f.concerning(p, diagnose(f))}
	if e.output != "" {
		err = printObject(s.Out, e.output, d)
	} else {
		d.print(s.Out)
	}
	if err != nil {
		return err
	}
	if errors, warnings := d.count(severe), d.count(warning); errors+warnings > 0 {
		return fail(exitFindings, "found in namespace %s: %d errors, %d warnings", d.Namespace, errors, warnings)
	}
	return nil
}

// find gathers the facts about what the argument names.
func (e *examination) find(ctx context.Context, s *session) (*facts, patient, error) {
	p, err := parsePatient(e.argument, s.namespace)
	if err != nil {
		return nil, p, err
	}
	if p.kind == patientNamespace {
		s = s.in(p.name)
	}
	f, err := s.gather(ctx)
	if err != nil {
		return nil, p, err
	}
	switch {
	case p.kind == "":
		return s.recognise(ctx, f, p.name)
	case f.has(p):
		return f, p, nil
	case p.kind == patientNamespace:
		return nil, p, notFound("there is no namespace %q: kubectl get namespaces lists them", p.name)
	}
	return nil, p, s.noPatient(p.kind, p.name)
}

// parsePatient leaves the kind of a name alone open.
func parsePatient(argument, namespace string) (patient, error) {
	if argument == "" {
		return patient{patientNamespace, namespace}, nil
	}
	kind, name, explicit := strings.Cut(argument, "/")
	if !explicit {
		return patient{name: argument}, nil
	}
	if name == "" || !slices.Contains([]string{patientKey, patientService, patientNamespace}, kind) {
		return patient{}, usageError("%q: use key/NAME, service/NAME, namespace/NAME or a NAME alone", argument)
	}
	return patient{kind, name}, nil
}

// recognise takes a name for the first that there is, and says what else it could be.
func (s *session) recognise(ctx context.Context, f *facts, name string) (*facts, patient, error) {
	var kinds []string
	for _, kind := range []string{patientKey, patientService} {
		if f.has(patient{kind, name}) {
			kinds = append(kinds, kind)
		}
	}
	if _, err := s.kube.CoreV1().Namespaces().Get(ctx, name, metav1.GetOptions{}); err == nil {
		kinds = append(kinds, patientNamespace)
	}
	if len(kinds) == 0 {
		return nil, patient{}, s.noPatient("key, no Service and no namespace", name)
	}
	for _, other := range kinds[1:] {
		s.note("%s is looked at as a %s, and is a %s as well: %s doctor %s/%s", name, kinds[0], other, s.self, other, name)
	}
	p := patient{kinds[0], name}
	if p.kind == patientNamespace {
		var err error
		f, err = s.in(name).gather(ctx)
		return f, p, err
	}
	return f, p, nil
}

func (s *session) noPatient(kinds, name string) error {
	return notFound("in namespace %s, there is no %s %q: %s list -n %s shows the keys, kubectl get services -n %s the Services",
		s.namespace, kinds, name, s.self, s.namespace, s.namespace)
}

// has reports whether there is such a thing; what the user may not read counts as there.
func (f *facts) has(p patient) bool {
	switch p.kind {
	case patientNamespace:
		return f.own != nil || !f.knows(subjectNamespace)
	case patientService:
		return f.service(p.name) != nil
	}
	return len(f.board.previews(p.name)) > 0 || slices.ContainsFunc(f.workloads, func(w *workload) bool {
		return w.isPreview() && w.Labels[api.LabelKey] == p.name
	})
}

// concerning leaves out what is about other Services, Pods and previews of the namespace.
func (f *facts) concerning(p patient, found []finding) []finding {
	if p.kind == patientNamespace {
		return found
	}
	concerned := f.concerned(p)
	return slices.DeleteFunc(found, func(about finding) bool {
		_, object := api.PreviewStatus{Preview: about.Object}.Home()
		kind, _, _ := strings.Cut(object, "/")
		if about.Namespace != f.namespace || !slices.Contains([]string{"service", "pod", "deployment", "statefulset", "replicaset"}, kind) {
			return false
		}
		return !slices.ContainsFunc(append(about.others, about.Object), func(object string) bool { return concerned[object] })
	})
}

// concerned names the Services, Pods and workloads that requests for a patient may meet.
func (f *facts) concerned(p patient) map[string]bool {
	services, all := map[string]bool{}, map[string]bool{}
	if p.kind == patientService {
		services[p.name] = true
	}
	is := func(target, key string) bool {
		return p.kind == patientService && target == p.name || p.kind == patientKey && key == p.name
	}
	for i := range f.previews() {
		if preview := &f.board.Previews[i]; is(preview.Target, preview.Key) {
			services[preview.Target], all[preview.Preview] = true, true
			for _, pod := range f.podsOf(preview) {
				all["pod/"+pod.Name] = true
			}
		}
	}
	for _, w := range f.workloads {
		if w.isPreview() && is(w.Labels[api.LabelTarget], w.Labels[api.LabelKey]) {
			services[w.Labels[api.LabelTarget]], all[w.String()] = true, true
		}
	}
	for name := range services {
		all["service/"+name] = true
		if service := f.service(name); service != nil {
			for _, pod := range f.baseline(service) {
				all["pod/"+pod.Name] = true
			}
		}
	}
	return all
}
