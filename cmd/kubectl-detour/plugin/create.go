package plugin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/spf13/cobra"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"

	"github.com/detour-dev/detour/api"
)

// creation deploys a preview, or brings it up to date.
type creation struct {
	change
	service   string
	variables []string // NAME=VALUE
	from      string   // the workload to copy, where there are several
	dryRun    string
	output    string
	wait      bool
	timeout   time.Duration
}

const (
	dryRunNone   = "none"
	dryRunClient = "client"
	dryRunServer = "server"
)

const createLong = `Deploy a copy of the workload behind a Service and wait until requests that carry the key reach it.

The copy is a Deployment of its own, named <workload>-<key>, with the same configuration, Secrets, ServiceAccount and
volumes. No Service selects its Pods; it has no autoscaler and no disruption budget. Run it again to bring the preview up
to date: it then is what the workload is by now, with what this call says, and nothing that an earlier call said.`

const createExample = `  # Try a commit's image, whose tag is the commit, under the key pr-42, for three days
  %[1]s create api --key pr-42 --commit 3f2c1ab --ttl 72h

  # The same for an image with another tag
  %[1]s create api --key pr-42 --tag main-3f2c1ab --commit 3f2c1ab

  # What GitOps would commit
  %[1]s create api --key pr-42 --image registry.example/api:3f2c1ab --dry-run=client -o yaml`

func (p *plugin) createCommand() *cobra.Command {
	c := &creation{}
	cmd := &cobra.Command{
		Use:               "create SERVICE --key KEY (--image IMAGE | --tag TAG | --commit SHA)",
		Short:             "Deploy a copy of a service, and wait until requests with the key reach it",
		Long:              createLong,
		Example:           fmt.Sprintf(createExample, p.name),
		Args:              exactly("SERVICE"),
		ValidArgsFunction: p.completing(serviceNames),
		RunE: p.verb(func(ctx context.Context, s *session, args []string) error {
			c.service = args[0]
			return c.run(ctx, s)
		}),
	}
	flags := cmd.Flags()
	flags.StringVar(&c.key, "key", "", "the key that requests carry to reach the preview, such as pr-42")
	flags.StringVar(&c.image, "image", "", "the image to run")
	flags.StringVar(&c.tag, "tag", "", "run this tag of the image that the workload has")
	flags.StringVar(&c.commit, "commit", "", "the commit that is run; also the image's tag, where neither --image nor --tag is given")
	flags.StringArrayVar(&c.variables, "env", nil, "set an environment variable, NAME=VALUE; can be repeated")
	flags.StringVar(&c.container, "container", "", "the container to change; needed where it is not clear which one serves the Service")
	flags.StringVar(&c.from, "from", "", "the workload to copy (deployment/NAME, statefulset/NAME, rollout/NAME); needed where the Service has several")
	flags.Int32Var(&c.replicas, "replicas", 1, "number of Pods")
	flags.StringVar(&c.ttl, "ttl", "", "route to it for this long, such as 72h, from now on; for ever without it")
	flags.StringVar(&c.dryRun, "dry-run", dryRunNone, "none, client (print what would be applied) or server (have the API server check it, too)")
	flags.StringVarP(&c.output, "output", "o", "", "print the Deployment: json, yaml or name")
	flags.BoolVar(&c.wait, "wait", true, "wait until the preview is routed")
	flags.DurationVar(&c.timeout, "timeout", 5*time.Minute, "how long to wait")
	_ = cmd.MarkFlagRequired("key")
	cmd.MarkFlagsOneRequired("image", "tag", "commit", "env")
	cmd.MarkFlagsMutuallyExclusive("image", "tag")
	return cmd
}

func (c *creation) run(ctx context.Context, s *session) error {
	if err := c.check(); err != nil {
		return err
	}
	service, services, err := s.service(ctx, c.service)
	if err != nil {
		return err
	}
	baseline, err := s.workloadBehind(ctx, service, c.from)
	if err != nil {
		return err
	}
	preview, notes, err := previewOf(baseline, service, services, c.change)
	if err != nil {
		return err
	}
	notes = append(notes, s.volumeNotes(ctx, &preview.Spec.Template.Spec)...)
	notes = append(notes, s.policyNotes(ctx, baseline.Spec.Template.Labels, preview.Spec.Template.Labels)...)
	for _, note := range notes {
		s.note("note: %s", note)
	}
	if c.dryRun == dryRunClient {
		return c.print(s, preview, "created (dry run)")
	}
	return c.deploy(ctx, s, preview, service)
}

// check completes the value and says what is wrong with it.
func (c *creation) check() error {
	switch {
	case !api.ValidKey(c.key):
		return usageError("%q cannot be a key: use 1 to 63 characters of [A-Za-z0-9._-], the first and the last a letter or a digit", c.key)
	case c.tag != "" && !tagPattern.MatchString(c.tag):
		return usageError("%q cannot be the tag of an image: use up to 128 characters of [A-Za-z0-9._-]", c.tag)
	case c.commit != "" && !commitPattern.MatchString(c.commit):
		return usageError("%q cannot be a commit: use 7 to 40 hexadecimal digits in lower case", c.commit)
	case !validTTL(c.ttl):
		return usageError("--ttl %q: use a positive duration in hours, minutes and seconds, such as 72h or 1h30m", c.ttl)
	case strings.ContainsAny(c.image, " \t\n"):
		return usageError("%q cannot be an image: use the form REPOSITORY:TAG", c.image)
	case c.replicas < 1:
		return usageError("--replicas=%d: without a Pod nothing would answer", c.replicas)
	}
	if err := checkDryRun(c.dryRun); err != nil {
		return err
	}
	if c.image == "" && c.tag == "" {
		c.tag = c.commit
	}
	c.now = time.Now()
	for _, pair := range c.variables {
		name, value, found := strings.Cut(pair, "=")
		if !found || name == "" {
			return usageError("--env %q: use the form NAME=VALUE", pair)
		}
		c.env = append(c.env, corev1.EnvVar{Name: name, Value: value})
	}
	return checkOutput(c.output, "json", "yaml", "name")
}

// commitPattern is a commit as git prints it, whole or short; as a label, it must not be longer than 63 characters.
var commitPattern = regexp.MustCompile(`^[0-9a-f]{7,40}$`)

// validTTL reports whether the router will take a value of [api.AnnotationTTL]; "" is none.
func validTTL(ttl string) bool {
	duration, err := time.ParseDuration(ttl)
	return ttl == "" || err == nil && duration > 0
}

// deploy applies the preview and waits for it.
func (c *creation) deploy(ctx context.Context, s *session, preview *appsv1.Deployment, service *corev1.Service) error {
	b, err := s.readBoard(ctx)
	if err != nil {
		return err
	}
	if err := errors.Join(s.checkInterception(b, service.Name), s.checkFree(ctx, preview)); err != nil {
		return err
	}
	applied, err := s.apply(ctx, preview, c.dryRun)
	if err != nil {
		return err
	}
	switch {
	case c.dryRun == dryRunServer:
		return c.print(s, applied, "applied (server dry run)")
	case !c.wait:
		return c.print(s, applied, "applied")
	}
	s.note("%s applied", nameOf(applied))
	w := waiter{key: c.key, preview: "deployment/" + applied.Name, condition: conditionRouted, timeout: c.timeout}
	if err := w.wait(ctx, s); err != nil {
		return err
	}
	if c.output != "" {
		return c.print(s, applied, "")
	}
	fmt.Fprint(s.Out, howToReach(service, c.key, w.url))
	return nil
}

// checkFree refuses to change a Deployment that is something else than this preview.
func (s *session) checkFree(ctx context.Context, preview *appsv1.Deployment) error {
	existing, err := s.kube.AppsV1().Deployments(s.namespace).Get(ctx, preview.Name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("looking for Deployment %s: %w", preview.Name, err)
	}
	for _, label := range []string{labelManagedBy, api.LabelTarget, api.LabelKey} {
		if got, want := existing.Labels[label], preview.Labels[label]; got != want {
			return fail(exitError, "Deployment %s is there already and is not this preview (its label %s is %q, not %q): delete it, or choose another key",
				preview.Name, label, got, want)
		}
	}
	return nil
}

// apply makes the Deployment what it is to be, and takes back what an earlier call had it be.
func (s *session) apply(ctx context.Context, preview *appsv1.Deployment, dryRun string) (*appsv1.Deployment, error) {
	manifest, err := manifestOf(preview)
	if err != nil {
		return nil, err
	}
	content, err := json.Marshal(manifest)
	if err != nil {
		return nil, fmt.Errorf("writing Deployment %s: %w", preview.Name, err)
	}
	force := true // what this call says counts, whoever scaled it in the meantime
	options := metav1.PatchOptions{FieldManager: manager, Force: &force}
	if dryRun == dryRunServer {
		options.DryRun = []string{metav1.DryRunAll}
	}
	applied, err := s.kube.AppsV1().Deployments(s.namespace).Patch(ctx, preview.Name, types.ApplyPatchType, content, options)
	if err != nil {
		return nil, fmt.Errorf("applying Deployment %s: %w", preview.Name, err)
	}
	applied.SetGroupVersionKind(appsv1.SchemeGroupVersion.WithKind("Deployment"))
	return applied, nil
}

// manifestOf is the Deployment as a user would write it: without what only the API server says.
func manifestOf(deployment *appsv1.Deployment) (map[string]any, error) {
	manifest, err := runtime.DefaultUnstructuredConverter.ToUnstructured(deployment)
	if err != nil {
		return nil, fmt.Errorf("writing Deployment %s: %w", deployment.Name, err)
	}
	for _, field := range [][]string{
		{"status"}, {"metadata", "creationTimestamp"}, {"metadata", "managedFields"},
		{"spec", "template", "metadata", "creationTimestamp"},
	} {
		unstructured.RemoveNestedField(manifest, field...)
	}
	if strategy, _, _ := unstructured.NestedMap(manifest, "spec", "strategy"); len(strategy) == 0 {
		unstructured.RemoveNestedField(manifest, "spec", "strategy")
	}
	return manifest, nil
}

func (c *creation) print(s *session, deployment *appsv1.Deployment, done string) error {
	switch c.output {
	case "":
		fmt.Fprintf(s.Out, "%s %s\n", nameOf(deployment), done)
		return nil
	case "name":
		fmt.Fprintln(s.Out, nameOf(deployment))
		return nil
	}
	manifest, err := manifestOf(deployment)
	if err != nil {
		return err
	}
	return printObject(s.Out, c.output, manifest)
}

func nameOf(deployment *appsv1.Deployment) string { return "deployment.apps/" + deployment.Name }

// howToReach is the answer: what a request has to say, one that says it, and where a browser need not.
func howToReach(service *corev1.Service, key, url string) string {
	header := api.HeaderKey + ": " + key
	answer := fmt.Sprintf("%s\ncurl -H '%s' %s\n", header, header, urlOf(service))
	if url != "" {
		answer += url + "\n"
	}
	return answer
}

// urlOf is where the Service's first TCP port is found in the cluster.
func urlOf(service *corev1.Service) string {
	url := fmt.Sprintf("http://%s.%s", service.Name, service.Namespace)
	if port := tcpPorts(service)[0].Port; port != 80 {
		url += fmt.Sprintf(":%d", port)
	}
	return url + "/"
}
