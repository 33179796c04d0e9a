package main

import (
	"context"
	"time"
)

// A load is a kind of traffic that can be put on a proxy.
type load interface {
	// run sends traffic to addr for w.warm, calls w.open, goes on for w.measure, and calls w.close. It reports what was
	// completed in between; anything that did not succeed is an error.
	run(ctx context.Context, addr string, w window) (traffic, error)
}

// A window is when traffic counts.
type window struct {
	warm, measure time.Duration
	open, close   func() error
}

// traffic is what went through.
type traffic struct {
	units     float64 // requests, or MiB of bodies
	elapsed   time.Duration
	latencies []time.Duration // of loads at a fixed rate, from when the request was due
}
