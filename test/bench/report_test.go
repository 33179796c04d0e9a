package main

import (
	"errors"
	"math"
	"strings"
	"testing"
)

var (
	none    = math.NaN()
	results = []result{
		goal{"GET", perRequest, .95, .8}.compared(map[string][]float64{ours: {15, 16, 20}, haproxy: {20, 20, 20}, nginx: {21}}),
		goal{"speed", throughput, 1, none}.comparedInverse(map[string][]float64{ours: {1000}, haproxy: {800}}),
		goal{"memory", "MB", 8, 6}.value(map[string]float64{ours: 7.12345, haproxy: 15.5}),
		goal{"tables", perRequest, 1.03, none}.bounded([]float64{1, 1.1}, map[string]float64{ours: 9}),
		goal{"start", "ms", 15, 8}.failed(errors.New("no answer")),
	}
)

func TestEncode(t *testing.T) {
	b, err := encode(results)
	if err != nil {
		t.Fatal(err)
	}
	want := strings.Join([]string{
		`{"case":"GET,µsCPUarequest","ours":16,"haproxy":20,"ratio":0.8,"bar":0.95,"aim":0.8}`,
		`{"case":"speed,MiB/s","ours":1000,"haproxy":800,"ratio":0.8,"bar":1,"aim":null}`,
		`{"case":"memory,MB","ours":7.123,"haproxy":15.5,"ratio":null,"bar":8,"aim":6}`,
		`{"case":"tables,µsCPUarequest","ours":null,"haproxy":null,"ratio":null,"bar":1.03,"aim":null}`,
		`{"case":"start,ms","ours":null,"haproxy":null,"ratio":null,"bar":15,"aim":8}`,
	}, ",")
	if got := strings.Join(strings.Fields(string(b)), ""); got != "["+want+"]" {
		t.Errorf("got\n%s\nwant\n[%s]", got, want)
	}
}

func TestPrint(t *testing.T) {
	var b strings.Builder
	if err := print(&b, results); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(b.String(), "\n")
	for i, want := range []string{
		"case unit ours haproxy nginx net/http ratio bar aim",
		"GET µs CPU a request 16 20 21 0.80 0.95 0.80 good",
		"speed MiB/s 1000 800 0.80 1.00 good",
		"memory MB 7.12 15.5 8.00 6.00 within the bar",
		"tables µs CPU a request 1.03 not shown (1.049, 95 % interval",
		"start ms 15.00 8.00 FAILED",
		"",
		"start failed: no answer",
	} {
		if got := strings.Join(strings.Fields(lines[i]), " "); !strings.HasPrefix(got, want) {
			t.Errorf("line %d: %q, want %q", i+1, got, want)
		}
	}
}

func TestVerdict(t *testing.T) {
	g := goal{"tables", perRequest, 1.03, none}
	spread := func(centre, by float64) (pairs []float64) {
		for range enough / 2 {
			pairs = append(pairs, centre*(1-by), centre*(1+by))
		}
		return pairs
	}
	for want, r := range map[string]result{
		"good":      g.bounded(spread(1, .01), nil),
		"not shown": g.bounded(spread(1, .2), nil),
		"MISSED":    g.bounded(spread(1.1, .01), nil),
	} {
		if got := r.verdict(); got != want {
			t.Errorf("%s: %q, want %q", r.note, got, want)
		}
	}
}

func TestAdded(t *testing.T) {
	g := goal{"p50", "µs", 1, none}
	r := g.added(map[string][]float64{ours: {110, 130, 120}, haproxy: {140, 140, 140}}, []float64{100, 100, 100})
	if r.values[ours] != 20 || r.values[haproxy] != 40 || r.ratio != .5 {
		t.Errorf("%v, ratio %g", r.values, r.ratio)
	}
	r = g.added(map[string][]float64{ours: {110}, haproxy: {99}}, []float64{100})
	if !math.IsNaN(r.ratio) || r.verdict() != "not shown" {
		t.Errorf("a haproxy faster than nothing: ratio %g, %s", r.ratio, r.verdict())
	}
}
