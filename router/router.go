// Package router knows which previews there are and tells each proxy its routes.
//
// # The story
//
// Informers cache the objects of the namespaces that take part ([api.LabelInject]) and the workloads of those with
// previews of their Services ([api.AnnotationTargetNamespace]), stripped to what is read of them, and signal that
// something has changed. The namespaces of the second kind are found by the metadata of all that is labelled as a preview.
// One loop takes the signal, waits a moment for more, and makes everything anew: [view.New], a pure function, turns one
// namespace's objects and the proxies' acknowledgements into a table for each injected Pod and an [api.Status]. The
// result is an immutable snapshot. Each open stream is woken, looks up its Pod's table and sends it if its version is
// another than the one sent before; each proxy acknowledges the version that it has put in force, which signals the loop
// in turn. The publisher writes a status that has changed into the namespace's ConfigMap and emits Events. There are no
// queues and no differences, and nothing to catch up with after a restart.
//
// Every replica does all of this. A version is a hash of the table, so replicas agree without talking; only what
// proxies acknowledge reaches one replica, so they ask each other for that.
//
// If it is told a URL for it, a replica also serves previews by URL: package gateway takes the snapshot, the keys of
// signed links, which a Secret holds, and what the API server says of those who ask for links; package dashboard makes
// pages of the snapshot, which the gateway serves on its own host.
//
// # Use
//
//	err := router.New(router.Config{Kube: cfg}).Run(ctx)
//
// # Permissions
//
// What the ServiceAccount of the router needs in the whole cluster:
//
//   - list, watch: namespaces, services, pods (core), endpointslices (discovery.k8s.io), deployments, statefulsets,
//     replicasets (apps)
//   - get, update: configmaps (core), with the resource name detour-status
//   - create: tokenreviews (authentication.k8s.io), subjectaccessreviews (authorization.k8s.io)
//   - create, patch: events (core)
//
// In its own namespace, if it serves previews by URL and not to everyone:
//
//   - get, update: secrets (core), with the resource name detour-gateway
//
// # What it does not do
//
// It changes no workload, Pod or Service; that is the webhook's. It carries no traffic but that of
// preview URLs; the rest is the proxies', and they keep their last table when no router answers.
package router

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes/scheme"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/record"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/apiutil"

	"github.com/detour-dev/detour/api"
	"github.com/detour-dev/detour/router/gateway"
	"github.com/detour-dev/detour/router/view"
)

// Config is the router's configuration. Only Kube is required.
type Config struct {
	Kube *rest.Config // how to reach the API server

	Listen  string // address of the API, HTTPS; default ":8443"
	Health  string // address of /healthz and /readyz, HTTP; default ":8081"
	Metrics string // address of /metrics, HTTP; default ":8080"

	// CertDir holds tls.crt, tls.key and, for asking peers, ca.crt. They may come late and may change; default "/tls".
	CertDir string
	// Peers is "host:port" of a headless Service that resolves to every replica; none when empty.
	Peers string
	// PodIP is the replica's own addresses, joined with commas, which it does not ask; unknown when empty, which costs
	// a request to itself.
	PodIP string
	// ServerName is what peers' certificates are checked for; default "detour-router.detour-system.svc".
	ServerName string
	// TokenFile holds the router's own token for [api.Audience]; default [api.TokenFile].
	TokenFile string

	// Gateway serves previews by URL. It is off while its URL is empty. Its Keys are those of the Secret
	// [api.SecretGateway], its Reviewer is the API server, its Log is this Log.
	Gateway gateway.Config
	// Namespace is the router's own, where that Secret is; default "detour-system".
	Namespace string

	Log *slog.Logger // default slog.Default()
}

func (c Config) withDefaults() Config {
	c.Listen = cmp.Or(c.Listen, ":8443")
	c.Health = cmp.Or(c.Health, ":8081")
	c.Metrics = cmp.Or(c.Metrics, ":8080")
	c.CertDir = cmp.Or(c.CertDir, "/tls")
	c.ServerName = cmp.Or(c.ServerName, "detour-router.detour-system.svc")
	c.TokenFile = cmp.Or(c.TokenFile, api.TokenFile)
	c.Namespace = cmp.Or(c.Namespace, "detour-system")
	c.Log = cmp.Or(c.Log, slog.Default())
	c.Gateway.Log = c.Log
	return c
}

func (c Config) check() error {
	if c.Kube == nil {
		return errors.New("Config.Kube is missing: say how to reach the API server")
	}
	if _, _, err := net.SplitHostPort(c.Peers); c.Peers != "" && err != nil {
		return fmt.Errorf("Config.Peers %q: want host:port: %w", c.Peers, err)
	}
	return nil
}

// Router is one replica.
type Router struct{ cfg Config }

// New returns a router that does nothing until it is run.
func New(cfg Config) *Router { return &Router{cfg.withDefaults()} }

// Run serves until ctx is done, and returns nil then, or until a part of the router cannot go on. Nothing of it is
// left running when it returns.
func (r *Router) Run(ctx context.Context) error {
	if err := r.cfg.check(); err != nil {
		return err
	}
	k, err := connect(r.cfg.Kube)
	if err != nil {
		return err
	}
	defer k.close()
	return run(ctx, r.cfg, k)
}

// kube is what the router uses of Kubernetes.
type kube struct {
	client   client.Client // reads and writes at once, not through a cache
	open     openCache
	recorder record.EventRecorder
	close    func()
}

func connect(cfg *rest.Config) (kube, error) {
	httpClient, err := rest.HTTPClientFor(cfg)
	if err != nil {
		return kube{}, fmt.Errorf("configuring the API server's client: %w", err)
	}
	mapper, err := apiutil.NewDynamicRESTMapper(cfg, httpClient)
	if err != nil {
		return kube{}, fmt.Errorf("configuring the API server's client: %w", err)
	}
	c, err := client.New(cfg, client.Options{HTTPClient: httpClient, Mapper: mapper, Scheme: scheme.Scheme})
	if err != nil {
		return kube{}, fmt.Errorf("configuring the API server's client: %w", err)
	}
	events, err := typedcorev1.NewForConfigAndClient(cfg, httpClient)
	if err != nil {
		return kube{}, fmt.Errorf("configuring the API server's client: %w", err)
	}
	broadcaster := record.NewBroadcaster()
	broadcaster.StartRecordingToSink(&typedcorev1.EventSinkImpl{Interface: events.Events("")})
	return kube{
		client:   c,
		open:     cachesOf(cfg, httpClient, mapper),
		recorder: broadcaster.NewRecorder(scheme.Scheme, corev1.EventSource{Component: eventSource}),
		close:    broadcaster.Shutdown,
	}, nil
}

// run builds the parts, starts them in the order of who needs whom, and stops them in reverse:
//
//  1. readiness fails, so that no proxy is sent here any more
//  2. the gateway lets requests end
//  3. the API closes its listener and ends its streams, so that proxies connect to another replica at once
//  4. nothing is published any more, and no peer is asked
//  5. the loop stops, and with it the informers; the keys of links are no longer looked at
//  6. metrics and health go last, so that the end can be watched
func run(ctx context.Context, cfg Config, k kube) error {
	wake := newSignal()
	latest, strays := newLatest[snapshot](), newLatest[[]view.Stray]()
	acks := newAckStore(wake.set)
	metrics := newMetrics(latest, acks)
	health := &health{}

	auth := newAuthenticator(apiReviewer{k.client}, cfg.TokenFile, metrics.countReview)
	keyring := &keyring{client: k.client, namespace: cfg.Namespace, log: cfg.Log}
	dashboard := newDashboard(cfg.Gateway, latest, acks)
	gateway, err := newGateway(cfg.Gateway, latest, metrics.registry, keyring, auth, dashboard)
	if err != nil {
		return err
	}
	loop := &loop{
		wake: wake, tracker: newTracker(k.open, wake.set, cfg.Log), acks: acks, latest: latest, strays: strays, metrics: metrics,
		gateway: gateway,
	}
	peers := newPeers(cfg, acks, latest)
	publisher := &publisher{client: k.client, recorder: k.recorder, latest: latest, strays: strays, askPeers: peers.ask, log: cfg.Log, started: time.Now(), published: map[string]published{}}
	server := &server{
		auth: auth, latest: latest, acks: acks, metrics: metrics, log: cfg.Log, closing: make(chan struct{}),
	}
	health.synced = func() bool { s, _ := latest.get(); return s.isComplete() }

	var parts parts
	defer parts.stop()                // 2 to 6
	defer health.stopping.Store(true) // 1
	parts.start("health", serveHTTP(cfg.Health, health.handler()))
	parts.start("metrics", serveHTTP(cfg.Metrics, metrics.handler()))
	if gateway != nil && !gateway.IsOpen() {
		parts.start("keyring", keyring.run)
	}
	parts.start("loop", loop.run)
	parts.start("peers", peers.run)
	parts.start("publisher", publisher.run)
	parts.start("api", serveAPI(cfg, server, &health.serving))
	if gateway != nil {
		parts.start("gateway", gateway.Run)
		parts.start("dashboard", dashboard.Run) // it stops first, so that the gateway has no streams of its to wait for
	}
	select {
	case <-ctx.Done():
		cfg.Log.Info("stopping")
		return nil
	case err := <-parts.failed:
		return err
	}
}
