// Command load is both sides of the lossless test, and runs in Pods: "load app" is the service that is asked, "load
// clients" asks it. Every answer names the copy that gives it, and holds bytes that the client can check.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "load:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	switch {
	case len(args) == 1 && args[0] == "app":
		return runApp(ctx)
	case len(args) == 1 && args[0] == "clients":
		return runClients(ctx)
	}
	return fmt.Errorf("usage: load app|clients")
}
