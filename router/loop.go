package router

import (
	"context"
	"time"

	"github.com/detour-dev/detour/router/gateway"
	"github.com/detour-dev/detour/router/view"
)

const (
	debounce = 75 * time.Millisecond // informers signal in bursts
	// rebuildEvery makes acknowledgements expire, and tries again to open a cache that could not be opened.
	rebuildEvery = 5 * time.Second
)

// loop rebuilds everything when something has changed.
type loop struct {
	wake    signal
	tracker *tracker
	acks    *ackStore
	latest  *latest[snapshot]
	strays  *latest[[]view.Stray]
	metrics *metrics
	gateway *gateway.Gateway // nil where there is none
}

func (l *loop) run(ctx context.Context) error {
	defer l.tracker.close()
	for {
		next := l.rebuild(ctx)
		select {
		case <-l.wake:
		case <-time.After(untilLook(next)):
		case <-ctx.Done():
			return nil
		}
		if !pause(ctx, debounce) {
			return nil
		}
		l.wake.clear()
	}
}

// untilLook is how long to wait for a signal: until the next preview expires, but never longer than a clock that is set
// back may make that.
func untilLook(next time.Time) time.Duration {
	if next.IsZero() {
		return rebuildEvery
	}
	return min(time.Until(next), rebuildEvery)
}

// rebuild says when time alone will have changed what it has made; zero if it will not.
func (l *loop) rebuild(ctx context.Context) (next time.Time) {
	start := time.Now()
	seen, ok := l.tracker.look(ctx)
	if !ok {
		return time.Time{}
	}
	acks := l.acks.fresh()
	made := snapshot{}
	for namespace, objects := range seen.members {
		made[namespace] = nil
		if objects != nil {
			made[namespace] = l.announce(view.New(namespace, *objects, acks, start))
		}
	}
	l.strays.set(straysOf(seen))
	l.latest.set(made)
	l.metrics.rebuilds.Observe(time.Since(start).Seconds())
	return made.next()
}

// announce has the status say where the gateway is.
func (l *loop) announce(v *view.View) *view.View {
	if l.gateway == nil {
		return v
	}
	return v.WithGateway(l.gateway.URL(), l.gateway.IsOpen())
}

// signal says that something has changed, however often it is set.
type signal chan struct{}

func newSignal() signal { return make(signal, 1) }

func (s signal) set() {
	select {
	case s <- struct{}{}:
	default:
	}
}

func (s signal) clear() {
	select {
	case <-s:
	default:
	}
}

// pause waits; it reports false when ctx ends first.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
