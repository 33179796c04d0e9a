package router

import (
	"context"
	"time"

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
	metrics *metrics
}

func (l *loop) run(ctx context.Context) error {
	defer l.tracker.close()
	tick := time.NewTicker(rebuildEvery)
	defer tick.Stop()
	for {
		l.rebuild(ctx)
		select {
		case <-l.wake:
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
		if !pause(ctx, debounce) {
			return nil
		}
		l.wake.clear()
	}
}

func (l *loop) rebuild(ctx context.Context) {
	start := time.Now()
	seen, ok := l.tracker.look(ctx)
	if !ok {
		return
	}
	acks := l.acks.fresh()
	next := snapshot{}
	for namespace, objects := range seen {
		next[namespace] = nil
		if objects != nil {
			next[namespace] = view.New(namespace, *objects, acks)
		}
	}
	l.latest.set(next)
	l.metrics.rebuilds.Observe(time.Since(start).Seconds())
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
