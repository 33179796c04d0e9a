package plugin

import (
	"context"
	"slices"

	"github.com/spf13/cobra"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// completing completes a verb's one argument with live names. What the user may not list is not completed.
func (p *plugin) completing(list func(context.Context, *session) ([]string, error)) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		s, err := p.connect()
		if err != nil {
			return nil, cobra.ShellCompDirectiveError
		}
		names, err := list(cmd.Context(), s)
		if err != nil {
			return nil, cobra.ShellCompDirectiveError
		}
		slices.Sort(names)
		return slices.Compact(names), cobra.ShellCompDirectiveNoFileComp
	}
}

// serviceNames are those of the Services that can have previews.
func serviceNames(ctx context.Context, s *session) ([]string, error) {
	list, err := s.kube.CoreV1().Services(s.namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, err
	}
	var names []string
	for i := range list.Items {
		if unsupported(&list.Items[i]) == "" {
			names = append(names, list.Items[i].Name)
		}
	}
	return names, nil
}

func keys(ctx context.Context, s *session) ([]string, error) {
	b, err := s.readBoard(ctx)
	if err != nil || b == nil {
		return nil, err
	}
	var all []string
	for _, preview := range b.Previews {
		all = append(all, preview.Key)
	}
	return all, nil
}

func namespaceNames(ctx context.Context, s *session) ([]string, error) {
	list, err := s.kube.CoreV1().Namespaces().List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, err
	}
	var names []string
	for _, namespace := range list.Items {
		names = append(names, namespace.Name)
	}
	return names, nil
}
