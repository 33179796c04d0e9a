package router

import (
	"context"
	"log/slog"
	"maps"
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/detour-dev/detour/router/view"
)

// tracker caches the objects of the namespaces that take part, and the workloads of those that have previews of their
// Services. It has no goroutine of its own: the router's loop calls it, and the caches' informers only signal.
type tracker struct {
	open   openCache
	signal func() // called at every change; must not block
	log    *slog.Logger

	cluster   *watch
	services  map[string]*watch // by namespace
	workloads map[string]*watch // apart from those, so that a namespace can begin or cease to take part without a gap
	seen      map[string]bool   // namespaces that were seen with all their guests once
}

func newTracker(open openCache, signal func(), log *slog.Logger) *tracker {
	return &tracker{
		open: open, signal: signal, log: log,
		services: map[string]*watch{}, workloads: map[string]*watch{}, seen: map[string]bool{},
	}
}

// cluster says which namespaces to look into.
type cluster struct {
	members map[string]bool            // those that take part
	homes   map[string]map[string]bool // those with previews of Services of others, and the namespaces that these name
}

// sight is what the tracker sees at one moment. What is not known yet, or could not be read, is nil.
type sight struct {
	members map[string]*view.Objects   // by namespace
	homes   map[string]*view.Workloads // of namespaces that do not take part
}

// look opens and closes caches as namespaces come and go, and returns what they hold. It reports false as long as the
// namespaces themselves are not known.
func (t *tracker) look(ctx context.Context) (sight, bool) {
	c, err := t.lookAround(ctx)
	if err != nil {
		t.log.Error("listing namespaces and previews", "error", err)
	}
	if c == nil {
		return sight{}, false
	}
	t.closeAllBut(c)
	workloads := map[string]*view.Workloads{}
	for name := range c.watched() {
		if workloads[name], err = t.lookIntoWorkloads(ctx, name); err != nil {
			t.log.Error("watching a namespace", "namespace", name, "error", err)
		}
	}
	s := sight{members: map[string]*view.Objects{}, homes: map[string]*view.Workloads{}}
	for name := range c.homes {
		if !c.members[name] {
			s.homes[name] = workloads[name]
		}
	}
	for name := range c.members {
		if s.members[name], err = t.lookIntoMember(ctx, name, c, workloads); err != nil {
			t.log.Error("watching a namespace", "namespace", name, "error", err)
		}
	}
	return s, true
}

func (c *cluster) watched() map[string]bool {
	all := maps.Clone(c.members)
	for name := range c.homes {
		all[name] = true
	}
	return all
}

// lookAround returns nil while it is not known which namespaces there are.
func (t *tracker) lookAround(ctx context.Context) (*cluster, error) {
	var err error
	if t.cluster == nil {
		kinds := []client.Object{&corev1.Namespace{}}
		for _, kind := range labelledKinds {
			kinds = append(kinds, partial(kind))
		}
		if t.cluster, err = t.watch(ctx, "", kinds...); err != nil {
			return nil, err
		}
	}
	if !t.cluster.synced.Load() {
		return nil, nil
	}
	var namespaces corev1.NamespaceList
	if err := t.cluster.List(ctx, &namespaces); err != nil {
		return nil, err
	}
	c := &cluster{members: map[string]bool{}}
	for i := range namespaces.Items {
		c.members[namespaces.Items[i].Name] = true
	}
	var labelled []metav1.PartialObjectMetadata
	for _, kind := range labelledKinds {
		list := &metav1.PartialObjectMetadataList{TypeMeta: kind}
		list.Kind += "List"
		if err := t.cluster.List(ctx, list); err != nil {
			return nil, err
		}
		labelled = append(labelled, list.Items...)
	}
	c.homes = view.Homes(labelled)
	return c, nil
}

// labelledKinds are what can be labelled as a preview.
var labelledKinds = []metav1.TypeMeta{
	{APIVersion: "apps/v1", Kind: "Deployment"}, {APIVersion: "apps/v1", Kind: "StatefulSet"},
	{APIVersion: "apps/v1", Kind: "ReplicaSet"}, {APIVersion: "v1", Kind: "Pod"},
}

func partial(kind metav1.TypeMeta) *metav1.PartialObjectMetadata {
	return &metav1.PartialObjectMetadata{TypeMeta: kind}
}

// lookIntoMember returns nil until it knows the namespace's guests too: a replica that has just started must not withdraw
// their routes. Later they come when they come, lest those who put previews elsewhere hold up the others.
func (t *tracker) lookIntoMember(ctx context.Context, name string, c *cluster, workloads map[string]*view.Workloads) (*view.Objects, error) {
	objects, err := t.lookIntoServices(ctx, name)
	if objects == nil || workloads[name] == nil {
		return nil, err
	}
	objects.Workloads, objects.Members = *workloads[name], c.members
	for _, home := range slices.Sorted(maps.Keys(c.homes)) {
		switch {
		case home == name || !c.homes[home][name]:
		case workloads[home] != nil:
			objects.Guests = append(objects.Guests, *workloads[home])
		case !t.seen[name]:
			return nil, nil
		}
	}
	t.seen[name] = true
	return objects, nil
}

func (t *tracker) lookIntoServices(ctx context.Context, namespace string) (*view.Objects, error) {
	w := t.services[namespace]
	if w == nil {
		var err error
		if w, err = t.watch(ctx, namespace, &corev1.Service{}, &discoveryv1.EndpointSlice{}); err != nil {
			return nil, err
		}
		t.services[namespace] = w
		t.log.Info("namespace takes part", "namespace", namespace)
	}
	if !w.synced.Load() {
		return nil, nil
	}
	var services corev1.ServiceList
	var endpoints discoveryv1.EndpointSliceList
	if err := w.listAll(ctx, &services, &endpoints); err != nil {
		return nil, err
	}
	return &view.Objects{Services: services.Items, EndpointSlices: endpoints.Items}, nil
}

func (t *tracker) lookIntoWorkloads(ctx context.Context, namespace string) (*view.Workloads, error) {
	w := t.workloads[namespace]
	if w == nil {
		var err error
		if w, err = t.watch(ctx, namespace, &appsv1.Deployment{}, &appsv1.StatefulSet{}, &appsv1.ReplicaSet{}, &corev1.Pod{}); err != nil {
			return nil, err
		}
		t.workloads[namespace] = w
	}
	if !w.synced.Load() {
		return nil, nil
	}
	var (
		deployments  appsv1.DeploymentList
		statefulSets appsv1.StatefulSetList
		replicaSets  appsv1.ReplicaSetList
		pods         corev1.PodList
	)
	if err := w.listAll(ctx, &deployments, &statefulSets, &replicaSets, &pods); err != nil {
		return nil, err
	}
	return &view.Workloads{
		Deployments: deployments.Items, StatefulSets: statefulSets.Items, ReplicaSets: replicaSets.Items, Pods: pods.Items,
	}, nil
}

func (t *tracker) closeAllBut(c *cluster) {
	closeIn(t.workloads, c.watched())
	for _, name := range closeIn(t.services, c.members) {
		delete(t.seen, name)
		t.log.Info("namespace no longer takes part", "namespace", name)
	}
}

// close stops all caches and waits for them.
func (t *tracker) close() {
	closeIn(t.services, nil)
	closeIn(t.workloads, nil)
	if t.cluster != nil {
		t.cluster.stop()
	}
}
