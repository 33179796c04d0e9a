//go:build integration

// Package integration holds the tests that need a real API server, but no node: what the webhook and the router do to
// objects, and what the API server makes of it. The tests play the kubelet and the controllers.
package integration

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"

	"github.com/detour-dev/detour/api"
	"github.com/detour-dev/detour/router"
	"github.com/detour-dev/detour/router/gateway"
	"github.com/detour-dev/detour/webhook"
)

// kube reaches the API server as its administrator.
var kube client.Client

// kubeConfig is a kubectl's way to do the same.
var kubeConfig []byte

// theWebhook is what tests take away and install again.
var theWebhook *installation

// routerURL and routerTLS reach the router, gatewayURL is its gateway's.
var (
	routerURL  string
	routerTLS  *tls.Config
	gatewayURL string
)

func TestMain(m *testing.M) {
	code, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(code)
}

// run starts the API server and, beside it, the webhook and the router as they run in a cluster, with the rights that
// the manifests give them.
func run(m *testing.M) (int, error) {
	environment := &envtest.Environment{WebhookInstallOptions: envtest.WebhookInstallOptions{
		Paths:                   []string{"../../manifests/base/webhook.yaml"},
		IgnoreSchemeConvertible: true,
	}}
	environment.ControlPlane.GetAPIServer().Configure().
		Append("enable-admission-plugins", "OwnerReferencesPermissionEnforcement") // asks for more rights
	config, err := environment.Start()
	if err != nil {
		return 0, fmt.Errorf("starting the API server: %w", err)
	}
	defer environment.Stop()
	if kube, err = client.New(config, client.Options{}); err != nil {
		return 0, err
	}
	kubeConfig = environment.KubeConfig
	certificates := environment.WebhookInstallOptions.LocalServingCertDir
	ca := environment.WebhookInstallOptions.LocalServingCAData
	if err := os.WriteFile(filepath.Join(certificates, "ca.crt"), ca, 0o600); err != nil {
		return 0, err
	}
	if err := writeRouterToken(certificates); err != nil {
		return 0, fmt.Errorf("making the router's own token: %w", err)
	}
	for _, file := range []string{"base/webhook.yaml", "base/router.yaml", "gateway/secret.yaml", "roles/links.yaml", "roles/previews.yaml", "roles/namespace.yaml", "gc/gc.yaml"} {
		if err := grantRights("../../manifests/" + file); err != nil {
			return 0, fmt.Errorf("granting the rights of %s: %w", file, err)
		}
	}

	if err := kube.Create(context.Background(), &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: api.SecretGateway, Namespace: "detour-system"}}); err != nil {
		return 0, fmt.Errorf("making the Secret of the gateway: %w", err)
	}

	theWebhook = &installation{config: config, options: environment.WebhookInstallOptions}
	theWebhook.start()
	defer func() { theWebhook.stop() }() // the one that runs then
	listen := freeAddress()
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	routerURL, routerTLS = "https://"+listen, &tls.Config{RootCAs: roots}
	gatewayListen := freeAddress()
	_, port, _ := net.SplitHostPort(gatewayListen)
	gatewayURL = "http://preview.localhost:" + port
	defer start(func(ctx context.Context) error { return runRouter(ctx, config, listen, gatewayListen, certificates) })()
	return m.Run(), nil
}

// start runs a program until the function that it returns is called.
func start(program func(context.Context) error) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	stopped := make(chan error, 1)
	go func() { stopped <- program(ctx) }()
	return func() {
		cancel()
		if err := <-stopped; err != nil {
			fmt.Fprintln(os.Stderr, "stopped:", err)
		}
	}
}

// installation is the webhook, and what has the API server ask it.
type installation struct {
	config  *rest.Config
	options envtest.WebhookInstallOptions
	stop    func() // the program, and nothing else
}

func (i *installation) start() { i.stop = start(i.run) }

// away stops the program while something is done, and starts another.
func (i *installation) away(do func()) {
	i.stop()
	defer i.start()
	do()
}

func (i *installation) run(ctx context.Context) error {
	return webhook.Run(ctx, webhook.Config{
		Cluster:   as("detour-webhook", i.config),
		Namespace: "detour-system",
		Image:     "ghcr.io/detour-dev/proxy:dev",
		Listen:    net.JoinHostPort(i.options.LocalServingHost, strconv.Itoa(i.options.LocalServingPort)),
		Health:    freeAddress(),
		Metrics:   freeAddress(),
		CertDir:   i.options.LocalServingCertDir,
	})
}

// configurations are those that the API server goes by.
func (i *installation) configurations() []client.Object {
	var all []client.Object
	for _, c := range i.options.MutatingWebhooks {
		all = append(all, c)
	}
	for _, c := range i.options.ValidatingWebhooks {
		all = append(all, c)
	}
	return all
}

func runRouter(ctx context.Context, config *rest.Config, listen, gatewayListen, certificates string) error {
	return router.New(router.Config{
		Kube:      as("detour-router", config),
		Listen:    listen,
		Health:    freeAddress(),
		Metrics:   freeAddress(),
		CertDir:   certificates,
		TokenFile: filepath.Join(certificates, "token"),
		Gateway:   gateway.Config{URL: gatewayURL, Listen: gatewayListen},
	}).Run(ctx)
}

// as reaches the API server with the rights of one of Detour's own ServiceAccounts.
func as(account string, config *rest.Config) *rest.Config {
	config = rest.CopyConfig(config)
	config.Impersonate = rest.ImpersonationConfig{
		UserName: "system:serviceaccount:detour-system:" + account,
		Groups:   []string{"system:serviceaccounts", "system:serviceaccounts:detour-system", "system:authenticated"},
	}
	return config
}

// grantRights creates the roles in a file of the manifests, and their bindings.
func grantRights(path string) error {
	content, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	decoder := yaml.NewYAMLOrJSONDecoder(bytes.NewReader(content), 4096)
	for {
		var object unstructured.Unstructured
		if err := decoder.Decode(&object); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		if object.GroupVersionKind().Group != rbacv1.GroupName {
			continue
		}
		if !strings.HasPrefix(object.GetKind(), "Cluster") {
			object.SetNamespace("detour-system")
		}
		if err := kube.Create(context.Background(), &object); err != nil {
			return err
		}
	}
}

func writeRouterToken(dir string) error {
	ctx := context.Background()
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "detour-router", Namespace: "detour-system"}}
	if err := errors.Join(kube.Create(ctx, namespaceNamed(account.Namespace)), kube.Create(ctx, account)); err != nil {
		return err
	}
	token, err := newToken(ctx, account.Namespace, account.Name, nil)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "token"), []byte(token), 0o600)
}

// newToken has the API server issue a token for the router.
func newToken(ctx context.Context, namespace, account string, boundTo *authenticationv1.BoundObjectReference) (string, error) {
	request := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{
		Audiences: []string{api.Audience}, BoundObjectRef: boundTo,
	}}
	owner := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: account, Namespace: namespace}}
	err := kube.SubResource("token").Create(ctx, owner, request)
	return request.Status.Token, err
}

// freeAddress is one that nothing listens on now.
func freeAddress() string {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	defer listener.Close()
	return listener.Addr().String()
}

func namespaceNamed(name string) *corev1.Namespace {
	return &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}
}

// newNamespace makes one that takes part and enforces Pod Security 'restricted', and waits until the webhook and the
// router have taken notice.
func newNamespace(t *testing.T, name string) {
	t.Helper()
	namespace := namespaceNamed(name)
	namespace.Labels = map[string]string{
		api.LabelInject:                      api.InjectEnabled,
		"pod-security.kubernetes.io/enforce": "restricted",
	}
	create(t, namespace)
	create(t, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "default", Namespace: name}})
	eventually(t, "the namespace has its ConfigMaps", func() error {
		for _, configMap := range []string{api.ConfigMapStatus, api.ConfigMapCA} {
			if err := kube.Get(t.Context(), client.ObjectKey{Namespace: name, Name: configMap}, &corev1.ConfigMap{}); err != nil {
				return err
			}
		}
		return nil
	})
}

func create(t *testing.T, object client.Object) {
	t.Helper()
	if err := kube.Create(t.Context(), object); err != nil {
		t.Fatalf("creating %T %s: %v", object, object.GetName(), err)
	}
}

// eventually polls until the condition holds, for 20 seconds at most.
func eventually(t *testing.T, what string, holds func() error) {
	t.Helper()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	deadline := time.Now().Add(20 * time.Second)
	for {
		err := holds()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within 20 seconds: %v", what, err)
		}
		<-tick.C
	}
}

// routerClient asks the router with a token.
func routerClient(t *testing.T, token string) *http.Client {
	t.Helper()
	transport := &http.Transport{TLSClientConfig: routerTLS}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: bearer{token, transport}}
}

type bearer struct {
	token string
	next  http.RoundTripper
}

func (b bearer) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	if b.token != "" {
		r.Header.Set("Authorization", "Bearer "+b.token)
	}
	return b.next.RoundTrip(r)
}
