package bulk

import (
	"net"
	"testing"
)

// TestSendDiscard sends a body over a socket, and counts it on both ends.
func TestSendDiscard(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	received := make(chan error, 1)
	got := 0
	go func() {
		c, err := l.Accept()
		if err != nil {
			received <- err
			return
		}
		defer c.Close()
		receiver, err := NewConn(c.(*net.TCPConn))
		if err == nil {
			receiver.Moved = func(n int) { got += n }
			err = receiver.Discard(Size)
		}
		received <- err
	}()
	sent := send(t, l.Addr().String())
	if err := <-received; err != nil {
		t.Fatal(err)
	}
	if sent != Size || got != Size {
		t.Errorf("sent %d bytes, received %d, want %d", sent, got, Size)
	}
}

func send(t *testing.T, addr string) (sent int) {
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	body, err := Body()
	if err != nil {
		t.Fatal(err)
	}
	defer body.Close()
	sender, err := NewConn(c.(*net.TCPConn))
	if err != nil {
		t.Fatal(err)
	}
	sender.Moved = func(n int) { sent += n }
	if err := sender.Send(body); err != nil {
		t.Fatal(err)
	}
	return sent
}
