package main

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"time"
)

const (
	// warmUp is how long traffic flows before it counts.
	warmUp = 300 * time.Millisecond
	// sideRounds is how many rounds those peers take part in that nothing is held against.
	sideRounds = 3
)

// inTurn runs every peer once a round, each freshly started and alone, in every other round in reverse. It returns the
// samples of each, by round.
func (b *bench) inTurn(ctx context.Context, name string, peers []peer, run func(context.Context, peer) (sample, error)) (map[string][]sample, error) {
	samples := map[string][]sample{}
	for round := range b.options.rounds {
		for _, p := range turn(peers, round) {
			s, err := run(ctx, p)
			if err != nil {
				return nil, fmt.Errorf("%s, round %d: %w", p.name, round+1, err)
			}
			slog.Info("measured", "case", name, "round", round+1, "peer", p.name, "figures", s)
			samples[p.name] = append(samples[p.name], s)
		}
	}
	return samples, nil
}

// turn is who runs in a round, in order.
func turn(peers []peer, round int) []peer {
	var in []peer
	for _, p := range peers {
		if side := p.name == nginx || p.name == nethttp; !side || round < sideRounds {
			in = append(in, p)
		}
	}
	if round%2 == 1 {
		slices.Reverse(in)
	}
	return in
}

// inTurnUnder is inTurn of one load on proxies with one setting.
func (b *bench) inTurnUnder(ctx context.Context, name string, peers []peer, s setting, l load, d time.Duration) (map[string][]sample, error) {
	return b.inTurn(ctx, name, peers, func(ctx context.Context, p peer) (sample, error) {
		running, err := b.deploy(ctx, p, s)
		if err != nil {
			return sample{}, err
		}
		defer running.stop()
		return b.measure(ctx, running, l, window{warm: warmUp, measure: d})
	})
}

// figure takes one figure out of every sample of every peer.
func figure(samples map[string][]sample, of func(sample) float64) map[string][]float64 {
	figures := map[string][]float64{}
	for peer, all := range samples {
		for _, s := range all {
			figures[peer] = append(figures[peer], of(s))
		}
	}
	return figures
}

func cpu(s sample) float64  { return s.cpu }
func rate(s sample) float64 { return s.rate }
func p50(s sample) float64  { return s.p50 }
func p99(s sample) float64  { return s.p99 }
