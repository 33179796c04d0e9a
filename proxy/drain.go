package proxy

import (
	"context"
	"fmt"
	"net/http"
	"net/netip"
	"time"
)

// pathDrain takes the order to drain (POST) on the admin port, from the Pod itself only.
const pathDrain = "/drain"

// drainTimeout bounds [Drain]. Nothing else of the Pod's end waits for it.
const drainTimeout = 2 * time.Second

// Drain asks the proxy that runs in this Pod to drain, at its admin port. It returns once that has begun; an error means
// that it has not. Asking again changes nothing.
func Drain(ctx context.Context, adminPort uint16) error {
	ctx, cancel := context.WithTimeout(ctx, drainTimeout)
	defer cancel()
	url := fmt.Sprintf("http://127.0.0.1:%d%s", adminPort, pathDrain)
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, nil)
	if err != nil {
		return fmt.Errorf("asking the proxy to drain: %w", err)
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		return fmt.Errorf("asking the proxy to drain: %w", err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("asking the proxy to drain: it answers %s", resp.Status)
	}
	return nil
}

// orderToDrain is an order of somebody, and what is answered. Nobody else in the cluster may end a Pod's connections.
func (p *Proxy) orderToDrain(from netip.AddrPort) (status int, body string) {
	if !from.Addr().Unmap().IsLoopback() {
		return http.StatusForbidden, "only the Pod itself may ask its proxy to drain\n"
	}
	p.startDraining()
	return http.StatusOK, "draining\n"
}

// startDraining has clients go elsewhere, as far as that costs nobody a request. All else goes on, and new connections are
// accepted until Run's context is done: clients may not know yet that the Pod ends.
func (p *Proxy) startDraining() {
	p.drainOnce.Do(func() {
		p.log.Info("draining")
		p.began = time.Now()
		p.draining.Store(true)
		for _, l := range p.loops {
			l.do(l.drain)
		}
	})
}

// drain is also called when the proxy itself ends. What handlers do then may be more.
func (l *loop) drain() {
	for pair := range l.pairs {
		if h, ok := pair.client.handler.(drainer); ok {
			h.drain()
		}
	}
}

// drainer is a handler whose connection can be brought to an end without cutting anything short.
type drainer interface{ drain() }
