package main

import (
	"testing"
	"time"
)

func TestEarlyEndsInARow(t *testing.T) {
	start := time.Unix(1000, 0)
	for name, test := range map[string]struct {
		before int
		lived  time.Duration
		want   int
	}{
		"first":            {0, time.Second, 1},
		"another":          {3, early - 1, 4},
		"lived long":       {0, early, 0},
		"lived long after": {4, time.Hour, 0},
	} {
		t.Run(name, func(t *testing.T) {
			l := life{started: start, early: test.before}
			if got := l.next(start.Add(test.lived)); got != test.want {
				t.Errorf("got %d, want %d", got, test.want)
			}
		})
	}
}
