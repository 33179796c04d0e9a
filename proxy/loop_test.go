package proxy

import (
	"context"
	"sync"
	"testing"
	"time"
)

// TestLoopHearsEveryTask has two goroutines give a loop a task each at once, again and again: both must be done, though
// nothing else wakes the loop.
func TestLoopHearsEveryTask(t *testing.T) {
	l, err := newLoop()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() {
		if err := l.run(ctx); err != nil {
			t.Error(err)
		}
	})
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range 30_000 {
			var both sync.WaitGroup
			both.Go(func() { l.call(func() {}) })
			both.Go(func() { l.call(func() {}) })
			both.Wait()
		}
	}()
	select {
	case <-done:
	case <-time.After(30 * time.Second):
		t.Fatal("a task has not been done")
	}
	cancel()
	running.Wait()
}
