package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/detour-dev/detour/api"
)

// A setting is what a proxy is started for.
type setting struct {
	protocol api.Protocol
	bulk     bool                  // large bodies, from the backend's other port
	table    func(site) *api.Table // of ours; nil for the one route that all have
}

// A deployment is a proxy that runs.
type deployment struct {
	*process // nil where the load goes to the backend itself
	site     site
}

// deploy starts a peer and waits until it answers as it should.
func (b *bench) deploy(ctx context.Context, p peer, s setting) (*deployment, error) {
	d, err := b.launch(p, s)
	if err != nil || d.process == nil {
		return d, err
	}
	routed := s.table == nil
	if err := until(ctx, d.process, func() error { return d.site.probe(ctx, routed, s.bulk) }); err != nil {
		d.stop()
		return nil, fmt.Errorf("%s: %w", p.name, err)
	}
	return d, nil
}

// launch starts a peer and does not wait.
func (b *bench) launch(p peer, s setting) (*deployment, error) {
	at, err := b.newSite(s.protocol, s.bulk)
	if err != nil {
		return nil, err
	}
	if p.command == nil {
		at.Listen = at.App.Port()
		return &deployment{site: at}, nil
	}
	if s.table != nil {
		at.Table = s.table(at)
	}
	c, err := p.command(at)
	if err != nil {
		return nil, err
	}
	running, err := spawn(at.Dir, c, b.cores.startProxy)
	return &deployment{process: running, site: at}, err
}

// stop ends the proxy and removes its files.
func (d *deployment) stop() {
	if d.process != nil {
		d.process.stop()
	}
	os.RemoveAll(d.site.Dir)
}

// until repeats try until it succeeds, for as long as the process runs, at most ten seconds.
func until(ctx context.Context, p *process, try func() error) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	for {
		err := try()
		if err == nil {
			return nil
		}
		if ended := p.check(); ended != nil {
			return ended
		}
		if sleep(ctx, 10*time.Millisecond) != nil {
			return errors.Join(err, context.Cause(ctx), fmt.Errorf("it wrote: %s", p.output()))
		}
	}
}

// A sample is one run's figures.
type sample struct {
	cpu      float64 // microseconds a unit of traffic
	rate     float64 // units a second
	p50, p99 float64 // microseconds
}

// String shows the figures that the sample has.
func (s sample) String() string {
	text := fmt.Sprintf("%.4g µs CPU, %.4g/s", s.cpu, s.rate)
	if s.p50 > 0 {
		text += fmt.Sprintf(", p50 %.4g µs, p99 %.4g µs", s.p50, s.p99)
	}
	return text
}

// measure puts a load on a proxy for the times of w, and accounts for it.
func (b *bench) measure(ctx context.Context, d *deployment, l load, w window) (sample, error) {
	m := &meter{}
	w.open, w.close = func() error { return nil }, func() error { return nil }
	if d.process != nil {
		m.pid = d.pid()
		w.open, w.close = m.open, m.close
	}
	t, err := l.run(ctx, d.site.addr(), w)
	if err != nil {
		return sample{}, d.explain(err)
	}
	s := sample{
		cpu:  float64(m.used.Nanoseconds()) / 1e3 / t.units,
		rate: t.units / t.elapsed.Seconds(),
		p50:  float64(quantile(t.latencies, .5).Nanoseconds()) / 1e3,
		p99:  float64(quantile(t.latencies, .99).Nanoseconds()) / 1e3,
	}
	if d.process != nil && s.cpu < 1 {
		return s, fmt.Errorf("%.2f µs a request: what is measured is not what answers", s.cpu)
	}
	return s, nil
}

// explain adds what the proxy has to say about an error.
func (d *deployment) explain(err error) error {
	if d.process == nil {
		return err
	}
	if ended := d.check(); ended != nil {
		return errors.Join(err, ended)
	}
	if said := d.output(); len(said) > 0 {
		return fmt.Errorf("%w\nthe proxy wrote: %s", err, said)
	}
	return err
}
