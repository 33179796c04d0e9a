package plugin

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/detour-dev/detour/api"
)

// uninstallation takes Detour out of a cluster.
type uninstallation struct {
	restart bool
	dryRun  bool
	timeout time.Duration
}

func (p *plugin) uninstallCommand() *cobra.Command {
	u := &uninstallation{}
	cmd := &cobra.Command{
		Use:   "uninstall",
		Short: "Take every namespace out, and remove Detour from the cluster",
		Long: `Take every namespace out, wait until all Services lead to their apps again and every proxy has an empty table, replace the
Pods that have a proxy, and only then remove the programs. At the end everything is looked for once more.

Each step names what is left and what to do about it. Run it again then: it goes on where it was. It does without the
webhook, too, and then puts the Services back itself. Previews stay, as ordinary workloads, and so do the roles of
manifests/roles. An administrator's rights are needed; where one is missing, nothing is done at all.`,
		Args: cobra.NoArgs,
		RunE: p.verb(func(ctx context.Context, s *session, _ []string) error {
			return u.run(ctx, s)
		}),
	}
	cmd.Flags().BoolVar(&u.restart, "restart", true, "replace the Pods that have a proxy; without, they keep it until they are replaced")
	cmd.Flags().BoolVar(&u.dryRun, "dry-run", false, "say what is there to be undone, and change nothing")
	cmd.Flags().DurationVar(&u.timeout, "timeout", 10*time.Minute, "how long to wait for each step")
	return cmd
}

// run does what hack/undeploy does, in the same order, and replaces Pods before the programs go.
func (u *uninstallation) run(ctx context.Context, s *session) error {
	if err := u.check(ctx, s); err != nil {
		return err
	}
	if u.dryRun {
		return s.printLeftovers(ctx)
	}
	for _, step := range []func(context.Context, *session) error{
		u.takeNamespacesOut, u.putServicesBack, u.emptyTables, u.replacePods, u.removePrograms, u.removeConfigMaps, u.checkAll,
	} {
		if err := step(ctx, s); err != nil {
			return err
		}
	}
	return nil
}

// check refuses before anything is done.
func (u *uninstallation) check(ctx context.Context, s *session) error {
	missing, err := s.missing(ctx, uninstallRights(u.restart))
	if err != nil {
		return err
	}
	if len(missing) > 0 {
		return fail(exitError, "nothing was done, for you may not %s: ask an administrator of the cluster", strings.Join(missing, "; "))
	}
	own, err := there(s.kube.CoreV1().Namespaces().Get(ctx, system, metav1.GetOptions{}))
	if err != nil {
		return fmt.Errorf("reading namespace %s: %w", system, err)
	}
	if own != nil && own.Labels[labelPartOf] != partOf {
		return fail(exitError, "nothing was done, for namespace %s is not one that the manifests made (it has no label %s=%s): label it so if it may be deleted", system, labelPartOf, partOf)
	}
	return nil
}

// How the manifests mark our namespace.
const (
	labelPartOf = "app.kubernetes.io/part-of"
	partOf      = "detour"
)

func (u *uninstallation) takeNamespacesOut(ctx context.Context, s *session) error {
	all, err := s.marked(ctx)
	if err != nil {
		return err
	}
	for _, name := range all {
		if err := s.unmark(ctx, name); err != nil {
			return err
		}
		fmt.Fprintf(s.Out, "namespace/%s taken out\n", name)
	}
	if all, err = s.marked(ctx); err != nil {
		return err
	}
	if len(all) > 0 {
		return fail(exitError, "these namespaces have a label or annotation detour.dev/ again: %s: something puts it back, such as GitOps; remove it there and run this again", strings.Join(all, ", "))
	}
	return nil
}

// marked lists the namespaces that take part, or are annotated about it.
func (s *session) marked(ctx context.Context) ([]string, error) {
	list, err := s.kube.CoreV1().Namespaces().List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, fmt.Errorf("listing the namespaces: %w", err)
	}
	var names []string
	for _, namespace := range list.Items {
		_, labelled := namespace.Labels[api.LabelInject]
		_, annotated := namespace.Annotations[api.AnnotationRetry]
		if labelled || annotated {
			names = append(names, namespace.Name)
		}
	}
	return names, nil
}

func (s *session) unmark(ctx context.Context, namespace string) error {
	if err := s.in(namespace).setInjection(ctx, false); err != nil {
		return err
	}
	patch := fmt.Sprintf(`{"metadata":{"annotations":{%q:null}}}`, api.AnnotationRetry)
	_, err := s.kube.CoreV1().Namespaces().Patch(ctx, namespace, types.MergePatchType, []byte(patch), metav1.PatchOptions{FieldManager: manager})
	if err != nil {
		return fmt.Errorf("removing annotation %s of namespace %s: %w", api.AnnotationRetry, namespace, err)
	}
	return nil
}

// replacePods goes through the namespaces where a Pod has a proxy.
func (u *uninstallation) replacePods(ctx context.Context, s *session) error {
	if !u.restart {
		return nil
	}
	proxies, err := s.proxies(ctx)
	if err != nil {
		return err
	}
	for _, namespace := range slices.Sorted(maps.Keys(proxies)) {
		in := s.in(namespace)
		all, err := in.workloadsWith(ctx, func(_ *workload, pod *corev1.Pod) bool { return hasProxy(pod) })
		if err != nil {
			return err
		}
		if err := in.restart(ctx, all, u.timeout); err != nil {
			return fmt.Errorf("%w; with --restart=false, Pods keep their proxies", err)
		}
	}
	return nil
}

// object is one of ours that is in no namespace.
type object struct {
	kind schema.GroupVersionResource
	name string
}

func (o object) String() string { return strings.TrimSuffix(o.kind.Resource, "s") + "/" + o.name }

// programs are what the manifests install. The configurations go first, so that the API server asks nobody who is gone; our
// namespace takes along everything in it, and ends while what is in it has its rights.
func programs() []object {
	const admission, rbac = "admissionregistration.k8s.io", "rbac.authorization.k8s.io"
	all := []object{
		{schema.GroupVersionResource{Group: admission, Version: "v1", Resource: "mutatingwebhookconfigurations"}, configuration},
		{schema.GroupVersionResource{Group: admission, Version: "v1", Resource: "validatingwebhookconfigurations"}, configuration},
		{schema.GroupVersionResource{Version: "v1", Resource: "namespaces"}, system},
	}
	for _, name := range []string{"detour-webhook", "detour-router", "detour-gc", "detour-webhook-certificates"} {
		all = append(all,
			object{schema.GroupVersionResource{Group: rbac, Version: "v1", Resource: "clusterrolebindings"}, name},
			object{schema.GroupVersionResource{Group: rbac, Version: "v1", Resource: "clusterroles"}, name})
	}
	return all
}

func (u *uninstallation) removePrograms(ctx context.Context, s *session) error {
	for _, o := range programs() {
		err := s.dynamic.Resource(o.kind).Delete(ctx, o.name, metav1.DeleteOptions{})
		if apierrors.IsNotFound(err) {
			continue
		}
		if err != nil && !apierrors.IsConflict(err) { // a namespace that is being deleted already
			return fmt.Errorf("deleting %s: %w", o, err)
		}
		fmt.Fprintf(s.Out, "%s deleted\n", o)
		if err := u.awaitGone(ctx, s, o); err != nil {
			return err
		}
	}
	return nil
}

func (u *uninstallation) awaitGone(ctx context.Context, s *session, o object) error {
	over, err := until(ctx, u.timeout, func() (bool, error) {
		is, err := s.exists(ctx, o)
		return !is, err
	})
	if over {
		return fail(exitTimeout, "%s is deleted, and after %s still there: kubectl get -o yaml %s says what holds it up; run this again then", o, u.timeout, o)
	}
	return err
}

func (s *session) exists(ctx context.Context, o object) (bool, error) {
	found, err := there(s.dynamic.Resource(o.kind).Get(ctx, o.name, metav1.GetOptions{}))
	if err != nil {
		return false, fmt.Errorf("looking for %s: %w", o, err)
	}
	return found != nil, nil
}

// removeConfigMaps removes those of ours: to a proxy a CA that is missing is like a router that is away.
func (u *uninstallation) removeConfigMaps(ctx context.Context, s *session) error {
	all, err := s.ourConfigMaps(ctx)
	if err != nil {
		return err
	}
	for _, c := range all {
		err := s.kube.CoreV1().ConfigMaps(c.Namespace).Delete(ctx, c.Name, metav1.DeleteOptions{})
		if err != nil && !apierrors.IsNotFound(err) {
			return fmt.Errorf("deleting ConfigMap %s/%s: %w", c.Namespace, c.Name, err)
		}
		fmt.Fprintf(s.Out, "configmap/%s deleted from namespace %s\n", c.Name, c.Namespace)
	}
	return nil
}

func (s *session) ourConfigMaps(ctx context.Context) ([]corev1.ConfigMap, error) {
	var all []corev1.ConfigMap
	for _, name := range []string{api.ConfigMapCA, api.ConfigMapStatus} {
		list, err := s.kube.CoreV1().ConfigMaps("").List(ctx, metav1.ListOptions{
			LabelSelector: labelManagedBy + "=" + partOf, FieldSelector: "metadata.name=" + name,
		})
		if err != nil {
			return nil, fmt.Errorf("listing the ConfigMaps %s: %w", name, err)
		}
		all = append(all, list.Items...)
	}
	return all, nil
}

// leftovers names everything that is to be undone.
func (s *session) leftovers(ctx context.Context) ([]string, error) {
	var all []string
	namespaces, err := s.marked(ctx)
	if err != nil {
		return nil, err
	}
	for _, name := range namespaces {
		all = append(all, "label of namespace/"+name)
	}
	services, err := s.switched(ctx)
	if err != nil {
		return nil, err
	}
	for _, service := range services {
		all = append(all, fmt.Sprintf("ports of service/%s in namespace %s", service.Name, service.Namespace))
	}
	configMaps, err := s.ourConfigMaps(ctx)
	if err != nil {
		return nil, err
	}
	for _, c := range configMaps {
		all = append(all, fmt.Sprintf("configmap/%s in namespace %s", c.Name, c.Namespace))
	}
	for _, o := range programs() {
		is, err := s.exists(ctx, o)
		if err != nil {
			return nil, err
		}
		if is {
			all = append(all, o.String())
		}
	}
	return all, nil
}

func (s *session) printLeftovers(ctx context.Context) error {
	all, err := s.leftovers(ctx)
	if err != nil {
		return err
	}
	for _, left := range all {
		fmt.Fprintf(s.Out, "%s (dry run)\n", left)
	}
	proxies, err := s.proxies(ctx)
	if err != nil {
		return err
	}
	for _, namespace := range slices.Sorted(maps.Keys(proxies)) {
		fmt.Fprintf(s.Out, "proxies of %d Pods in namespace %s (dry run)\n", proxies[namespace], namespace)
	}
	return nil
}

// checkAll looks for everything once more: somebody may have applied it again in the meantime.
func (u *uninstallation) checkAll(ctx context.Context, s *session) error {
	all, err := s.leftovers(ctx)
	if err != nil {
		return err
	}
	if len(all) > 0 {
		return fail(exitError, "this is here again: %s: something applies it, such as GitOps; remove it there and run this again", strings.Join(all, ", "))
	}
	proxies, err := s.proxies(ctx)
	if err != nil {
		return err
	}
	fmt.Fprintln(s.Out, "Detour is removed")
	for _, namespace := range slices.Sorted(maps.Keys(proxies)) {
		s.note("%d Pods in namespace %s keep their proxy, which sends everything to the app, until they are replaced", proxies[namespace], namespace)
	}
	return nil
}
