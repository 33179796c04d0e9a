package webhook

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/detour-dev/detour/api"
)

func parse[T any](t *testing.T, text string) T {
	t.Helper()
	var object T
	if err := yaml.UnmarshalStrict([]byte(text), &object); err != nil {
		t.Fatal(err)
	}
	return object
}

func TestLimitNotices(t *testing.T) {
	preview, left := testPod("preview"), annotated(testPod("left"), api.AnnotationNotInjected, "quota")
	preview.Labels[api.LabelTarget] = "api"
	some := []corev1.Pod{testPod("a"), testPod("b"), testPod("c", "http"), left, preview}
	for _, c := range []struct {
		name   string
		limits string // of a LimitRange
		quota  string // a ResourceQuota
		pods   []corev1.Pod
		want   string
	}{
		{"a minimum", "{type: Container, min: {cpu: 50m}}", "", some, "LimitRangeRejectsProxy LimitRange/l: cpu of a Container must be 50m at least"},
		{"a maximum", "{type: Container, max: {memory: 64Mi}, default: {memory: 64Mi}}", "", some, "LimitRangeRejectsProxy LimitRange/l: must be 64Mi at most"},
		{"a maximum without a default", "{type: Container, max: {cpu: 1}}", "", some, "LimitRangeRejectsProxy LimitRange/l: cpu"},
		{"a ratio", "{type: Container, maxLimitRequestRatio: {memory: 2}}", "", some, "LimitRangeRejectsProxy LimitRange/l: 2 times its request"},
		{"the ratio that it has", "{type: Container, maxLimitRequestRatio: {memory: 4}}", "", some, ""},
		{"a ratio without a limit", "{type: Container, maxLimitRequestRatio: {cpu: 4}}", "", some, "LimitRangeRejectsProxy LimitRange/l: 4 times its request"},
		{"a default below the request", "{type: Container, default: {cpu: 5m}}", "", some, "LimitRangeRejectsProxy LimitRange/l: less than its request"},
		{"whole Pods", "{type: Pod, min: {memory: 1Gi}}", "", some, ""},
		{"claims", "{type: PersistentVolumeClaim, min: {storage: 1Gi}}", "", some, ""},
		{"nobody who could have a proxy", "{type: Container, min: {cpu: 50m}}", "", []corev1.Pod{preview}, ""},

		{"a limit of CPU", "", "{spec: {hard: {limits.cpu: 10}}}", some, "QuotaRejectsProxy ResourceQuota/q: each container must have limits.cpu"},
		{"a limit of CPU, and a default", "{type: Container, default: {cpu: 1}}", "{spec: {hard: {limits.cpu: 10}}}", some, ""},
		{"too small for any", "", "{spec: {hard: {memory: 16Mi}}}", some, "QuotaRejectsProxy ResourceQuota/q: memory of the namespace must be 16Mi at most"},
		{"room for one of two", "", "{status: {hard: {memory: 1Gi}, used: {memory: 980Mi}}}", some, "QuotaLeavesNoRoom ResourceQuota/q: memory is 1Gi at most, 980Mi are in use, and each proxy takes 32Mi"},
		{"room for two", "", "{status: {hard: {limits.memory: 1Gi}, used: {limits.memory: 768Mi}}}", some, ""},
		{"nobody waits for room", "", "{status: {hard: {memory: 1Gi}, used: {memory: 1Gi}}}", []corev1.Pod{testPod("c", "http")}, ""},
		{"a scope", "", "{spec: {hard: {limits.cpu: 10}, scopes: [BestEffort]}, status: {hard: {cpu: 0}}}", some, ""},
		{"other things", "", "{spec: {hard: {pods: 1, requests.storage: 1Gi}}, status: {hard: {pods: 1}, used: {pods: 1}}}", some, ""},
	} {
		around := surroundings{namespace: testNamespace("shop", true)}
		if c.limits != "" {
			limits := corev1.LimitRange{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "l"}}
			limits.Spec.Limits = []corev1.LimitRangeItem{parse[corev1.LimitRangeItem](t, c.limits)}
			around.ranges = []corev1.LimitRange{limits}
		}
		if c.quota != "" {
			quota := parse[corev1.ResourceQuota](t, c.quota)
			quota.Namespace, quota.Name = "shop", "q"
			around.quotas = []corev1.ResourceQuota{quota}
		}
		checkOneNotice(t, c.name, limitNotices(around, c.pods), c.want)
	}
}

// checkOneNotice wants "Reason Kind/name: a part of the message", or none.
func checkOneNotice(t *testing.T, name string, notices []notice, want string) {
	t.Helper()
	if want == "" || len(notices) != 1 {
		if len(notices) > 0 || want != "" {
			t.Errorf("%s: told %v, want %q", name, notices, want)
		}
		return
	}
	n := notices[0]
	head, part, _ := strings.Cut(want, ": ")
	if got := n.reason + " " + n.object.Kind + "/" + n.object.Name; got != head || !strings.Contains(n.message, part) {
		t.Errorf("%s: told %s: %s, want %s", name, got, n.message, want)
	}
}
