package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os/exec"
	"strconv"

	"github.com/detour-dev/detour/api"
)

// A backend is the program of that name, running: the app and a preview of it.
type backend struct {
	*process
	small, bulk uint16
}

func (b backend) app(bulk bool) netip.AddrPort { return b.addr("127.0.0.1", bulk) }

func (b backend) preview(bulk bool) netip.AddrPort { return b.addr("127.0.0.2", bulk) }

func (b backend) addr(host string, bulk bool) netip.AddrPort {
	port := b.small
	if bulk {
		port = b.bulk
	}
	return netip.AddrPortFrom(netip.MustParseAddr(host), port)
}

// startBackend starts it on the load's core, and waits until it answers.
func (b *bench) startBackend(ctx context.Context) error {
	ports, err := freePorts(2)
	if err != nil {
		return err
	}
	b.backend.small, b.backend.bulk = ports[0], ports[1]
	args := []string{b.program("backend"), "-small", strconv.Itoa(int(ports[0])), "-bulk", strconv.Itoa(int(ports[1]))}
	b.backend.process, err = spawn(b.dir, command{args: args}, (*exec.Cmd).Start)
	if err != nil {
		return err
	}
	small := site{Listen: ports[0]}
	bulk := site{Listen: ports[1], Protocol: api.ProtocolTCP}
	err = until(ctx, b.backend.process, func() error {
		return errors.Join(small.probe(ctx, false, false), bulk.probe(ctx, false, true))
	})
	if err != nil {
		b.backend.stop()
		return fmt.Errorf("the backend: %w", err)
	}
	return nil
}
