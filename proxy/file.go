package proxy

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/detour-dev/detour/api"
)

// pollRoutes is how often the routes file is looked at.
const pollRoutes = 200 * time.Millisecond

// sink is where tables are brought to: the [Proxy].
type sink interface {
	apply(api.Table) error
	ack() api.Ack
}

// routesFile brings the table from a file, for tests, benchmarks and debugging.
type routesFile struct {
	path string
	to   sink
	log  *slog.Logger
	seen os.FileInfo // as it was when it was read last
	gone bool
}

func newRoutesFile(path string, p *Proxy) *routesFile {
	f := &routesFile{path: path, to: p, log: p.log}
	f.look() // so that the table is in force before the first connection
	return f
}

func (f *routesFile) run(ctx context.Context) {
	tick := time.NewTicker(pollRoutes)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			f.look()
		case <-ctx.Done():
			return
		}
	}
}

// look reads the file if it has changed. Whatever is wrong with it is logged once, and the last table stays.
func (f *routesFile) look() {
	info, err := os.Stat(f.path)
	if err != nil {
		if !f.gone {
			f.log.Error("reading the routes file", "error", err)
		}
		f.gone, f.seen = true, nil
		return
	}
	f.gone = false
	if f.seen != nil && os.SameFile(info, f.seen) && info.ModTime().Equal(f.seen.ModTime()) && info.Size() == f.seen.Size() {
		return
	}
	f.seen = info
	if err := f.load(); err != nil {
		f.log.Error("reading the routes file", "error", err)
	}
}

func (f *routesFile) load() error {
	b, err := os.ReadFile(f.path)
	if err != nil {
		return err
	}
	var t api.Table
	if err := json.Unmarshal(b, &t); err != nil {
		return fmt.Errorf("%s: %w", f.path, err)
	}
	if t.Version == "" {
		t.Version = t.Hash()
	}
	return f.to.apply(t)
}
