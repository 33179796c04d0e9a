package forward

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
)

// maxTries is how many Pods a connection is tried with: what fails with so many is not the Pods' fault.
const maxTries = 3

// Entrance is where connections enter a Service: the proxy's port of a Pod behind it.
type Entrance struct {
	Pod  string
	Port uint16
}

// Passage makes connections into a Service, each through a Pod that is ready then. All fields are required.
type Passage struct {
	// Entrances lists those of the Pods that are ready, or says why there is none.
	Entrances func(context.Context) ([]Entrance, error)
	// Open makes a connection.
	Open func(context.Context, Entrance) (net.Conn, error)
	// Changed is called when connections begin to go to another Pod. Calls do not overlap.
	Changed func(Entrance)

	mu   sync.Mutex
	last Entrance // that of the last connection
}

// Dial stays with a Pod for as long as it is ready and can be reached. Its error tells of each Pod that was tried.
func (p *Passage) Dial(ctx context.Context) (net.Conn, error) {
	entrances, err := p.Entrances(ctx)
	if err != nil {
		return nil, err
	}
	var failed []error
	for _, e := range p.choose(entrances) {
		conn, err := p.Open(ctx, e)
		if err == nil {
			p.remember(e)
			return conn, nil
		}
		failed = append(failed, fmt.Errorf("through Pod %s, port %d: %w", e.Pod, e.Port, err))
	}
	return nil, errors.Join(failed...)
}

// choose is the order in which to try.
func (p *Passage) choose(entrances []Entrance) []Entrance {
	p.mu.Lock()
	defer p.mu.Unlock()
	order := slices.Clone(entrances)
	if i := slices.Index(order, p.last); i > 0 {
		order[0], order[i] = order[i], order[0]
	}
	return order[:min(len(order), maxTries)]
}

func (p *Passage) remember(e Entrance) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if e != p.last {
		p.Changed(e)
	}
	p.last = e
}
