// Command kubectl-detour is kubectl's plugin "kubectl detour"; see package plugin.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"k8s.io/cli-runtime/pkg/genericiooptions"
	_ "k8s.io/client-go/plugin/pkg/client/auth" // the ways of clouds to log in

	"github.com/detour-dev/detour/cmd/kubectl-detour/plugin"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	streams := genericiooptions.IOStreams{In: os.Stdin, Out: os.Stdout, ErrOut: os.Stderr}
	code := plugin.Run(ctx, plugin.Name, os.Args[1:], streams)
	stop()
	os.Exit(code)
}
