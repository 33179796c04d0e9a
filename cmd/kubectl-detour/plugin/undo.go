package plugin

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/detour-dev/detour/api"
)

// leftToWebhook is how long the webhook has to put Services back, before that is done without it.
const leftToWebhook = time.Minute

// putServicesBack leaves it to the webhook where there is one.
func (u *uninstallation) putServicesBack(ctx context.Context, s *session) error {
	working, err := s.works(ctx, "detour-webhook")
	if err != nil {
		return err
	}
	if working {
		_, err := until(ctx, min(u.timeout, leftToWebhook), func() (bool, error) {
			left, err := s.switched(ctx)
			return len(left) == 0, err
		})
		if err != nil {
			return err
		}
	}
	left, err := s.switched(ctx)
	if err != nil {
		return err
	}
	for i := range left {
		if err := s.putBack(ctx, &left[i]); err != nil {
			s.note("%v", err) // somebody else may have been faster
			continue
		}
		fmt.Fprintf(s.Out, "service/%s in namespace %s put back without the webhook\n", left[i].Name, left[i].Namespace)
	}
	if left, err = s.switched(ctx); err != nil || len(left) == 0 {
		return err
	}
	return fail(exitError, "these Services lead to proxies again, so Detour was not removed: %s: see who changes them (kubectl get service -o yaml --show-managed-fields) and run this again",
		strings.Join(changed(left), ", "))
}

// works reports whether a Deployment of ours has a Pod that works.
func (s *session) works(ctx context.Context, name string) (bool, error) {
	deployment, err := there(s.kube.AppsV1().Deployments(system).Get(ctx, name, metav1.GetOptions{}))
	if err != nil {
		return false, fmt.Errorf("looking for Deployment %s: %w", name, err)
	}
	return deployment != nil && deployment.Status.ReadyReplicas > 0, nil
}

// switched lists the Services of all namespaces that are not as their users have them.
func (s *session) switched(ctx context.Context) ([]corev1.Service, error) {
	list, err := s.kube.CoreV1().Services("").List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, fmt.Errorf("listing the Services: %w", err)
	}
	return slices.DeleteFunc(list.Items, func(service corev1.Service) bool { return len(changed([]corev1.Service{service})) == 0 }), nil
}

// undoer is the field manager of what is put back. Who writes a field comes to own it, and the Service's user would meet a
// conflict the next time; so the ownership is given up again, as the webhook does.
const undoer = manager + "-uninstall"

// operation is one of a JSON patch.
type operation struct {
	Op    string `json:"op"`
	Path  string `json:"path"`
	Value any    `json:"value,omitempty"`
}

// putBack writes the numbers that are in the names, and removes the annotation.
func (s *session) putBack(ctx context.Context, service *corev1.Service) error {
	written, err := s.patchService(ctx, service, undoOf(service))
	if err != nil {
		return err
	}
	i := slices.IndexFunc(written.ManagedFields, func(entry metav1.ManagedFieldsEntry) bool { return entry.Manager == undoer })
	if i < 0 {
		return nil
	}
	path := fmt.Sprintf("/metadata/managedFields/%d", i)
	_, err = s.patchService(ctx, written, []operation{{"test", path + "/manager", undoer}, {"remove", path, nil}})
	return err
}

// undoOf changes nothing that has been changed since.
func undoOf(service *corev1.Service) []operation {
	var undo []operation
	for i, port := range service.Spec.Ports {
		number, ours := api.OriginalPort(port.TargetPort.StrVal)
		if !ours || port.Protocol != corev1.ProtocolTCP {
			continue
		}
		path := fmt.Sprintf("/spec/ports/%d/targetPort", i)
		undo = append(undo, operation{"test", path, port.TargetPort.StrVal}, operation{"replace", path, number})
	}
	if _, annotated := service.Annotations[api.AnnotationTargetPorts]; annotated {
		undo = append(undo, operation{"remove", "/metadata/annotations/" + strings.ReplaceAll(api.AnnotationTargetPorts, "/", "~1"), nil})
	}
	return undo
}

func (s *session) patchService(ctx context.Context, service *corev1.Service, patch []operation) (*corev1.Service, error) {
	content, err := json.Marshal(patch)
	if err != nil {
		return nil, fmt.Errorf("writing a patch: %w", err)
	}
	written, err := s.kube.CoreV1().Services(service.Namespace).Patch(ctx, service.Name, types.JSONPatchType, content, metav1.PatchOptions{FieldManager: undoer})
	if err != nil {
		return nil, fmt.Errorf("putting Service %s/%s back: %w", service.Namespace, service.Name, err)
	}
	return written, nil
}

// emptyTables waits until each proxy has told a router that it has the empty table in force. The replicas learn from each
// other every 15 seconds what proxies have told them.
func (u *uninstallation) emptyTables(ctx context.Context, s *session) error {
	working, err := s.works(ctx, "detour-router")
	if err != nil {
		return err
	}
	if !working {
		return s.noteRoutes(ctx)
	}
	var left []string
	over, err := until(ctx, min(u.timeout, time.Minute), func() (bool, error) {
		left, err = s.routing(ctx)
		return len(left) == 0, err
	})
	if over {
		return fail(exitTimeout, "not every proxy has told a router that it has let go of its routes, so Detour was not removed (%s): replace the Pods of these namespaces (kubectl rollout restart deployment -n NAMESPACE), or leave them their routes (kubectl delete deployment -n %s detour-router), and run this again; the routers' port 8080 is asked through the API server",
			strings.Join(left, ", "), system)
	}
	return err
}

func (s *session) noteRoutes(ctx context.Context) error {
	proxies, err := s.proxies(ctx)
	if len(proxies) > 0 {
		s.note("no router is there to tell the proxies of namespaces %s, which keep their routes until their Pods are replaced",
			strings.Join(slices.Sorted(maps.Keys(proxies)), ", "))
	}
	return err
}

// routing names the namespaces where proxies may have routes.
func (s *session) routing(ctx context.Context) ([]string, error) {
	proxies, err := s.proxies(ctx)
	if err != nil || len(proxies) == 0 {
		return nil, err
	}
	routers, err := s.kube.CoreV1().Pods(system).List(ctx, metav1.ListOptions{LabelSelector: "app.kubernetes.io/name=detour-router", FieldSelector: "status.phase=Running"})
	if err != nil {
		return nil, fmt.Errorf("listing the routers: %w", err)
	}
	cleared := map[string]int{}
	for _, router := range routers.Items {
		metrics, err := s.kube.CoreV1().Pods(system).ProxyGet("http", router.Name, "8080", "metrics", nil).DoRaw(ctx)
		if err != nil {
			continue // another may know
		}
		for namespace, n := range clearedIn(string(metrics)) {
			cleared[namespace] = max(cleared[namespace], n)
		}
	}
	var left []string
	for _, namespace := range slices.Sorted(maps.Keys(proxies)) {
		if cleared[namespace] < proxies[namespace] {
			left = append(left, fmt.Sprintf("%s: %d of %d proxies have", namespace, cleared[namespace], proxies[namespace]))
		}
	}
	return left, nil
}

// clearedLine is the metric by which a router says how many proxies have an empty table.
var clearedLine = regexp.MustCompile(`(?m)^detour_router_proxies_cleared\{namespace="([^"]+)"\} (\d+)$`)

func clearedIn(metrics string) map[string]int {
	found := map[string]int{}
	for _, m := range clearedLine.FindAllStringSubmatch(metrics, -1) {
		if n, err := strconv.Atoi(m[2]); err == nil {
			found[m[1]] = n
		}
	}
	return found
}

// proxies counts the Pods that run one and go on doing so, by namespace.
func (s *session) proxies(ctx context.Context) (map[string]int, error) {
	list, err := s.kube.CoreV1().Pods("").List(ctx, metav1.ListOptions{FieldSelector: "status.phase=Running"})
	if err != nil {
		return nil, fmt.Errorf("listing the Pods: %w", err)
	}
	found := map[string]int{}
	for i := range list.Items {
		if pod := &list.Items[i]; pod.DeletionTimestamp == nil && hasProxy(pod) {
			found[pod.Namespace]++
		}
	}
	return found, nil
}
