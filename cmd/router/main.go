// Command router tracks previews and tells each proxy its routes; see package router.
package main

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/go-logr/logr"
	"k8s.io/klog/v2"
	"sigs.k8s.io/controller-runtime/pkg/client/config"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/detour-dev/detour/api"
	"github.com/detour-dev/detour/router"
	"github.com/detour-dev/detour/router/gateway"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		slog.Error("stopped", "error", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	cfg := router.Config{Log: newLogger(), PodIP: os.Getenv("POD_IP"), Namespace: os.Getenv("POD_NAMESPACE")}
	flags := flag.NewFlagSet("router", flag.ExitOnError)
	flags.StringVar(&cfg.Listen, "listen", ":8443", "address of the API (HTTPS)")
	flags.StringVar(&cfg.Health, "health", ":8081", "address of /healthz and /readyz (HTTP)")
	flags.StringVar(&cfg.Metrics, "metrics", ":8080", "address of /metrics (HTTP)")
	flags.StringVar(&cfg.CertDir, "cert-dir", "/tls", "folder of tls.crt and tls.key, and of ca.crt to check peers")
	flags.StringVar(&cfg.Peers, "peers", "", "host:port of a headless Service that resolves to every replica")
	flags.StringVar(&cfg.ServerName, "server-name", "detour-router.detour-system.svc", "name that peers' certificates are checked for")
	flags.StringVar(&cfg.TokenFile, "token-file", api.TokenFile, "file of this ServiceAccount's token for the audience "+api.Audience)
	addGatewayFlags(flags, &cfg.Gateway)
	_ = flags.Parse(args) // it exits
	if flags.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q: the router takes flags only", flags.Arg(0))
	}
	var err error
	if cfg.Kube, err = config.GetConfig(); err != nil {
		return fmt.Errorf("finding the API server (in a cluster, or by KUBECONFIG): %w", err)
	}
	return router.New(cfg).Run(ctx)
}

// addGatewayFlags adds what makes previews reachable by URL (docs/urls.md).
func addGatewayFlags(flags *flag.FlagSet, cfg *gateway.Config) {
	flags.StringVar(&cfg.URL, "gateway-url", "", "`https://preview.example.com` serves previews at https://<key>--<service>--<namespace>.preview.example.com; off when empty")
	flags.BoolVar(&cfg.Open, "gateway-open", false, "ask for no signed links: whoever reaches -gateway-listen reaches every Service of the namespaces that take part")
	flags.StringVar(&cfg.Listen, "gateway-listen", ":8082", "address of the gateway for preview URLs (HTTP)")
	flags.StringVar(&cfg.Namespace, "gateway-namespace", "", "namespace of preview hosts that name none, <key>--<service>.<domain>")
	flags.BoolVar(&cfg.TrustForwarded, "gateway-trust-forwarded", false, "hand X-Forwarded-... headers on to apps: only where nothing but a proxy that sets them reaches the gateway")
	flags.Func("gateway-plain-host", "`host=namespace/service`: redirects to this host stay within a preview (may be repeated)", cfg.AddPlainHost)
}

// newLogger makes one logger for the router and the libraries that it uses.
func newLogger() *slog.Logger {
	logger := slog.New(slog.NewJSONHandler(os.Stderr, nil))
	slog.SetDefault(logger)
	log.SetLogger(logr.FromSlogHandler(logger.Handler()))
	klog.SetSlogLogger(logger)
	return logger
}
