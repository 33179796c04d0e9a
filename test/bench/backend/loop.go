package main

import (
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// A loop serves its listeners and their connections on one thread, by epoll.
type loop struct {
	epoll     int
	listeners map[int]answers
	conns     map[int]*conn
	in, out   []byte // shared by all connections
}

// A conn is a connection between two reads.
type conn struct {
	serve server
	rest  []byte // of what was read, what was not yet a whole request
}

// A server takes the whole requests that begin in, appends the answers to out, and returns what is left of in.
type server interface {
	serve(in, out []byte) (rest, answered []byte)
}

func newLoop() (*loop, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("epoll: %w", err)
	}
	return &loop{
		epoll:     fd,
		listeners: map[int]answers{},
		conns:     map[int]*conn{},
		in:        make([]byte, 256<<10),
		out:       make([]byte, 0, 256<<10),
	}, nil
}

// listen has the loop answer on a port.
func (l *loop) listen(host string, port int, a answers) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return fmt.Errorf("a socket: %w", err)
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
		return fmt.Errorf("a socket: %w", err)
	}
	addr := &unix.SockaddrInet4{Port: port, Addr: netip.MustParseAddr(host).As4()}
	if err := unix.Bind(fd, addr); err != nil {
		return fmt.Errorf("binding %s:%d: %w", host, port, err)
	}
	if err := unix.Listen(fd, 4096); err != nil {
		return fmt.Errorf("listening on %s:%d: %w", host, port, err)
	}
	l.listeners[fd] = a
	return l.watch(fd)
}

func (l *loop) watch(fd int) error {
	return unix.EpollCtl(l.epoll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)})
}

// run serves until epoll itself fails; a connection that fails is closed.
func (l *loop) run() error {
	events := make([]unix.EpollEvent, 512)
	for {
		n, err := unix.EpollWait(l.epoll, events, -1)
		if err != nil && err != unix.EINTR {
			return fmt.Errorf("epoll: %w", err)
		}
		for _, e := range events[:max(n, 0)] {
			l.ready(int(e.Fd))
		}
	}
}

func (l *loop) ready(fd int) {
	if a, ok := l.listeners[fd]; ok {
		l.accept(fd, a)
		return
	}
	if c := l.conns[fd]; !l.exchange(fd, c) {
		delete(l.conns, fd)
		unix.Close(fd)
	}
}

func (l *loop) accept(listener int, a answers) {
	fd, _, err := unix.Accept4(listener, unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK)
	if err != nil {
		return
	}
	unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
	if l.watch(fd) != nil {
		unix.Close(fd)
		return
	}
	l.conns[fd] = &conn{serve: &sniffer{answers: a}}
}

// exchange reads once and answers what has become whole. It reports whether the connection goes on.
func (l *loop) exchange(fd int, c *conn) bool {
	kept := copy(l.in, c.rest)
	n, err := unix.Read(fd, l.in[kept:])
	if err == unix.EAGAIN || err == unix.EINTR {
		return true
	}
	if err != nil || n == 0 {
		return false
	}
	rest, out := c.serve.serve(l.in[:kept+n], l.out[:0])
	c.rest = append(c.rest[:0], rest...)
	return len(rest) < len(l.in) && writeAll(fd, out)
}

func writeAll(fd int, b []byte) bool {
	for len(b) > 0 {
		n, err := unix.Write(fd, b)
		switch err {
		case nil:
			b = b[n:]
		case unix.EAGAIN:
			unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}, -1)
		case unix.EINTR:
		default:
			return false
		}
	}
	return true
}
