package router

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/detour-dev/detour/api"
	"github.com/detour-dev/detour/router/gateway"
	"github.com/detour-dev/detour/router/view/viewtest"
)

// fakeAPI is an API server: what it holds can be cached, and whoever calls changed has the caches signal.
type fakeAPI struct {
	client.Client
	mu       sync.Mutex
	handlers map[*fakeCache][]toolscache.ResourceEventHandler // by the caches that run
}

func newFakeAPI(namespace *corev1.Namespace, o *viewtest.Namespace) *fakeAPI {
	reviewer := &fakeReviewer{}
	f := &fakeAPI{handlers: map[*fakeCache][]toolscache.ResourceEventHandler{}}
	f.Client = fake.NewClientBuilder().WithScheme(scheme.Scheme).WithObjects(namespace, emptyStatus()).
		WithObjects(pointers(o.Services)...).WithObjects(pointers(o.EndpointSlices)...).WithObjects(pointers(o.Deployments)...).
		WithObjects(pointers(o.ReplicaSets)...).WithObjects(pointers(o.Pods)...).
		WithInterceptorFuncs(interceptor.Funcs{
			Create: func(ctx context.Context, c client.WithWatch, o client.Object, opts ...client.CreateOption) error {
				review, ok := o.(*authenticationv1.TokenReview)
				if !ok {
					return c.Create(ctx, o, opts...)
				}
				var err error
				review.Status, err = reviewer.reviewToken(ctx, review.Spec.Token)
				return err
			},
		}).Build()
	return f
}

func pointers[T any](list []T) []client.Object {
	var objects []client.Object
	for i := range list {
		objects = append(objects, any(&list[i]).(client.Object))
	}
	return objects
}

func (f *fakeAPI) changed() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, handlers := range f.handlers {
		for _, h := range handlers {
			h.OnUpdate(nil, nil)
		}
	}
}

func (f *fakeAPI) running() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.handlers)
}

func (f *fakeAPI) open(namespace string) (cache.Cache, error) {
	return &fakeCache{api: f, namespace: namespace}, nil
}

// fakeCache has no more of a cache than the tracker uses.
type fakeCache struct {
	cache.Cache
	api       *fakeAPI
	namespace string
}

func (c *fakeCache) GetInformer(context.Context, client.Object, ...cache.InformerGetOption) (cache.Informer, error) {
	return fakeInformer{cache: c}, nil
}

type fakeInformer struct {
	cache.Informer
	cache *fakeCache
}

func (i fakeInformer) AddEventHandler(h toolscache.ResourceEventHandler) (toolscache.ResourceEventHandlerRegistration, error) {
	f := i.cache.api
	f.mu.Lock()
	defer f.mu.Unlock()
	f.handlers[i.cache] = append(f.handlers[i.cache], h)
	return nil, nil
}

func (c *fakeCache) Start(ctx context.Context) error {
	<-ctx.Done()
	c.api.mu.Lock()
	defer c.api.mu.Unlock()
	delete(c.api.handlers, c)
	return nil
}

func (c *fakeCache) WaitForCacheSync(context.Context) bool { return true }

func (c *fakeCache) List(ctx context.Context, list client.ObjectList, _ ...client.ListOption) error {
	if c.namespace != "" {
		return c.api.List(ctx, list, client.InNamespace(c.namespace))
	}
	if _, ok := list.(*corev1.NamespaceList); ok {
		return c.api.List(ctx, list, client.MatchingLabels{api.LabelInject: api.InjectEnabled})
	}
	return c.api.List(ctx, list, client.HasLabels{api.LabelTarget})
}

// TestRun is the whole router on real sockets: a proxy connects, gets its table, acknowledges it; the ConfigMap says
// that the preview is routed; the namespace leaves; the router stops and leaves nothing behind.
func TestRun(t *testing.T) {
	o := viewtest.Shop()
	o.ResolveSlices()
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "shop", Labels: map[string]string{api.LabelInject: api.InjectEnabled}}}
	f := newFakeAPI(namespace, o)
	events := &eventList{}
	cfg := Config{
		Listen: freeAddress(t), Health: freeAddress(t), Metrics: freeAddress(t), CertDir: t.TempDir(),
		TokenFile: filepath.Join(t.TempDir(), "token"), Log: slog.New(slog.DiscardHandler),
		Gateway: gateway.Config{URL: "http://preview.test", Open: true, Listen: freeAddress(t)},
	}.withDefaults()
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- run(ctx, cfg, kube{client: f, open: f.open, recorder: events}) }()

	eventually(t, "alive", func() bool { return get(t, "http://"+cfg.Health+"/healthz") == "ok\n" })
	if got := get(t, "http://"+cfg.Health+"/readyz"); !strings.Contains(got, "certificate is missing") {
		t.Errorf("without a certificate /readyz says %q", got)
	}
	proxy := proxyClient{https: writeCertificate(t, cfg.CertDir), url: "https://" + cfg.Listen}
	defer proxy.https.CloseIdleConnections()
	eventually(t, "ready", func() bool { return get(t, "http://"+cfg.Health+"/readyz") == "ok\n" })

	first := proxy.connect(t, "pod-api-a")
	second := proxy.connect(t, "pod-api-b")
	proxy.acknowledge(t, "pod-api-a", first.table(t))
	proxy.acknowledge(t, "pod-api-b", second.table(t))
	eventually(t, "routed", func() bool {
		return slices.Equal(publishedStates(t, f), []string{"deployment/api-pr-42 pr-42 routed 2/2"})
	})
	for host, want := range map[string]string{
		"pr-42--apii--shop": "no Service apii in namespace shop", "pr-1--api--shop": "no preview has the key pr-1",
	} {
		if got := getAs(t, "http://"+cfg.Gateway.Listen, host+".preview.test"); !strings.Contains(got, want) {
			t.Errorf("the gateway says of %s: %s, want %s", host, got, want)
		}
	}
	if status := publishedStatus(t, f); status.Gateway != "http://preview.test" || !status.GatewayOpen {
		t.Errorf("the status says of the gateway: %q, open %v", status.Gateway, status.GatewayOpen)
	}
	eventually(t, "an Event", func() bool { return slices.Contains(events.take(), "Deployment/api-pr-42 Normal Routed") })
	for _, want := range []string{
		`detour_previews{namespace="shop",state="routed"} 1`, "detour_router_proxies 2", "detour_router_acks_total 2",
		`detour_preview_requests{namespace="shop",preview="deployment/api-pr-42"} 14`,
		`detour_gateway_requests_total{result="unknown-host"} 2`,
	} {
		if got := get(t, "http://"+cfg.Metrics+"/metrics"); !strings.Contains(got, want) {
			t.Errorf("/metrics lacks %s:\n%s", want, got)
		}
	}

	namespace.Labels = nil
	if err := f.Update(ctx, namespace); err != nil {
		t.Fatal(err)
	}
	f.changed()
	for name, p := range map[string]proxyStream{"pod-api-a": first, "pod-api-b": second} {
		empty := p.table(t)
		if len(empty.Ports) != 0 {
			t.Errorf("%s, after the namespace has left: %v, want an empty table", name, empty)
		}
		proxy.acknowledge(t, name, empty)
	}
	if got, want := get(t, "http://"+cfg.Metrics+"/metrics"), `detour_router_proxies_cleared{namespace="shop"} 2`; !strings.Contains(got, want) {
		t.Errorf("/metrics lacks %s:\n%s", want, got)
	}
	if got := f.running(); got != 1 {
		t.Errorf("%d caches run, want that of the whole cluster only", got)
	}

	stop()
	if err := <-done; err != nil {
		t.Errorf("Run: %v", err)
	}
	if first.lines.Scan() || first.lines.Err() != nil {
		t.Errorf("the stream ends with %q, %v", first.lines.Text(), first.lines.Err())
	}
	first.close()
	second.close()
}

// TestRunSaysWhatIsTaken has the metrics on an address in use.
func TestRunSaysWhatIsTaken(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = taken.Close() }()
	f := newFakeAPI(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "shop"}}, &viewtest.Namespace{})
	cfg := Config{
		Listen: freeAddress(t), Health: freeAddress(t), Metrics: taken.Addr().String(), CertDir: t.TempDir(),
		Log: slog.New(slog.DiscardHandler),
	}.withDefaults()
	err = run(t.Context(), cfg, kube{client: f, open: f.open, recorder: &eventList{}})
	if err == nil || !strings.Contains(err.Error(), taken.Addr().String()) {
		t.Errorf("Run: %v, want an error that names %s", err, taken.Addr())
	}
}

func freeAddress(t *testing.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}

func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	deadline := time.Now().Add(20 * time.Second)
	for !is() {
		if time.Now().After(deadline) {
			t.Fatalf("not %s after 20s", what)
		}
		<-tick.C
	}
}

func get(t *testing.T, url string) string { return getAs(t, url, "") }

// getAs asks for another host than that of url.
func getAs(t *testing.T, url, host string) string {
	req, err := http.NewRequest("GET", url, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Host = host
	c := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := c.Do(req)
	if err != nil {
		return err.Error()
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// writeCertificate puts a certificate into dir and returns a client that trusts it.
func writeCertificate(t *testing.T, dir string) *http.Client {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	certificate := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	for name, content := range map[string][]byte{
		"tls.key": pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}), "tls.crt": certificate,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(certificate)
	return &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, ForceAttemptHTTP2: true}}
}

// proxyClient is the part of a proxy that talks to the router.
type proxyClient struct {
	https *http.Client
	url   string
}

func (p proxyClient) do(t *testing.T, method, path, token, body string) *http.Response {
	t.Helper()
	req, err := http.NewRequest(method, p.url+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	resp, err := p.https.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	return resp
}

func (p proxyClient) acknowledge(t *testing.T, token string, table api.Table) {
	t.Helper()
	resp := p.do(t, "POST", api.PathAcks, token, `{"version":"`+table.Version+`","previews":{"deployment/api-pr-42":{"requests":7}}}`)
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusNoContent {
		t.Errorf("acknowledging: %s", resp.Status)
	}
}

type proxyStream struct {
	lines *bufio.Scanner
	close func()
}

func (p proxyClient) connect(t *testing.T, token string) proxyStream {
	t.Helper()
	resp := p.do(t, "GET", api.PathRoutes, token, "")
	return proxyStream{bufio.NewScanner(resp.Body), func() { _ = resp.Body.Close() }}
}

// table is the next line that is not empty.
func (s proxyStream) table(t *testing.T) api.Table {
	t.Helper()
	var table api.Table
	for s.lines.Scan() {
		if s.lines.Text() == "" {
			continue
		}
		if err := json.Unmarshal(s.lines.Bytes(), &table); err != nil {
			t.Fatalf("%q is no table: %v", s.lines.Text(), err)
		}
		return table
	}
	t.Fatalf("the stream has ended: %v", s.lines.Err())
	return table
}

func TestDefaults(t *testing.T) {
	log := slog.Default()
	got := New(Config{Log: log}).cfg
	want := Config{
		Listen: ":8443", Health: ":8081", Metrics: ":8080", CertDir: "/tls",
		ServerName: "detour-router.detour-system.svc", TokenFile: api.TokenFile, Log: log,
		Namespace: "detour-system", Gateway: gateway.Config{Log: log},
	}
	if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b *slog.Logger) bool { return a == b })); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}

func TestConfigIsChecked(t *testing.T) {
	for want, cfg := range map[string]Config{
		"Config.Kube":        {},
		`Config.Peers "far"`: {Kube: &rest.Config{}, Peers: "far"},
	} {
		if err := New(cfg).Run(t.Context()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Run: %v, want an error that names %s", err, want)
		}
	}
}

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }
