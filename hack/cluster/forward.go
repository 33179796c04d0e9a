package main

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"sync"
	"time"
)

// forward leads from a port on the machine's loopback to an address in the node's network. The listening socket belongs
// to the machine's network, where `up` made it; init accepts, and dials in its own.
type forward struct {
	Name   string
	Port   int    // on 127.0.0.1
	Target string // host:port
}

// forwards are all ways into the node's network, given the machine's ports for them.
func forwards(p ports) []forward {
	return []forward{
		{"API server", p.API, net.JoinHostPort(nodeAddress, apiPort)},
		{"gateway", p.Gateway, net.JoinHostPort(nodeAddress, gatewayNodePort)},
		{"dashboard", p.Dashboard, net.JoinHostPort(nodeAddress, dashboardNodePort)},
	}
}

// listen opens the ports of all forwards.
func listen(all []forward) ([]*net.TCPListener, error) {
	var listeners []*net.TCPListener
	for _, f := range all {
		l, err := net.ListenTCP("tcp4", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: f.Port})
		if err != nil {
			closeAll(listeners)
			return nil, fmt.Errorf("listening for the %s, whose port is a flag of up: %w", f.Name, err)
		}
		listeners = append(listeners, l)
	}
	return listeners, nil
}

func closeAll(listeners []*net.TCPListener) {
	for _, l := range listeners {
		l.Close()
	}
}

// serveForwards serves the sockets that were handed down, until the process ends.
func serveForwards(all []forward) error {
	for i, f := range all {
		file := os.NewFile(uintptr(firstFile+1+i), f.Name)
		l, err := net.FileListener(file)
		if err != nil {
			return fmt.Errorf("taking over the listener for the %s: %w", f.Name, err)
		}
		file.Close()
		go serveForward(l, f)
	}
	return nil
}

func serveForward(l net.Listener, f forward) {
	for {
		conn, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			slog.Error("accepting", "forward", f.Name, "error", err)
			time.Sleep(pollEvery)
			continue
		}
		go relay(conn, f)
	}
}

// relay passes bytes both ways until both sides have said that they are done.
func relay(client net.Conn, f forward) {
	defer client.Close()
	server, err := net.Dial("tcp", f.Target)
	if err != nil {
		slog.Debug("dialling", "forward", f.Name, "error", err)
		return
	}
	defer server.Close()
	var both sync.WaitGroup
	both.Go(func() { pass(server, client) })
	both.Go(func() { pass(client, server) })
	both.Wait()
}

// pass copies one direction, and passes its end on. An error ends the other direction too.
func pass(to, from net.Conn) {
	if _, err := io.Copy(to, from); err != nil && !errors.Is(err, net.ErrClosed) {
		to.Close()
		from.Close()
		return
	}
	if half, ok := to.(*net.TCPConn); ok {
		_ = half.CloseWrite()
	}
}
