package proxy

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/detour-dev/detour/api"
)

// port is a port of the app that the proxy serves in its place.
type port struct {
	api.TakenPort
	listen uint16 // the port that was bound, if the kernel was to choose
	fd     int
}

// bind listens on all addresses of both families, or of IPv4 where there is no IPv6.
func bind(taken api.TakenPort) (port, error) {
	fd, err := bindFamily(unix.AF_INET6, &unix.SockaddrInet6{Port: int(taken.Listen)})
	if err == unix.EAFNOSUPPORT || err == unix.EADDRNOTAVAIL {
		fd, err = bindFamily(unix.AF_INET, &unix.SockaddrInet4{Port: int(taken.Listen)})
	}
	if err != nil {
		return port{}, fmt.Errorf("port %q: listening on :%d: %w", taken.Name, taken.Listen, err)
	}
	address, err := unix.Getsockname(fd)
	if err != nil {
		unix.Close(fd)
		return port{}, fmt.Errorf("port %q: %w", taken.Name, err)
	}
	return port{taken, addrPort(address).Port(), fd}, nil
}

// bindFamily makes a listening socket. Connections inherit its options.
func bindFamily(family int, address unix.Sockaddr) (fd int, err error) {
	fd, err = unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	defer func() {
		if err != nil {
			unix.Close(fd)
		}
	}()
	if family == unix.AF_INET6 {
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 0); err != nil {
			return fd, err
		}
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
		return fd, err
	}
	if err := setOptions(fd); err != nil {
		return fd, err
	}
	if err := unix.Bind(fd, address); err != nil {
		return fd, err
	}
	return fd, unix.Listen(fd, backlog)
}

// backlog is how many connections may wait to be accepted; the kernel lowers it to net.core.somaxconn.
const backlog = 1 << 15

func addrPort(a unix.Sockaddr) netip.AddrPort {
	switch a := a.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(a.Addr), uint16(a.Port))
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(a.Addr).Unmap(), uint16(a.Port))
	}
	return netip.AddrPort{}
}

func (p port) address() net.Addr {
	return &net.TCPAddr{IP: net.IPv6unspecified, Port: int(p.listen)}
}

// acceptor takes one loop's share of the connections to a port.
type acceptor struct {
	proxy *Proxy
	loop  *loop
	port  port
}

const (
	// acceptPause is how long to wait when the kernel refuses another connection, for want of descriptors as a rule.
	acceptPause = 50 * time.Millisecond
	// maxAccepts is how many connections are taken in a row, so that the other loops have their share.
	maxAccepts = 16
)

func (a *acceptor) start() error {
	return a.loop.watch(a.port.fd, unix.EPOLLIN|unix.EPOLLEXCLUSIVE, a)
}

// stop leaves the descriptor open: it belongs to all loops.
func (a *acceptor) stop() {
	a.loop.forget(a.port.fd)
	unix.EpollCtl(a.loop.epoll, unix.EPOLL_CTL_DEL, a.port.fd, nil)
}

func (a *acceptor) event(uint32) {
	for range maxAccepts {
		fd, from, err := unix.Accept4(a.port.fd, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
		switch err {
		case nil:
			a.welcome(fd, addrPort(from))
		case unix.EAGAIN:
			return
		case unix.EINTR, unix.ECONNABORTED:
		default:
			a.pause(os.NewSyscallError("accept4", err))
			return
		}
	}
}

func (a *acceptor) welcome(fd int, from netip.AddrPort) {
	if a.port.fd == a.proxy.admin.fd {
		a.proxy.greet(a.loop, fd, from)
		return
	}
	a.proxy.welcome(a.loop, a.port.TakenPort, fd, from)
}

func (a *acceptor) pause(why error) {
	a.proxy.meters.failed(reasonAccept)
	a.proxy.log.Warn("accepting", "port", a.port.Name, "error", why)
	a.stop()
	a.loop.after(acceptPause, func() {
		if a.proxy.stopping.Load() {
			return
		}
		if err := a.start(); err != nil {
			a.pause(err)
		}
	})
}

// ownAddress is the Pod's address of the client's family, or its first one. The app is dialled there and never on
// loopback: software trusts loopback.
func ownAddress(own []netip.Addr, client netip.Addr) netip.Addr {
	for _, ip := range own {
		if ip.Unmap().Is4() == client.Unmap().Is4() {
			return ip
		}
	}
	return own[0]
}
