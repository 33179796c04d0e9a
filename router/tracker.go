package router

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/detour-dev/detour/api"
	"github.com/detour-dev/detour/router/view"
)

// tracker caches the objects of the namespaces that take part, and of no other. It has no goroutine of its own: the
// router's loop calls it, and the caches' informers only signal.
type tracker struct {
	open   openCache
	signal func() // called at every change; must not block
	log    *slog.Logger

	namespaces *watch
	watches    map[string]*watch // by namespace
}

// openCache makes a cache of one namespace, or of the Namespaces that take part when the name is empty.
type openCache func(namespace string) (cache.Cache, error)

// watch is one running cache.
type watch struct {
	client.Reader
	synced atomic.Bool
	stop   func() // stops the cache and waits for it
}

func newTracker(open openCache, signal func(), log *slog.Logger) *tracker {
	return &tracker{open: open, signal: signal, log: log, watches: map[string]*watch{}}
}

// look opens and closes caches as namespaces come and go, and returns what they hold. A namespace whose cache is not
// filled yet, or could not be opened, has nil. It reports false as long as the namespaces themselves are not known.
func (t *tracker) look(ctx context.Context) (map[string]*view.Objects, bool) {
	names, err := t.listNamespaces(ctx)
	if err != nil {
		t.log.Error("listing namespaces", "error", err)
	}
	if names == nil {
		return nil, false
	}
	t.closeAllBut(names)
	seen := map[string]*view.Objects{}
	for name := range names {
		if seen[name], err = t.lookInto(ctx, name); err != nil {
			t.log.Error("watching a namespace", "namespace", name, "error", err)
		}
	}
	return seen, true
}

// listNamespaces returns nil while they are not known.
func (t *tracker) listNamespaces(ctx context.Context) (map[string]bool, error) {
	var err error
	if t.namespaces == nil {
		if t.namespaces, err = t.watch(ctx, "", &corev1.Namespace{}); err != nil {
			return nil, err
		}
	}
	if !t.namespaces.synced.Load() {
		return nil, nil
	}
	var list corev1.NamespaceList
	if err := t.namespaces.List(ctx, &list); err != nil {
		return nil, err
	}
	names := map[string]bool{}
	for _, ns := range list.Items {
		names[ns.Name] = true
	}
	return names, nil
}

func (t *tracker) lookInto(ctx context.Context, namespace string) (*view.Objects, error) {
	w := t.watches[namespace]
	if w == nil {
		var err error
		w, err = t.watch(ctx, namespace, &corev1.Service{}, &discoveryv1.EndpointSlice{}, &appsv1.Deployment{},
			&appsv1.StatefulSet{}, &appsv1.ReplicaSet{}, &corev1.Pod{})
		if err != nil {
			return nil, err
		}
		t.watches[namespace] = w
		t.log.Info("namespace takes part", "namespace", namespace)
	}
	if !w.synced.Load() {
		return nil, nil
	}
	return w.objects(ctx)
}

// objects lists what the cache holds; the lists share its memory.
func (w *watch) objects(ctx context.Context) (*view.Objects, error) {
	var (
		services     corev1.ServiceList
		slices       discoveryv1.EndpointSliceList
		deployments  appsv1.DeploymentList
		statefulSets appsv1.StatefulSetList
		replicaSets  appsv1.ReplicaSetList
		pods         corev1.PodList
	)
	for _, list := range []client.ObjectList{&services, &slices, &deployments, &statefulSets, &replicaSets, &pods} {
		if err := w.List(ctx, list); err != nil {
			return nil, fmt.Errorf("listing %T: %w", list, err)
		}
	}
	return &view.Objects{
		Services: services.Items, EndpointSlices: slices.Items, Deployments: deployments.Items,
		StatefulSets: statefulSets.Items, ReplicaSets: replicaSets.Items, Pods: pods.Items,
	}, nil
}

// watch opens a cache and starts it.
func (t *tracker) watch(ctx context.Context, namespace string, kinds ...client.Object) (*watch, error) {
	c, err := t.open(namespace)
	if err != nil {
		return nil, fmt.Errorf("opening a cache: %w", err)
	}
	handler := toolscache.ResourceEventHandlerFuncs{
		AddFunc:    func(any) { t.signal() },
		UpdateFunc: func(any, any) { t.signal() },
		DeleteFunc: func(any) { t.signal() },
	}
	for _, kind := range kinds {
		informer, err := c.GetInformer(ctx, kind, cache.BlockUntilSynced(false))
		if err != nil {
			return nil, fmt.Errorf("opening a cache of %T: %w", kind, err)
		}
		if _, err := informer.AddEventHandler(handler); err != nil {
			return nil, fmt.Errorf("opening a cache of %T: %w", kind, err)
		}
	}
	return t.start(ctx, c), nil
}

func (t *tracker) start(ctx context.Context, c cache.Cache) *watch {
	ctx, cancel := context.WithCancel(ctx)
	w := &watch{Reader: c}
	var running sync.WaitGroup
	running.Go(func() {
		if err := c.Start(ctx); err != nil {
			t.log.Error("running a cache", "error", err)
		}
	})
	running.Go(func() {
		if c.WaitForCacheSync(ctx) {
			w.synced.Store(true)
			t.signal()
		}
	})
	w.stop = func() {
		cancel()
		running.Wait()
	}
	return w
}

func (t *tracker) closeAllBut(names map[string]bool) {
	for name, w := range t.watches {
		if !names[name] {
			w.stop()
			delete(t.watches, name)
			t.log.Info("namespace no longer takes part", "namespace", name)
		}
	}
}

// close stops all caches and waits for them.
func (t *tracker) close() {
	for _, w := range t.watches {
		w.stop()
	}
	if t.namespaces != nil {
		t.namespaces.stop()
	}
}

// cachesOf opens caches on an API server. They hand out their own memory: the router only reads it.
func cachesOf(cfg *rest.Config, httpClient *http.Client, mapper meta.RESTMapper) openCache {
	shared := true
	return func(namespace string) (cache.Cache, error) {
		options := cache.Options{
			HTTPClient: httpClient, Mapper: mapper, Scheme: scheme.Scheme,
			DefaultTransform: view.Strip, DefaultUnsafeDisableDeepCopy: &shared,
		}
		if namespace == "" {
			takesPart := labels.SelectorFromSet(labels.Set{api.LabelInject: api.InjectEnabled})
			options.ByObject = map[client.Object]cache.ByObject{&corev1.Namespace{}: {Label: takesPart}}
		} else {
			options.DefaultNamespaces = map[string]cache.Config{namespace: {}}
		}
		return cache.New(cfg, options)
	}
}
