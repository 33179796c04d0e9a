//go:build integration

package integration

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/detour-dev/detour/api"
)

// TestPluginUrl asks the router's gateway for links with a developer's rights, and opens them.
func TestPluginUrl(t *testing.T) {
	newNamespace(t, "plugin-url")
	d := newDeveloper(t, "plugin-url", "detour-previews")
	newBaseline(t, "plugin-url", "api")
	plain := api.PreviewURL(gatewayURL, api.HostName{Key: "pr-42", Service: "api", Namespace: "plugin-url"})

	creating := d.begin(t, "create", "api", "--key", "pr-42", "--image", "app:2")
	waitForImage(t, "plugin-url", "api-pr-42", "app:2")
	rollOut(t, "plugin-url", "api-pr-42", func(pod *corev1.Pod) { makeReady(t, pod, "198.18.129.51") })
	(<-creating).check(t, 0, "Detour-Key: pr-42\ncurl -H 'Detour-Key: pr-42' http://api.plugin-url/\n"+plain+"\n", "")
	d.detour(t, "list", "-o", "wide").check(t, 0, "   "+plain+"   ", "")
	d.detour(t, "list", "-o", "json").check(t, 0, `"url": "`+plain+`"`, "")
	d.detour(t, "status", "pr-42").check(t, 0, "  url       "+plain+"\n", "")
	d.detour(t, "wait", "pr-42", "-o", "json").check(t, 0, `"target_url": "`+plain+`"`, "")

	d.detour(t, "url", "pr-42").check(t, 1, "", "namespace plugin-url has no ServiceAccount detour-links")
	create(t, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: api.ServiceAccountLinks, Namespace: "plugin-url"}})
	d.detour(t, "url", "pr-42").check(t, 1, "", "system:serviceaccount:plugin-url:detour-links may not list pods in namespace plugin-url")
	create(t, &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: api.ServiceAccountLinks, Namespace: "plugin-url"},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "detour-links"},
		Subjects:   []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: "plugin-url", Name: api.ServiceAccountLinks}},
	})
	var link string
	eventually(t, "there is a link", func() error {
		a := d.detour(t, "url", "pr-42")
		if a.code != 0 {
			return errors.New(a.errOut)
		}
		link = strings.TrimSpace(a.out)
		return nil
	})
	if !strings.HasPrefix(link, plain+"?") {
		t.Errorf("the link is %s, want %s and a signature", link, plain)
	}
	for url, signed := range map[string]bool{link: true, plain: false} {
		code, body := askGateway(t, gatewayAddress(), "", http.MethodGet, url, "") // a preview has no network here
		if code == 0 || (code != http.StatusForbidden) != signed {
			t.Errorf("%s: %d %s", url, code, body)
		}
	}
	d.detour(t, "url", "pr-42", "--share", "1h", "-o", "json").check(t, 0, `"expires": "2`, "")
	d.detour(t, "url", "--dashboard").check(t, 0, api.GatewayURL(gatewayURL)+"/namespaces/plugin-url?detour-signature=", "")
	d.detour(t, "url", "pr-43").check(t, 3, "", `no preview in namespace plugin-url has the key "pr-43"`)

	other := &developer{kubeconfig: d.kubeconfig, namespace: "plugin-url", account: "owner-of-plugin-url"}
	create(t, &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: "owner", Namespace: "plugin-url"},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "detour-namespace"},
		Subjects:   []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: other.user()}},
	})
	eventually(t, "who has another role is told which to ask for", func() error {
		a := other.detour(t, "url", "pr-42")
		if a.code != 1 || !strings.Contains(a.errOut, "you may not have tokens of ServiceAccount detour-links of namespace plugin-url") {
			return fmt.Errorf("%+v", a)
		}
		return nil
	})
}
