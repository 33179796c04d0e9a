package plugin

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/util/wait"

	"github.com/detour-dev/detour/api"
)

const (
	lookEvery = 500 * time.Millisecond
	// patience is how long something has to look broken: controllers and status trail behind each other.
	patience = 3 * time.Second
)

func (p *plugin) waitCommand() *cobra.Command {
	w := &waiter{}
	var condition string
	cmd := &cobra.Command{
		Use:   "wait KEY",
		Short: "Wait until requests with a key reach every preview that has it",
		Long: `Wait until requests with a key reach every preview that has it: the Pods of each are up to date and ready, and
every ready Pod of its Service sends requests there. Previews that are not there yet are waited for.`,
		Example:           fmt.Sprintf("  # In CI, after GitOps was told to deploy\n  %s wait pr-42 --timeout 10m", p.name),
		Args:              exactly("KEY"),
		ValidArgsFunction: p.completing(keys),
		RunE: p.verb(func(ctx context.Context, s *session, args []string) error {
			if condition != string(api.StateRouted) {
				return usageError("--for=%s: use %s", condition, api.StateRouted)
			}
			w.key = args[0]
			return w.untilRouted(ctx, s)
		}),
	}
	cmd.Flags().StringVar(&condition, "for", string(api.StateRouted), "what to wait for")
	cmd.Flags().DurationVar(&w.timeout, "timeout", 5*time.Minute, "how long to wait")
	return cmd
}

// waiter waits for previews.
type waiter struct {
	key     string
	preview string // "deployment/api-pr-42"; "" is all that have the key
	timeout time.Duration

	said    string    // the last progress
	suspect time.Time // since when it looks broken
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

// untilRouted tells of progress, and of what is wrong where it ends otherwise.
func (w *waiter) untilRouted(ctx context.Context, s *session) error {
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
		return fail(exitTimeout, "not routed within %s: %s; see %s status %s -n %s", w.timeout, last.why, s.self, w.key, s.namespace)
	case last.broken:
		s.showTrouble(ctx, last.pod)
		return fail(exitUnroutable, "%s; when that is mended, %s wait %s -n %s goes on", last.why, s.self, w.key, s.namespace)
	}
	return nil
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
	observed, err := w.observe(ctx, s, b)
	if err != nil {
		return verdict{}, err
	}
	if len(observed) == 0 {
		return verdict{why: fmt.Sprintf("no preview in namespace %s has the key %s", s.namespace, w.key)}, nil
	}
	return joined(observed), nil
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
func joined(observed []observation) verdict {
	var done []string
	var open *verdict
	for _, o := range observed {
		v := verdictOn(o)
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
