// Command proxy is the sidecar that Detour puts in front of an app.
//
// Its configuration comes from the environment, where the webhook writes it (see the api package):
//
//	DETOUR_PORTS=http:15401:8080 DETOUR_ADMIN_PORT=15400 DETOUR_POD_IPS=10.0.0.7 proxy -routes routes.json
//
// In the same environment, "proxy drain" asks the one that runs to drain; it is the sidecar's preStop hook.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/detour-dev/detour/api"
	"github.com/detour-dev/detour/proxy"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Getenv); err != nil {
		slog.Error("the proxy ended", "error", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, getenv func(string) string) error {
	flags := flag.NewFlagSet("proxy", flag.ContinueOnError)
	routes := flags.String("routes", "", "read the route table from this JSON `file` instead of asking the router; reread when it changes")
	debug := flags.Bool("debug", false, "log every request")
	if err := flags.Parse(args); errors.Is(err, flag.ErrHelp) {
		return nil
	} else if err != nil {
		return err
	}
	level := slog.LevelInfo
	if *debug {
		level = slog.LevelDebug
	}
	log := slog.New(slog.NewJSONHandler(os.Stderr, &slog.HandlerOptions{Level: level}))
	slog.SetDefault(log) // net/http has a few things to say to the standard logger
	sidecar, err := api.ParseSidecar(getenv)
	if err != nil {
		return err
	}
	switch command := flags.Arg(0); command {
	case "":
	case api.ProxyDrain:
		return proxy.Drain(ctx, sidecar.AdminPort)
	default:
		return fmt.Errorf("command %q: want none or %q", command, api.ProxyDrain)
	}
	p, err := proxy.New(proxy.Config{
		Sidecar:    sidecar,
		RoutesFile: *routes,
		Log:        log.With("pod", sidecar.Namespace+"/"+sidecar.Pod),
	})
	if err != nil {
		return fmt.Errorf("setting up: %w", err)
	}
	return p.Run(ctx)
}
