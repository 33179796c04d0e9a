package proxy

import (
	"errors"
	"net"
	"os"
	"syscall"
)

// conn is a TCP connection of which some bytes may have been looked at before their reader came.
//
// It hides the ReadFrom and WriteTo of [net.TCPConn], which would go past those bytes.
type conn struct {
	net.Conn
	head  []byte      // read, but not consumed
	ended func(error) // if set, called when reading fails; must be set before reading begins
}

func (c *conn) tcp() *net.TCPConn { return c.Conn.(*net.TCPConn) }

// Read gives what has been looked at first.
func (c *conn) Read(p []byte) (int, error) {
	if len(c.head) > 0 {
		n := copy(p, c.head)
		if c.head = c.head[n:]; len(c.head) == 0 {
			c.head = nil // its memory is not needed any more
		}
		return n, nil
	}
	n, err := c.Conn.Read(p)
	if err != nil && c.ended != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		c.ended(err)
	}
	return n, err
}

// peek reads into c.head, up to limit bytes, until it holds enough.
func (c *conn) peek(limit int, enough func([]byte) bool) error {
	for {
		if len(c.head) == cap(c.head) {
			grown := make([]byte, len(c.head), min(limit, max(512, 2*cap(c.head))))
			copy(grown, c.head)
			c.head = grown
		}
		n, err := c.Conn.Read(c.head[len(c.head):cap(c.head)])
		c.head = c.head[:len(c.head)+n]
		switch {
		case n > 0 && (enough(c.head) || len(c.head) == limit):
			return nil
		case err != nil:
			return err
		}
	}
}

// CloseWrite ends the direction towards the peer.
func (c *conn) CloseWrite() error { return c.tcp().CloseWrite() }

// reset ends the connection in a way that the peer cannot take for an orderly end.
func (c *conn) reset() {
	c.tcp().SetLinger(0)
	c.Close()
}

// broken tells a connection that was reset from one that was closed.
func broken(err error) bool {
	return errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}
