package main

import (
	"context"
	"fmt"
	"os"
)

// runDown is the command down.
func runDown(ctx context.Context, b builder) error {
	if err := needRoot("down"); err != nil {
		return err
	}
	unlock, err := b.lockNode()
	if err != nil {
		return err
	}
	defer unlock()
	if err := clean(ctx); err != nil {
		return err
	}
	say("no node is running, and nothing is left of one")
	return nil
}

// clean removes a node, running, crashed or half started. With its processes go its mounts, links and rules, because
// they are in namespaces that end with the last process in them.
func clean(ctx context.Context) error {
	all, err := hierarchies()
	if err != nil {
		return err
	}
	if err := removeCgroups(ctx, all); err != nil {
		return err
	}
	if err := os.RemoveAll(stateDir); err != nil {
		return fmt.Errorf("removing the node's folder: %w", err)
	}
	return nil
}
