package plugin

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/detour-dev/detour/api"
)

// removal deletes the previews with a key.
type removal struct {
	key     string
	force   bool
	wait    bool
	timeout time.Duration
}

func (p *plugin) deleteCommand() *cobra.Command {
	r := &removal{}
	cmd := &cobra.Command{
		Use:   "delete KEY",
		Short: "Delete the previews with a key, and wait until no request reaches them",
		Long: `Delete the previews with a key, and wait until no request reaches them.

Only what this plugin has made is deleted. With --force, every workload and Pod that is labelled with the key is.`,
		Args:              exactly("KEY"),
		ValidArgsFunction: p.completing(keys),
		RunE: p.verb(func(ctx context.Context, s *session, args []string) error {
			r.key = args[0]
			return r.run(ctx, s)
		}),
	}
	cmd.Flags().BoolVar(&r.force, "force", false, "delete what was labelled by others, too")
	cmd.Flags().BoolVar(&r.wait, "wait", true, "wait until no request reaches them")
	cmd.Flags().DurationVar(&r.timeout, "timeout", 2*time.Minute, "how long to wait")
	return cmd
}

// labelled is an object that makes a preview.
type labelled struct {
	kind schema.GroupVersionResource
	name string // "deployment/api-pr-42"
	*unstructured.Unstructured
}

func (r *removal) run(ctx context.Context, s *session) error {
	if !api.ValidKey(r.key) {
		return usageError("%q cannot be a key: use 1 to 63 characters of [A-Za-z0-9._-], the first and the last a letter or a digit", r.key)
	}
	found, err := r.find(ctx, s)
	if err != nil {
		return err
	}
	if len(found) == 0 {
		return s.noPreview(r.key)
	}
	if err := r.checkOurs(s, found); err != nil {
		return err
	}
	pods, err := s.podsOfAll(ctx, found)
	if err != nil {
		return err
	}
	for _, object := range found {
		if err := s.delete(ctx, object, deletionOf(object)); err != nil {
			return err
		}
		fmt.Fprintf(s.Out, "%s deleted\n", object.name)
	}
	if !r.wait {
		return nil
	}
	return r.untilGone(ctx, s, found, pods)
}

// find lists what is labelled with the key and belongs to nothing else that would bring it back. What the plugin makes are
// Deployments; the other kinds are looked for, and their right is asked for, with force only.
func (r *removal) find(ctx context.Context, s *session) ([]labelled, error) {
	kinds := []schema.GroupVersionResource{deployments}
	if r.force {
		kinds = append(kinds, statefulSets, replicaSets, barePods)
	}
	var found []labelled
	for _, kind := range kinds {
		list, err := s.dynamic.Resource(kind).Namespace(s.namespace).List(ctx, metav1.ListOptions{LabelSelector: api.LabelTarget + "," + api.LabelKey + "=" + r.key})
		if err != nil {
			return nil, fmt.Errorf("listing the %s with the label %s=%s: %w", kind.Resource, api.LabelKey, r.key, err)
		}
		for i := range list.Items {
			object := &list.Items[i]
			if metav1.GetControllerOf(object) == nil {
				found = append(found, labelled{kind, strings.ToLower(object.GetKind()) + "/" + object.GetName(), object})
			}
		}
	}
	return found, nil
}

func (r *removal) checkOurs(s *session, found []labelled) error {
	var others []string
	for _, object := range found {
		if object.GetLabels()[labelManagedBy] != manager {
			others = append(others, object.name)
		}
	}
	if r.force || len(others) == 0 {
		return nil
	}
	return fail(exitError, "%s was not made by %s (its label %s is not %s): --force deletes it all the same",
		strings.Join(others, ", "), s.self, labelManagedBy, manager)
}

// deletionOf deletes this very object, and no other that has taken its name, with what it owns.
func deletionOf(object labelled) metav1.DeleteOptions {
	background := metav1.DeletePropagationBackground
	uid := object.GetUID()
	return metav1.DeleteOptions{PropagationPolicy: &background, Preconditions: &metav1.Preconditions{UID: &uid}}
}

func (s *session) delete(ctx context.Context, object labelled, options metav1.DeleteOptions) error {
	err := s.dynamic.Resource(object.kind).Namespace(s.namespace).Delete(ctx, object.GetName(), options)
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("deleting %s: %w", object.name, err)
	}
	return nil
}

// podsOfAll lists the Pods of what is to be deleted, by UID.
func (s *session) podsOfAll(ctx context.Context, found []labelled) (map[types.UID]bool, error) {
	all := map[types.UID]bool{}
	for _, object := range found {
		if object.kind == barePods {
			all[object.GetUID()] = true
			continue
		}
		w, err := decodeWorkload(object.Unstructured)
		if err != nil {
			return nil, err
		}
		pods, err := s.podsOf(ctx, w)
		if err != nil {
			return nil, err
		}
		for i := range pods {
			all[pods[i].UID] = true
		}
	}
	return all, nil
}

// untilGone waits until the router knows none of them and no Pod of theirs is left, in which a request could be under way.
func (r *removal) untilGone(ctx context.Context, s *session, found []labelled, pods map[types.UID]bool) error {
	var left []string
	over, err := until(ctx, r.timeout, func() (bool, error) {
		var err error
		left, err = s.left(ctx, found, pods)
		return len(left) == 0, err
	})
	if over {
		return fail(exitTimeout, "deleted, but after %s there is still %s: see kubectl get pods -n %s", r.timeout, strings.Join(left, ", "), s.namespace)
	}
	return err
}

// left names what is still there of what was deleted.
func (s *session) left(ctx context.Context, found []labelled, pods map[types.UID]bool) ([]string, error) {
	b, err := s.readBoard(ctx)
	if err != nil {
		return nil, err
	}
	var left []string
	for _, object := range found {
		if b.preview(object.name, object.GetLabels()[api.LabelKey]) != nil {
			left = append(left, object.name+" in the router's status")
		}
	}
	there, err := s.kube.CoreV1().Pods(s.namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, fmt.Errorf("listing the Pods of namespace %s: %w", s.namespace, err)
	}
	for i := range there.Items {
		if pods[there.Items[i].UID] {
			left = append(left, "Pod "+there.Items[i].Name)
		}
	}
	return left, nil
}
