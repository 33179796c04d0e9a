package plugin

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"

	"github.com/detour-dev/detour/api"
)

const (
	lookEvery = 500 * time.Millisecond
	// patience is how long something has to look broken: controllers and status trail behind each other.
	patience = 3 * time.Second
)

const waitLong = `Wait for all previews that have a key:

  routed   the Pods of each are up to date and ready, and every ready Pod of its Service sends requests there
  ready    the Pods of each are up to date and ready
  expired  the time to live of each is over
  deleted  none is left, nor any Pod of one

Previews that are not there yet are waited for, but for the last. With -o json the outcome is printed, whatever it is, as
the state and the description of a commit status: success, failure (a preview is broken, or it took too long), or error.`

const waitExample = `  # In CI, after GitOps was told to deploy
  %[1]s wait pr-42 --timeout 10m

  # The same, for GitHub's commit status
  %[1]s wait pr-42 -o json >status.json
  gh api "repos/$REPOSITORY/statuses/$COMMIT" --input status.json`

func (p *plugin) waitCommand() *cobra.Command {
	w := &waiter{}
	var output string
	cmd := &cobra.Command{
		Use:               "wait KEY",
		Short:             "Wait until requests with a key reach every preview that has it",
		Long:              waitLong,
		Example:           fmt.Sprintf(waitExample, p.name),
		Args:              exactly("KEY"),
		ValidArgsFunction: p.completing(keys),
		RunE: p.verb(func(ctx context.Context, s *session, args []string) error {
			w.key = args[0]
			if err := w.check(output); err != nil {
				return err
			}
			err := w.wait(ctx, s)
			if output == "" {
				return err
			}
			return errors.Join(err, printObject(s.Out, output, w.outcome(err)))
		}),
	}
	cmd.Flags().StringVar((*string)(&w.condition), "for", string(conditionRouted), "what to wait for: routed, ready, expired or deleted")
	cmd.Flags().StringVarP(&output, "output", "o", "", "json or yaml")
	cmd.Flags().DurationVar(&w.timeout, "timeout", 5*time.Minute, "how long to wait")
	return cmd
}

// condition is what all previews with a key are waited to be.
type condition string

const (
	conditionRouted  condition = "routed"
	conditionReady   condition = "ready"
	conditionExpired condition = "expired"
	conditionDeleted condition = "deleted"
)

// waiter waits for previews.
type waiter struct {
	key       string
	preview   string // "deployment/api-pr-42"; "" is all that have the key
	condition condition
	timeout   time.Duration

	said    string    // the last progress
	url     string    // where a browser enters, if it is clear where
	suspect time.Time // since when it looks broken
}

func (w *waiter) check(output string) error {
	switch w.condition {
	case conditionRouted, conditionReady, conditionExpired, conditionDeleted:
		return checkOutput(output, "json", "yaml")
	}
	return usageError("--for=%s: use routed, ready, expired or deleted", w.condition)
}

// until looks again and again, and reports whether the time was over first. It does not cut a look short, whose error would
// say nothing of what is waited for.
func until(ctx context.Context, timeout time.Duration, done func() (bool, error)) (over bool, err error) {
	err = wait.PollUntilContextTimeout(ctx, lookEvery, timeout, true, func(context.Context) (bool, error) { return done() })
	if wait.Interrupted(err) && ctx.Err() == nil {
		return true, nil
	}
	return false, err
}

// wait tells of progress, and of what is wrong where it ends otherwise.
func (w *waiter) wait(ctx context.Context, s *session) error {
	var last verdict
	over, err := until(ctx, w.timeout, func() (bool, error) {
		v, err := w.look(ctx, s)
		if err != nil {
			return false, err
		}
		last = v
		w.say(s, v.why)
		return v.done || w.isHopeless(v), nil
	})
	switch {
	case err != nil:
		return err
	case over:
		s.showTrouble(ctx, last.pod)
		return fail(exitTimeout, "not %s within %s: %s; see %s status %s -n %s", w.condition, w.timeout, last.why, s.self, w.key, s.namespace)
	case last.broken:
		s.showTrouble(ctx, last.pod)
		return fail(exitUnroutable, "%s; when that is mended, %s wait %s -n %s goes on", last.why, s.self, w.key, s.namespace)
	}
	return nil
}

// commitStatus is what wait prints with -o: the fields of GitHub's commit status that it knows.
type commitStatus struct {
	State       string `json:"state"`
	Description string `json:"description"`
	// TargetURL is without a signature.
	TargetURL string `json:"target_url,omitempty"`
}

// maxDescription is what GitHub takes.
const maxDescription = 140

func (w *waiter) outcome(err error) commitStatus {
	status := commitStatus{State: "success", Description: w.said, TargetURL: w.url}
	if err != nil {
		status.State, status.Description = "error", err.Error()
		if code := exitCode(err); code == exitTimeout || code == exitUnroutable {
			status.State = "failure"
		}
	}
	description := []rune(strings.ReplaceAll(status.Description, "\n", "; "))
	if len(description) > maxDescription {
		description = append(description[:maxDescription-1], '…')
	}
	status.Description = string(description)
	return status
}

func (w *waiter) say(s *session, progress string) {
	if progress != w.said {
		s.note("%s", progress)
	}
	w.said = progress
}

func (w *waiter) isHopeless(v verdict) bool {
	if !v.broken {
		w.suspect = time.Time{}
		return false
	}
	if w.suspect.IsZero() {
		w.suspect = time.Now()
	}
	return time.Since(w.suspect) >= patience
}

// look is the verdict on the preview, or on all of them: what is broken counts before what is not there yet.
func (w *waiter) look(ctx context.Context, s *session) (verdict, error) {
	b, err := s.readBoard(ctx)
	if err != nil {
		return verdict{}, err
	}
	if b == nil {
		return verdict{}, s.notTakingPart()
	}
	if w.condition == conditionDeleted {
		return w.lookForRest(ctx, s, b)
	}
	w.url = w.urlOn(b)
	observed, err := w.observe(ctx, s, b)
	if err != nil {
		return verdict{}, err
	}
	if len(observed) == 0 {
		return verdict{why: fmt.Sprintf("no preview in namespace %s has the key %s", s.namespace, w.key)}, nil
	}
	return joined(observed, w.condition), nil
}

// lookForRest is done once the router knows no preview with the key and no Pod of one is left, in which a request could be
// under way.
func (w *waiter) lookForRest(ctx context.Context, s *session, b *board) (verdict, error) {
	var left []string
	for _, status := range b.previews(w.key) {
		left = append(left, status.Preview)
	}
	options := metav1.ListOptions{LabelSelector: api.LabelTarget + "," + api.LabelKey + "=" + w.key}
	pods, err := s.kube.CoreV1().Pods(s.namespace).List(ctx, options)
	if err != nil {
		return verdict{}, fmt.Errorf("listing the Pods with the label %s=%s: %w", api.LabelKey, w.key, err)
	}
	for i := range pods.Items {
		left = append(left, "Pod "+pods.Items[i].Name)
	}
	if len(left) > 0 {
		return verdict{why: "there is still " + strings.Join(left, ", ")}, nil
	}
	return verdict{done: true, why: fmt.Sprintf("no preview in namespace %s has the key %s", s.namespace, w.key)}, nil
}

// urlOn is where a browser meets what is waited for, if that is of one Service.
func (w *waiter) urlOn(b *board) string {
	if w.preview == "" {
		return b.onlyURL(w.key)
	}
	if preview := b.preview(w.preview, w.key); preview != nil {
		return b.urlOf(*preview)
	}
	return ""
}

func (w *waiter) observe(ctx context.Context, s *session, b *board) ([]observation, error) {
	if w.preview != "" {
		o, err := s.observe(ctx, w.preview, b.preview(w.preview, w.key))
		return []observation{o}, err
	}
	var all []observation
	for _, status := range b.previews(w.key) {
		o, err := s.observe(ctx, status.Preview, &status)
		if err != nil {
			return nil, err
		}
		all = append(all, o)
	}
	return all, nil
}

// joined is the verdict on several.
func joined(observed []observation, c condition) verdict {
	var done []string
	var open *verdict
	for _, o := range observed {
		v := verdictOn(o, c)
		switch {
		case v.broken:
			return v
		case v.done:
			done = append(done, v.why)
		case open == nil:
			open = &v
		}
	}
	if open != nil {
		return *open
	}
	return verdict{done: true, why: strings.Join(done, "\n")}
}

// observe looks at what is behind a name of the status.
func (s *session) observe(ctx context.Context, name string, status *api.PreviewStatus) (observation, error) {
	o := observation{name: name, status: status}
	var err error
	if o.workload, err = s.workloadNamed(ctx, name); err != nil || o.workload == nil {
		return o, err
	}
	o.pods, err = s.newestPods(ctx, o.workload)
	return o, err
}
