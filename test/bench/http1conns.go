package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"time"

	"golang.org/x/sys/unix"
)

// http1Conns are the connections of a load, which one thread serves by epoll.
type http1Conns struct {
	load   http1Load
	epoll  int
	timer  int // a timerfd that tells when requests are due; -1 without a rate
	byFD   map[int32]*http1Conn
	events []unix.EpollEvent

	idle     []*http1Conn
	overdue  []time.Time // requests that wait for a connection
	interval time.Duration
	next     time.Time // when the next request is due

	opened    time.Time // the window
	done      int
	latencies []time.Duration
}

type http1Conn struct {
	fd  int
	due time.Time
	in  [4096]byte
	n   int
}

func (c *http1Conns) watch(fd int) error {
	return unix.EpollCtl(c.epoll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)})
}

func (c *http1Conns) close() {
	for _, conn := range c.byFD {
		unix.Close(conn.fd)
	}
	for _, fd := range []int{c.timer, c.epoll} {
		if fd > 0 {
			unix.Close(fd)
		}
	}
}

// begin sends the first requests, or sets the timer for them.
func (c *http1Conns) begin() (err error) {
	if c.load.rate == 0 {
		for _, conn := range c.idle {
			if err := c.send(conn, time.Time{}); err != nil {
				return err
			}
		}
		return nil
	}
	c.interval = time.Duration(float64(time.Second) / c.load.rate)
	if c.timer, err = unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_CLOEXEC|unix.TFD_NONBLOCK); err != nil {
		return err
	}
	every := unix.NsecToTimespec(int64(c.interval))
	c.next = time.Now().Add(c.interval)
	if err := unix.TimerfdSettime(c.timer, 0, &unix.ItimerSpec{Interval: every, Value: every}, nil); err != nil {
		return err
	}
	return c.watch(c.timer)
}

// turn serves the connections for a while.
func (c *http1Conns) turn(ctx context.Context, d time.Duration) error {
	const stalled = 5 * time.Second
	end, last, done := time.Now().Add(d), time.Now(), c.done
	for now := last; now.Before(end); now = time.Now() {
		n, err := unix.EpollWait(c.epoll, c.events, 10)
		if err != nil && err != unix.EINTR {
			return err
		}
		for _, e := range c.events[:max(n, 0)] {
			if err := c.ready(e.Fd); err != nil {
				return err
			}
		}
		if c.done != done {
			last, done = now, c.done
		}
		if now.Sub(last) > stalled {
			return fmt.Errorf("no answer for %s", stalled)
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	return nil
}

func (c *http1Conns) ready(fd int32) error {
	if int(fd) == c.timer {
		return c.tick()
	}
	return c.receive(c.byFD[fd])
}

// tick sends what has become due.
func (c *http1Conns) tick() error {
	var b [8]byte
	if _, err := unix.Read(c.timer, b[:]); err != nil {
		return err
	}
	for range binary.NativeEndian.Uint64(b[:]) {
		c.overdue = append(c.overdue, c.next)
		c.next = c.next.Add(c.interval)
	}
	return c.sendOverdue()
}

func (c *http1Conns) sendOverdue() error {
	for len(c.overdue) > 0 && len(c.idle) > 0 {
		conn := c.idle[0] // in turn, so that all connections are used
		c.idle = append(c.idle[:0], c.idle[1:]...)
		due := c.overdue[0]
		c.overdue = append(c.overdue[:0], c.overdue[1:]...)
		if err := c.send(conn, due); err != nil {
			return err
		}
	}
	return nil
}

func (c *http1Conns) send(conn *http1Conn, due time.Time) error {
	conn.due = due
	n, err := unix.Write(conn.fd, c.load.request)
	if err == nil && n < len(c.load.request) {
		err = io.ErrShortWrite
	}
	return err
}

// receive reads from a connection, and goes on when its answer is whole.
func (c *http1Conns) receive(conn *http1Conn) error {
	n, err := unix.Read(conn.fd, conn.in[conn.n:])
	if err == unix.EAGAIN || err == unix.EINTR {
		return nil
	}
	if err == nil && n == 0 {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return fmt.Errorf("reading an answer: %w", err)
	}
	conn.n += n
	end, err := parseAnswer(conn.in[:conn.n], appLetter)
	if err != nil || end == 0 {
		return err
	}
	if end < conn.n {
		return fmt.Errorf("%q after an answer", conn.in[end:conn.n])
	}
	return c.answered(conn)
}

func (c *http1Conns) answered(conn *http1Conn) error {
	conn.n = 0
	c.done++
	if c.load.rate == 0 {
		return c.send(conn, time.Time{})
	}
	if conn.due.After(c.opened) { // opening the window takes time, in which others became due
		c.latencies = append(c.latencies, time.Since(conn.due))
	}
	c.idle = append(c.idle, conn)
	return c.sendOverdue()
}
