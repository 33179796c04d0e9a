package proxy

import (
	"net/netip"
	"time"

	"github.com/detour-dev/detour/api"
)

// pair is a client's connection and what belongs to it alone: the app's connection, dialled when the client's was
// accepted, and connections to previews, opened when first needed. No connection is shared between clients, so that an
// app's limits, timeouts and its own closing work as without us.
type pair struct {
	proxy    *Proxy
	loop     *loop
	port     api.TakenPort
	client   *socket
	app      *socket
	previews []*socket

	protocol  protocol
	counted   bool                   // as an active connection of protocol
	routed    bool                   // as one whose requests are looked at
	keyed     bool                   // it has carried a key
	gathering map[*gathered]struct{} // copies of requests that are not complete
	idle      *timer
	over      bool
}

// welcome makes a pair of a connection that was accepted.
func (p *Proxy) welcome(l *loop, port api.TakenPort, fd int, from netip.AddrPort) {
	pr := &pair{proxy: p, loop: l, port: port}
	h := &sniffing{pair: pr, declared: p.table.Load().protocol(port.App)}
	client, err := l.adopt(fd, from, h)
	if err != nil {
		p.log.Warn("accepting", "port", port.Name, "error", err)
		return
	}
	client.traffic = &p.meters.bytes
	pr.client = client
	pr.app = pr.dialApp(h)
	l.pairs[pr] = struct{}{}
	p.open.Add(1)
}

// dialApp connects to the app. No deadline: how long a client waits for a busy app is for the two of them.
func (p *pair) dialApp(h handler) *socket {
	own := ownAddress(p.proxy.cfg.Sidecar.PodIPs, p.client.remote.Addr())
	return p.dial(netip.AddrPortFrom(own, p.port.App), h)
}

// dial connects to the app or to a preview.
func (p *pair) dial(to netip.AddrPort, h handler) *socket {
	s := p.loop.dial(to, h)
	if p.proxy.cfg.Sidecar.ClientAddress == api.ClientProxyProtocol {
		s.send(proxyHeader(p.client.remote, to))
	}
	return s
}

// become hands the connections of the client and of up to h, with all that was read of them and not used.
func (p *pair) become(h handler, up *socket) {
	p.dropAllGathered()
	for _, s := range [...]*socket{p.client, up} {
		s.handler = h
		s.told = false
		s.held = 0
		s.again()
	}
	for _, s := range [...]*socket{p.client, up} {
		if s.clog {
			h.clogged(s, true)
		}
	}
}

// carriesKey notes that a request has carried a key: from now on the connection must not be idle for too long.
func (p *pair) carriesKey() {
	if !p.keyed {
		p.keyed = true
		p.watch()
	}
}

// keyedIdle is how long a connection that has carried a key may be idle. It is noticed after twice that time at the latest.
const keyedIdle = time.Hour

func (p *pair) watch() {
	moved := p.client.sent + p.client.received
	p.idle = p.loop.after(keyedIdle, func() {
		if p.client.sent+p.client.received == moved {
			p.proxy.meters.failed(reasonIdle)
			p.close()
			return
		}
		p.watch()
	})
}

// hangUp closes once the client has had d to hang up itself. One that is still reading is waited for; with a key, only
// as long as it gets on.
func (p *pair) hangUp(d time.Duration) {
	sent := p.client.sent
	p.idle.stop()
	p.idle = p.loop.after(d, func() {
		if p.client.out.size() > 0 && (!p.keyed || p.client.sent > sent) {
			p.hangUp(d)
			return
		}
		p.close()
	})
}

// carry notes what the connection carries.
func (p *pair) carry(protocol protocol) {
	p.protocol = protocol
	p.counted = true
	p.proxy.meters.opened(protocol)
}

// abort ends everything, in a way that neither side can take for an orderly end if it was none.
func (p *pair) abort(cause error) {
	if cause != nil {
		p.client.reset()
		p.app.reset()
	}
	p.close()
}

// close ends everything that belongs to the client's connection, at once.
func (p *pair) close() {
	if p.over {
		return
	}
	p.over = true
	p.dropAllGathered()
	p.idle.stop()
	p.client.close()
	p.app.close()
	for _, s := range p.previews {
		s.close()
	}
	if p.counted {
		p.proxy.meters.closed(p.protocol)
	}
	if p.routed {
		p.proxy.routed.Add(-1)
	}
	delete(p.loop.pairs, p)
	p.proxy.open.Done()
}
