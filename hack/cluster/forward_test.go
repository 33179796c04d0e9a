package main

import (
	"io"
	"net"
	"testing"
)

// What a client sends before it closes its half arrives, and it still gets the answer: kubectl port-forward and
// HTTP/1.0 need that.
func TestRelayKeepsHalvesApart(t *testing.T) {
	server := listenLoopback(t)
	go func() {
		conn, err := server.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		all, _ := io.ReadAll(conn)
		conn.Write(append([]byte("got "), all...))
	}()
	entry := listenLoopback(t)
	go serveForward(entry, forward{Name: "test", Target: server.Addr().String()})

	conn := dialLoopback(t, entry)
	if _, err := conn.Write([]byte("question")); err != nil {
		t.Fatal(err)
	}
	if err := conn.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(conn)
	if err != nil || string(got) != "got question" {
		t.Errorf("got %q and error %v", got, err)
	}
}

func TestRelayClosesWhereNobodyListens(t *testing.T) {
	server := listenLoopback(t)
	server.Close()
	entry := listenLoopback(t)
	go serveForward(entry, forward{Name: "test", Target: server.Addr().String()})
	if got, err := io.ReadAll(dialLoopback(t, entry)); len(got) > 0 || err != nil {
		t.Errorf("got %q and error %v, want a plain end", got, err)
	}
}

func listenLoopback(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func dialLoopback(t *testing.T, l net.Listener) *net.TCPConn {
	t.Helper()
	conn, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn.(*net.TCPConn)
}
