package main

import (
	"errors"
	"math"
)

// A goal is a line of the table before it is measured. Bar and aim are upper limits of the ratio or, where there is
// none, of our own value; NaN is no limit.
type goal struct {
	name     string
	unit     string
	bar, aim float64
}

// A result is that line once it is.
type result struct {
	goal
	values map[string]float64 // by peer
	ratio  float64            // what is held against the bar; NaN: our value is
	// unclear says that the measurement cannot tell which side of the bar it is on.
	unclear bool
	note    string
	err     error
}

// value is a result without a ratio.
func (g goal) value(values map[string]float64) result {
	return result{goal: g, values: values, ratio: math.NaN()}
}

// compared is the medians of what was measured, and the median of the rounds' ratios of ours to haproxy's.
func (g goal) compared(figures map[string][]float64) result {
	return result{goal: g, values: medians(figures), ratio: median(ratios(figures[ours], figures[haproxy]))}
}

// comparedInverse is the same where more is better, so that a bar is an upper limit here too.
func (g goal) comparedInverse(figures map[string][]float64) result {
	return result{goal: g, values: medians(figures), ratio: median(ratios(figures[haproxy], figures[ours]))}
}

func (g goal) failed(err error) result {
	return result{goal: g, ratio: math.NaN(), err: err}
}

func medians(figures map[string][]float64) map[string]float64 {
	m := map[string]float64{}
	for peer, all := range figures {
		m[peer] = median(all)
	}
	return m
}

// held is what is held against the bar.
func (r result) held() float64 {
	if math.IsNaN(r.ratio) {
		if v, ok := r.values[ours]; ok {
			return v
		}
	}
	return r.ratio
}

// verdict says in a word or two how it went.
func (r result) verdict() string {
	held := r.held()
	switch {
	case r.err != nil:
		return "FAILED"
	case math.IsNaN(held):
		return "not shown"
	case held <= r.bar && (held <= r.aim || math.IsNaN(r.aim)):
		return "good"
	case held <= r.bar:
		return "within the bar"
	case r.unclear:
		return "not shown"
	}
	return "MISSED"
}

// errorsOf joins the errors of results.
func errorsOf(results []result) error {
	var errs []error
	for _, r := range results {
		errs = append(errs, r.err)
	}
	return errors.Join(errs...)
}
