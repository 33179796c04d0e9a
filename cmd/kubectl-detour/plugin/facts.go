package plugin

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/detour-dev/detour/api"
)

// facts are what [diagnose] goes by: a namespace and the installation at one moment, as far as the user may read them.
type facts struct {
	self      string // how the plugin was called
	client    string // its version
	namespace string
	now       time.Time

	own       *corev1.Namespace
	board     *board
	bundle    *corev1.ConfigMap // [api.ConfigMapCA]
	services  []corev1.Service
	pods      []corev1.Pod
	workloads []*workload // Deployments and StatefulSets
	policies  []networkingv1.NetworkPolicy
	quotas    []corev1.ResourceQuota
	ranges    []corev1.LimitRange
	events    map[string]corev1.Event // the last of each Pod that is not ready
	homes     map[string]*facts       // of other namespaces that previews are from: their labels, Pods, workloads and policies

	webhook, router *appsv1.Deployment
	mutating        *admissionregistrationv1.MutatingWebhookConfiguration
	validating      *admissionregistrationv1.ValidatingWebhookConfiguration
	certificate     []byte // what the webhook shows, PEM

	unread []unread // everything else that is nil or empty is not there
}

// unread is something that the user may not read.
type unread struct {
	What subject `json:"what"`
	Ask  string  `json:"ask"`
}

// subject is what a right is for.
type subject string

const (
	subjectNamespace  subject = "the namespace's labels"
	subjectStatus     subject = "ConfigMap " + api.ConfigMapStatus
	subjectCA         subject = "ConfigMap " + api.ConfigMapCA
	subjectServices   subject = "Services"
	subjectPods       subject = "Pods"
	subjectWorkloads  subject = "Deployments and StatefulSets"
	subjectPolicies   subject = "NetworkPolicies"
	subjectQuotas     subject = "ResourceQuotas"
	subjectRanges     subject = "LimitRanges"
	subjectEvents     subject = "Events"
	subjectWebhook    subject = "Deployment detour-webhook in namespace " + system
	subjectRouter     subject = "Deployment detour-router in namespace " + system
	subjectMutating   subject = "MutatingWebhookConfiguration detour"
	subjectValidating subject = "ValidatingWebhookConfiguration detour"
	subjectSecret     subject = "Secret detour-webhook-tls in namespace " + system
)

// Who to ask, and for what.
const (
	askForRole = "for the role detour-previews of manifests/roles"
	askAdmin   = "an administrator to run this"
)

// knows reports whether the user was allowed to read it.
func (f *facts) knows(what subject) bool {
	return !slices.ContainsFunc(f.unread, func(u unread) bool { return u.What == what })
}

// reading is one request.
type reading struct {
	what subject
	ask  string
	read func() error
}

// gather reads what there is. What the user may not read is noted, and is no error.
func (s *session) gather(ctx context.Context) (*facts, error) {
	f := &facts{self: s.self, client: clientVersion(), namespace: s.namespace, now: time.Now()}
	if err := f.read(slices.Concat(s.readNamespace(ctx, f), s.readLimits(ctx, f), s.readInstallation(ctx, f))); err != nil {
		return nil, err
	}
	// Of these it is known by now which are of interest.
	if err := f.read(slices.Concat(s.readEvents(ctx, f), s.readHomes(ctx, f))); err != nil {
		return nil, err
	}
	return f, nil
}

func (f *facts) read(readings []reading) error {
	for _, r := range readings {
		err := r.read()
		switch {
		case apierrors.IsForbidden(err):
			f.unread = append(f.unread, unread{r.what, r.ask})
		case err != nil:
			return fmt.Errorf("reading %s for namespace %s: %w", r.what, f.namespace, err)
		}
	}
	return nil
}

func (s *session) readNamespace(ctx context.Context, f *facts) []reading {
	core := s.kube.CoreV1()
	return []reading{
		{subjectNamespace, askForRole, func() (err error) {
			f.own, err = there(core.Namespaces().Get(ctx, s.namespace, metav1.GetOptions{}))
			return err
		}},
		{subjectStatus, askForRole, func() (err error) {
			f.board, err = s.readBoard(ctx)
			return err
		}},
		{subjectCA, askForRole, func() (err error) {
			f.bundle, err = there(core.ConfigMaps(s.namespace).Get(ctx, api.ConfigMapCA, metav1.GetOptions{}))
			return err
		}},
		{subjectServices, askForRole, func() error {
			list, err := core.Services(s.namespace).List(ctx, metav1.ListOptions{})
			f.services = itemsOf(list, err).Items
			return err
		}},
		{subjectPods, askForRole, func() error {
			list, err := core.Pods(s.namespace).List(ctx, metav1.ListOptions{})
			f.pods = itemsOf(list, err).Items
			return err
		}},
		{subjectWorkloads, askForRole, func() error {
			for _, kind := range []string{"deployment", "statefulset"} {
				more, err := s.workloads(ctx, previewKinds[kind])
				if err != nil {
					return err
				}
				f.workloads = append(f.workloads, more...)
			}
			return nil
		}},
	}
}

func (s *session) readLimits(ctx context.Context, f *facts) []reading {
	return []reading{
		{subjectPolicies, askForRole, func() error {
			list, err := s.kube.NetworkingV1().NetworkPolicies(s.namespace).List(ctx, metav1.ListOptions{})
			f.policies = itemsOf(list, err).Items
			return err
		}},
		{subjectQuotas, askForRole, func() error {
			list, err := s.kube.CoreV1().ResourceQuotas(s.namespace).List(ctx, metav1.ListOptions{})
			f.quotas = itemsOf(list, err).Items
			return err
		}},
		{subjectRanges, askForRole, func() error {
			list, err := s.kube.CoreV1().LimitRanges(s.namespace).List(ctx, metav1.ListOptions{})
			f.ranges = itemsOf(list, err).Items
			return err
		}},
	}
}

func (s *session) readInstallation(ctx context.Context, f *facts) []reading {
	deployments, admission := s.kube.AppsV1().Deployments(system), s.kube.AdmissionregistrationV1()
	return []reading{
		{subjectWebhook, askAdmin, func() (err error) {
			f.webhook, err = there(deployments.Get(ctx, "detour-webhook", metav1.GetOptions{}))
			return err
		}},
		{subjectRouter, askAdmin, func() (err error) {
			f.router, err = there(deployments.Get(ctx, "detour-router", metav1.GetOptions{}))
			return err
		}},
		{subjectMutating, askAdmin, func() (err error) {
			f.mutating, err = there(admission.MutatingWebhookConfigurations().Get(ctx, configuration, metav1.GetOptions{}))
			return err
		}},
		{subjectValidating, askAdmin, func() (err error) {
			f.validating, err = there(admission.ValidatingWebhookConfigurations().Get(ctx, configuration, metav1.GetOptions{}))
			return err
		}},
		{subjectSecret, askAdmin, func() error {
			secret, err := there(s.kube.CoreV1().Secrets(system).Get(ctx, "detour-webhook-tls", metav1.GetOptions{}))
			if secret != nil {
				f.certificate = secret.Data[corev1.TLSCertKey]
			}
			return err
		}},
	}
}

// maxEvents is of how many Pods the Events are read: more of the same do not help.
const maxEvents = 10

// readEvents is about the Pods of previews that are not ready.
func (s *session) readEvents(ctx context.Context, f *facts) []reading {
	return []reading{{subjectEvents, askForRole, func() error {
		f.events = map[string]corev1.Event{}
		for _, pod := range f.unreadyPods() {
			list, err := s.kube.CoreV1().Events(s.namespace).List(ctx, metav1.ListOptions{FieldSelector: "involvedObject.kind=Pod,involvedObject.name=" + pod.Name})
			if err != nil {
				return err
			}
			if len(list.Items) > 0 {
				f.events[pod.Name] = slices.MaxFunc(list.Items, func(a, b corev1.Event) int { return timeOf(&a).Compare(timeOf(&b)) })
			}
		}
		return nil
	}}}
}

// readHomes is about the namespaces of previews from elsewhere that get requests. Of each all is read, or nothing.
func (s *session) readHomes(ctx context.Context, f *facts) []reading {
	f.homes = map[string]*facts{}
	var readings []reading
	for _, preview := range f.previews() {
		name, _ := preview.Home()
		if name == "" || f.homes[name] != nil || !preview.State.GetsRequests() {
			continue
		}
		in, home := s.in(name), &facts{namespace: name}
		f.homes[name] = home
		of := []subject{subjectNamespace, subjectPods, subjectWorkloads, subjectPolicies}
		what := subject(fmt.Sprintf("namespace %s, where a preview is from", name))
		readings = append(readings, reading{what, askForRole, func() error {
			for _, r := range slices.Concat(in.readNamespace(ctx, home), in.readLimits(ctx, home)) {
				if !slices.Contains(of, r.what) {
					continue
				}
				if err := r.read(); err != nil {
					*home = facts{namespace: name}
					return err
				}
			}
			return nil
		}})
	}
	return readings
}

// at is where a preview is, and the preview by its name there.
func (f *facts) at(preview *api.PreviewStatus) (*facts, *api.PreviewStatus) {
	home, object := preview.Home()
	if home == "" {
		return f, preview
	}
	there := *preview
	there.Preview = object
	if f.homes[home] == nil {
		return &facts{namespace: home}, &there
	}
	return f.homes[home], &there
}

func (f *facts) unreadyPods() []*corev1.Pod {
	var all []*corev1.Pod
	for i := range f.previews() {
		for _, pod := range f.podsOf(&f.board.Previews[i]) {
			if !isReady(pod) && len(all) < maxEvents {
				all = append(all, pod)
			}
		}
	}
	return all
}

// timeOf is when an Event was seen last: what writes events.k8s.io leaves the older field empty.
func timeOf(e *corev1.Event) time.Time {
	if e.LastTimestamp.IsZero() {
		return e.EventTime.Time
	}
	return e.LastTimestamp.Time
}

// there is nil for an object that is not.
func there[T any](object *T, err error) (*T, error) {
	if err == nil {
		return object, nil
	}
	if apierrors.IsNotFound(err) {
		err = nil
	}
	return nil, err
}

// itemsOf is the list, or an empty one.
func itemsOf[T any](list *T, err error) *T {
	if err != nil {
		return new(T)
	}
	return list
}

func (f *facts) previews() []api.PreviewStatus {
	if f.board == nil {
		return nil
	}
	return f.board.Previews
}

// podsOf are the Pods of a preview, as far as they can be told.
func (f *facts) podsOf(preview *api.PreviewStatus) []*corev1.Pod {
	if isGuest(preview.Preview) {
		return nil
	}
	w := f.workload(preview.Preview)
	var all []*corev1.Pod
	for i := range f.pods {
		pod := &f.pods[i]
		if isRunning(pod) && (w != nil && w.owns(pod) || preview.Preview == "pod/"+pod.Name || slices.Contains(preview.Endpoints, pod.Name)) {
			all = append(all, pod)
		}
	}
	return all
}

// isRunning reports whether a Pod is there to stay.
func isRunning(pod *corev1.Pod) bool {
	return pod.DeletionTimestamp == nil && pod.Status.Phase != corev1.PodSucceeded && pod.Status.Phase != corev1.PodFailed
}

func (f *facts) workload(name string) *workload {
	i := slices.IndexFunc(f.workloads, func(w *workload) bool { return w.String() == name })
	if i < 0 {
		return nil
	}
	return f.workloads[i]
}

func (f *facts) service(name string) *corev1.Service {
	i := slices.IndexFunc(f.services, func(s corev1.Service) bool { return s.Name == name })
	if i < 0 {
		return nil
	}
	return &f.services[i]
}

// baseline is the Pods behind a Service that are no preview's.
func (f *facts) baseline(service *corev1.Service) []*corev1.Pod {
	var all []*corev1.Pod
	for i := range f.pods {
		if pod := &f.pods[i]; isRunning(pod) && selects(service, pod.Labels) && !f.isPreviewPod(pod) {
			all = append(all, pod)
		}
	}
	return all
}

func (f *facts) isPreviewPod(pod *corev1.Pod) bool {
	if pod.Labels[api.LabelTarget] != "" && pod.Labels[api.LabelKey] != "" {
		return true
	}
	return slices.ContainsFunc(f.workloads, func(w *workload) bool { return w.isPreview() && w.owns(pod) })
}

// command fills in what commands are about: %[1]s is the plugin, %[2]s the namespace.
func (f *facts) command(format string, args ...any) string {
	return fmt.Sprintf(format, append([]any{f.self, f.namespace}, args...)...)
}

// editing is the command that opens an object.
func (f *facts) editing(object string) string {
	home, object := api.PreviewStatus{Preview: object}.Home()
	kind, name, _ := strings.Cut(object, "/")
	if kind == "namespace" {
		return "kubectl edit namespace " + name
	}
	return fmt.Sprintf("kubectl edit %s %s -n %s", kind, name, cmp.Or(home, f.namespace))
}
