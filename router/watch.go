package router

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"

	corev1 "k8s.io/api/core/v1"
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

// openCache makes a cache of one namespace, or of what [tracker.lookAround] reads when the name is empty.
type openCache func(namespace string) (cache.Cache, error)

// watch is one running cache.
type watch struct {
	client.Reader
	synced atomic.Bool
	stop   func() // stops the cache and waits for it
}

// listAll fills the lists with what the cache holds; they share its memory.
func (w *watch) listAll(ctx context.Context, lists ...client.ObjectList) error {
	for _, list := range lists {
		if err := w.List(ctx, list); err != nil {
			return fmt.Errorf("listing %T: %w", list, err)
		}
	}
	return nil
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

// closeIn stops the watches of namespaces that are not to be kept, and returns the names of these.
func closeIn(watches map[string]*watch, keep map[string]bool) []string {
	var closed []string
	for name, w := range watches {
		if !keep[name] {
			w.stop()
			delete(watches, name)
			closed = append(closed, name)
		}
	}
	return closed
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
			var err error
			if options.ByObject, err = clusterSelectors(); err != nil {
				return nil, err
			}
		} else {
			options.DefaultNamespaces = map[string]cache.Config{namespace: {}}
		}
		return cache.New(cfg, options)
	}
}

// clusterSelectors has the API server leave out everything but the namespaces that take part and what is labelled as a
// preview.
func clusterSelectors() (map[client.Object]cache.ByObject, error) {
	takesPart := labels.SelectorFromSet(labels.Set{api.LabelInject: api.InjectEnabled})
	isPreview, err := labels.Parse(api.LabelTarget)
	selectors := map[client.Object]cache.ByObject{&corev1.Namespace{}: {Label: takesPart}}
	for _, kind := range labelledKinds {
		selectors[partial(kind)] = cache.ByObject{Label: isPreview}
	}
	return selectors, err
}
