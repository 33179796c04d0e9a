package proxy

import (
	"container/heap"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// loop is a thread's worth of sockets: it waits until something happens to one of them, tells that socket's handler,
// and writes what the handler left to be written. Everything that belongs to a connection is touched by its loop only,
// so nothing in it needs a lock.
//
// Idle, a loop is an ordinary goroutine that Go's own poller wakes. While there is work it waits in the kernel for a
// short time first, in a way that Go's scheduler does not notice: on a busy proxy that saves most of the cost of
// putting a thread to sleep and waking it. Go's signals interrupt that wait, so neither its garbage collector nor other
// goroutines wait for it for more than the scheduler's own 10 ms.
type loop struct {
	epoll    int
	sleeper  *os.File        // the epoll descriptor, as Go's poller knows it
	raw      syscall.RawConn // of sleeper
	alarm    int             // an eventfd that other goroutines ring
	watching []watched       // by descriptor
	age      uint32          // counts them, so that a late event does not reach a newer one
	events   []unix.EpollEvent

	buffer []byte    // what is being read, until the next read
	arena  []byte    // what handlers make themselves, until it is flushed
	head   *h2Head   // the header block that was decoded last
	queued []*socket // to be read or told of, once the events at hand are done
	dirty  []*socket // with something to be written
	timers timers
	pairs  map[*pair]struct{} // the connections that are open

	acceptors []*acceptor

	// connect begins to connect a socket.
	connect func(s *socket, to netip.AddrPort) error

	mu    sync.Mutex
	tasks []func() // of other goroutines
	stop  bool     // only touched by the loop itself
}

// watched is a descriptor and who is told of its events.
type watched struct {
	age uint32
	watcher
}

type watcher interface{ event(events uint32) }

const (
	readBuffer = 128 << 10
	maxEvents  = 128
	// briefly is how long a loop waits before it sleeps.
	briefly = 2 * time.Millisecond
)

func newLoop() (*loop, error) {
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("creating an epoll descriptor: %w", err)
	}
	if err := unix.SetNonblock(epoll, true); err != nil {
		return nil, fmt.Errorf("preparing the epoll descriptor: %w", err)
	}
	l := &loop{
		epoll:   epoll,
		sleeper: os.NewFile(uintptr(epoll), "epoll"),
		events:  make([]unix.EpollEvent, maxEvents),
		buffer:  make([]byte, readBuffer),
		connect: (*socket).connect,
		pairs:   map[*pair]struct{}{},
	}
	if l.raw, err = l.sleeper.SyscallConn(); err != nil {
		return nil, fmt.Errorf("preparing the epoll descriptor: %w", err)
	}
	if err := l.sleeper.SetReadDeadline(time.Time{}); err != nil {
		return nil, fmt.Errorf("handing the epoll descriptor to the poller of Go: %w", err)
	}
	if l.alarm, err = unix.Eventfd(0, unix.EFD_NONBLOCK|unix.EFD_CLOEXEC); err != nil {
		return nil, fmt.Errorf("creating an event descriptor: %w", err)
	}
	return l, l.watch(l.alarm, unix.EPOLLIN|unix.EPOLLET, bell{l})
}

// bell is what the alarm rings.
type bell struct{ *loop }

// event only makes the alarm quiet: the loop is awake, and will look for tasks next. It must not be the other way round,
// or the alarm for a task that comes in between would never be heard.
func (b bell) event(uint32) {
	var rung [8]byte
	unix.Read(b.alarm, rung[:])
}

// watch has w told of events of fd until [loop.forget].
func (l *loop) watch(fd int, events uint32, w watcher) error {
	if fd >= len(l.watching) {
		l.watching = append(l.watching, make([]watched, fd+64-len(l.watching))...)
	}
	l.age++
	l.watching[fd] = watched{l.age, w}
	err := unix.EpollCtl(l.epoll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: events, Fd: int32(fd), Pad: int32(l.age)})
	return os.NewSyscallError("epoll_ctl", err)
}

// forget is called before fd is closed, which takes it out of epoll.
func (l *loop) forget(fd int) {
	if fd < len(l.watching) {
		l.watching[fd] = watched{}
	}
}

// do has the loop call f, soon.
func (l *loop) do(f func()) {
	l.mu.Lock()
	l.tasks = append(l.tasks, f)
	l.mu.Unlock()
	one := [8]byte{1}
	unix.Write(l.alarm, one[:]) // it fails only when the alarm is ringing already
}

// call has the loop call f and waits for it.
func (l *loop) call(f func()) {
	done := make(chan struct{})
	l.do(func() { f(); close(done) })
	<-done
}

// run serves until ctx is done; then every descriptor is closed.
func (l *loop) run(ctx context.Context) error {
	defer l.close()
	defer context.AfterFunc(ctx, func() { l.do(func() { l.stop = true }) })()
	for !l.stop {
		n, err := l.wait()
		if err != nil {
			return fmt.Errorf("waiting for events: %w", err)
		}
		for _, e := range l.events[:n] {
			if s := l.watching[e.Fd]; s.watcher != nil && s.age == uint32(e.Pad) {
				s.event(e.Events)
				l.flush()
			}
		}
		l.work()
	}
	return nil
}

// work does what is due apart from events.
func (l *loop) work() {
	l.mu.Lock()
	tasks := l.tasks
	l.tasks = nil
	l.mu.Unlock()
	for _, f := range tasks {
		f()
		l.flush()
	}
	l.runTimers()
	for range len(l.queued) { // what is queued meanwhile has to wait for new events
		s := l.queued[0]
		l.queued = l.queued[1:]
		s.queued = false
		s.progress()
		l.flush()
	}
	if len(l.queued) == 0 {
		l.queued = nil
	}
}

// wait gives the number of events that have happened.
func (l *loop) wait() (int, error) {
	if len(l.queued) > 0 {
		return rawWait(l.epoll, l.events, 0)
	}
	due, set := l.timers.next()
	limit := briefly
	if set {
		limit = max(0, min(limit, time.Until(due)))
	}
	n, err := rawWait(l.epoll, l.events, limit)
	if n > 0 || err != nil || set && !time.Now().Before(due) {
		return n, err
	}
	return l.sleep(due)
}

// sleep waits as goroutines do, until an event or due, if that is set.
func (l *loop) sleep(due time.Time) (n int, err error) {
	if err := l.sleeper.SetReadDeadline(due); err != nil {
		return 0, err
	}
	var failed error
	err = l.raw.Read(func(uintptr) bool {
		n, failed = rawWait(l.epoll, l.events, 0)
		return n > 0 || failed != nil
	})
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return 0, nil
	}
	return n, errors.Join(err, failed)
}

// flush writes what handlers have left to be written.
func (l *loop) flush() {
	for len(l.dirty) > 0 {
		s := l.dirty[len(l.dirty)-1]
		l.dirty = l.dirty[:len(l.dirty)-1]
		s.dirty = false
		s.flush()
	}
	l.arena = l.arena[:0]
}

// room gives n bytes to be filled and sent: they stay as they are until the handler has returned and all is flushed.
func (l *loop) room(n int) []byte {
	at := len(l.arena)
	if cap(l.arena)-at < n {
		l.arena, at = make([]byte, 0, max(n, arenaSize)), 0 // what was given before belongs to those who have it
	}
	l.arena = l.arena[:at+n]
	return l.arena[at:]
}

const arenaSize = 16 << 10

func (l *loop) close() {
	for fd, w := range l.watching {
		if _, ok := w.watcher.(*socket); ok { // what is listened on belongs to all loops
			unix.Close(fd)
		}
	}
	unix.Close(l.alarm)
	l.sleeper.Close()
}

// after has the loop call f once d has passed, unless the timer is stopped before.
func (l *loop) after(d time.Duration, f func()) *timer {
	t := &timer{loop: l, at: time.Now().Add(d), f: f}
	heap.Push(&l.timers, t)
	return t
}

// timer calls f at its time. Only its loop touches it.
type timer struct {
	loop  *loop
	at    time.Time
	f     func()
	index int // in the loop's timers; -1 once it is not there any more
}

// stop may be called at any time, and on nil.
func (t *timer) stop() {
	if t != nil && t.index >= 0 {
		heap.Remove(&t.loop.timers, t.index)
	}
}

// timers are a heap, the next one first.
type timers []*timer

func (ts timers) Len() int           { return len(ts) }
func (ts timers) Less(i, j int) bool { return ts[i].at.Before(ts[j].at) }
func (ts timers) Swap(i, j int) {
	ts[i], ts[j] = ts[j], ts[i]
	ts[i].index, ts[j].index = i, j
}

func (ts *timers) Push(t any) {
	t.(*timer).index = len(*ts)
	*ts = append(*ts, t.(*timer))
}

func (ts *timers) Pop() any {
	last := len(*ts) - 1
	t := (*ts)[last]
	(*ts)[last] = nil
	*ts = (*ts)[:last]
	t.index = -1
	return t
}

// next is when the first timer is due, if there is one.
func (ts timers) next() (due time.Time, set bool) {
	if len(ts) == 0 {
		return time.Time{}, false
	}
	return ts[0].at, true
}

// runTimers calls what is due.
func (l *loop) runTimers() {
	for due, set := l.timers.next(); set && !time.Now().Before(due); due, set = l.timers.next() {
		heap.Pop(&l.timers).(*timer).f()
		l.flush()
	}
}
