package main

import (
	"math"
	"slices"
	"testing"
	"time"
)

func near(a, b, within float64) bool { return math.Abs(a-b) <= within }

func TestMedian(t *testing.T) {
	if got := median([]float64{3, 1, 2}); got != 2 {
		t.Errorf("odd: %g", got)
	}
	if got := median([]float64{4, 1, 2, 3}); got != 2.5 {
		t.Errorf("even: %g", got)
	}
	if got := median(nil); !math.IsNaN(got) {
		t.Errorf("empty: %g", got)
	}
}

func TestRatios(t *testing.T) {
	if got := ratios([]float64{1, 4, 9}, []float64{2, 2}); !slices.Equal(got, []float64{.5, 2}) {
		t.Error(got)
	}
}

func TestQuantile(t *testing.T) {
	var values []time.Duration
	for i := 100; i > 0; i-- {
		values = append(values, time.Duration(i))
	}
	for q, want := range map[float64]time.Duration{0: 1, .5: 50, .99: 99, 1: 100} {
		if got := quantile(values, q); got != want {
			t.Errorf("%g: %d, want %d", q, got, want)
		}
	}
	if got := quantile(nil, .5); got != 0 {
		t.Errorf("empty: %d", got)
	}
}

// TestStudent holds the approximation against printed tables.
func TestStudent(t *testing.T) {
	for degrees, want := range map[float64]float64{10: 2.228, 19: 2.093, 29: 2.045, 100: 1.984} {
		if got := student(degrees); !near(got, want, .001) {
			t.Errorf("%g degrees: %.4f, want %.3f", degrees, got, want)
		}
	}
}

func TestInterval(t *testing.T) {
	// Logarithms of mean 0 and standard deviation .1 * sqrt(20/19), over 20: half is 2.093 * .1026 / sqrt(20).
	var pairs []float64
	for range 10 {
		pairs = append(pairs, math.Exp(.1), math.Exp(-.1))
	}
	low, centre, high := interval(pairs)
	half := 2.093 * .1 / math.Sqrt(19)
	if !near(centre, 1, 1e-9) || !near(low, math.Exp(-half), 1e-4) || !near(high, math.Exp(half), 1e-4) {
		t.Errorf("%g %g %g, want e^±%g", low, centre, high, half)
	}
	if low, _, high := interval([]float64{2}); low != 0 || !math.IsInf(high, 1) {
		t.Errorf("one pair: %g to %g", low, high)
	}
}
