package dashboard

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/detour-dev/detour/api"
	"github.com/detour-dev/detour/router/view"
	"github.com/detour-dev/detour/router/view/viewtest"
)

// told is what one proxy says at one time; a silent one is not there.
type told struct {
	after            time.Duration
	requests, errors uint64
	silent           bool
}

func TestHistory(t *testing.T) {
	const s = time.Second
	for name, test := range map[string]struct {
		told []told
		want []uint64 // the last three steps
	}{
		"what came before is not counted":  {[]told{{0, 100, 0, false}}, nil},
		"what is new is":                   {[]told{{0, 100, 0, false}, {15 * s, 103, 1, false}}, []uint64{0, 0, 3}},
		"two of one step are joined":       {[]told{{0, 0, 0, false}, {15 * s, 3, 0, false}, {20 * s, 5, 0, false}}, []uint64{0, 0, 5}},
		"each step on its own":             {[]told{{0, 0, 0, false}, {15 * s, 3, 0, false}, {45 * s, 5, 0, false}, {60 * s, 6, 0, false}}, []uint64{3, 2, 1}},
		"a proxy that started again":       {[]told{{0, 100, 0, false}, {15 * s, 4, 0, false}}, []uint64{0, 0, 4}},
		"one that was silent begins anew":  {[]told{{0, 1, 0, false}, {15 * s, 0, 0, true}, {20 * s, 50, 0, false}, {25 * s, 52, 0, false}}, []uint64{0, 0, 2}},
		"a gap longer than the ring":       {[]told{{0, 0, 0, false}, {15 * s, 3, 0, false}, {time.Hour, 4, 0, false}}, []uint64{0, 0, 1}},
		"a clock that is set back":         {[]told{{0, 0, 0, false}, {60 * s, 3, 0, false}, {0, 4, 0, false}}, []uint64{0, 0, 4}},
		"what is a quarter of an hour old": {[]told{{0, 0, 0, false}, {15 * s, 3, 0, false}, {15*time.Minute + 15*s, 3, 0, false}}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			v := viewtest.Acknowledged(viewtest.Shop())
			views := map[string]*view.View{"shop": v, "filling": nil}
			var h history
			for _, told := range test.told {
				acks := counted(v, "deployment/api-pr-42", api.Counters{Requests: told.requests, Errors: told.errors})
				if told.silent {
					delete(acks, "pod-api-a")
				}
				h.add(views, acks, viewtest.Now.Add(told.after))
			}
			var got []uint64
			if made := h.of("shop", "deployment/api-pr-42"); made != nil {
				got = made.Requests[len(made.Requests)-3:]
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("-want +got\n%s", diff)
			}
		})
	}
}

// TestHistoryIsBounded: it forgets previews that are gone, and does not learn of any that there are not.
func TestHistoryIsBounded(t *testing.T) {
	v := viewtest.Acknowledged(viewtest.Shop())
	var h history
	for i := range 3 {
		acks := counted(v, "deployment/made-up", api.Counters{Requests: uint64(i)})
		h.add(map[string]*view.View{"shop": v}, acks, viewtest.Now)
	}
	if len(h.series) != 1 {
		t.Errorf("%d series for one preview", len(h.series))
	}
	h.add(map[string]*view.View{"shop": viewtest.Acknowledged(&viewtest.Namespace{})}, nil, viewtest.Now)
	if len(h.series) != 0 {
		t.Errorf("%d series for no preview", len(h.series))
	}
}

func TestPlot(t *testing.T) {
	p := newPlot(&History{StepSeconds: 30, Until: viewtest.Now, Requests: []uint64{0, 1000, 1}, Errors: []uint64{0, 500, 0}})
	if want := "M5 28v-28h4v28zM10 28v-1.5h4v1.5z"; p.Requests != want {
		t.Errorf("requests %s, want %s", p.Requests, want)
	}
	if want := "M5 28v-14h4v14z"; p.Errors != want {
		t.Errorf("errors %s, want %s", p.Errors, want)
	}
	if want := "1001 requests and 500 errors in the last 1 minutes, at most 1000 requests in 30 seconds"; p.Words != want {
		t.Errorf("words %q", p.Words)
	}
	want := []figure{
		{viewtest.Now.Add(-30 * time.Second), api.Counters{Requests: 1}},
		{viewtest.Now.Add(-60 * time.Second), api.Counters{Requests: 1000, Errors: 500}},
	}
	if diff := cmp.Diff(want, p.Figures); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}
