package plugin

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"github.com/detour-dev/detour/api"
)

// collection deletes the previews whose time is over.
type collection struct {
	all       bool
	olderThan time.Duration
	force     bool
	dryRun    string
	wait      bool
	timeout   time.Duration
}

func (p *plugin) gcCommand() *cobra.Command {
	c := &collection{}
	cmd := &cobra.Command{
		Use:   "gc",
		Short: "Delete the previews that have expired",
		Long: `Delete the previews that have expired, and wait until no Pod of them is left.

A preview expires when the time in its annotation ` + api.AnnotationTTL + ` is over; the router says so in the status. One that has
been given more time since then stays. Only what this plugin has made is deleted. With --force, every labelled workload and
Pod is; what GitOps has deployed comes back, if it is not removed there.`,
		Args: cobra.NoArgs,
		RunE: p.verb(func(ctx context.Context, s *session, _ []string) error {
			return c.run(ctx, s)
		}),
	}
	flags := cmd.Flags()
	flags.BoolVarP(&c.all, "all-namespaces", "A", false, "those of all namespaces")
	flags.DurationVar(&c.olderThan, "older-than", 0, "leave those that have expired less than this long ago")
	flags.BoolVar(&c.force, "force", false, "delete what was labelled by others, too")
	flags.StringVar(&c.dryRun, "dry-run", dryRunNone, "none, client (print what would be deleted) or server (have the API server check it, too)")
	flags.BoolVar(&c.wait, "wait", true, "wait until no Pod of them is left")
	flags.DurationVar(&c.timeout, "timeout", 2*time.Minute, "how long to wait in each namespace")
	return cmd
}

// run goes on with the next preview, and the next namespace, where one cannot be deleted.
func (c *collection) run(ctx context.Context, s *session) error {
	if err := checkDryRun(c.dryRun); err != nil {
		return err
	}
	if c.olderThan < 0 {
		return usageError("--older-than=%s: use a positive duration, such as 24h", c.olderThan)
	}
	boards, err := s.boards(ctx, c.all)
	if err != nil {
		return err
	}
	var failed []error
	for _, b := range boards {
		failed = append(failed, c.collect(ctx, s.in(b.namespace), b))
	}
	return errors.Join(failed...)
}

// collect deletes the expired previews of one namespace.
func (c *collection) collect(ctx context.Context, s *session, b *board) error {
	found, err := c.find(ctx, s, b)
	failed := []error{err}
	var pods map[types.UID]bool
	if c.waits() {
		if pods, err = s.podsOfAll(ctx, found); err != nil {
			return errors.Join(append(failed, err)...)
		}
	}
	var gone []labelled
	for _, object := range found {
		err := c.delete(ctx, s, object)
		if err == nil {
			gone = append(gone, object)
		}
		failed = append(failed, err)
	}
	if c.waits() && len(gone) > 0 {
		failed = append(failed, (&removal{timeout: c.timeout}).untilGone(ctx, s, gone, pods))
	}
	return errors.Join(failed...)
}

func (c *collection) waits() bool { return c.wait && c.dryRun == dryRunNone }

// find lists what is to be deleted, and says what stays although it has expired.
func (c *collection) find(ctx context.Context, s *session, b *board) ([]labelled, error) {
	var found []labelled
	var failed []error
	for _, preview := range b.Previews {
		if preview.State != api.StateExpired || time.Since(preview.Expires) < c.olderThan {
			continue
		}
		if home, object := preview.Home(); home != "" {
			s.note("%s stays: it is a preview of namespace %s's from another; kubectl delete %s -n %s deletes it", preview.Preview, s.namespace, object, home)
			continue
		}
		object, err := s.labelledNamed(ctx, preview)
		switch {
		case err != nil:
			failed = append(failed, err)
		case object == nil: // deleted in the meantime
		case !hasExpired(object, time.Now()):
			s.note("%s in namespace %s stays: by its annotations it has not expired, and the router's status will follow", object.name, s.namespace)
		case !c.force && object.GetLabels()[labelManagedBy] != manager:
			s.note("%s in namespace %s stays: it was not made by %s (its label %s is not %s); --force deletes it all the same",
				object.name, s.namespace, s.self, labelManagedBy, manager)
		default:
			found = append(found, *object)
		}
	}
	return found, errors.Join(failed...)
}

// previewKinds are the kinds that can be labelled as a preview, as the status calls them.
var previewKinds = map[string]schema.GroupVersionResource{
	"deployment": deployments, "statefulset": statefulSets, "replicaset": replicaSets, "pod": barePods,
}

// labelledNamed is the object that the status is about; nil if it is gone, or says something else by now.
func (s *session) labelledNamed(ctx context.Context, preview api.PreviewStatus) (*labelled, error) {
	word, name, _ := strings.Cut(preview.Preview, "/")
	kind, known := previewKinds[word]
	if !known {
		return nil, fail(exitError, "%s in namespace %s has expired, and is of a kind that %s does not know: delete it by hand", preview.Preview, s.namespace, s.self)
	}
	object, err := s.dynamic.Resource(kind).Namespace(s.namespace).Get(ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("looking for %s: %w", preview.Preview, err)
	}
	if labels := object.GetLabels(); labels[api.LabelTarget] != preview.Target || labels[api.LabelKey] != preview.Key {
		return nil, nil
	}
	return &labelled{kind, preview.Preview, object}, nil
}

// hasExpired asks the object itself, for the status trails behind it.
func hasExpired(object *labelled, now time.Time) bool {
	ttl, err := time.ParseDuration(annotationOf(object, api.AnnotationTTL))
	if err != nil || ttl <= 0 {
		return false
	}
	from := object.GetCreationTimestamp().Time
	if updated, err := time.Parse(time.RFC3339, annotationOf(object, api.AnnotationUpdated)); err == nil && updated.After(from) {
		from = updated
	}
	return now.After(from.Add(ttl))
}

// annotationOf is the object's own, or that of its Pod template, as the router reads them.
func annotationOf(object *labelled, name string) string {
	if value, set := object.GetAnnotations()[name]; set {
		return value
	}
	value, _, _ := unstructured.NestedString(object.Object, "spec", "template", "metadata", "annotations", name)
	return value
}

// delete deletes the object unless it has changed since it was looked at: it may have been given more time.
func (c *collection) delete(ctx context.Context, s *session, object labelled) error {
	options := deletionOf(object)
	options.Preconditions.ResourceVersion = ptr.To(object.GetResourceVersion())
	if c.dryRun == dryRunServer {
		options.DryRun = []string{metav1.DryRunAll}
	}
	if c.dryRun != dryRunClient {
		err := s.delete(ctx, object, options)
		if apierrors.IsConflict(err) {
			return fail(exitError, "%s in namespace %s has changed in this very moment, and stays: run it again", object.name, s.namespace)
		}
		if err != nil {
			return err
		}
	}
	fmt.Fprintf(s.Out, "%s deleted from namespace %s%s\n", object.name, s.namespace, dryRunNotes[c.dryRun])
	return nil
}

// dryRunNotes follow what was not really done.
var dryRunNotes = map[string]string{dryRunClient: " (dry run)", dryRunServer: " (server dry run)"}
