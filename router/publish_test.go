package router

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/detour-dev/detour/api"
	"github.com/detour-dev/detour/router/view"
	"github.com/detour-dev/detour/router/view/viewtest"
)

// eventList notes Events as "<kind>/<name> <type> <reason>".
type eventList struct {
	mu    sync.Mutex
	lines []string
}

func (l *eventList) Event(object runtime.Object, eventType, reason, _ string) {
	ref := object.(*corev1.ObjectReference)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, fmt.Sprintf("%s/%s %s %s", ref.Kind, ref.Name, eventType, reason))
}

func (l *eventList) Eventf(object runtime.Object, eventType, reason, format string, args ...any) {
	l.Event(object, eventType, reason, fmt.Sprintf(format, args...))
}

func (l *eventList) AnnotatedEventf(object runtime.Object, _ map[string]string, eventType, reason, format string, args ...any) {
	l.Event(object, eventType, reason, fmt.Sprintf(format, args...))
}

// take returns what has come since the last time.
func (l *eventList) take() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	lines := l.lines
	l.lines = nil
	return lines
}

func emptyStatus() *corev1.ConfigMap {
	return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: api.ConfigMapStatus}}
}

// replica is a publisher that runs in the test's bubble.
func replica(t *testing.T, c client.Client, events *eventList, latest *latest[snapshot]) *publisher {
	p := &publisher{
		client: c, recorder: events, latest: latest, strays: newLatest[[]view.Stray](), askPeers: func(context.Context) {},
		started: time.Now().Add(-time.Hour), log: slog.New(slog.DiscardHandler), published: map[string]published{},
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = p.run(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		<-done
	})
	return p
}

// publishedStates is empty as long as nothing is published.
func publishedStates(t *testing.T, c client.Client) []string {
	return viewtest.States(&view.View{Status: publishedStatus(t, c)})
}

// publishedStatus is empty where there is none yet.
func publishedStatus(t *testing.T, c client.Client) (status api.Status) {
	t.Helper()
	var cm corev1.ConfigMap
	if err := c.Get(t.Context(), client.ObjectKey{Namespace: "shop", Name: api.ConfigMapStatus}, &cm); err != nil {
		t.Fatal(err)
	}
	if len(cm.Data) == 0 {
		return status
	}
	if err := json.Unmarshal([]byte(cm.Data[api.ConfigMapStatusKey]), &status); err != nil {
		t.Fatalf("%v in %q", err, cm.Data)
	}
	return status
}

// TestPublish has two replicas publish what they both see: each change is written and announced once.
func TestPublish(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		writes := 0
		c := fake.NewClientBuilder().WithObjects(emptyStatus()).WithInterceptorFuncs(interceptor.Funcs{
			Update: func(ctx context.Context, c client.WithWatch, o client.Object, opts ...client.UpdateOption) error {
				time.Sleep(100 * time.Millisecond) // both have read before one writes
				err := c.Update(ctx, o, opts...)
				if err == nil {
					writes++
				}
				return err
			},
		}).Build()
		latest, events := newLatest[snapshot](), &eventList{}
		replica(t, c, events, latest)
		replica(t, c, events, latest)

		pending, routed := viewtest.Shop(), viewtest.Shop()
		pending.ResolveSlices()
		broken := viewtest.Shop()
		viewtest.Waiting("ImagePullBackOff")(broken.Pod("api-pr-42-x"))
		broken.AddPreview("late", "api", "pr-42")
		broken.AddPreview("typo", "apii", "pr-1")
		mended := viewtest.Shop()
		mended.AddService("web", map[string]string{"app": "api"},
			viewtest.ServicePort("http", 80, intstr.FromString("http")), viewtest.ServicePort("admin", 81, intstr.FromString("admin")))
		mended.AddPreview("PR_1", "web", "PR_1")
		expired := viewtest.Shop()
		expired.Deployments[2].Annotations[api.AnnotationTTL] = "1s"
		for _, step := range []struct {
			name   string
			view   *view.View
			states []string
			events []string
		}{
			{"labelled", view.New("shop", pending.Objects, nil, viewtest.Now), []string{"deployment/api-pr-42 pr-42 pending 0/2"}, nil},
			{"acknowledged", viewtest.Acknowledged(routed), []string{"deployment/api-pr-42 pr-42 routed 2/2"},
				[]string{"Deployment/api-pr-42 Normal Routed"}},
			{"the same again", viewtest.Acknowledged(routed), []string{"deployment/api-pr-42 pr-42 routed 2/2"}, nil},
			{"broken", viewtest.Acknowledged(broken),
				[]string{
					"deployment/api-pr-42 pr-42 not-ready NotReady 2/2",
					"deployment/late pr-42 conflict Conflict 0/0",
					"deployment/typo pr-1 invalid UnknownTarget 0/0",
				},
				[]string{
					"Deployment/api-pr-42 Warning NotReady",
					"Deployment/late Warning Conflict",
					"Deployment/typo Warning UnknownTarget",
				}},
			{"mended", viewtest.Acknowledged(mended),
				[]string{"deployment/api-pr-42 pr-42 routed 2/2", "deployment/PR_1 PR_1 routed (NoPort) 2/2"},
				[]string{
					"Deployment/api-pr-42 Normal Routed",
					"Deployment/PR_1 Normal Routed",
					"Deployment/PR_1 Warning NoPort",
				}},
			{"expired", viewtest.Acknowledged(expired), []string{"deployment/api-pr-42 pr-42 expired Expired 0/0"},
				[]string{"Deployment/api-pr-42 Normal Expired"}},
		} {
			before := writes
			latest.set(snapshot{"shop": step.view})
			time.Sleep(10 * time.Second)
			synctest.Wait()
			if diff := cmp.Diff(step.states, publishedStates(t, c)); diff != "" {
				t.Errorf("%s: states: -want +got\n%s", step.name, diff)
			}
			if diff := cmp.Diff(step.events, events.take()); diff != "" {
				t.Errorf("%s: Events: -want +got\n%s", step.name, diff)
			}
			if n := writes - before; n > 1 {
				t.Errorf("%s: written %d times", step.name, n)
			}
		}
	})
}

func TestPublishWaitsForTheConfigMap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := fake.NewClientBuilder().Build()
		latest := newLatest[snapshot]()
		var log strings.Builder
		p := replica(t, c, &eventList{}, latest)
		p.log = slog.New(slog.NewTextHandler(&log, nil))
		latest.set(snapshot{"shop": viewtest.Acknowledged(viewtest.Shop())})
		time.Sleep(time.Minute)
		synctest.Wait()
		if n := strings.Count(log.String(), "\n"); n != 1 {
			t.Errorf("%d lines in the log, want 1:\n%s", n, &log)
		}
		if err := c.Create(t.Context(), emptyStatus()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(retryAfter + 2*time.Second)
		synctest.Wait()
		if diff := cmp.Diff([]string{"deployment/api-pr-42 pr-42 routed 2/2"}, publishedStates(t, c)); diff != "" {
			t.Errorf("-want +got\n%s", diff)
		}
	})
}

// TestYoungReplicaTakesNothingBack restarts the only replica: it has heard of no proxy yet.
func TestYoungReplicaTakesNothingBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := viewtest.Shop()
		cm := emptyStatus()
		cm.Data = map[string]string{api.ConfigMapStatusKey: viewtest.Acknowledged(o).Text}
		c := fake.NewClientBuilder().WithObjects(cm).Build()
		latest := newLatest[snapshot]()
		replica(t, c, &eventList{}, latest).started = time.Now()
		latest.set(snapshot{"shop": view.New("shop", o.Objects, nil, viewtest.Now)})
		time.Sleep(hearEveryone - time.Second)
		synctest.Wait()
		if diff := cmp.Diff([]string{"deployment/api-pr-42 pr-42 routed 2/2"}, publishedStates(t, c)); diff != "" {
			t.Errorf("young: -want +got\n%s", diff)
		}
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if diff := cmp.Diff([]string{"deployment/api-pr-42 pr-42 pending 0/2"}, publishedStates(t, c)); diff != "" {
			t.Errorf("grown: -want +got\n%s", diff)
		}
	})
}

// TestPublishToOneThatIsBack takes a namespace out and in again, with the ConfigMap made anew and nothing else changed.
func TestPublishToOneThatIsBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := fake.NewClientBuilder().WithObjects(emptyStatus()).Build()
		latest := newLatest[snapshot]()
		replica(t, c, &eventList{}, latest)
		member := snapshot{"shop": viewtest.Acknowledged(viewtest.Shop())}
		settle := func(s snapshot) {
			latest.set(s)
			time.Sleep(3 * time.Second)
			synctest.Wait()
		}
		settle(member)
		settle(snapshot{})
		if err := c.Delete(t.Context(), emptyStatus()); err != nil {
			t.Fatal(err)
		}
		if err := c.Create(t.Context(), emptyStatus()); err != nil {
			t.Fatal(err)
		}
		settle(member)
		if diff := cmp.Diff([]string{"deployment/api-pr-42 pr-42 routed 2/2"}, publishedStates(t, c)); diff != "" {
			t.Errorf("-want +got\n%s", diff)
		}
	})
}

// TestPublishRepairs mends what someone has written into the ConfigMap.
func TestPublishRepairs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cm := emptyStatus()
		cm.Data = map[string]string{"mine": "1", api.ConfigMapStatusKey: "nonsense"}
		c := fake.NewClientBuilder().WithObjects(cm).Build()
		latest := newLatest[snapshot]()
		replica(t, c, &eventList{}, latest)
		latest.set(snapshot{"shop": viewtest.Acknowledged(viewtest.Shop())})
		for range 2 {
			time.Sleep(lookAgain + 2*time.Second)
			synctest.Wait()
			if diff := cmp.Diff([]string{"deployment/api-pr-42 pr-42 routed 2/2"}, publishedStates(t, c)); diff != "" {
				t.Errorf("-want +got\n%s", diff)
			}
			if err := c.Get(t.Context(), client.ObjectKeyFromObject(cm), cm); err != nil {
				t.Fatal(err)
			}
			if cm.Data["mine"] != "1" {
				t.Errorf("another key is gone: %v", cm.Data)
			}
			cm.Data[api.ConfigMapStatusKey] = "{}"
			if err := c.Update(t.Context(), cm); err != nil {
				t.Fatal(err)
			}
		}
	})
}
