package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	restartAfter = time.Second
	// A component that ends early this many times in a row never will run, and takes the node with it.
	early    = 10 * time.Second
	maxEarly = 5
)

// supervisor starts components, starts them again when they end, and collects the exit status of every process that
// has lost its parent, as an init process must.
type supervisor struct {
	mu      sync.Mutex
	running map[int]life // by process number
	failed  chan error
}

// life is one run of a component.
type life struct {
	component
	started time.Time
	early   int // how many lives before this one ended early
}

// supervise runs the components until ctx is done or one of them fails for good.
func supervise(ctx context.Context, all []component) error {
	s := &supervisor{running: map[int]life{}, failed: make(chan error, 1)}
	var waiting []component
	for _, c := range all {
		if c.needsAPI {
			waiting = append(waiting, c)
			continue
		}
		s.start(c, 0)
	}
	go s.collect()
	go s.startAfterAPI(ctx, waiting)
	select {
	case <-ctx.Done():
		return nil
	case err := <-s.failed:
		return err
	}
}

// startAfterAPI starts what needs the API server. If that never gets ready it fails itself, or `up` gives up.
func (s *supervisor) startAfterAPI(ctx context.Context, waiting []component) {
	client, err := newClient(net.JoinHostPort(nodeAddress, apiPort))
	if err != nil {
		s.fail(err)
		return
	}
	if err := poll(ctx, time.Hour, func() bool { return client.ready(ctx) }); err != nil {
		s.fail(fmt.Errorf("waiting for the API server: %w", err))
		return
	}
	for _, c := range waiting {
		s.start(c, 0)
	}
}

// start gives the component another life, after `early` lives that were too short.
func (s *supervisor) start(c component, early int) {
	s.mu.Lock()
	defer s.mu.Unlock() // collect must not look the process up before it is noted
	pid, err := spawn(c)
	if err != nil {
		s.fail(fmt.Errorf("starting %s: %w", c.name, err))
		return
	}
	slog.Info("started", "component", c.name, "pid", pid)
	s.running[pid] = life{component: c, started: time.Now(), early: early}
}

// spawn starts a component with its log for output. It does not use os/exec, which would wait for the process too.
func spawn(c component) (pid int, err error) {
	path := c.path
	if !filepath.IsAbs(path) {
		if path, err = findProgram(path); err != nil {
			return 0, err
		}
	}
	log, err := openLog(c.name)
	if err != nil {
		return 0, err
	}
	defer log.Close()
	return syscall.ForkExec(path, append([]string{c.name}, c.args...), &syscall.ProcAttr{
		Dir:   "/",
		Env:   os.Environ(),
		Files: []uintptr{0, log.Fd(), log.Fd()},
		Sys:   &syscall.SysProcAttr{Setsid: true},
	})
}

// collect waits for processes, forever.
func (s *supervisor) collect() {
	for {
		var status unix.WaitStatus
		pid, err := unix.Wait4(-1, &status, 0, nil)
		if errors.Is(err, unix.ECHILD) {
			time.Sleep(pollEvery)
		}
		if err == nil {
			s.ended(pid, status)
		}
	}
}

// ended starts a component again. Other processes are the orphans of those.
func (s *supervisor) ended(pid int, status unix.WaitStatus) {
	s.mu.Lock()
	r, ours := s.running[pid]
	delete(s.running, pid)
	s.mu.Unlock()
	if !ours {
		return
	}
	slog.Warn("ended", "component", r.name, "pid", pid, "exit", status.ExitStatus(), "signal", int(status.Signal()))
	next := r.next(time.Now())
	if next == maxEarly {
		s.fail(fmt.Errorf("%s ended %d times within %s of its start; its last words:\n%s",
			r.name, maxEarly, early, tail(logPath(r.name), 10)))
		return
	}
	time.AfterFunc(restartAfter, func() { s.start(r.component, next) })
}

// next is the number of early ends in a row, once this life has ended as well.
func (r life) next(now time.Time) int {
	if now.Sub(r.started) >= early {
		return 0
	}
	return r.early + 1
}

// fail ends the node. The first reason counts.
func (s *supervisor) fail(err error) {
	select {
	case s.failed <- err:
	default:
	}
}
