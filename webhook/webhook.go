// Package webhook brings the proxy into Pods and traffic into the proxy. It is an admission server and two reconcilers
// on one controller-runtime manager.
//
// A Pod's way. The API server asks at /mutate-pods about each new Pod of a namespace that takes part. [inject] adds
// the proxy as a native sidecar and lets it take over the Pod's ports ([planPorts]): the proxy gets the port's name,
// the app's container port another one. A Service that addresses the port by that name now finds the proxy, without
// having been touched. A Pod that gets no proxy says why in an annotation. Where proxies do not start, no Pod gets one until the
// cause is gone ([suspensionOf]).
//
// A Service's way. One that addresses a port by number finds the app, until every Pod behind it exposes a name for that
// number; then the number gives way to the name, and comes back as soon as a Pod without it is there. [planService]
// decides; it is asked by the reconciler whenever a Pod or a Service changes, and at /mutate-services whenever somebody
// writes the Service, so that a manifest applied again opens no gap.
//
// A preview's way. At /check-workloads the API server asks about workloads that are labelled as previews. One whose Pods
// its target Service selects would serve everyone, and [refusal] says so. Nothing else is ever refused: what the package
// cannot handle is admitted as it is.
//
// What else in a namespace gets in the way of proxies, such as a NetworkPolicy, is told in Events and in the status
// ([findings]).
//
// The end. A namespace that leaves has its Services back at once. When Detour's own namespace is being deleted, every
// namespace has left ([members]), and the webhook configurations go before the Pods that answer.
//
// Everything is decided by pure functions over objects. [admitter] knows admission, the reconcilers know the API server,
// and nothing else does.
//
// It does not route: which request goes where is between the router and the proxies.
package webhook

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"time"

	"github.com/go-logr/logr"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/healthz"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	ctrlmetrics "sigs.k8s.io/controller-runtime/pkg/metrics"
	"sigs.k8s.io/controller-runtime/pkg/metrics/server"
	ctrlwebhook "sigs.k8s.io/controller-runtime/pkg/webhook"

	"github.com/detour-dev/detour/api"
)

// Config is what [Run] needs to know.
type Config struct {
	// Image is the proxy's image. Required.
	Image string

	// Namespace is the one that Detour is installed in. Required.
	Namespace string

	// Router is where proxies find the router; empty means https://detour-router.<Namespace>.svc:8443.
	Router string

	// Listen, Health and Metrics are addresses such as ":9443": of the admission server, of /healthz and /readyz, and
	// of /metrics. Empty means that there is none, except for Listen, which is required.
	Listen  string
	Health  string
	Metrics string

	// CertDir holds tls.crt and tls.key of the admission server, and ca.crt, which proxies check the router against.
	// All are reread when they change. Empty means that the leader signs certificates itself, keeps them in Secrets,
	// and announces their CA in the webhook configurations.
	CertDir string

	// Cluster is how the API server is reached. Required.
	Cluster *rest.Config

	// Log gets what the package and its libraries have to say; nil means slog's default.
	Log *slog.Logger
}

// complete fills in what was left out, and names what may not be.
func (c Config) complete() (Config, error) {
	switch {
	case c.Image == "":
		return c, errors.New("the proxy's image is not given")
	case c.Namespace == "":
		return c, errors.New("the namespace that Detour runs in is not given")
	case c.Cluster == nil:
		return c, errors.New("the cluster is not given")
	}
	if c.Router == "" {
		c.Router = "https://detour-router." + c.Namespace + ".svc:8443"
	}
	if c.Log == nil {
		c.Log = slog.Default()
	}
	return c, nil
}

// Run serves admission and reconciles until ctx ends. Every replica answers admission; one of them, which holds the
// Lease detour-webhook, reconciles.
func Run(ctx context.Context, config Config) error {
	config, err := config.complete()
	if err != nil {
		return err
	}
	metrics, err := newMetrics(ctrlmetrics.Registry)
	if err != nil {
		return err
	}
	serving := &servingCertificate{own: config.Namespace, log: config.Log}
	mgr, err := newManager(config, serving)
	if err != nil {
		return err
	}
	serving.client = mgr.GetAPIReader()
	if err := assemble(ctx, mgr, config, metrics, serving); err != nil {
		return err
	}
	return mgr.Start(ctx)
}

func newManager(config Config, serving *servingCertificate) (manager.Manager, error) {
	host, port, err := net.SplitHostPort(config.Listen)
	if err != nil {
		return nil, fmt.Errorf("address to listen on: %w", err)
	}
	number, err := strconv.ParseUint(port, 10, 16)
	if err != nil || number == 0 {
		return nil, fmt.Errorf("address to listen on %q: want a port number (1 to 65535)", config.Listen)
	}
	options := ctrlwebhook.Options{Host: host, Port: int(number), CertDir: config.CertDir}
	if config.CertDir == "" {
		options.TLSOpts = []func(*tls.Config){func(c *tls.Config) { c.GetCertificate = serving.get }}
	}
	mgr, err := ctrl.NewManager(config.Cluster, manager.Options{
		Logger:                        logr.FromSlogHandler(config.Log.Handler()),
		WebhookServer:                 ctrlwebhook.NewServer(options),
		Metrics:                       server.Options{BindAddress: orNone(config.Metrics)},
		HealthProbeBindAddress:        orNone(config.Health),
		LeaderElection:                true,
		LeaderElectionID:              "detour-webhook",
		LeaderElectionNamespace:       config.Namespace,
		LeaderElectionReleaseOnCancel: true, // nothing of ours goes on once Start has returned
		Cache:                         cacheOptions(),
		Client: client.Options{Cache: &client.CacheOptions{DisableFor: []client.Object{
			&corev1.Secret{}, &admissionregistrationv1.MutatingWebhookConfiguration{}, &admissionregistrationv1.ValidatingWebhookConfiguration{},
		}}},
	})
	if err != nil {
		return nil, fmt.Errorf("connecting to the API server: %w", err)
	}
	return mgr, nil
}

// orNone turns "" into what the manager takes for "do not serve".
func orNone(address string) string {
	if address == "" {
		return "0"
	}
	return address
}

func cacheOptions() cache.Options {
	return cache.Options{
		DefaultTransform: cache.TransformStripManagedFields(),
		ByObject: map[client.Object]cache.ByObject{
			&corev1.Pod{}:                            {Transform: stripPod},
			&corev1.Service{}:                        {Transform: stripService},
			&networkingv1.NetworkPolicy{}:            {Transform: stripPolicy},
			&corev1.LimitRange{}:                     {Transform: stripLimitRange},
			&corev1.ResourceQuota{}:                  {Transform: stripQuota},
			&autoscalingv2.HorizontalPodAutoscaler{}: {Transform: stripAutoscaler},
			&corev1.ConfigMap{}:                      {Field: fields.OneTermEqualSelector("metadata.name", api.ConfigMapCA)},
		},
	}
}

// assemble puts the parts together. The order in which they start is the manager's: servers, caches, what runs on
// every replica, what runs on the leader.
func assemble(ctx context.Context, mgr manager.Manager, config Config, metrics *metrics, serving *servingCertificate) error {
	client, log := mgr.GetClient(), config.Log
	version, err := discovery.NewDiscoveryClientForConfig(config.Cluster)
	if err != nil {
		return fmt.Errorf("connecting to the API server: %w", err)
	}
	apiServer := &serverCheck{server: version, log: log}
	if err := apiServer.check(); err != nil {
		return err
	}
	members := members{cache: client, own: config.Namespace}
	events := mgr.GetEventRecorder("detour-webhook")
	admitter := &admitter{
		cache: client, members: members, tooOld: apiServer.tooOld, metrics: metrics, events: events, now: time.Now, log: log,
		sidecar: sidecar{image: config.Image, router: config.Router},
	}
	handlers := mgr.GetWebhookServer()
	handlers.Register("/mutate-pods", &ctrlwebhook.Admission{Handler: admitter.handler("pod", changed(admitter.mutatePod))})
	handlers.Register("/mutate-services", &ctrlwebhook.Admission{Handler: admitter.handler("service", changed(admitter.mutateService))})
	handlers.Register("/check-workloads", &ctrlwebhook.Admission{Handler: admitter.handler("preview", admitter.checkWorkload)})

	services := &serviceReconciler{
		client: client, members: members, tooOld: apiServer.tooOld, metrics: metrics, now: time.Now, log: log,
		journal: newJournal(events, log, time.Now), board: newBoard(client, time.Now),
	}
	namespaces := &namespaceReconciler{client: client, live: mgr.GetAPIReader(), members: members, log: log}
	keeper := &keeper{
		client: client, members: members, dir: config.CertDir, names: serverNames(config.Namespace),
		now: time.Now, metrics: metrics, log: log,
	}
	errs := []error{services.setup(mgr), namespaces.setup(mgr), mgr.Add(apiServer), mgr.Add(keeper), checks(ctx, mgr)}
	if config.CertDir == "" {
		errs = append(errs, mgr.Add(serving))
	}
	return errors.Join(errs...)
}

// serverNames are the names that each Secret's certificate is for, with Detour in the namespace.
func serverNames(namespace string) map[string][]string {
	router := "detour-router." + namespace + ".svc"
	return map[string][]string{
		secretWebhook: {"detour-webhook." + namespace + ".svc"},
		secretRouter:  {router, router + ".cluster.local"},
	}
}

// checks makes a replica ready when it can answer admission: it has a certificate and has read the cluster.
func checks(ctx context.Context, mgr manager.Manager) error {
	var informers []cache.Informer
	for _, object := range []client.Object{
		&corev1.Namespace{}, &corev1.Service{}, &corev1.Pod{}, &networkingv1.NetworkPolicy{}, &corev1.LimitRange{}, &corev1.ResourceQuota{},
		&autoscalingv2.HorizontalPodAutoscaler{},
	} {
		informer, err := mgr.GetCache().GetInformer(ctx, object, cache.BlockUntilSynced(false))
		if err != nil {
			return fmt.Errorf("watching: %w", err)
		}
		informers = append(informers, informer)
	}
	synced := func(*http.Request) error {
		for _, i := range informers {
			if !i.HasSynced() {
				return errors.New("the cluster has not been read yet")
			}
		}
		return nil
	}
	return errors.Join(
		mgr.AddHealthzCheck("alive", healthz.Ping),
		mgr.AddReadyzCheck("cache", synced),
		mgr.AddReadyzCheck("certificate", mgr.GetWebhookServer().StartedChecker()))
}
