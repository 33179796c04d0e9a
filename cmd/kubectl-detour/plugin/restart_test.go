package plugin

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/detour-dev/detour/api"
)

func TestWhoIsRestarted(t *testing.T) {
	pod := func(change func(*corev1.Pod)) *corev1.Pod {
		p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{}, Annotations: map[string]string{}}}
		change(p)
		return p
	}
	for name, c := range map[string]struct {
		pod  *corev1.Pod
		want bool
	}{
		"without a proxy":    {pod(func(*corev1.Pod) {}), true},
		"opted out":          {pod(func(p *corev1.Pod) { p.Labels[api.LabelInject] = api.InjectDisabled }), false},
		"cannot have one":    {pod(func(p *corev1.Pod) { p.Annotations[api.AnnotationNotInjected] = "host-network" }), false},
		"with a proxy":       {pod(func(p *corev1.Pod) { p.Spec.InitContainers = []corev1.Container{{Name: api.ContainerProxy}} }), false},
		"with other sidecar": {pod(func(p *corev1.Pod) { p.Spec.InitContainers = []corev1.Container{{Name: "log"}} }), true},
	} {
		if got := wantsProxy(c.pod); got != c.want {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
	s := &session{namespace: "shop"}
	onDelete := &workload{TypeMeta: metav1.TypeMeta{Kind: "StatefulSet"}}
	onDelete.Spec.UpdateStrategy.Type = "OnDelete"
	paused := &workload{TypeMeta: metav1.TypeMeta{Kind: "Deployment"}}
	paused.Spec.Paused = true
	for _, w := range []*workload{onDelete, paused, {TypeMeta: metav1.TypeMeta{Kind: "Rollout"}}} {
		if s.whyNotRestarted(w) == "" {
			t.Errorf("%s would be restarted", w.Kind)
		}
	}
}
