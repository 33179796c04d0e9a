package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/detour-dev/detour/test/lossless/result"
)

// client sends one request at a time, or one message of a stream.
type client interface {
	// ask sends a request and checks the bytes of the answer. It returns the version of the copy that answered.
	ask(ctx context.Context) (version string, err error)
	// close gives up the connection, in the orderly way.
	close()
}

// requestTimeout is far beyond what any answer takes: a request that hangs has failed.
const requestTimeout = 10 * time.Second

// flow is a client that sends requests at a steady pace.
type flow struct {
	name, way, service, key string

	who      *atomic.Pointer[result.Strictness] // may answer; nil for requests without a key
	phase    *atomic.Pointer[string]
	client   client
	interval time.Duration
	recorder *recorder
}

func (f *flow) run(ctx context.Context) {
	defer f.client.close()
	select { // so that not all begin at once
	case <-time.After(rand.N(f.interval)):
	case <-ctx.Done():
		return
	}
	tick := time.NewTicker(f.interval)
	defer tick.Stop()
	answered := time.Now()
	for {
		answered = f.once(ctx, answered)
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// once sends a request and counts what became of it. It returns when there was an answer last.
func (f *flow) once(ctx context.Context, answered time.Time) time.Time {
	phase, who := *f.phase.Load(), result.Strict
	if f.who != nil {
		who = *f.who.Load()
	}
	request, cancel := context.WithTimeout(context.WithoutCancel(ctx), requestTimeout)
	version, err := f.client.ask(request)
	cancel()
	switch {
	case errors.Is(err, errGoodBye):
		return answered
	case errors.Is(err, errNowhere): // it has not begun yet
		return time.Now()
	}
	tally := f.judge(version, err, who)
	if tally.Failed == 0 {
		now := time.Now()
		tally.LongestGap = now.Sub(answered).Milliseconds()
		answered = now
	}
	cell := result.Cell{Protocol: f.name, Way: f.way, Phase: phase, Tally: tally}
	if tally.Failed+tally.WrongCopy > 0 {
		f.recorder.add(cell, fmt.Sprintf("%s by %s to %s in phase %s, key %q: version %q, %v",
			f.name, f.way, f.service, phase, f.key, version, err))
	} else {
		f.recorder.add(cell, "")
	}
	return answered
}

// judge says what became of one request.
func (f *flow) judge(version string, err error, who result.Strictness) result.Tally {
	t := result.Tally{Requests: 1}
	var refused refusal
	switch {
	case f.key != "" && errors.As(err, &refused):
		t.Refused = 1
	case err != nil && who == result.Lenient:
	case err != nil:
		t.Failed = 1
	case !f.mayAnswer(version, who):
		t.WrongCopy = 1
	}
	return t
}

func (f *flow) mayAnswer(version string, who result.Strictness) bool {
	switch {
	case f.key == "":
		return version == baseline
	case version == f.key:
		return true
	}
	return version == baseline && who != result.Strict
}
