package dashboard

import (
	"slices"
	"time"

	"github.com/detour-dev/detour/api"
	"github.com/detour-dev/detour/router/view"
)

const (
	// step is twice [api.AckEvery], so that every proxy tells its counts in every step and a steady load looks steady.
	step  = 2 * api.AckEvery
	steps = 30
)

// History is what one preview's proxies have counted lately, in steps of equal length, the oldest first.
type History struct {
	StepSeconds int       `json:"step_seconds"`
	Until       time.Time `json:"until"` // the end of the last step, which may not be over
	// Requests of each step were sent to the preview, or would have been if it had an endpoint.
	Requests []uint64 `json:"requests"`
	// Errors are the requests among them that a proxy answered itself.
	Errors []uint64 `json:"errors"`
}

func (h *History) total() api.Counters {
	var sum api.Counters
	for i := range h.Requests {
		sum = sum.Plus(api.Counters{Requests: h.Requests[i], Errors: h.Errors[i]})
	}
	return sum
}

// history turns the proxies' counts, each since its proxy started, into counts by step. It holds as much as there are
// previews, and what a replica has not seen itself it does not know.
type history struct {
	last   api.Acks
	series map[previewName]*series
}

type previewName struct{ namespace, preview string }

// series is a ring: the step that began at the Unix time n*step is counted at n modulo its length.
type series struct {
	newest int64
	counts [steps]api.Counters
}

// add counts what is new in acks. Only what both this and the last acks of a Pod tell can be new: a replica that has just
// started must not take all of the past for the present.
func (h *history) add(views map[string]*view.View, acks api.Acks, now time.Time) {
	kept := map[previewName]*series{}
	for namespace, v := range views {
		if v == nil {
			continue
		}
		for _, p := range v.Status.Previews {
			name := previewName{namespace, p.Preview}
			s := h.series[name]
			if s == nil {
				s = &series{newest: stepOf(now)}
			}
			s.moveOn(stepOf(now))
			kept[name] = s
		}
		for pod := range v.Tables {
			before, known := h.last[string(pod)]
			if !known {
				continue
			}
			for preview, counted := range acks[string(pod)].Previews {
				if s := kept[previewName{namespace, preview}]; s != nil {
					s.count(since(before.Previews[preview], counted))
				}
			}
		}
	}
	h.last, h.series = acks, kept
}

// of is nil when nothing was counted.
func (h *history) of(namespace, preview string) *History {
	s := h.series[previewName{namespace, preview}]
	if s == nil || s.counts == [steps]api.Counters{} {
		return nil
	}
	made := &History{StepSeconds: int(step / time.Second), Until: time.Unix((s.newest+1)*int64(step/time.Second), 0).UTC()}
	for n := s.newest - steps + 1; n <= s.newest; n++ {
		c := s.counts[n%steps]
		made.Requests = append(made.Requests, c.Requests)
		made.Errors = append(made.Errors, c.Errors)
	}
	return made
}

func stepOf(t time.Time) int64 { return t.Unix() / int64(step/time.Second) }

// moveOn empties the steps that begin; a clock that is set back leaves the newest in place.
func (s *series) moveOn(to int64) {
	for range min(to-s.newest, steps) {
		s.newest++
		s.counts[s.newest%steps] = api.Counters{}
	}
	if to-s.newest > 0 { // every step is empty
		s.newest = to
	}
}

func (s *series) count(c api.Counters) {
	now := &s.counts[s.newest%steps]
	*now = now.Plus(c)
}

// since is what a proxy has counted since it told before. One that tells less has started again.
func since(before, now api.Counters) api.Counters {
	if now.Requests < before.Requests || now.Errors < before.Errors {
		return now
	}
	return api.Counters{Requests: now.Requests - before.Requests, Errors: now.Errors - before.Errors}
}

func (h *History) busiest() uint64 { return slices.Max(h.Requests) }
