package router

import (
	"context"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/detour-dev/detour/api"
	"github.com/detour-dev/detour/router/view"
	"github.com/detour-dev/detour/router/view/viewtest"
)

// TestPreviewExpiresByItself lets time pass, and nothing else happen.
func TestPreviewExpiresByItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := viewtest.Shop()
		preview := &o.Deployments[2]
		preview.CreationTimestamp = metav1.Now()
		preview.Annotations[api.AnnotationTTL] = "2s"
		f := newFakeAPI(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{
			Name: "shop", Labels: map[string]string{api.LabelInject: api.InjectEnabled},
		}}, o)
		wake, latest := newSignal(), newLatest[snapshot]()
		acks := newAckStore(wake.set)
		l := &loop{
			wake: wake, tracker: newTracker(f.open, wake.set, slog.New(slog.DiscardHandler)),
			acks: acks, latest: latest, strays: newLatest[[]view.Stray](), metrics: newMetrics(latest, acks),
		}
		ctx, stop := context.WithCancel(t.Context())
		stopped := make(chan error)
		go func() { stopped <- l.run(ctx) }()

		time.Sleep(2*time.Second - debounce)
		synctest.Wait()
		state := func() api.State {
			s, _ := latest.get()
			return s["shop"].Status.Previews[0].State
		}
		if got := state(); got != api.StatePending {
			t.Errorf("in time it is %s", got)
		}
		time.Sleep(2 * debounce)
		synctest.Wait()
		if got := state(); got != api.StateExpired {
			t.Errorf("when its time is over it is %s", got)
		}
		stop()
		if err := <-stopped; err != nil {
			t.Error(err)
		}
	})
}

// TestUntilLook never lets a clock that is set back put off what the loop has to do anyway.
func TestUntilLook(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for name, c := range map[string]struct{ next, want time.Duration }{
			"soon": {time.Second, time.Second}, "far away": {1000 * time.Hour, rebuildEvery}, "past": {-time.Hour, -time.Hour},
		} {
			if got := untilLook(time.Now().Add(c.next)); got != c.want {
				t.Errorf("%s: %s, want %s", name, got, c.want)
			}
		}
		if got := untilLook(time.Time{}); got != rebuildEvery {
			t.Errorf("never: %s, want %s", got, rebuildEvery)
		}
	})
}
