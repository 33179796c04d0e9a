//go:build integration

package integration

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/detour-dev/detour/api"
	"github.com/detour-dev/detour/router"
	"github.com/detour-dev/detour/router/gateway"
)

// TestLinks asks for links with tokens that the API server has issued, and for rights that it knows of.
func TestLinks(t *testing.T) {
	newNamespace(t, "links")
	create(t, namespaceNamed("links-elsewhere"))
	viewer := newAccount(t, "links", "viewer")
	letViewPods(t, "links", "viewer")
	stranger := newAccount(t, "links", "stranger")
	const request = `{"key": "pr-42", "service": "api", "namespace": "links"}`
	eventually(t, "the viewer gets a link", func() error {
		code, body := askLink(t, gatewayAddress(), viewer, request)
		var link api.Link
		if err := json.Unmarshal([]byte(body), &link); err != nil || code != http.StatusOK {
			return fmt.Errorf("%d %s: %v", code, body, err)
		}
		if want := strings.Replace(gatewayURL, "//", "//pr-42--api--links.", 1) + "/?detour-signature="; !strings.HasPrefix(link.URL, want) {
			return fmt.Errorf("%s, want %s…", link.URL, want)
		}
		return nil
	})
	for name, c := range map[string]struct {
		token, request, want string
		code                 int
	}{
		"no rights":         {stranger, request, "may not list pods in namespace links", http.StatusForbidden},
		"another namespace": {viewer, `{"namespace": "links-elsewhere"}`, "may not list pods in namespace links-elsewhere", http.StatusForbidden},
		"no such namespace": {viewer, `{"namespace": "links-nowhere"}`, "may not list pods in namespace links-nowhere", http.StatusForbidden},
		"no token":          {"", request, "show a token for the audience detour.dev/router", http.StatusUnauthorized},
		"nonsense":          {"nonsense", request, "not valid for the audience detour.dev/router", http.StatusUnauthorized},
	} {
		if code, body := askLink(t, gatewayAddress(), c.token, c.request); code != c.code || !strings.Contains(body, c.want) {
			t.Errorf("%s: %d %s, want %d and %s", name, code, body, c.code, c.want)
		}
	}
}

// gatewayAddress is where gatewayURL leads.
func gatewayAddress() string {
	return "127.0.0.1" + gatewayURL[strings.LastIndexByte(gatewayURL, ':'):]
}

func newAccount(t *testing.T, namespace, name string) (token string) {
	t.Helper()
	create(t, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: namespace}})
	token, err := newToken(t.Context(), namespace, name, nil)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// letViewPods has an account list Pods. Nobody fills the role 'view' where no controllers run.
func letViewPods(t *testing.T, namespace, account string) {
	t.Helper()
	create(t, &rbacv1.Role{
		ObjectMeta: metav1.ObjectMeta{Name: account, Namespace: namespace},
		Rules:      []rbacv1.PolicyRule{{APIGroups: []string{""}, Resources: []string{"pods"}, Verbs: []string{"list"}}},
	})
	create(t, &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: account, Namespace: namespace},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: account},
		Subjects:   []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: namespace, Name: account}},
	})
}

func askLink(t *testing.T, address, token, body string) (int, string) {
	t.Helper()
	return askGateway(t, address, token, http.MethodPost, api.GatewayURL(gatewayURL)+api.PathLinks, body)
}

// askGateway asks at an address, whatever the URL says.
func askGateway(t *testing.T, address, token, method, url, body string) (int, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "tcp", address)
	}}
	defer transport.CloseIdleConnections()
	answer, err := (&http.Client{Transport: bearer{token, transport}}).Do(r)
	if err != nil {
		return 0, err.Error()
	}
	defer answer.Body.Close()
	content, _ := io.ReadAll(answer.Body)
	return answer.StatusCode, string(content)
}

// TestKeysOfLinks has two more routers begin with an empty Secret, and brings the manifest again in every way.
func TestKeysOfLinks(t *testing.T) {
	create(t, namespaceNamed("keys-of-links"))
	content, err := os.ReadFile("../../manifests/gateway/secret.yaml")
	if err != nil {
		t.Fatal(err)
	}
	manifest := strings.ReplaceAll(string(content), "\n  namespace: detour-system", "\n  namespace: keys-of-links")
	kubectl(t, manifest, "apply", "-f", "-")
	token := newAccount(t, "keys-of-links", "viewer")
	letViewPods(t, "keys-of-links", "viewer")

	first, second := newGateway(t, "keys-of-links"), newGateway(t, "keys-of-links")
	for _, pair := range [][2]string{{first, second}, {second, first}} {
		var link api.Link
		eventually(t, "there is a link", func() error {
			code, body := askLink(t, pair[0], token, `{"key": "pr-42", "service": "api", "namespace": "keys-of-links"}`)
			if err := json.Unmarshal([]byte(body), &link); err != nil || code != http.StatusOK {
				return fmt.Errorf("%d %s: %v", code, body, err)
			}
			return nil
		})
		eventually(t, "a link of one router counts at the other", func() error {
			// There is no such preview, which only who has a link is told.
			if code, body := askGateway(t, pair[1], "", http.MethodGet, link.URL, ""); code != http.StatusNotFound {
				return fmt.Errorf("%d %s", code, body)
			}
			return nil
		})
	}
	keys := keysOfLinks(t)
	if len(strings.TrimSpace(keys)) != 64 {
		t.Errorf("the Secret has %d characters", len(keys))
	}
	for _, again := range []string{"apply -f -", "apply --server-side --force-conflicts -f -", "apply -f -"} {
		kubectl(t, manifest, strings.Fields(again)...)
		if after := keysOfLinks(t); after != keys {
			t.Errorf("after kubectl %s the Secret has %d characters, and not those that it had", again, len(after))
		}
	}
}

// newGateway is that of a router whose own namespace is another. It returns its address.
func newGateway(t *testing.T, namespace string) string {
	t.Helper()
	address, empty := freeAddress(), t.TempDir()
	t.Cleanup(start(func(ctx context.Context) error {
		return router.New(router.Config{
			Kube: as("detour-router", theWebhook.config), Listen: freeAddress(), Health: freeAddress(), Metrics: freeAddress(),
			CertDir: empty, Namespace: namespace, Gateway: gateway.Config{URL: gatewayURL, Listen: address},
		}).Run(ctx)
	}))
	return address
}

func keysOfLinks(t *testing.T) string {
	t.Helper()
	var secret corev1.Secret
	if err := kube.Get(t.Context(), client.ObjectKey{Namespace: "keys-of-links", Name: api.SecretGateway}, &secret); err != nil {
		t.Fatal(err)
	}
	return string(secret.Data[api.SecretGatewayKeys])
}
