package plugin

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/util/duration"

	"github.com/detour-dev/detour/api"
)

// listing shows the previews of a namespace, or of all.
type listing struct {
	all    bool
	output string
}

// entry is a preview as -o json and -o yaml print it.
type entry struct {
	Namespace string `json:"namespace"`
	api.PreviewStatus
	// Images are those of the preview's containers; empty where the user may not read it.
	Images []string `json:"images,omitempty"`
	// URL is where a browser meets it, perhaps with a signed link only; empty where previews have none.
	URL string `json:"url,omitempty"`
}

// entries is what -o json and -o yaml print.
type entries struct {
	Previews []entry `json:"previews"`
}

func (p *plugin) listCommand() *cobra.Command {
	l := &listing{}
	cmd := &cobra.Command{
		Use:     "list",
		Aliases: []string{"ls"},
		Short:   "List previews",
		Args:    cobra.NoArgs,
		RunE: p.verb(func(ctx context.Context, s *session, _ []string) error {
			return l.run(ctx, s)
		}),
	}
	cmd.Flags().BoolVarP(&l.all, "all-namespaces", "A", false, "those of all namespaces")
	cmd.Flags().StringVarP(&l.output, "output", "o", "", "json, yaml, wide or name")
	return cmd
}

func (l *listing) run(ctx context.Context, s *session) error {
	if err := checkOutput(l.output, "json", "yaml", "wide", "name"); err != nil {
		return err
	}
	boards, err := s.boards(ctx, l.all)
	if err != nil {
		return err
	}
	found := entries{Previews: []entry{}}
	for _, b := range boards {
		in := s.in(b.namespace)
		for _, preview := range b.Previews {
			found.Previews = append(found.Previews, in.entry(ctx, b, preview, l.output != "" && l.output != "name"))
		}
	}
	return l.print(s, found)
}

// boards are those of all namespaces, or the one of the session's.
func (s *session) boards(ctx context.Context, all bool) ([]*board, error) {
	if all {
		return s.readBoards(ctx)
	}
	b, err := s.readBoard(ctx)
	if b == nil && err == nil {
		err = s.notTakingPart()
	}
	return []*board{b}, err
}

// in is the same session in another namespace.
func (s *session) in(namespace string) *session {
	other := *s
	other.namespace = namespace
	return &other
}

func (s *session) entry(ctx context.Context, b *board, preview api.PreviewStatus, withImages bool) entry {
	e := entry{Namespace: s.namespace, PreviewStatus: preview, URL: b.urlOf(preview)}
	if !withImages {
		return e
	}
	if w, err := s.workloadNamed(ctx, preview.Preview); err == nil && w != nil {
		e.Images = imagesOf(w)
	}
	return e
}

func imagesOf(w *workload) []string {
	var images []string
	for _, c := range w.Spec.Template.Spec.Containers {
		images = append(images, c.Image)
	}
	return images
}

func (l *listing) print(s *session, found entries) error {
	switch l.output {
	case "json", "yaml":
		return printObject(s.Out, l.output, found)
	case "name":
		for _, e := range found.Previews {
			fmt.Fprintln(s.Out, e.Preview)
		}
		return nil
	}
	if len(found.Previews) == 0 {
		s.note("No previews; %s create makes one", s.self)
		return nil
	}
	return printTable(s.Out, l.table(found))
}

// table has its heads in the first row.
func (l *listing) table(found entries) [][]string {
	rows := [][]string{{"NAMESPACE", "SERVICE", "KEY", "STATE", "ROUTED", "PREVIEW", "AGE", "IMAGES", "URL", "PROBLEM"}}
	for _, e := range found.Previews {
		rows = append(rows, []string{
			e.Namespace, e.Target, e.Key, string(e.State), fmt.Sprintf("%d/%d", e.Routed, e.Of), e.Preview, age(e.Created),
			strings.Join(e.Images, ","), e.URL, problemText(e.Problem, ""),
		})
	}
	for i, row := range rows {
		if l.output != "wide" {
			row = row[:len(row)-3]
		}
		if !l.all {
			row = row[1:]
		}
		rows[i] = row
	}
	return rows
}

// age is zero for what lies ahead by the clock here.
func age(since time.Time) string { return duration.HumanDuration(max(0, time.Since(since))) }

// printTable aligns columns as kubectl does.
func printTable(w io.Writer, rows [][]string) error {
	table := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	for _, row := range rows {
		row = slices.Clone(row)
		for i, cell := range row {
			if cell == "" {
				row[i] = "-"
			}
		}
		fmt.Fprintln(table, strings.Join(row, "\t"))
	}
	return table.Flush()
}
