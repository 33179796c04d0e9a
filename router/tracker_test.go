package router

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/detour-dev/detour/api"
	"github.com/detour-dev/detour/router/view/viewtest"
)

// slowCache fills when it is let.
type slowCache struct {
	cache.Cache
	filled chan struct{}
}

func (c slowCache) WaitForCacheSync(ctx context.Context) bool {
	select {
	case <-c.filled:
		return true
	case <-ctx.Done():
		return false
	}
}

// TestGuestsLeaveNoGap follows the view of a namespace with a guest: it is not made before the guest is known, and the guest
// stays in it whether or not its own namespace takes part.
func TestGuestsLeaveNoGap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeAPI(memberNamespace("shop"), viewtest.Shop())
		teamB := memberNamespace("team-b")
		teamB.Labels = nil
		copied := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{
			Namespace: "team-b", Name: "copy", Labels: map[string]string{api.LabelTarget: "api", api.LabelKey: "pr-1"},
			Annotations: map[string]string{api.AnnotationTargetNamespace: "shop"},
		}}
		for _, o := range []client.Object{teamB, copied} {
			if err := f.Create(t.Context(), o); err != nil {
				t.Fatal(err)
			}
		}
		filled := make(chan struct{})
		open := func(namespace string) (cache.Cache, error) {
			c, err := f.open(namespace)
			if namespace == "team-b" {
				c = slowCache{c, filled}
			}
			return c, err
		}
		tracker := newTracker(open, func() {}, slog.New(slog.DiscardHandler))
		defer tracker.close()
		// look says how often team-b is among the guests of each namespace that is known, and which are not.
		look := func() string {
			t.Helper()
			for range 3 { // what is found out by one look is opened by the next
				tracker.look(t.Context())
				synctest.Wait()
			}
			s, _ := tracker.look(t.Context())
			var lines []string
			for _, name := range slices.Sorted(maps.Keys(s.members)) {
				line := name + ":"
				if o := s.members[name]; o == nil {
					line += " unknown"
				} else {
					for _, g := range o.Guests {
						line += " " + g.Deployments[0].Name
					}
				}
				lines = append(lines, line)
			}
			return strings.Join(lines, ", ")
		}
		step := func(what, want string) {
			t.Helper()
			if diff := cmp.Diff(want, look()); diff != "" {
				t.Errorf("%s: -want +got\n%s", what, diff)
			}
		}

		step("before the cache of team-b is filled", "shop: unknown")
		close(filled)
		step("then", "shop: copy")
		filled = make(chan struct{}) // from here on caches of team-b that are opened stay empty
		teamB.Labels = map[string]string{api.LabelInject: api.InjectEnabled}
		if err := f.Update(t.Context(), teamB); err != nil {
			t.Fatal(err)
		}
		step("team-b takes part", "shop: copy, team-b: unknown")
		teamB.Labels = nil
		if err := f.Update(t.Context(), teamB); err != nil {
			t.Fatal(err)
		}
		step("and no longer", "shop: copy")
		if err := f.Delete(t.Context(), copied); err != nil {
			t.Fatal(err)
		}
		step("the preview is gone", "shop:")
		copied.ResourceVersion = ""
		if err := f.Create(t.Context(), copied); err != nil {
			t.Fatal(err)
		}
		step("another comes, and nobody waits for it", "shop:")
	})
}

func memberNamespace(name string) *corev1.Namespace {
	return &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{api.LabelInject: api.InjectEnabled}}}
}
