package main

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"time"
)

// settle is how long a proxy is left alone before its memory is measured.
const settle = 2 * time.Second

// holding measures a proxy's memory with each number of connections open, which have carried a request.
func (b *bench) holding(ctx context.Context, p peer, counts []int) (sizes []float64, err error) {
	d, err := b.deploy(ctx, p, setting{})
	if err != nil {
		return nil, err
	}
	defer d.stop()
	var held []net.Conn
	defer func() {
		for _, c := range held {
			c.Close()
		}
	}()
	for _, count := range counts {
		for len(held) < count && ctx.Err() == nil {
			c, err := hold(d.site.addr())
			if err != nil {
				return nil, d.explain(fmt.Errorf("%s: connection %d: %w", p.name, len(held)+1, err))
			}
			held = append(held, c)
		}
		size, err := settled(ctx, d)
		if err != nil {
			return nil, err
		}
		slog.Info("measured", "case", "memory", "peer", p.name, "connections", count, "MB", fmt.Sprintf("%.1f", size/1e6))
		sizes = append(sizes, size)
	}
	return sizes, stillOpen(held)
}

// hold opens a connection and has a request answered on it.
func hold(addr string) (net.Conn, error) {
	c, err := net.Dial("tcp", addr)
	if err != nil {
		return nil, err
	}
	if err := exchange(c, get(), appLetter); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

func settled(ctx context.Context, d *deployment) (float64, error) {
	if err := sleep(ctx, settle); err != nil {
		return 0, err
	}
	pids, err := family(d.pid())
	if err != nil {
		return 0, err
	}
	return memory(pids)
}

// stillOpen asks once more on every connection: one that the proxy had given up would have cost it nothing.
func stillOpen(held []net.Conn) error {
	for i, c := range held {
		if err := exchange(c, get(), appLetter); err != nil {
			return fmt.Errorf("connection %d was not kept: %w", i+1, err)
		}
	}
	return nil
}
