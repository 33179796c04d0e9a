// Command webhook is Detour's admission server; see package webhook.
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

	"github.com/go-logr/logr"
	"k8s.io/klog/v2"
	ctrl "sigs.k8s.io/controller-runtime"

	"github.com/detour-dev/detour/webhook"
)

func main() {
	config, err := parse(os.Args[1:], os.Getenv)
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, config); err != nil {
		slog.Error("stopped", "error", err)
		os.Exit(1)
	}
}

func parse(args []string, getenv func(string) string) (webhook.Config, error) {
	var c webhook.Config
	flags := flag.NewFlagSet("webhook", flag.ContinueOnError)
	flags.StringVar(&c.Image, "proxy-image", "", "the proxy's `image` (required)")
	flags.StringVar(&c.Router, "router", "", "the router's `URL` (default https://detour-router.$POD_NAMESPACE.svc:8443)")
	flags.StringVar(&c.Listen, "listen", ":9443", "serve admission on this `address`")
	flags.StringVar(&c.Health, "health", ":8081", "serve /healthz and /readyz on this `address`")
	flags.StringVar(&c.Metrics, "metrics", ":8080", "serve /metrics on this `address`")
	flags.StringVar(&c.CertDir, "cert-dir", "", "take tls.crt, tls.key and ca.crt from this `directory` (default: sign certificates here)")
	if err := flags.Parse(args); err != nil {
		return c, err
	}
	c.Namespace = getenv("POD_NAMESPACE")
	switch {
	case flags.NArg() > 0:
		return c, fmt.Errorf("webhook: argument %q is not a flag; see -help", flags.Arg(0))
	case c.Image == "":
		return c, errors.New("webhook: -proxy-image is missing")
	case c.Namespace == "":
		return c, errors.New("webhook: the environment variable POD_NAMESPACE is missing: set it to Detour's own namespace")
	}
	return c, nil
}

func run(ctx context.Context, config webhook.Config) error {
	handler := slog.NewJSONHandler(os.Stderr, nil)
	slog.SetDefault(slog.New(handler)) // the standard library's logger follows
	ctrl.SetLogger(logr.FromSlogHandler(handler))
	klog.SetLogger(logr.FromSlogHandler(handler))
	cluster, err := ctrl.GetConfig()
	if err != nil {
		return fmt.Errorf("finding the cluster: %w", err)
	}
	config.Cluster = cluster
	return webhook.Run(ctx, config)
}
