package main

import (
	"context"
	"math"
	"regexp"
	"slices"
	"time"

	"github.com/detour-dev/detour/api"
)

// A benchCase is what is measured together, and the lines of the table that come of it.
type benchCase struct {
	goals []goal
	run   func(context.Context, benchCase) ([]result, error)
}

func (c benchCase) matches(only *regexp.Regexp) bool {
	return slices.ContainsFunc(c.goals, func(g goal) bool { return only.MatchString(g.name) })
}

// Units.
const (
	perRequest = "µs CPU a request"
	perMiB     = "µs CPU a MiB"
	throughput = "MiB/s"
)

// sinceCases compare with another binary.
func (b *bench) sinceCases() []benchCase {
	const http, h2c, tcp = api.ProtocolSniff, api.ProtocolH2C, api.ProtocolTCP
	return []benchCase{
		b.since(setting{protocol: http}, http1Load{conns: 32, request: get()}, goal{name: "HTTP/1.1 small GET, 32 connections", unit: perRequest}),
		b.since(setting{protocol: http}, http1Load{conns: 256, request: get()}, goal{name: "HTTP/1.1 small GET, 256 connections", unit: perRequest}),
		b.since(setting{protocol: http, bulk: true}, bulkLoad{conns: 8}, goal{name: "HTTP/1.1 1 MiB down", unit: perMiB}),
		b.since(setting{protocol: http, bulk: true}, bulkLoad{conns: 8, up: true}, goal{name: "HTTP/1.1 1 MiB up", unit: perMiB}),
		b.since(setting{protocol: h2c}, h2Load{8, 16, b.dir}, goal{name: "h2c gRPC, 8 connections x 16 streams", unit: perRequest}),
		b.since(setting{protocol: h2c}, h2Load{32, 1, b.dir}, goal{name: "h2c gRPC, 32 connections x 1 stream", unit: perRequest}),
		b.since(setting{protocol: tcp, bulk: true}, bulkLoad{conns: 8}, goal{name: "TCP copy down", unit: perMiB}),
		b.since(setting{protocol: tcp, bulk: true}, bulkLoad{conns: 8, up: true}, goal{name: "TCP copy up", unit: perMiB}),
	}
}

// cases are all there are, in the order of the table.
func (b *bench) cases() []benchCase {
	if b.options.before != "" {
		return b.sinceCases()
	}
	const http, h2c, tcp = api.ProtocolSniff, api.ProtocolH2C, api.ProtocolTCP
	none := math.NaN()
	return []benchCase{
		b.requests(http, http1Load{conns: 32, request: get()}, goal{"HTTP/1.1 small GET, 32 connections", perRequest, .95, .80}),
		b.requests(http, http1Load{conns: 256, request: get()}, goal{"HTTP/1.1 small GET, 256 connections", perRequest, .95, .80}),
		b.requests(http, http1Load{conns: 32, rate: 2000, request: get()}, goal{"HTTP/1.1 small GET, 2,000 rps", perRequest, .90, .80}),
		b.bodies(http, false, goal{"HTTP/1.1 1 MiB down", perMiB, .80, .60}, goal{"HTTP/1.1 1 MiB down, throughput", throughput, 1, none}),
		b.bodies(http, true, goal{"HTTP/1.1 1 MiB up", perMiB, .80, .60}, goal{"HTTP/1.1 1 MiB up, throughput", throughput, 1, none}),
		b.requests(h2c, h2Load{8, 16, b.dir}, goal{"h2c gRPC, 8 connections x 16 streams", perRequest, .50, .40}),
		b.requests(h2c, h2Load{32, 1, b.dir}, goal{"h2c gRPC, 32 connections x 1 stream", perRequest, .95, .80}),
		b.bodies(tcp, false, goal{"TCP copy down", perMiB, 1, .9}),
		b.bodies(tcp, true, goal{"TCP copy up", perMiB, 1, .9}),
		{[]goal{
			{"memory, idle", "MB", 8, 6},
			{"memory, 1,000 connections", "MB", 18, 8},
			{"memory, 5,000 connections", "MB", 50, 12},
		}, b.memory},
		{[]goal{{"static binary", "MB", 7, 5}}, b.binary},
		{[]goal{{"start to first answer", "ms", 15, 8}}, b.start},
		{[]goal{
			{"p50 added at 3,000 rps", "µs", 1, none},
			{"p99 added at 3,000 rps", "µs", 1, none},
		}, b.latency},
		b.tables(get(), goal{"10,000 keys in the table, request without a key", perRequest, 1.03, none}),
		b.tables(get("Detour-Key: pr-none"), goal{"10,000 keys in the table, request with another key", perRequest, 1.03, none}),
	}
}

// requests compares the CPU time of a request.
func (b *bench) requests(protocol api.Protocol, l load, g goal) benchCase {
	return benchCase{[]goal{g}, func(ctx context.Context, c benchCase) ([]result, error) {
		d := b.options.duration
		if h, ok := l.(http1Load); ok && h.rate > 0 {
			d *= 2 // fewer requests in it
		}
		samples, err := b.inTurnUnder(ctx, g.name, b.peers(protocol), setting{protocol: protocol}, l, d)
		return []result{g.compared(figure(samples, cpu))}, err
	}}
}

// bodies compares the CPU time of a MiB and, with a second goal, how many went through in a second.
func (b *bench) bodies(protocol api.Protocol, up bool, goals ...goal) benchCase {
	return benchCase{goals, func(ctx context.Context, c benchCase) ([]result, error) {
		s, l := setting{protocol: protocol, bulk: true}, bulkLoad{conns: 8, up: up}
		samples, err := b.inTurnUnder(ctx, goals[0].name, b.peers(protocol), s, l, b.options.duration)
		results := []result{goals[0].compared(figure(samples, cpu))}
		if len(goals) > 1 {
			results = append(results, goals[1].comparedInverse(figure(samples, rate)))
		}
		return results, err
	}}
}

// latency compares what the proxies add to the latency of the backend itself, which takes its turn among them.
func (b *bench) latency(ctx context.Context, c benchCase) ([]result, error) {
	const direct = "direct"
	l := http1Load{conns: 32, rate: 3000, request: get()}
	peers := append([]peer{{name: direct}}, b.peers(api.ProtocolSniff)...)
	samples, err := b.inTurnUnder(ctx, "latency at 3,000 rps", peers, setting{}, l, b.options.duration*5/2)
	if err != nil {
		return nil, err
	}
	var results []result
	for i, of := range []func(sample) float64{p50, p99} {
		figures := figure(samples, of)
		results = append(results, c.goals[i].added(figures, figures[direct]))
	}
	return results, nil
}

// added is the medians of what is above a baseline, and their ratio; the rounds' own would have too small divisors.
// Where haproxy adds nothing that can be seen, there is none.
func (g goal) added(figures map[string][]float64, baseline []float64) result {
	r := g.value(map[string]float64{})
	for _, peer := range []string{ours, haproxy, nginx, nethttp} {
		var above []float64
		for round, v := range figures[peer] {
			above = append(above, v-baseline[round])
		}
		if len(above) > 0 {
			r.values[peer] = median(above)
		}
	}
	if r.values[haproxy] > 0 {
		r.ratio = r.values[ours] / r.values[haproxy]
	} else {
		r.unclear, r.note = true, "(haproxy adds nothing that can be seen)"
	}
	return r
}

// memory measures proxies that have answered one request and then, with connections open that carried one each.
func (b *bench) memory(ctx context.Context, c benchCase) ([]result, error) {
	counts := []int{0, 1000, 5000}
	var results []result
	for _, g := range c.goals {
		results = append(results, g.value(map[string]float64{}))
	}
	for _, p := range b.peers(api.ProtocolSniff) {
		sizes, err := b.holding(ctx, p, counts)
		if err != nil {
			return nil, err
		}
		for i, size := range sizes {
			results[i].values[p.name] = size / 1e6
		}
	}
	return results, nil
}

// start measures how long a proxy takes from being started to its first answer.
func (b *bench) start(ctx context.Context, c benchCase) ([]result, error) {
	figures := map[string][]float64{}
	for range max(b.options.rounds, 5) {
		for _, p := range b.peers(api.ProtocolSniff) {
			took, err := b.firstAnswer(ctx, p)
			if err != nil {
				return nil, err
			}
			figures[p.name] = append(figures[p.name], float64(took)/float64(time.Millisecond))
		}
	}
	return []result{c.goals[0].value(medians(figures))}, nil
}
