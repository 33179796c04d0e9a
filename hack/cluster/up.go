package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"
)

// The NodePorts that are forwarded to: those of the router's gateway and of its dashboard, once it has them.
const (
	gatewayNodePort   = "30080"
	dashboardNodePort = "30081"
)

const (
	startTimeout = 90 * time.Second
	// recoverTimeout is how long a running node that does not work may take to repair itself before it is replaced.
	recoverTimeout = 30 * time.Second
)

// ports are those on the machine's loopback that lead into the node's network.
type ports struct{ API, Gateway, Dashboard int }

// builds are the folders of the built programs. That of cert-manager is empty unless it was asked for.
type builds struct{ node, pause, dns, certManager string }

// runUp is the command up.
func runUp(ctx context.Context, b builder, args []string) error {
	var p ports
	flags := flag.NewFlagSet("up", flag.ContinueOnError)
	withCertManager := flags.Bool("cert-manager", false, "run cert-manager's controllers as well")
	flags.IntVar(&p.API, "api-port", 16443, "the API server's port on 127.0.0.1")
	flags.IntVar(&p.Gateway, "gateway-port", 18080, "the gateway's port on 127.0.0.1; leads to NodePort "+gatewayNodePort)
	flags.IntVar(&p.Dashboard, "dashboard-port", 18081, "the dashboard's port on 127.0.0.1; leads to NodePort "+dashboardNodePort)
	if err := flags.Parse(args); err != nil || flags.NArg() > 0 {
		return errUsage
	}
	if err := needRoot("up"); err != nil {
		return err
	}
	built, err := b.buildAll(ctx, *withCertManager)
	if err != nil {
		return err
	}
	if err := ensurePackages(ctx); err != nil {
		return err
	}
	unlock, err := b.lockNode()
	if err != nil {
		return err
	}
	defer unlock()
	return up(ctx, built, p)
}

func needRoot(command string) error {
	if os.Geteuid() != 0 {
		return fmt.Errorf("%s needs root: it makes namespaces, mounts and cgroups", command)
	}
	return nil
}

// lockNode keeps up and down from running side by side.
func (b builder) lockNode() (unlock func(), err error) {
	return lock(filepath.Join(b.cache, "node-state.lock"))
}

func (b builder) buildAll(ctx context.Context, certManager bool) (built builds, err error) {
	if built.node, err = b.build(ctx, nodeProgram); err != nil {
		return builds{}, err
	}
	if built.pause, err = b.build(ctx, pauseProgram); err != nil {
		return builds{}, err
	}
	if built.dns, err = b.build(ctx, dnsProgram); err != nil {
		return builds{}, err
	}
	if certManager {
		if built.certManager, err = b.build(ctx, certManagerProgram); err != nil {
			return builds{}, err
		}
	}
	return built, nil
}

// up makes sure that a node runs and works, and that it has what was asked for.
func up(ctx context.Context, built builds, p ports) error {
	began := time.Now()
	n, err := runningNode()
	if err == nil {
		err = n.awaitRecovery(ctx)
	}
	if err != nil {
		if n, err = start(ctx, built, p); err != nil {
			return err
		}
	}
	if built.certManager != "" {
		if err := n.addCertManager(ctx, built.certManager); err != nil {
			return err
		}
	}
	say("the node is up after %s", time.Since(began).Round(100*time.Millisecond))
	if n.Programs != built.node || n.Ports != p {
		say("it was started from other sources or with other ports; to change that: down, then up")
	}
	say("  export KUBECONFIG=%s", kubeconfigPath(hostUser))
	return nil
}

// awaitRecovery waits until a running node works. Its programs start again by themselves.
func (n node) awaitRecovery(ctx context.Context) error {
	if n.works(ctx) {
		return nil
	}
	say("a node is running and does not work; waiting for it to recover")
	return poll(ctx, recoverTimeout, func() bool { return n.works(ctx) })
}

// start replaces whatever is left of an earlier node by a new one, and waits until it works.
func start(ctx context.Context, built builds, p ports) (node, error) {
	if err := clean(ctx); err != nil {
		return node{}, err
	}
	say("starting the node")
	if err := writeConfig(newSettings(cniFolder()), p.API); err != nil {
		return node{}, err
	}
	n, err := launch(built, p)
	if err != nil {
		return node{}, errors.Join(err, clean(ctx))
	}
	if err := n.fill(ctx, built); err != nil {
		return node{}, n.explain(err)
	}
	return n, nil
}

// launch starts the init process and notes its number.
func launch(built builds, p ports) (node, error) {
	all, err := hierarchies()
	if err != nil {
		return node{}, err
	}
	if err := makeCgroups(all); err != nil {
		return node{}, err
	}
	ways := forwards(p)
	listeners, err := listen(ways)
	if err != nil {
		return node{}, err
	}
	defer closeAll(listeners)
	pid, tell, err := startNode(listeners)
	if err != nil {
		return node{}, err
	}
	if err := os.WriteFile(members(all), []byte(strconv.Itoa(pid)), 0); err != nil {
		return node{}, fmt.Errorf("putting the node into its cgroup: %w", err)
	}
	n := node{PID: pid, Ports: p, Programs: built.node}
	if err := n.write(); err != nil {
		return node{}, err
	}
	return n, tell(order{Programs: built.node, Forwards: ways})
}

// fill gives a new node its first images and its DNS.
func (n node) fill(ctx context.Context, built builds) error {
	imported := make(chan error, 1)
	go func() {
		imported <- errors.Join(
			n.importProgram(ctx, pauseImage, filepath.Join(built.pause, pauseProgram.name)),
			n.importProgram(ctx, dnsImage, filepath.Join(built.dns, dnsProgram.name)),
		)
	}()
	if err := errors.Join(n.awaitAPI(ctx), <-imported); err != nil {
		return err
	}
	return n.addDNS(ctx)
}

// awaitAPI waits for the namespace that DNS goes to, which the API server makes a little after it has become ready.
func (n node) awaitAPI(ctx context.Context) error {
	client, err := n.client()
	if err != nil {
		return err
	}
	return n.await(ctx, "the API server", "kube-apiserver", func() bool {
		return client.get(ctx, "/api/v1/namespaces/kube-system", nil) == nil
	})
}

// await polls until done, and gives up early when the node ends. When it gives up, it shows the end of that component's
// log.
func (n node) await(ctx context.Context, what, component string, done func() bool) error {
	began, alive := time.Now(), true
	err := poll(ctx, startTimeout, func() bool {
		alive = n.alive()
		return !alive || done()
	})
	if !alive {
		return fmt.Errorf("waiting for %s: the node has ended", what)
	}
	if err != nil {
		return fmt.Errorf("waiting for %s: %w; last in %s's log:\n%s", what, err, component, tail(logPath(component), 15))
	}
	say("  %s: ready after %s", what, time.Since(began).Round(100*time.Millisecond))
	return nil
}
