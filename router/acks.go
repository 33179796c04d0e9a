package router

import (
	"maps"
	"sync"
	"time"

	"github.com/detour-dev/detour/api"
)

// ackLife is how long an acknowledgement counts.
const ackLife = 3 * api.AckEvery

// ackStore holds the newest acknowledgement of each Pod, whichever replica was told.
type ackStore struct {
	changed func() // called when a Pod acknowledges another version; must not block

	mu   sync.Mutex
	acks api.Acks
}

func newAckStore(changed func()) *ackStore {
	return &ackStore{changed: changed, acks: api.Acks{}}
}

func (s *ackStore) put(pod podRef, ack api.Ack) {
	s.merge(api.Acks{string(pod.uid): {Ack: ack, Namespace: pod.Namespace, Time: time.Now()}})
}

// merge takes what a replica has been told, where it is news. A replica whose clock is ahead must not silence the
// others: nothing is newer than now.
func (s *ackStore) merge(more api.Acks) {
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	for pod, ack := range more {
		if ack.Time.After(now) {
			ack.Time = now
		}
		old := s.acks[pod]
		if ack.Time.Before(old.Time) || now.Sub(ack.Time) > ackLife {
			continue
		}
		s.acks[pod] = ack
		if ack.Version != old.Version {
			s.changed()
		}
	}
}

// fresh forgets the acknowledgements of proxies that are silent, and returns a copy of the others.
func (s *ackStore) fresh() api.Acks {
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	maps.DeleteFunc(s.acks, func(_ string, ack api.PodAck) bool { return now.Sub(ack.Time) > ackLife })
	return maps.Clone(s.acks)
}

// cleared counts, by namespace, the proxies that have acknowledged the empty table, and so send everything to their app.
func cleared(acks api.Acks) map[string]int {
	count, empty := map[string]int{}, emptyTable().Version
	for _, ack := range acks {
		if ack.Version == empty {
			count[ack.Namespace]++
		}
	}
	return count
}
