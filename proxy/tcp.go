package proxy

import (
	"sync"
	"syscall"
)

// relay copies both ways until both sides have ended, and hands on how: a half that closes closes the other's, a
// reset resets. The caller closes both.
func relay(a, b *conn) {
	back := make(chan struct{})
	go func() {
		defer close(back)
		half(a, b)
	}()
	half(b, a)
	<-back
}

func half(dst, src *conn) {
	if err := pump(dst, src); err != nil {
		dst.reset()
		src.reset()
		return
	}
	dst.CloseWrite()
}

type buffer [64 << 10]byte

var buffers = sync.Pool{New: func() any { return new(buffer) }}

// pump copies src to dst until it ends. It holds a buffer only while there is something to read, so that idle
// connections cost no more than their goroutines.
func pump(dst, src *conn) error {
	if len(src.head) > 0 {
		if _, err := dst.Write(src.head); err != nil {
			return err
		}
		src.head = nil
	}
	raw, err := src.tcp().SyscallConn()
	if err != nil {
		return err
	}
	r := reader{}
	read := r.read
	for {
		if err := raw.Read(read); err != nil {
			return err
		}
		if r.n == 0 || r.err != nil {
			buffers.Put(r.buf)
			return r.err
		}
		_, err := dst.Write(r.buf[:r.n])
		buffers.Put(r.buf)
		if err != nil {
			return err
		}
	}
}

// reader is the state of one read from a descriptor that is ready, or is not yet.
type reader struct {
	buf *buffer
	n   int
	err error
}

// read reports whether it is done; otherwise it is called again when there is something.
func (r *reader) read(fd uintptr) bool {
	r.buf = buffers.Get().(*buffer)
	for {
		r.n, r.err = syscall.Read(int(fd), r.buf[:])
		switch r.err {
		case syscall.EINTR:
			continue
		case syscall.EAGAIN:
			buffers.Put(r.buf)
			return false
		}
		return true
	}
}
