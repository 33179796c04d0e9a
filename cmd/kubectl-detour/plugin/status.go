package plugin

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/detour-dev/detour/api"
)

// inspection tells everything about the previews with one key.
type inspection struct {
	key       string
	output    string
	tokenFile string // for a link to the traffic
}

// report is a preview as status prints it.
type report struct {
	entry
	// Ready of Pods of the preview's own Pods are ready.
	Ready int `json:"ready"`
	Pods  int `json:"pods"`
}

// reports is what -o json and -o yaml print.
type reports struct {
	Previews []report `json:"previews"`
}

func (p *plugin) statusCommand() *cobra.Command {
	i := &inspection{}
	cmd := &cobra.Command{
		Use:               "status KEY",
		Short:             "Tell how far requests with a key reach its previews, and what is missing",
		Args:              exactly("KEY"),
		ValidArgsFunction: p.completing(keys),
		RunE: p.verb(func(ctx context.Context, s *session, args []string) error {
			i.key = args[0]
			return i.run(ctx, s)
		}),
	}
	cmd.Flags().StringVarP(&i.output, "output", "o", "", "json or yaml")
	addTokenFile(cmd, &i.tokenFile)
	return cmd
}

func (i *inspection) run(ctx context.Context, s *session) error {
	if err := checkOutput(i.output, "json", "yaml"); err != nil {
		return err
	}
	b, err := s.readBoard(ctx)
	if err != nil {
		return err
	}
	if b == nil {
		return s.notTakingPart()
	}
	var found reports
	for _, preview := range b.previews(i.key) {
		r, err := s.report(ctx, b, preview)
		if err != nil {
			return err
		}
		found.Previews = append(found.Previews, r)
	}
	if len(found.Previews) == 0 {
		return s.noPreview(i.key)
	}
	s.addTraffic(ctx, b, i.tokenFile, found.Previews)
	if i.output != "" {
		return printObject(s.Out, i.output, found)
	}
	for _, r := range found.Previews {
		fmt.Fprint(s.Out, r.text())
	}
	return nil
}

func (s *session) noPreview(key string) error {
	return notFound("no preview in namespace %s has the key %q: %s list -n %s shows which there are", s.namespace, key, s.self, s.namespace)
}

func (s *session) report(ctx context.Context, b *board, preview api.PreviewStatus) (report, error) {
	w, err := s.workloadNamed(ctx, preview.Preview)
	if err != nil {
		return report{}, err
	}
	r := report{entry: entry{Namespace: s.namespace, PreviewStatus: preview, URL: b.urlOf(preview)}, Ready: len(preview.Endpoints), Pods: len(preview.Endpoints)}
	if w != nil {
		r.Images = imagesOf(w)
		r.Pods = int(w.replicas())
	}
	return r, nil
}

func (r report) text() string {
	var b strings.Builder
	line := func(head, format string, args ...any) {
		fmt.Fprintf(&b, "  %-9s %s\n", head, fmt.Sprintf(format, args...))
	}
	fmt.Fprintf(&b, "%s, preview of Service %s\n", r.Preview, r.Target)
	line("state", "%s", r.State)
	line("routed", "%d/%d", r.Routed, r.Of)
	for _, missing := range r.Missing {
		line("", "%s: %s", missing.Pod, missing.Reason)
	}
	line("ready", "%d/%d", r.Ready, r.Pods)
	if r.Traffic != nil {
		line("requests", "%s", requestsText(*r.Traffic))
	}
	for _, image := range r.Images {
		line("image", "%s", image)
	}
	if r.Commit != "" {
		line("commit", "%s", r.Commit)
	}
	if r.URL != "" {
		line("url", "%s", r.URL)
	}
	line("age", "%s", age(r.Created))
	if !r.Expires.IsZero() {
		line("expires", "%s", r.Expires.Local().Format(time.RFC3339))
	}
	if r.Problem != nil {
		line("problem", "%s", r.Problem.Message)
	}
	for _, warning := range r.Warnings {
		line("warning", "%s", warning.Message)
	}
	return b.String()
}
