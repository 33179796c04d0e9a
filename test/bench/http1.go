package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// http1Load sends small requests over HTTP/1.1, one at a time on each connection: as fast as they are answered or, with
// a rate, when they are due. One that is due while all connections are busy waits for the first to be free, and its
// latency counts from when it was due.
type http1Load struct {
	conns   int
	rate    float64 // requests a second; 0 is as fast as they are answered
	request []byte
}

func (l http1Load) run(ctx context.Context, addr string, w window) (traffic, error) {
	c, err := l.connect(addr)
	defer c.close()
	if err != nil {
		return traffic{}, err
	}
	if err := c.begin(); err != nil {
		return traffic{}, err
	}
	if err := c.turn(ctx, w.warm); err != nil {
		return traffic{}, err
	}
	if err := w.open(); err != nil {
		return traffic{}, err
	}
	c.done, c.latencies, c.opened = 0, make([]time.Duration, 0, 1<<16), time.Now()
	if err := c.turn(ctx, w.measure); err != nil {
		return traffic{}, err
	}
	t := traffic{units: float64(c.done), elapsed: time.Since(c.opened), latencies: c.latencies}
	if l.rate > 0 && t.units < .9*l.rate*t.elapsed.Seconds() {
		return t, fmt.Errorf("%.0f requests in %s: it does not keep up with %.0f a second", t.units, t.elapsed, l.rate)
	}
	return t, w.close()
}

// connect opens the connections. What it returns is to be closed even with an error.
func (l http1Load) connect(addr string) (*http1Conns, error) {
	c := &http1Conns{load: l, timer: -1, byFD: map[int32]*http1Conn{}, events: make([]unix.EpollEvent, 256)}
	to, err := netip.ParseAddrPort(addr)
	if err != nil {
		return c, err
	}
	if c.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return c, err
	}
	for range l.conns {
		fd, err := connect(to)
		if err != nil {
			return c, err
		}
		conn := &http1Conn{fd: fd}
		c.byFD[int32(fd)] = conn
		c.idle = append(c.idle, conn)
		if err := c.watch(fd); err != nil {
			return c, err
		}
	}
	return c, nil
}

func connect(to netip.AddrPort) (fd int, err error) {
	if fd, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0); err != nil {
		return 0, err
	}
	err = unix.Connect(fd, &unix.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().As4()})
	if err == nil {
		err = errors.Join(unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1), unix.SetNonblock(fd, true))
	}
	if err != nil {
		unix.Close(fd)
		return 0, fmt.Errorf("connecting to %s: %w", to, err)
	}
	return fd, nil
}
