package proxy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/detour-dev/detour/api"
)

// port is a port of the app that the proxy serves in its place.
type port struct {
	api.TakenPort
	listener net.Listener
}

// listen binds a port on all addresses of both families.
func listen(number uint16) (net.Listener, error) {
	address := fmt.Sprintf(":%d", number)
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("listening on %s: %w", address, err)
	}
	return l, nil
}

// acceptPause is how long to wait when the kernel refuses another connection, for want of descriptors as a rule.
const acceptPause = 50 * time.Millisecond

// accept serves port until its listener is closed.
func (p *Proxy) accept(ctx context.Context, port port) {
	for {
		c, err := port.listener.Accept()
		switch {
		case errors.Is(err, net.ErrClosed):
			return
		case err != nil:
			p.meters.failed(reasonAccept)
			p.log.Warn("accepting", "port", port.Name, "error", err)
			pause(ctx, acceptPause)
		default:
			p.pairs.running.Go(func() { p.connection(ctx, port.TakenPort, &conn{Conn: c}) })
		}
	}
}

// connection takes one client from its first byte to the end, or to the HTTP server.
func (p *Proxy) connection(ctx context.Context, port api.TakenPort, client *conn) {
	app, err := p.dialApp(ctx, client, port.App)
	if err != nil {
		// What the client would see if we were not there.
		p.meters.failed(reasonAppRefused)
		p.log.Debug("dialling the app", "port", port.Name, "error", err)
		client.reset()
		return
	}
	pair := newPair(p, port, client, app)
	if !p.pairs.add(pair) {
		pair.Close()
		return
	}
	if pair.carry(sniff(client, app, p.table.Load().protocol(port.App))) == protocolTCP {
		relay(client, app)
		pair.Close()
		return
	}
	if err := pair.connectApp(ctx); err != nil || !p.queue.push(pair) {
		pair.Close()
	}
}

// dialApp connects to the app on the Pod's own address of the client's family. Never on loopback: software trusts
// loopback. No deadline: how long a client waits for a busy app is for the two of them.
func (p *Proxy) dialApp(ctx context.Context, client *conn, number uint16) (*conn, error) {
	to := netip.AddrPortFrom(ownAddress(p.cfg.Sidecar.PodIPs, client.RemoteAddr()), number)
	return dial(ctx, to)
}

// ownAddress is the Pod's address of the client's family, or its first one.
func ownAddress(own []netip.Addr, client net.Addr) netip.Addr {
	if from, ok := client.(*net.TCPAddr); ok {
		for _, ip := range own {
			if ip.Unmap().Is4() == from.AddrPort().Addr().Unmap().Is4() {
				return ip
			}
		}
	}
	return own[0]
}

func dial(ctx context.Context, to netip.AddrPort) (*conn, error) {
	var d net.Dialer
	c, err := d.DialContext(ctx, "tcp", to.String())
	if err != nil {
		return nil, err
	}
	return &conn{Conn: c}, nil
}

// pause waits, or not if ctx is done.
func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
