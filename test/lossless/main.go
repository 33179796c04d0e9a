// Command lossless shows that Detour costs nobody a request: while clients in Pods hold steady load on a few services, it
// is switched on, used, broken, upgraded, switched off and removed, and every answer is checked. It needs a whole cluster
// whose Pods it can reach, with kubectl set up; hack/lossless sees to that.
//
// Standard error tells what happens, the last line on standard output is the result as JSON (package result).
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/detour-dev/detour/test/lossless/result"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "lossless:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	d := &driver{orders: result.Orders{Keys: map[string]result.Key{}}, started: time.Now()}
	flags := flag.NewFlagSet("lossless", flag.ContinueOnError)
	flags.BoolVar(&d.control, "control", false, "leave Detour out of the same timeline: what is lost then is Kubernetes' own")
	flags.BoolVar(&d.brutal, "brutal", false, "another timeline, in which somebody deletes Detour's namespace")
	flags.DurationVar(&d.hold, "hold", 2*time.Second, "how long each state is held")
	flags.DurationVar(&d.gone, "gone", 15*time.Second, "how long the router is gone")
	flags.Float64Var(&d.rate, "rate", 8, "requests a second of each of some fifty clients")
	flags.StringVar(&d.image, "image", "", "the `image` of the apps and the clients (command load)")
	flags.StringVar(&d.previous, "previous", "", "the `tree` of the version before, with its images' tag in bin/tag")
	if err := flags.Parse(args); errors.Is(err, flag.ErrHelp) {
		return nil
	} else if err != nil {
		return err
	}
	if d.image == "" {
		return errors.New("-image: the image of the apps and the clients is not given")
	}
	err := d.run(ctx)
	reports, readErr := d.reports(context.WithoutCancel(ctx))
	return errors.Join(err, readErr, conclude(reports))
}

// conclude prints the result, and says what is wrong with it.
func conclude(reports []result.Report) error {
	for _, r := range reports {
		for _, e := range r.Errors {
			fmt.Fprintln(os.Stderr, e)
		}
	}
	sum := result.Total(reports)
	line, err := json.Marshal(sum)
	if err != nil {
		return err
	}
	fmt.Println(string(line))
	if silent := result.Silent(reports); len(silent) > 0 {
		return fmt.Errorf("no request was answered at all: %s", strings.Join(silent, ", "))
	}
	if sum.Failed+sum.WrongCopy > 0 || sum.Requests == 0 {
		return fmt.Errorf("of %d requests %d failed, and %d reached a wrong copy", sum.Requests, sum.Failed, sum.WrongCopy)
	}
	return nil
}
