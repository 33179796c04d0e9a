package main

import (
	"fmt"
	"sync"
	"time"

	"github.com/detour-dev/detour/test/lossless/result"
)

// maxErrors is how many errors of one cell are kept.
const maxErrors = 5

// recorder counts by protocol, way and phase.
type recorder struct {
	mu     sync.Mutex
	cells  map[cellKey]*result.Tally
	told   map[cellKey]int
	errors []string
}

type cellKey struct{ protocol, way, phase string }

func newRecorder() *recorder {
	return &recorder{cells: map[cellKey]*result.Tally{}, told: map[cellKey]int{}}
}

// add counts, and keeps what went wrong if that is said.
func (r *recorder) add(c result.Cell, wrong string) {
	key := cellKey{c.Protocol, c.Way, c.Phase}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.cells[key] == nil {
		r.cells[key] = &result.Tally{}
	}
	r.cells[key].Add(c.Tally)
	if wrong != "" && r.told[key] < maxErrors {
		r.told[key]++
		r.errors = append(r.errors, fmt.Sprintf("%s %s", time.Now().Format("15:04:05.000"), wrong))
	}
}

func (r *recorder) report() result.Report {
	r.mu.Lock()
	defer r.mu.Unlock()
	report := result.Report{Errors: r.errors}
	for key, tally := range r.cells {
		report.Cells = append(report.Cells, result.Cell{Protocol: key.protocol, Way: key.way, Phase: key.phase, Tally: *tally})
	}
	return report
}
