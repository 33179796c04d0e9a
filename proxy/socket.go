package proxy

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// handler is told what happens to a socket. It is what a connection is at the moment: one whose protocol is not known yet
// (sniff.go), one that is copied (tcp.go), or one that speaks HTTP (http1.go, http2.go). Handlers do no input or output of
// their own: they take bytes, and leave bytes with [socket.send].
type handler interface {
	// connected: a socket that was dialled is connected.
	connected(s *socket)
	// data has come; the handler says how much of it is dealt with. What is left comes again with what follows it, or,
	// if the handler holds the socket, once it is released. b is valid until data returns, but may be sent without a copy.
	data(s *socket, b []byte) (used int)
	// ended: the peer will send no more. rest is what data has left over.
	ended(s *socket, rest []byte)
	// clogged: more is to be written to the socket than it takes (true), or no longer (false).
	clogged(s *socket, is bool)
	// closed: the socket is closed. err says what broke the connection or kept it from being made; it is nil after
	// [socket.end].
	closed(s *socket, err error)
}

// socket is a TCP connection of a loop, on which nothing blocks.
type socket struct {
	handler
	loop   *loop
	fd     int
	remote netip.AddrPort

	in  []byte // read and not used
	out outbox
	// sent counts the bytes written in all, received those read.
	sent, received uint64
	traffic        *traffic // counts them as well, if they are a client's
	acked          uint64   // when it was closed

	held      hold // why it is not read
	readable  bool // there may be something to read
	last      bool // there is an end to be read
	eof       bool // it has been read
	told      bool // and the handler knows
	seen      bool // the handler has been offered all of in
	dialling  bool
	queued    bool // in loop.queued
	dirty     bool // in loop.dirty
	clog      bool // the handler knows that it does not take all
	unwritten bool // writing has failed: reading will tell why
	gone      bool // closed
}

// hold is a set of reasons for not reading.
type hold uint8

const (
	holdClogged hold = 1 << iota // what was read cannot be written on
	holdWaiting                  // the handler waits for something else first
	holdBusy                     // not before the loop has looked after others
)

// outbox is what is to be written: what is owned first, then what is borrowed from the buffer that is being read.
type outbox struct {
	owned    []byte
	borrowed []byte
	end      ending
}

// ending is what follows the bytes of an outbox.
type ending uint8

const (
	endNone ending = iota
	endHalf        // no more is written
	endBoth        // the connection is closed
	endDone        // it has been done
)

func (o *outbox) size() int { return len(o.owned) + len(o.borrowed) }

// add takes b, which is valid until the next read.
func (o *outbox) add(b []byte) {
	switch n := len(o.borrowed); {
	case len(b) == 0:
	case n == 0 && len(o.owned) == 0:
		o.borrowed = b
	case n > 0 && cap(o.borrowed) > n && &o.borrowed[:n+1][n] == &b[0]: // it follows in the same buffer
		o.borrowed = o.borrowed[:n+len(b)]
	default:
		o.own()
		o.owned = append(o.owned, b...)
	}
}

// own copies what is borrowed.
func (o *outbox) own() {
	o.owned = append(o.owned, o.borrowed...)
	o.borrowed = nil
}

// take removes the first n bytes and owns the rest.
func (o *outbox) take(n int) {
	if len(o.owned) == 0 {
		o.borrowed = o.borrowed[n:]
		o.own()
		return
	}
	if o.owned = o.owned[:copy(o.owned, o.owned[n:])]; len(o.owned) == 0 {
		o.owned = nil
	}
}

// adopt makes a connection that was accepted a socket of the loop.
func (l *loop) adopt(fd int, remote netip.AddrPort, h handler) (*socket, error) {
	s := &socket{handler: h, loop: l, fd: fd, remote: remote}
	if err := l.watch(fd, socketEvents, s); err != nil {
		unix.Close(fd)
		return nil, err
	}
	return s, nil
}

const socketEvents = unix.EPOLLIN | unix.EPOLLOUT | unix.EPOLLRDHUP | unix.EPOLLET

// dial begins to connect; the handler is told of the outcome, never before dial has returned.
func (l *loop) dial(to netip.AddrPort, h handler) *socket {
	s := &socket{handler: h, loop: l, fd: -1, remote: to, dialling: true}
	if err := l.connect(s, to); err != nil {
		l.after(0, func() { s.fail(err) })
	}
	return s
}

// connect is what the loop's connect is, but for tests.
func (s *socket) connect(to netip.AddrPort) (err error) {
	family, address := sockaddr(to)
	if s.fd, err = unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0); err != nil {
		s.fd = -1
		return os.NewSyscallError("socket", err)
	}
	if err := setOptions(s.fd); err != nil {
		return err
	}
	if err := unix.Connect(s.fd, address); err != nil && err != unix.EINPROGRESS {
		return os.NewSyscallError("connect", err)
	}
	return s.loop.watch(s.fd, socketEvents, s)
}

func sockaddr(a netip.AddrPort) (family int, _ unix.Sockaddr) {
	if ip := a.Addr().Unmap(); ip.Is4() {
		return unix.AF_INET, &unix.SockaddrInet4{Port: int(a.Port()), Addr: ip.As4()}
	}
	to := &unix.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16()}
	if i, err := net.InterfaceByName(a.Addr().Zone()); err == nil {
		to.ZoneId = uint32(i.Index)
	}
	return unix.AF_INET6, to
}

// setOptions are Go's own for TCP: small writes go out at once, and a peer that has vanished is noticed.
func setOptions(fd int) error {
	for _, o := range [...]struct{ level, name, value int }{
		{unix.IPPROTO_TCP, unix.TCP_NODELAY, 1},
		{unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1},
		{unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, int(keepAlive / time.Second)},
		{unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, int(keepAlive / time.Second)},
	} {
		if err := unix.SetsockoptInt(fd, o.level, o.name, o.value); err != nil {
			return os.NewSyscallError("setsockopt", err)
		}
	}
	return nil
}

// keepAlive is how often TCP asks a silent peer whether it is still there.
const keepAlive = 15 * time.Second

// event is called by the loop.
func (s *socket) event(events uint32) {
	if s.dialling {
		s.dialled()
		return
	}
	if events&unix.EPOLLOUT != 0 && s.out.size() > 0 {
		s.flush()
	}
	if events&^unix.EPOLLOUT != 0 {
		s.readable = true
		s.last = events&^(unix.EPOLLOUT|unix.EPOLLIN) != 0
		s.progress()
	}
}

func (s *socket) dialled() {
	code, err := unix.GetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_ERROR)
	if err == nil && code != 0 {
		err = syscall.Errno(code)
	}
	if err != nil {
		s.fail(os.NewSyscallError("connect", err))
		return
	}
	if _, err := unix.Getpeername(s.fd); err != nil {
		return // not yet
	}
	s.dialling = false
	s.readable = true
	s.connected(s)
	s.touch()
	s.enqueue()
}

// maxReads is how often a socket is read before others have their turn.
const maxReads = 4

// progress gives the handler what there is, until there is no more or it holds the socket.
func (s *socket) progress() {
	s.held &^= holdBusy
	for reads := 0; s.open(); {
		switch {
		case len(s.in) > 0 && !s.seen:
			s.offer(copy(s.loop.buffer, s.in))
		case s.readable && !s.eof:
			if reads == maxReads {
				s.held |= holdBusy
				s.enqueue()
				return
			}
			reads++
			s.read()
		case s.eof && !s.told:
			s.told = true
			s.ended(s, s.in)
		default:
			return
		}
	}
}

// open reports whether the socket may be read.
func (s *socket) open() bool { return s.held == 0 && !s.gone }

// read reads once, behind what is there already.
func (s *socket) read() {
	before := copy(s.loop.buffer, s.in)
	room := s.loop.buffer[before:]
	n, err := rawRead(s.fd, room)
	switch {
	case err == unix.EINTR:
	case err == unix.EAGAIN:
		s.readable = false
	case err != nil:
		s.fail(os.NewSyscallError("read", err))
	case n == 0:
		s.eof = true
	default:
		// A short read means that there is no more (epoll(7)), unless what came with the event was the end.
		s.readable = n == len(room) || s.last
		s.received += uint64(n)
		if s.traffic != nil {
			s.traffic.received.Add(n)
		}
		s.offer(before + n)
	}
}

// offer hands the first n bytes of the loop's buffer to the handler, lets everything be written that it sends, and keeps
// what it leaves.
func (s *socket) offer(n int) {
	s.seen = true
	used := s.data(s, s.loop.buffer[:n])
	s.loop.flush()
	switch {
	case s.gone || used == n:
		s.in = nil
	default:
		s.in = append(s.in[:0], s.loop.buffer[used:n]...)
	}
}

// again has what is left over offered again, to another handler or in another state.
func (s *socket) again() {
	s.seen = false
	s.enqueue()
}

// send leaves b to be written once the handler has returned. b may be part of what the handler was given, or must not
// change until then.
func (s *socket) send(b []byte) {
	if s.gone || s.unwritten || s.out.end != endNone {
		return
	}
	s.out.add(b)
	s.touch()
}

// finish ends the direction towards the peer, after what is to be written.
func (s *socket) finish() {
	if s.out.end == endNone {
		s.out.end = endHalf
		s.touch()
	}
}

// end closes the connection after what is to be written.
func (s *socket) end() {
	if s.out.end != endBoth && !s.gone {
		s.out.end = endBoth
		s.touch()
	}
}

// touch has the socket written by and by.
func (s *socket) touch() {
	if !s.dirty {
		s.dirty = true
		s.loop.dirty = append(s.loop.dirty, s)
	}
}

// enqueue has the socket make progress by and by.
func (s *socket) enqueue() {
	if !s.queued {
		s.queued = true
		s.loop.queued = append(s.loop.queued, s)
	}
}

// hold keeps the socket from being read.
func (s *socket) hold(why hold) { s.held |= why }

// release takes the reason why away, and has what is left over offered again.
func (s *socket) release(why hold) {
	if s.held&why != 0 {
		s.held &^= why
		s.again()
	}
}

// flush writes what it can.
func (s *socket) flush() {
	if s.gone || s.dialling || s.fd < 0 {
		s.out.own()
		return
	}
	for s.out.size() > 0 && !s.unwritten {
		b := s.out.owned
		if len(b) == 0 {
			b = s.out.borrowed
		} else if len(s.out.borrowed) > 0 {
			s.out.own()
			b = s.out.owned
		}
		n, err := rawWrite(s.fd, b)
		if err == unix.EINTR {
			continue
		}
		if err == unix.EAGAIN {
			break
		}
		if err != nil {
			s.cannotWrite()
			return
		}
		s.sent += uint64(n)
		if s.traffic != nil {
			s.traffic.sent.Add(n)
		}
		s.out.take(n)
	}
	s.out.own()
	if full := s.out.size() > 0; full != s.clog {
		s.clog = full
		s.clogged(s, full)
	}
	if s.out.size() == 0 {
		s.finishNow()
	}
}

// cannotWrite: the peer takes no more. What it has said before may still be there to be read, and why it ended behind it.
func (s *socket) cannotWrite() {
	s.unwritten = true
	s.out.owned, s.out.borrowed = nil, nil
	if s.out.end == endBoth {
		s.finishNow()
		return
	}
	s.readable = true
	if s.clog {
		s.clog = false
		s.clogged(s, false)
	}
	s.enqueue()
}

func (s *socket) finishNow() {
	switch s.out.end {
	case endHalf:
		s.out.end = endDone
		unix.Shutdown(s.fd, unix.SHUT_WR)
	case endBoth:
		s.close()
		s.closed(s, nil)
	}
}

// fail closes the socket and tells the handler.
func (s *socket) fail(err error) {
	if !s.gone {
		s.acked = s.acknowledged()
		s.close()
		s.closed(s, err)
	}
}

// close closes the connection, at once and for good.
func (s *socket) close() {
	if s.gone {
		return
	}
	s.gone = true
	s.in, s.out = nil, outbox{}
	if s.clog {
		s.clog = false
		s.clogged(s, false)
	}
	if s.fd >= 0 {
		s.loop.forget(s.fd)
		unix.Close(s.fd)
	}
}

// acknowledged counts the bytes that the peer's kernel has confirmed. It can still be asked once the socket is closed.
func (s *socket) acknowledged() uint64 {
	if s.gone || s.fd < 0 || s.dialling {
		return s.acked
	}
	info, err := unix.GetsockoptTCPInfo(s.fd, unix.IPPROTO_TCP, unix.TCP_INFO)
	if err != nil || info.Bytes_acked == 0 {
		return s.sent // nobody knows
	}
	return info.Bytes_acked - 1 // the first one is the SYN
}

// quiet reports whether the connection is open and nothing of it waits to be read, the end included.
func (s *socket) quiet() bool {
	if s.gone || s.dialling || s.eof || s.unwritten || len(s.in) > 0 || s.out.end != endNone {
		return false
	}
	if s.fd < 0 {
		return true
	}
	var b [1]byte
	_, _, err := unix.Recvfrom(s.fd, b[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
	return err == unix.EAGAIN
}

// reset closes the connection in a way that the peer cannot take for an orderly end.
func (s *socket) reset() {
	if s.fd >= 0 && !s.gone {
		unix.SetsockoptLinger(s.fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
	}
	s.close()
}

// isReset tells a connection that was reset from one that was closed.
func isReset(err error) bool {
	return errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}
