package plugin

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/detour-dev/detour/api"
)

// enabling has a namespace take part.
type enabling struct {
	restart bool
	timeout time.Duration
}

func (p *plugin) enableCommand() *cobra.Command {
	e := &enabling{}
	cmd := &cobra.Command{
		Use:   "enable NAMESPACE",
		Short: "Have a namespace take part, and say which of its services are covered",
		Long: `Have a namespace take part: its Pods get the proxy when they are created. With --restart, the workloads behind its
Services replace those that have none, each by its own rolling update. Then say which Services are covered by proxies, and
what keeps the others from it.

It can be run again, to see what has become of it.`,
		Args:              exactly("NAMESPACE"),
		ValidArgsFunction: p.completing(namespaceNames),
		RunE: p.verb(func(ctx context.Context, s *session, args []string) error {
			return e.run(ctx, s.in(args[0]))
		}),
	}
	cmd.Flags().BoolVar(&e.restart, "restart", false, "replace the Pods that have no proxy")
	cmd.Flags().DurationVar(&e.timeout, "timeout", 10*time.Minute, "how long to wait for each step")
	return cmd
}

func (e *enabling) run(ctx context.Context, s *session) error {
	if err := s.setInjection(ctx, true); err != nil {
		return err
	}
	if err := s.awaitBoard(ctx, e.timeout); err != nil {
		return err
	}
	s.note("namespace %s takes part", s.namespace)
	left, err := s.withoutProxy(ctx)
	if err != nil {
		return err
	}
	if e.restart {
		err = s.restart(ctx, left, e.timeout)
		left = nil
	} else if len(left) > 0 {
		s.note("%s: Pods that are there have no proxy yet; %s enable %s --restart replaces them", names(left), s.self, s.namespace)
	}
	if err != nil {
		return err
	}
	if err := s.settle(ctx, len(left) == 0); err != nil {
		return err
	}
	return s.printCoverage(ctx)
}

// awaitBoard waits for the webhook to take notice of the namespace.
func (s *session) awaitBoard(ctx context.Context, timeout time.Duration) error {
	over, err := until(ctx, timeout, func() (bool, error) {
		b, err := s.readBoard(ctx)
		return b != nil, err
	})
	if over {
		return fail(exitTimeout, "namespace %s is labelled, but after %s the webhook has taken no notice: %s version shows whether Detour is installed",
			s.namespace, timeout, s.self)
	}
	return err
}

// withoutProxy lists the workloads behind Services that have a Pod without a proxy that its successor would have.
func (s *session) withoutProxy(ctx context.Context) ([]*workload, error) {
	services, err := s.kube.CoreV1().Services(s.namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, fmt.Errorf("listing the Services of namespace %s: %w", s.namespace, err)
	}
	return s.workloadsWith(ctx, func(w *workload, pod *corev1.Pod) bool {
		behind := slices.ContainsFunc(services.Items, func(service corev1.Service) bool {
			return selects(&service, w.Spec.Template.Labels)
		})
		return behind && !w.isPreview() && wantsProxy(pod)
	})
}

// wantsProxy reports whether a Pod has no proxy only because it was there before.
func wantsProxy(pod *corev1.Pod) bool {
	return !hasProxy(pod) && pod.Annotations[api.AnnotationNotInjected] == "" && pod.Labels[api.LabelInject] != api.InjectDisabled
}

func hasProxy(pod *corev1.Pod) bool {
	return slices.ContainsFunc(pod.Spec.InitContainers, func(c corev1.Container) bool { return c.Name == api.ContainerProxy })
}

// settleWithin is how far the status may trail behind the Pods.
const settleWithin = 10 * time.Second

// settle waits until the status speaks of Services and, if they are to be, has them covered; or until it has had the time
// to.
func (s *session) settle(ctx context.Context, covered bool) error {
	_, err := until(ctx, settleWithin, func() (bool, error) {
		b, err := s.readBoard(ctx)
		return b != nil && len(b.Services) > 0 && !(covered && b.unsettled()), err
	})
	return err
}

// unsettled reports whether it speaks of Pods without a proxy, as it does for a moment after they are replaced.
func (b *board) unsettled() bool {
	return slices.ContainsFunc(b.Services, isUnsettled) ||
		slices.ContainsFunc(b.Notices.Notices, func(n api.Notice) bool { return n.Reason == noticeRestartNeeded })
}

func isUnsettled(service api.ServiceStatus) bool {
	return service.Problem != nil && (service.Problem.Reason == "NotInjected" || service.Problem.Reason == "NotSwitched")
}

// printCoverage is the answer: what is covered, what is not, and why.
func (s *session) printCoverage(ctx context.Context) error {
	b, err := s.readBoard(ctx)
	if err != nil {
		return err
	}
	if b == nil {
		return s.notTakingPart()
	}
	rows := [][]string{{"SERVICE", "COVERED", "WHY NOT"}}
	for _, service := range b.Services {
		rows = append(rows, []string{service.Name, fmt.Sprintf("%d/%d", service.Covered, service.Pods), problemText(service.Problem, "")})
	}
	if err := printTable(s.Out, rows); err != nil {
		return err
	}
	for _, notice := range b.Notices.Notices {
		fmt.Fprintf(s.Out, "%s %s: %s\n", notice.Object, notice.Reason, notice.Message)
	}
	if b.More > 0 {
		fmt.Fprintf(s.Out, "and %d more; see kubectl get events -n %s\n", b.More, s.namespace)
	}
	return nil
}
