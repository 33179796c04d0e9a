// Command bench measures Detour's proxy beside haproxy, nginx and net/http's reverse proxy, as hack/bench runs it.
//
// The proxy that is measured has a core of its own; the load and the backend share another. The proxies take turns,
// each freshly started, and only the ratio of two that ran one after the other means anything: absolute figures drift
// with the machine. CPU is what the scheduler has accounted to all threads of a proxy and its children (the first field
// of schedstat), divided by the requests that were completed meanwhile. Every answer is checked, and one that is wrong
// or missing fails the case. All traffic stays on loopback.
//
// Memory is the proportional set size of a proxy and its children (Pss: what is resident, pages that processes share
// divided among them); a MB is 10^6 bytes. Haproxy and nginx are Debian's with one thread each and no logs; all proxies
// have one route to decide on, by the header Detour-Key, which only the request that tries it carries.
//
// The table goes to stdout, progress to stderr. Missing a bar is no error, failing to measure is.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGHUP, os.Interrupt)
	defer stop()
	slog.SetDefault(slog.New(slog.NewTextHandler(os.Stderr, nil)))
	if err := run(ctx, os.Args[1:]); err != nil {
		slog.Error("the benchmark ended", "error", err)
		os.Exit(1)
	}
}

// options are the command line.
type options struct {
	only     *regexp.Regexp
	rounds   int
	pairs    int
	duration time.Duration
	proxy    string
	before   string // with this nothing but that is done
	programs string
	out      string
}

func parseOptions(args []string) (options, error) {
	var o options
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	only := flags.String("run", "", "measure only the cases that match this `regexp`")
	flags.IntVar(&o.rounds, "rounds", 9, "how often ours and haproxy take turns; the others at most three times")
	flags.IntVar(&o.pairs, "pairs", 24, "how many pairs of runs compare route tables; below 20 nothing is shown")
	flags.DurationVar(&o.duration, "duration", time.Second, "how long a run counts")
	flags.StringVar(&o.proxy, "proxy", "", "the proxy's `binary`")
	flags.StringVar(&o.before, "before", "", "an earlier `binary` of the proxy: compare with that, in pairs, and measure nothing else")
	flags.StringVar(&o.programs, "programs", "", "the `folder` of the programs backend and reverseproxy")
	flags.StringVar(&o.out, "out", "bench.json", "the `file` for the results")
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	var err error
	if o.only, err = regexp.Compile(*only); err != nil {
		return o, fmt.Errorf("-run: %w", err)
	}
	if o.proxy == "" || o.programs == "" || o.rounds < 1 || o.pairs < 1 || o.duration <= 0 {
		return o, errors.New("-proxy and -programs are needed, and -rounds, -pairs and -duration above zero")
	}
	return o, nil
}

// A bench is a run of the benchmark.
type bench struct {
	options options
	cores   cores
	dir     string // for all files, and removed in the end
	backend backend
}

// program is the path of one of the benchmark's own programs.
func (b *bench) program(name string) string { return filepath.Join(b.options.programs, name) }

func run(ctx context.Context, args []string) error {
	o, err := parseOptions(args)
	if errors.Is(err, flag.ErrHelp) {
		return nil
	}
	if err != nil {
		return err
	}
	b := &bench{options: o}
	if b.dir, err = os.MkdirTemp("", "detour-bench"); err != nil {
		return err
	}
	defer os.RemoveAll(b.dir)
	if b.cores, err = newCores(); err != nil {
		return err
	}
	if err := b.cores.pinSelf(); err != nil {
		return err
	}
	if err := b.startBackend(ctx); err != nil {
		return err
	}
	defer b.backend.stop()
	return b.report(b.runCases(ctx))
}

// runCases runs those that are asked for, one after another, until ctx ends.
func (b *bench) runCases(ctx context.Context) (results []result, err error) {
	for _, c := range b.cases() {
		if !c.matches(b.options.only) {
			continue
		}
		started := time.Now()
		measured, err := c.run(ctx, c)
		if ctx.Err() != nil {
			return results, ctx.Err()
		}
		if err != nil {
			measured = nil
			for _, g := range c.goals {
				measured = append(measured, g.failed(err))
			}
		}
		slog.Info("done", "case", c.goals[0].name, "took", time.Since(started).Round(time.Second), "error", err)
		results = append(results, measured...)
	}
	if len(results) == 0 {
		err = fmt.Errorf("-run %s: no such case", b.options.only)
	}
	return results, err
}

// report writes what there is, even where err cut the run short.
func (b *bench) report(results []result, err error) error {
	encoded, failed := encode(results)
	if failed == nil {
		failed = os.WriteFile(b.options.out, encoded, 0o644)
	}
	if err := errors.Join(err, failed, print(os.Stdout, results)); err != nil {
		return err
	}
	if errorsOf(results) != nil {
		return errors.New("a case failed, see above")
	}
	return nil
}
