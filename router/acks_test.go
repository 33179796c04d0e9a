package router

import (
	"maps"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/detour-dev/detour/api"
	"github.com/detour-dev/detour/router/view"
	"github.com/detour-dev/detour/router/view/viewtest"
)

func TestNewestAckWins(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		changes := 0
		s := newAckStore(func() { changes++ })
		ack := func(version string, age time.Duration) api.Acks {
			return api.Acks{"a": {Ack: api.Ack{Version: version}, Time: time.Now().Add(-age)}}
		}
		s.put(podRef{uid: "a"}, api.Ack{Version: "2"})
		s.merge(ack("1", time.Second)) // what another replica was told earlier
		s.merge(ack("2", 0))           // the same again
		if got := s.fresh()["a"].Version; got != "2" || changes != 1 {
			t.Errorf("version %q after %d changes, want 2 after 1", got, changes)
		}
		s.merge(ack("3", -time.Hour)) // from a replica whose clock is ahead
		time.Sleep(time.Second)
		s.put(podRef{uid: "a"}, api.Ack{Version: "4"})
		if got := s.fresh()["a"].Version; got != "4" || changes != 3 {
			t.Errorf("version %q after %d changes, want 4 after 3", got, changes)
		}
		s.merge(api.Acks{"b": {Time: time.Now().Add(-ackLife - 1)}}) // long silent
		time.Sleep(ackLife)
		if got := slices.Collect(maps.Keys(s.fresh())); len(got) != 1 {
			t.Errorf("known after %s: %v, want a", ackLife, got)
		}
		time.Sleep(time.Nanosecond)
		if got := s.fresh(); len(got) != 0 {
			t.Errorf("known after more than %s: %v, want none", ackLife, got)
		}
	})
}

// TestAcksMakeAPreviewRouted counts the Pods one by one.
func TestAcksMakeAPreviewRouted(t *testing.T) {
	o := viewtest.Shop()
	o.ResolveSlices()
	acks := newAckStore(func() {})
	var got []string
	for _, pod := range []string{"", "pod-identity-a", "pod-api-b", "pod-api-a"} {
		v := view.New("shop", o.Objects, acks.fresh(), viewtest.Now)
		for uid, table := range v.Tables {
			if string(uid) == pod {
				acks.put(podRef{uid: uid}, api.Ack{Version: table.Version})
			}
		}
		got = append(got, viewtest.States(view.New("shop", o.Objects, acks.fresh(), viewtest.Now))...)
	}
	want := []string{
		"deployment/api-pr-42 pr-42 pending 0/2",
		"deployment/api-pr-42 pr-42 pending 0/2",
		"deployment/api-pr-42 pr-42 pending 1/2",
		"deployment/api-pr-42 pr-42 routed 2/2",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}
