//go:build integration

package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/detour-dev/detour/api"
)

// TestPluginDoctor has one thing after another go wrong, and asks with a developer's rights.
func TestPluginDoctor(t *testing.T) {
	newNamespace(t, "plugin-doctor")
	d := newDeveloper(t, "plugin-doctor", "detour-previews")
	newBaseline(t, "plugin-doctor", "api")
	_, pod := newPreview(t, "plugin-doctor", "api-pr-42", "api", "pr-42")
	makeReady(t, pod, "198.18.129.40")
	waitForState(t, "plugin-doctor", "deployment/api-pr-42", api.StateRouted)
	eventually(t, "nothing is wrong", func() error {
		if a := d.detour(t, "doctor"); a.code != 0 || !strings.Contains(a.out, "nothing is wrong in namespace plugin-doctor") {
			return fmt.Errorf("%+v", a)
		}
		return nil
	})
	d.detour(t, "doctor").check(t, 0, "not looked at: no right to read Deployment detour-webhook in namespace detour-system (ask an administrator to run this)", "")
	if a := d.detour(t, "doctor"); strings.Contains(a.out, "the role detour-previews") {
		t.Errorf("the role lacks rights:\n%s", a.out)
	}

	create(t, newPolicy("plugin-doctor", "api-pr-42", 9999))
	newPreview(t, "plugin-doctor", "api-old", "api", "old")
	annotate(t, newDeployment("plugin-doctor", "api-old", nil), api.AnnotationTTL, "1s")
	waitForState(t, "plugin-doctor", "deployment/api-old", api.StateExpired)
	newPreview(t, "plugin-doctor", "api-api", "api", "api")
	waitForState(t, "plugin-doctor", "deployment/api-api", api.StateNotReady)
	quota := &corev1.ResourceQuota{ObjectMeta: metav1.ObjectMeta{Name: "few", Namespace: "plugin-doctor"}}
	quota.Spec.Hard = corev1.ResourceList{corev1.ResourcePods: resource.MustParse("4")}
	create(t, quota)
	quota.Status = corev1.ResourceQuotaStatus{Hard: quota.Spec.Hard, Used: quota.Spec.Hard}
	if err := kube.Status().Update(t.Context(), quota); err != nil {
		t.Fatal(err)
	}
	sick := d.detour(t, "doctor")
	sick.check(t, 6, "deployment/api-old has expired at", "found in namespace plugin-doctor: ")
	sick.check(t, 6, "kubectl detour gc -n plugin-doctor", "")
	sick.check(t, 6, "error    deployment/api-pr-42: the proxy of Pod api-1 cannot reach it", "")
	sick.check(t, 6, "warning  resourcequota/few: 4 of 4 pods are in use", "")

	key := d.detour(t, "doctor", "key/pr-42", "-o", "json")
	key.check(t, 6, `"reason": "NetworkPolicyBarsPreview"`, "")
	if strings.Contains(key.out, "api-old") {
		t.Errorf("it tells of other keys:\n%s", key.out)
	}
	d.detour(t, "doctor", "old").check(t, 6, "has expired", "")
	d.detour(t, "doctor", "service/api", "-o", "yaml").check(t, 6, "reason: Expired", "")
	d.detour(t, "doctor", "key/nowhere").check(t, 3, "", `in namespace plugin-doctor, there is no key "nowhere"`)
	d.detour(t, "doctor", "nowhere").check(t, 3, "", `there is no key, no Service and no namespace "nowhere"`)
	d.detour(t, "doctor", "pod/x").check(t, 2, "", "use key/NAME, service/NAME")
	d.detour(t, "doctor", "plugin-doctor").check(t, 6, "has expired", "") // by the namespace's name
	d.detour(t, "doctor", "api").check(t, 6, "deployment/api-api has no ready Pod", "api is looked at as a key, and is a service as well: kubectl detour doctor service/api")
}

// TestPluginDoctorOutside asks about a namespace that does not take part, without any right there, and as its administrator.
func TestPluginDoctorOutside(t *testing.T) {
	create(t, namespaceNamed("plugin-doctor-outside"))
	create(t, newService("plugin-doctor-outside", "api", intstr.FromInt32(8080)))
	stranger := &developer{kubeconfig: filepath.Join(t.TempDir(), "kubeconfig"), namespace: "plugin-doctor-outside"}
	if err := os.WriteFile(stranger.kubeconfig, kubeConfig, 0o600); err != nil {
		t.Fatal(err)
	}
	stranger.detour(t, "doctor").check(t, 0, "not looked at: no right to read ConfigMap detour-status (ask for the role detour-previews of manifests/roles)", "")
	d := newDeveloper(t, "plugin-doctor-outside", "detour-previews")
	d.detour(t, "doctor").check(t, 6, "error    namespace/plugin-doctor-outside: it does not take part", "")
	admin := &developer{kubeconfig: d.kubeconfig, namespace: d.namespace, account: "admin", groups: []string{"system:masters"}}
	admin.detour(t, "doctor").check(t, 6, "deployment/detour-router in namespace detour-system: it is not there", "")
	admin.detour(t, "doctor", "namespace/nowhere").check(t, 3, "", `there is no namespace "nowhere"`)
}
