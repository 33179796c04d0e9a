package main

import (
	"context"
	"fmt"
	"time"
)

// firstAnswer starts a proxy and asks it until it answers.
func (b *bench) firstAnswer(ctx context.Context, p peer) (time.Duration, error) {
	const limit = 10 * time.Second
	request := get()
	d, started, err := b.timedLaunch(p)
	if err != nil {
		return 0, err
	}
	defer d.stop()
	for ctx.Err() == nil {
		err := ask(d.site.addr(), request, appLetter)
		took := time.Since(started)
		if err == nil {
			return took, nil
		}
		if took > limit || d.check() != nil {
			return 0, d.explain(fmt.Errorf("%s: no answer in %s: %w", p.name, took.Round(time.Millisecond), err))
		}
		time.Sleep(100 * time.Microsecond) // the load's core is not the proxy's, but the kernel's work is shared
	}
	return 0, ctx.Err()
}

func (b *bench) timedLaunch(p peer) (*deployment, time.Time, error) {
	started := time.Now()
	d, err := b.launch(p, setting{})
	return d, started, err
}
