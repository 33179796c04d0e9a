package router

import (
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/detour-dev/detour/api"
	"github.com/detour-dev/detour/router/view"
)

// snapshot is what the router knows at one moment: a view of each namespace that takes part, nil while its caches
// fill. It is not changed once it is made.
type snapshot map[string]*view.View

// table is what a Pod's proxy is to be sent: an empty table, so that it routes nothing, when its namespace does not
// take part (any more). It reports false while the answer is not known: the sidecar of a new Pod starts before the
// informers have seen the Pod.
func (s snapshot) table(namespace string, pod types.UID) (*api.Table, bool) {
	if s == nil {
		return nil, false
	}
	v, takesPart := s[namespace]
	if !takesPart {
		return emptyTable(), true
	}
	if v == nil {
		return nil, false
	}
	table, known := v.Tables[pod]
	return table, known
}

func emptyTable() *api.Table {
	table := &api.Table{}
	table.Version = table.Hash()
	return table
}

// next is when the first preview expires; zero if none does.
func (s snapshot) next() (next time.Time) {
	for _, v := range s {
		if v != nil && !v.Next.IsZero() && (next.IsZero() || v.Next.Before(next)) {
			next = v.Next
		}
	}
	return next
}

// isComplete reports whether the caches of every namespace are filled.
func (s snapshot) isComplete() bool {
	for _, v := range s {
		if v == nil {
			return false
		}
	}
	return s != nil
}

// latest holds the newest of a series of values. Who is slow misses those in between, and blocks nobody.
type latest[T any] struct {
	mu    sync.Mutex
	value T
	next  chan struct{}
}

func newLatest[T any]() *latest[T] {
	return &latest[T]{next: make(chan struct{})}
}

// set replaces the value and wakes everyone who waits for the next.
func (l *latest[T]) set(value T) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.value = value
	close(l.next)
	l.next = make(chan struct{})
}

// get returns the value and a channel that is closed when there is a newer one.
func (l *latest[T]) get() (T, <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.value, l.next
}
