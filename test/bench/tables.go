package main

import (
	"context"
	"fmt"
	"log/slog"
	"math"

	"github.com/detour-dev/detour/api"
)

// enough is how many pairs it takes for an interval to show anything.
const enough = 20

// tables compares our own CPU time of a request with [manyRoutes] in force to that with [noRoutes], in pairs of runs.
// What is held against the bar is the upper end of the ratio's 95 % interval: if that is above and the lower end is
// not, nothing is shown.
func (b *bench) tables(request []byte, g goal) benchCase {
	return benchCase{[]goal{g}, func(ctx context.Context, c benchCase) ([]result, error) {
		var pairs []float64
		figures := map[string][]float64{}
		for i := range b.options.pairs {
			empty, full, err := b.pair(ctx, request)
			if err != nil {
				return nil, fmt.Errorf("pair %d: %w", i+1, err)
			}
			slog.Info("measured", "case", g.name, "pair", i+1, "empty", fmt.Sprintf("%.2f µs", empty), "full", fmt.Sprintf("%.2f µs", full))
			pairs = append(pairs, full/empty)
			figures[ours] = append(figures[ours], full)
		}
		return []result{g.bounded(pairs, medians(figures))}, nil
	}}
}

// bounded is the interval of paired ratios.
func (g goal) bounded(pairs []float64, values map[string]float64) result {
	low, centre, high := interval(pairs)
	r := result{goal: g, values: values, ratio: high, unclear: low <= g.bar}
	r.note = fmt.Sprintf("(%.3f, 95 %% interval %.3f to %.3f of %d pairs)", centre, low, high, len(pairs))
	if len(pairs) < enough {
		r.ratio, r.unclear, r.values = math.NaN(), true, nil
	}
	return r
}

// pair starts a proxy with each table and has them take turns, each going first as often as the other: so what drifts
// within a pair is the same for both. It returns the means.
func (b *bench) pair(ctx context.Context, request []byte) (empty, full float64, err error) {
	var pair [2]*deployment
	for i, table := range []func(site) *api.Table{noRoutes, manyRoutes} {
		if pair[i], err = b.deploy(ctx, b.peers(api.ProtocolSniff)[0], setting{table: table}); err != nil {
			return 0, 0, err
		}
		defer pair[i].stop()
	}
	const turns = 4
	l, w := http1Load{conns: 32, request: request}, window{warm: warmUp, measure: b.options.duration / turns}
	var sums [2]float64
	for turn := range 2 * turns {
		which := (turn + 1) / 2 % 2 // 0 1 1 0 0 1 1 0
		s, err := b.measure(ctx, pair[which], l, w)
		if err != nil {
			return 0, 0, err
		}
		sums[which] += s.cpu
		if turn > 0 {
			w.warm = warmUp / 4 // both are warm
		}
	}
	return sums[0] / turns, sums[1] / turns, nil
}
