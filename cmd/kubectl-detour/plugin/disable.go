package plugin

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/detour-dev/detour/api"
)

// disabling takes a namespace out.
type disabling struct {
	restart bool
	timeout time.Duration
}

func (p *plugin) disableCommand() *cobra.Command {
	d := &disabling{}
	cmd := &cobra.Command{
		Use:   "disable NAMESPACE",
		Short: "Take a namespace out: its Services lead past the proxies again",
		Long: `Take a namespace out: new Pods get no proxy, Services that were changed are put back, and proxies that are there send
every request to their app. With --restart, the workloads replace the Pods that have one, each by its own rolling update.

Previews stay, but no request is routed to them.`,
		Args:              exactly("NAMESPACE"),
		ValidArgsFunction: p.completing(namespaceNames),
		RunE: p.verb(func(ctx context.Context, s *session, args []string) error {
			return d.run(ctx, s.in(args[0]))
		}),
	}
	cmd.Flags().BoolVar(&d.restart, "restart", false, "replace the Pods that have a proxy")
	cmd.Flags().DurationVar(&d.timeout, "timeout", 10*time.Minute, "how long to wait for each step")
	return cmd
}

func (d *disabling) run(ctx context.Context, s *session) error {
	if err := s.setInjection(ctx, false); err != nil {
		return err
	}
	if err := s.awaitPutBack(ctx, d.timeout); err != nil {
		return err
	}
	fmt.Fprintf(s.Out, "namespace %s takes no part, and all of its Services lead to their apps\n", s.namespace)
	left, err := s.workloadsWith(ctx, func(_ *workload, pod *corev1.Pod) bool { return hasProxy(pod) })
	if err != nil {
		return err
	}
	if d.restart {
		return s.restart(ctx, left, d.timeout)
	}
	if len(left) > 0 {
		s.note("%s: Pods keep their proxy, which sends everything to the app, until they are replaced; %s disable %s --restart replaces them",
			names(left), s.self, s.namespace)
	}
	return nil
}

// awaitPutBack waits until the webhook has undone its changes of Services, and has taken the status away.
func (s *session) awaitPutBack(ctx context.Context, timeout time.Duration) error {
	var left []string
	over, err := until(ctx, timeout, func() (bool, error) {
		b, err := s.readBoard(ctx)
		if err != nil {
			return false, err
		}
		services, err := s.kube.CoreV1().Services(s.namespace).List(ctx, metav1.ListOptions{})
		if err != nil {
			return false, fmt.Errorf("listing the Services of namespace %s: %w", s.namespace, err)
		}
		left = changed(services.Items)
		return b == nil && len(left) == 0, nil
	})
	if over {
		return fail(exitTimeout, "the label is gone, but after %s the webhook has not cleared namespace %s (Services that lead to proxies: %s): see whether it runs: %s version",
			timeout, s.namespace, strings.Join(left, ", "), s.self)
	}
	return err
}

// changed names the Services that are not as their users have them.
func changed(services []corev1.Service) []string {
	var names []string
	for i := range services {
		_, annotated := services[i].Annotations[api.AnnotationTargetPorts]
		onProxy := slices.ContainsFunc(tcpPorts(&services[i]), func(port corev1.ServicePort) bool {
			_, ours := api.OriginalPort(port.TargetPort.StrVal)
			return ours
		})
		if annotated || onProxy {
			names = append(names, services[i].Name)
		}
	}
	return names
}
