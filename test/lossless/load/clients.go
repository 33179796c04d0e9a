package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/detour-dev/detour/test/lossless/result"
)

// controlAddress is where the driver gives its orders (PUT /orders) and reads the counts (GET /report).
const controlAddress = ":9000"

// clients hold steady load on the services, by one way, and do what the driver orders.
type clients struct {
	way      string
	find     finder
	interval time.Duration // between the requests of one client without a key
	recorder *recorder
	phase    atomic.Pointer[string]

	mu    sync.Mutex
	keyed map[string]*keyedClients
}

// keyedClients are those that send one key.
type keyedClients struct {
	who  atomic.Pointer[result.Strictness]
	stop func() // and wait until no request is under way
}

func runClients(ctx context.Context) error {
	c, err := newClients(ctx)
	if err != nil {
		return err
	}
	var running sync.WaitGroup
	for _, flow := range c.unkeyed() {
		running.Go(func() { flow.run(ctx) })
	}
	server := &http.Server{Addr: controlAddress, Handler: c.control()}
	defer context.AfterFunc(ctx, func() { server.Close() })()
	err = server.ListenAndServe()
	c.obey(result.Orders{})
	running.Wait()
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// newClients reads the environment: WAY, and RATE, the requests a second of one client.
func newClients(ctx context.Context) (*clients, error) {
	rate, err := strconv.ParseFloat(os.Getenv("RATE"), 64)
	if err != nil || rate <= 0 {
		return nil, fmt.Errorf("RATE=%q: want the requests a second of one client", os.Getenv("RATE"))
	}
	way := os.Getenv("WAY")
	find, err := newFinder(ctx, way)
	if err != nil {
		return nil, err
	}
	c := &clients{
		way: way, find: find, interval: time.Duration(float64(time.Second) / rate), recorder: newRecorder(),
		keyed: map[string]*keyedClients{},
	}
	c.phase.Store(new("start"))
	return c, nil
}

// unkeyed are the clients of all services by all protocols that never send a key.
func (c *clients) unkeyed() []*flow {
	flows := []*flow{c.flow(redisProtocol, "db", "", nil)}
	for _, service := range []string{"web", "num"} {
		for _, protocol := range protocols {
			flows = append(flows, c.flow(protocol, service, "", nil))
		}
	}
	return flows
}

func (c *clients) control() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("PUT /orders", func(w http.ResponseWriter, r *http.Request) {
		var o result.Orders
		if err := json.NewDecoder(r.Body).Decode(&o); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		c.obey(o)
	})
	mux.HandleFunc("GET /report", func(w http.ResponseWriter, _ *http.Request) {
		json.NewEncoder(w).Encode(c.recorder.report())
	})
	return mux
}

// obey is done when no request with a key that is not named is under way.
func (c *clients) obey(o result.Orders) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.phase.Store(&o.Phase)
	var stopping sync.WaitGroup
	for key, k := range c.keyed {
		if _, wanted := o.Keys[key]; !wanted {
			stopping.Go(k.stop)
			delete(c.keyed, key)
		}
	}
	stopping.Wait()
	for key, want := range o.Keys {
		if c.keyed[key] == nil {
			c.keyed[key] = c.startKeyed(want.Service, key)
		}
		c.keyed[key].who.Store(&want.Who)
	}
}

func (c *clients) startKeyed(service, key string) *keyedClients {
	ctx, cancel := context.WithCancel(context.Background()) // orders end what orders have begun
	var running sync.WaitGroup
	k := &keyedClients{stop: func() { cancel(); running.Wait() }}
	loose := result.Loose
	k.who.Store(&loose)
	for _, protocol := range keyedProtocols {
		flow := c.flow(protocol, service, key, &k.who)
		running.Go(func() { flow.run(ctx) })
	}
	return k
}

// keyedPace is by how much clients with a key are slower than others, because there are so many of them.
const keyedPace = 4

// flow is a client of a service; with a key, who says who may answer.
func (c *clients) flow(p protocol, service, key string, who *atomic.Pointer[result.Strictness]) *flow {
	f := &flow{
		name: p.name, way: c.way, service: service, key: key, who: who, phase: &c.phase,
		client: p.client(place{c.find, service}, key), interval: c.interval, recorder: c.recorder,
	}
	if key != "" {
		f.name = "keyed " + p.name
		f.interval *= keyedPace
	}
	return f
}
