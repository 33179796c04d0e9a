// Package bulk moves large bodies in and out of connections at next to no cost for the core that does it: what is sent
// comes out of the page cache and what is received is dropped inside the kernel. So a proxy between two such ends is
// the slowest part of the way.
package bulk

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// Size is the length of a large body: 1 MiB.
const Size = 1 << 20

// step is the most that one system call moves, so that counts are never far behind.
const step = 256 << 10

// A Conn is a connection whose bytes are moved without being looked at.
type Conn struct {
	raw     syscall.RawConn
	discard []byte // its length is all that the kernel looks at
	// Moved, where set, is told of every piece as it is sent or dropped.
	Moved func(bytes int)
}

// NewConn wraps c, which stays the caller's to close.
func NewConn(c *net.TCPConn) (*Conn, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, err
	}
	return &Conn{raw: raw, discard: make([]byte, step), Moved: func(int) {}}, nil
}

// Body makes the file of [Size] bytes that [Conn.Send] sends. It lives in memory and is gone once closed.
func Body() (*os.File, error) {
	fd, err := unix.MemfdCreate("body", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("making the body: %w", err)
	}
	f := os.NewFile(uintptr(fd), "body")
	block := make([]byte, Size)
	for i := range block {
		block[i] = 'b'
	}
	if _, err := f.Write(block); err != nil {
		return nil, errors.Join(fmt.Errorf("making the body: %w", err), f.Close())
	}
	return f, nil
}

// Send sends the whole of a [Body].
func (c *Conn) Send(body *os.File) error {
	for offset := int64(0); offset < Size; {
		n, err := try(c.raw.Write, func(fd int) (int, error) {
			return unix.Sendfile(fd, int(body.Fd()), &offset, min(step, Size-int(offset)))
		})
		if err != nil {
			return fmt.Errorf("sending a body: %w", err)
		}
		c.Moved(n)
	}
	return nil
}

// Discard receives n bytes and drops them.
func (c *Conn) Discard(n int) error {
	for n > 0 {
		got, err := try(c.raw.Read, func(fd int) (int, error) {
			got, _, err := unix.Recvfrom(fd, c.discard[:min(n, step)], unix.MSG_TRUNC)
			return got, err
		})
		if err == nil && got == 0 {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return fmt.Errorf("receiving a body: %w", err)
		}
		c.Moved(got)
		n -= got
	}
	return nil
}

// try repeats a system call until it would not block.
func try(wait func(func(fd uintptr) bool) error, call func(fd int) (int, error)) (n int, err error) {
	waited := wait(func(fd uintptr) bool {
		for {
			if n, err = call(int(fd)); err != unix.EINTR {
				return err != unix.EAGAIN
			}
		}
	})
	return n, errors.Join(waited, err)
}
