package main

import (
	"math"
	"slices"
	"time"
)

// median of an empty slice is not a number.
func median(values []float64) float64 {
	if len(values) == 0 {
		return math.NaN()
	}
	sorted := slices.Sorted(slices.Values(values))
	middle := len(sorted) / 2
	if len(sorted)%2 == 1 {
		return sorted[middle]
	}
	return (sorted[middle-1] + sorted[middle]) / 2
}

// ratios divides round by round, as far as both have rounds.
func ratios(a, b []float64) []float64 {
	r := make([]float64, min(len(a), len(b)))
	for i := range r {
		r[i] = a[i] / b[i]
	}
	return r
}

// quantile is the smallest value that a share q of the values does not exceed. It sorts them.
func quantile(values []time.Duration, q float64) time.Duration {
	if len(values) == 0 {
		return 0
	}
	slices.Sort(values)
	at := int(math.Ceil(q*float64(len(values)))) - 1
	return values[min(max(at, 0), len(values)-1)]
}

// interval is the 95 % confidence interval of the mean of ratios, by Student's t on their logarithms; with fewer than
// two it is unbounded.
func interval(ratios []float64) (low, mean, high float64) {
	n := float64(len(ratios))
	sum := 0.0
	for _, r := range ratios {
		sum += math.Log(r)
	}
	centre := sum / n
	squares := 0.0
	for _, r := range ratios {
		squares += (math.Log(r) - centre) * (math.Log(r) - centre)
	}
	if n < 2 {
		return 0, math.Exp(centre), math.Inf(1)
	}
	half := student(n-1) * math.Sqrt(squares/(n-1)/n)
	return math.Exp(centre - half), math.Exp(centre), math.Exp(centre + half)
}

// student is the 97.5 % quantile of the t distribution, by its expansion around the normal one's (Abramowitz and
// Stegun 26.7.5): right to .001 from ten degrees of freedom on, and too small with a few.
func student(degrees float64) float64 {
	const z = 1.959964
	z2 := z * z
	return z * (1 + (z2+1)/(4*degrees) +
		(5*z2*z2+16*z2+3)/(96*math.Pow(degrees, 2)) +
		(3*z2*z2*z2+19*z2*z2+17*z2-15)/(384*math.Pow(degrees, 3)))
}
