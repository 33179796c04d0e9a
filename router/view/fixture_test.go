package view_test

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/detour-dev/detour/api"
	"github.com/detour-dev/detour/router/view"
	"github.com/detour-dev/detour/router/view/viewtest"
)

func service(o *viewtest.Namespace, name string) *corev1.Service {
	i := slices.IndexFunc(o.Services, func(s corev1.Service) bool { return s.Name == name })
	return &o.Services[i]
}

func deployment(o *viewtest.Namespace, name string) *appsv1.Deployment {
	i := slices.IndexFunc(o.Deployments, func(d appsv1.Deployment) bool { return d.Name == name })
	return &o.Deployments[i]
}

func replicaSet(o *viewtest.Namespace, name string) *appsv1.ReplicaSet {
	i := slices.IndexFunc(o.ReplicaSets, func(r appsv1.ReplicaSet) bool { return r.Name == name })
	return &o.ReplicaSets[i]
}

func previewLabels(target, key string) map[string]string {
	return map[string]string{api.LabelTarget: target, api.LabelKey: key}
}

// labelTemplate labels a Deployment's Pod template, and with it the ReplicaSet and the Pod below.
func labelTemplate(o *viewtest.Namespace, name, target, key string) {
	for _, labels := range []map[string]string{
		deployment(o, name).Spec.Template.Labels, replicaSet(o, name+"-1").Labels, o.Pod(name + "-x").Labels,
	} {
		labels[api.LabelTarget], labels[api.LabelKey] = target, key
	}
}

const matchAlice = "header x-user exact alice"

// match annotates a preview to have other requests, and the Service api to consent to that in these words.
func match(o *viewtest.Namespace, name, conditions, consent string) {
	metav1.SetMetaDataAnnotation(&deployment(o, name).ObjectMeta, api.AnnotationMatch, conditions)
	metav1.SetMetaDataAnnotation(&service(o, "api").ObjectMeta, api.AnnotationAllow, consent)
}

// percent does the same for a share of the requests.
func percent(o *viewtest.Namespace, name, share, consent string) {
	metav1.SetMetaDataAnnotation(&deployment(o, name).ObjectMeta, api.AnnotationPercent, share)
	metav1.SetMetaDataAnnotation(&service(o, "api").ObjectMeta, api.AnnotationAllow, consent)
}

// mirror does it for copies of requests.
func mirror(o *viewtest.Namespace, name, mode, consent string) {
	metav1.SetMetaDataAnnotation(&deployment(o, name).ObjectMeta, api.AnnotationMode, mode)
	metav1.SetMetaDataAnnotation(&service(o, "api").ObjectMeta, api.AnnotationAllow, consent)
}

func labelled(labels map[string]string) func(*corev1.Pod) {
	return func(p *corev1.Pod) { p.Labels = labels }
}

// routesOf shows the routes of one Pod: "8080 pr-42 deployment/api-pr-42 10.0.0.5:8080".
func routesOf(v *view.View, pod string) []string {
	var lines []string
	table := v.Tables[types.UID("pod-"+pod)]
	if table == nil {
		return []string{"no table"}
	}
	for _, port := range table.Ports {
		if len(port.Routes) == 0 {
			lines = append(lines, fmt.Sprintf("%d %s", port.Port, port.Protocol))
		}
		for _, r := range port.Routes {
			fields := []string{fmt.Sprint(port.Port), r.Key, r.Preview}
			if port.Protocol != "" {
				fields[0] += "/" + string(port.Protocol)
			}
			if r.Fallback {
				fields = append(fields, "fallback")
			}
			for _, e := range r.Endpoints {
				fields = append(fields, e.Address.String())
			}
			lines = append(lines, strings.Join(fields, " "))
		}
		for _, m := range port.Matches {
			lines = append(lines, fmt.Sprintf("%d match %s %s", port.Port, m.Key, m.Conditions))
		}
		for _, m := range port.Mirrors {
			lines = append(lines, fmt.Sprintf("%d mirror %s %s", port.Port, m.Key, m.Conditions))
		}
	}
	return lines
}

func sameAddress(a, b netip.AddrPort) bool { return a == b }
