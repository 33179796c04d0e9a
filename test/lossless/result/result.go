// Package result is what the clients of the lossless test count, and what its driver makes of it.
package result

import (
	"cmp"
	"maps"
	"slices"
)

// Tally counts what became of requests. A message of a stream and its echo are one request.
type Tally struct {
	Requests int `json:"requests"`
	// Failed were not answered, or with other bytes than they should have been; so was a stream that was cut.
	Failed int `json:"failed"`
	// WrongCopy were answered by a copy of the service that they were not for.
	WrongCopy int `json:"wrong_copy"`
	// Refused carried a key and got one of the documented 503s; they have not failed.
	Refused int `json:"refused,omitempty"`
	// LongestGap is the longest time, in milliseconds, that one client was without an answer.
	LongestGap int64 `json:"longest_gap_ms"`
}

// Add adds another tally.
func (t *Tally) Add(o Tally) {
	t.Requests += o.Requests
	t.Failed += o.Failed
	t.WrongCopy += o.WrongCopy
	t.Refused += o.Refused
	t.LongestGap = max(t.LongestGap, o.LongestGap)
}

// Cell is the tally of one kind of clients in one phase.
type Cell struct {
	Protocol string `json:"protocol"`
	Way      string `json:"way"` // by which the clients address the service: a value of [Ways]
	Phase    string `json:"phase"`
	Tally
}

// Ways are how clients find a service: by its cluster address, by a port of the node, or by the addresses of its Pods, as
// they were some seconds ago.
var Ways = []string{"cluster", "node", "pod"}

// Report is what one load Pod has counted so far.
type Report struct {
	Cells []Cell `json:"cells"`
	// Errors are the first ones of each cell, for people.
	Errors []string `json:"errors,omitempty"`
}

// Sum is the result of a whole run.
type Sum struct {
	Tally
	Protocols map[string]*Tally `json:"by_protocol"`
	Phases    map[string]*Tally `json:"by_phase"`
}

// Total sums reports up.
func Total(reports []Report) Sum {
	s := Sum{Protocols: map[string]*Tally{}, Phases: map[string]*Tally{}}
	for _, r := range reports {
		for _, c := range r.Cells {
			s.Add(c.Tally)
			tallyOf(s.Protocols, c.Protocol).Add(c.Tally)
			tallyOf(s.Phases, c.Phase).Add(c.Tally)
		}
	}
	return s
}

func tallyOf(tallies map[string]*Tally, name string) *Tally {
	if tallies[name] == nil {
		tallies[name] = &Tally{}
	}
	return tallies[name]
}

// Silent are the protocols of which a way has no answer at all: what was not sent cannot be lost.
func Silent(reports []Report) []string {
	answered := map[string]int{}
	for _, r := range reports {
		for _, c := range r.Cells {
			answered[c.Protocol+" by "+c.Way] += c.Requests - c.Failed - c.Refused
		}
	}
	silent := slices.Collect(maps.Keys(answered))
	silent = slices.DeleteFunc(silent, func(name string) bool { return answered[name] > 0 })
	slices.SortFunc(silent, cmp.Compare)
	return silent
}

// Strictness is what may answer a request with a key.
type Strictness string

const (
	// Strict: the preview, and no one else.
	Strict Strictness = "strict"
	// Loose: the preview or the baseline, because the preview comes or goes.
	Loose Strictness = "loose"
	// Lenient is loose, and a request may fail, because its preview crashes.
	Lenient Strictness = "lenient"
)

// Key is a key that clients send, to one service.
type Key struct {
	Service string     `json:"service"`
	Who     Strictness `json:"who"`
}

// Orders are what the driver tells the clients. They have been carried out when the answer comes: no request with a key
// that is not named any more is under way.
type Orders struct {
	Phase string         `json:"phase"`
	Keys  map[string]Key `json:"keys"`
}
