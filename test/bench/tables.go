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

// tables compares our own CPU time of a request with [manyRoutes] in force to that with [noRoutes].
func (b *bench) tables(request []byte, g goal) benchCase {
	us := b.peers(api.ProtocolSniff)[0]
	return b.paired(g, http1Load{conns: 32, request: request},
		contender{us, setting{table: noRoutes}}, contender{us, setting{table: manyRoutes}})
}

// since compares our CPU time to that of another binary of the proxy.
func (b *bench) since(s setting, l load, g goal) benchCase {
	g.name, g.bar, g.aim = "since before: "+g.name, 1.03, math.NaN()
	return b.paired(g, l, contender{peer{ours, b.oursWith(b.options.before)}, s}, contender{b.peers(s.protocol)[0], s})
}

// contender is one of two that are compared in pairs of runs.
type contender struct {
	peer    peer
	setting setting
}

// paired compares the CPU time of the second to that of the first. What is held against the bar is the upper end of the
// ratio's 95 % interval: if that is above and the lower end is not, nothing is shown.
func (b *bench) paired(g goal, l load, first, second contender) benchCase {
	return benchCase{[]goal{g}, func(ctx context.Context, c benchCase) ([]result, error) {
		var pairs []float64
		figures := map[string][]float64{}
		for i := range b.options.pairs {
			one, other, err := b.pair(ctx, l, [2]contender{first, second})
			if err != nil {
				return nil, fmt.Errorf("pair %d: %w", i+1, err)
			}
			slog.Info("measured", "case", g.name, "pair", i+1, "first", fmt.Sprintf("%.2f µs", one), "second", fmt.Sprintf("%.2f µs", other))
			pairs = append(pairs, other/one)
			figures[ours] = append(figures[ours], other)
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

// pair starts both and has them take turns, each going first as often as the other: so what drifts within a pair is the
// same for both. It returns the means.
func (b *bench) pair(ctx context.Context, l load, two [2]contender) (first, second float64, err error) {
	var pair [2]*deployment
	for i, one := range two {
		if pair[i], err = b.deploy(ctx, one.peer, one.setting); err != nil {
			return 0, 0, err
		}
		defer pair[i].stop()
	}
	const turns = 4
	w := window{warm: warmUp, measure: b.options.duration / turns}
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
