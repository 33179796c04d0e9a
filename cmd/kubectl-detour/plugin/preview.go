package plugin

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"

	"github.com/detour-dev/detour/api"
)

const labelManagedBy = "app.kubernetes.io/managed-by"

// change is how a preview differs from its baseline.
type change struct {
	key       string
	image     string // the whole name, or
	tag       string // another tag of the same repository; neither keeps the image
	container string // to change; "" is the one that serves the Service
	env       []corev1.EnvVar
	replicas  int32
	commit    string    // "" leaves open which one it is
	ttl       string    // how long it is routed, from now on; "" is for ever
	now       time.Time // counts with a ttl only
}

// previewOf is the Deployment that answers the requests to a Service which carry a key: a copy of the workload behind it,
// with the same configuration, Secrets, ServiceAccount and volumes. None of the namespace's Services selects its Pods. The
// notes say in what else it is not like the original.
//
// It is made anew rather than taken over: only what is wanted is copied, so nothing that a controller or a GitOps tool
// has written on the original has them take the copy for theirs.
func previewOf(w *workload, service *corev1.Service, services []corev1.Service, c change) (*appsv1.Deployment, []string, error) {
	template, notes := templateOf(w, services)
	if err := apply(c, &template.Spec, service); err != nil {
		return nil, nil, fmt.Errorf("%s: %w", w, err)
	}
	own := map[string]string{api.LabelTarget: service.Name, api.LabelKey: c.key}
	marks := map[string]string{labelManagedBy: manager}
	maps.Copy(marks, own)
	// With both labels its Pods are left without a proxy, which they have no use for.
	template.Labels = withLabels(template.Labels, marks)
	return &appsv1.Deployment{
		TypeMeta: metav1.TypeMeta{APIVersion: "apps/v1", Kind: "Deployment"},
		ObjectMeta: metav1.ObjectMeta{
			Name: previewName(w.Name, c.key), Namespace: w.Namespace,
			Labels:      withLabels(withLabels(untracked(w.Labels), marks), commitLabel(c.commit)),
			Annotations: lifetime(c.ttl, c.now),
		},
		Spec: appsv1.DeploymentSpec{
			Replicas:        &c.replicas,
			Selector:        &metav1.LabelSelector{MatchLabels: own},
			Template:        *template,
			Strategy:        *w.Spec.Strategy.DeepCopy(),
			MinReadySeconds: w.Spec.MinReadySeconds,
		},
	}, notes, nil
}

func commitLabel(commit string) map[string]string {
	if commit == "" {
		return nil
	}
	return map[string]string{api.LabelCommit: commit}
}

// lifetime begins anew with each call for the same preview.
func lifetime(ttl string, now time.Time) map[string]string {
	if ttl == "" {
		return nil
	}
	return map[string]string{api.AnnotationTTL: ttl, api.AnnotationUpdated: now.UTC().Format(time.RFC3339)}
}

// templateOf is the Pod template without what would have the copy's Pods take part in the original's life.
func templateOf(w *workload, services []corev1.Service) (*corev1.PodTemplateSpec, []string) {
	template := w.Spec.Template.DeepCopy()
	template.ObjectMeta = metav1.ObjectMeta{
		Labels:      untracked(unselected(w, services)),
		Annotations: untracked(template.Annotations),
	}
	notes := detach(&template.Spec)
	return template, append(notes, replaceClaims(w, &template.Spec)...)
}

// unselected is the labels of a workload's Pods less those by which Services select them, and by which the workload does:
// an autoscaler would count the preview's Pods as the workload's.
//
// What selects the remaining labels would also select them all, so nothing does.
func unselected(w *workload, services []corev1.Service) map[string]string {
	all := w.Spec.Template.Labels
	rest := maps.Clone(all)
	for i := range services {
		if !selects(&services[i], all) {
			continue
		}
		for label := range services[i].Spec.Selector {
			delete(rest, label)
		}
	}
	if selector := w.Spec.Selector; selector != nil {
		for label := range selector.MatchLabels {
			delete(rest, label)
		}
		for _, requirement := range selector.MatchExpressions {
			delete(rest, requirement.Key)
		}
	}
	return rest
}

// trackers are the labels and annotations by which tools know what they have deployed and would delete, change or report a
// copy; a trailing slash stands for all of a domain. Argo CD's default label is app.kubernetes.io/instance.
var trackers = []string{
	"app.kubernetes.io/instance", "app.kubernetes.io/managed-by", "helm.sh/", "meta.helm.sh/",
	"argocd.argoproj.io/", "kustomize.toolkit.fluxcd.io/", "helm.toolkit.fluxcd.io/", "fluxcd.io/",
	"kapp.k14s.io/", "objectset.rio.cattle.io/", "fleet.cattle.io/", "configsync.gke.io/", "applyset.kubernetes.io/",
	"config.k8s.io/", "config.kubernetes.io/", "internal.config.kubernetes.io/", "keel.sh/", "skaffold.dev/",
	"kubectl.kubernetes.io/restartedAt", "kubectl.kubernetes.io/last-applied-configuration", "deployment.kubernetes.io/",
	"pod-template-hash", "controller-revision-hash", rolloutHash,
	api.LabelTarget, api.LabelKey, api.LabelCommit,
}

func untracked(marks map[string]string) map[string]string {
	rest := maps.Clone(marks)
	maps.DeleteFunc(rest, func(mark, _ string) bool {
		return slices.ContainsFunc(trackers, func(tracker string) bool {
			return mark == tracker || strings.HasSuffix(tracker, "/") && strings.HasPrefix(mark, tracker)
		})
	})
	return rest
}

func withLabels(labels, more map[string]string) map[string]string {
	all := map[string]string{}
	maps.Copy(all, labels)
	maps.Copy(all, more)
	return all
}

// detach frees the Pods of what only the original can have.
func detach(spec *corev1.PodSpec) []string {
	var notes []string
	if spec.HostNetwork {
		spec.HostNetwork = false
		notes = append(notes, "its Pods do not use the node's network, where they would meet the original's ports")
	}
	for _, containers := range [][]corev1.Container{spec.InitContainers, spec.Containers} {
		for i := range containers {
			for j := range containers[i].Ports {
				containers[i].Ports[j].HostPort, containers[i].Ports[j].HostIP = 0, ""
			}
		}
	}
	if len(spec.ReadinessGates) > 0 {
		spec.ReadinessGates = nil
		notes = append(notes, "its readiness gates are left out: whoever sets them looks after Pods behind Services")
	}
	spec.NodeName = ""
	spec.DeprecatedServiceAccount = "" // the other name of serviceAccountName
	return notes
}

// replaceClaims gives a copy of a StatefulSet empty volumes in the place of those that each of its Pods has.
func replaceClaims(w *workload, spec *corev1.PodSpec) []string {
	var notes []string
	for _, claim := range w.Spec.VolumeClaimTemplates {
		spec.Volumes = slices.DeleteFunc(spec.Volumes, func(v corev1.Volume) bool { return v.Name == claim.Name })
		spec.Volumes = append(spec.Volumes, corev1.Volume{
			Name: claim.Name, VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}},
		})
		notes = append(notes, fmt.Sprintf("its volume %s is empty and goes with the Pod: %s has one for each Pod", claim.Name, w))
	}
	return notes
}

// apply makes the change in the container that it is for.
func apply(c change, spec *corev1.PodSpec, service *corev1.Service) error {
	container, err := containerOf(c.container, spec, service)
	if err != nil {
		return err
	}
	switch {
	case c.image != "":
		container.Image = c.image
	case c.tag != "":
		container.Image = withTag(container.Image, c.tag)
	}
	for _, env := range c.env {
		container.Env = withEnv(container.Env, env)
	}
	return nil
}

func withEnv(all []corev1.EnvVar, env corev1.EnvVar) []corev1.EnvVar {
	i := slices.IndexFunc(all, func(e corev1.EnvVar) bool { return e.Name == env.Name })
	if i < 0 {
		return append(all, env)
	}
	all[i] = env
	return all
}

// containerOf is the container that is named, or the one that serves the Service.
func containerOf(name string, spec *corev1.PodSpec, service *corev1.Service) (*corev1.Container, error) {
	var names []string
	var serving []*corev1.Container
	for _, c := range appContainers(spec) {
		if c.Name == name || name == "" && len(spec.Containers) == 1 {
			return c, nil
		}
		if serves(c, service) {
			serving = append(serving, c)
		}
		names = append(names, c.Name)
	}
	choice := strings.Join(names, ", ")
	switch {
	case name != "":
		return nil, usageError("it has no container %q: --container can be one of %s", name, choice)
	case len(serving) != 1:
		return nil, usageError("%d of its containers have a port of Service %s: choose the one to change with --container, of %s",
			len(serving), service.Name, choice)
	}
	return serving[0], nil
}

// appContainers are those that run for as long as the Pod does, native sidecars last.
func appContainers(spec *corev1.PodSpec) []*corev1.Container {
	var all []*corev1.Container
	for i := range spec.Containers {
		all = append(all, &spec.Containers[i])
	}
	for i := range spec.InitContainers {
		if ptr.Deref(spec.InitContainers[i].RestartPolicy, "") == corev1.ContainerRestartPolicyAlways {
			all = append(all, &spec.InitContainers[i])
		}
	}
	return all
}

// serves reports whether a container declares a port that the Service leads to.
func serves(c *corev1.Container, service *corev1.Service) bool {
	for _, target := range targetsOf(service) {
		for _, port := range c.Ports {
			if cmp.Or(port.Protocol, corev1.ProtocolTCP) != corev1.ProtocolTCP {
				continue
			}
			if target.Type == intstr.String && port.Name == target.StrVal || target.Type == intstr.Int && port.ContainerPort == target.IntVal {
				return true
			}
		}
	}
	return false
}

// targetsOf is where a Service's TCP ports lead, as its user wrote it.
func targetsOf(service *corev1.Service) []intstr.IntOrString {
	var targets []intstr.IntOrString
	for _, port := range tcpPorts(service) {
		target := port.TargetPort
		if target == (intstr.IntOrString{}) {
			target = intstr.FromInt32(port.Port)
		}
		if number, ours := api.OriginalPort(target.StrVal); ours {
			target = intstr.FromInt32(int32(number))
		}
		targets = append(targets, target)
	}
	return targets
}

func tcpPorts(service *corev1.Service) []corev1.ServicePort {
	return slices.DeleteFunc(slices.Clone(service.Spec.Ports), func(port corev1.ServicePort) bool {
		return cmp.Or(port.Protocol, corev1.ProtocolTCP) != corev1.ProtocolTCP
	})
}
