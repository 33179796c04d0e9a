// Command cluster runs a real Kubernetes node on a bare machine: etcd, the control plane, kubelet, kube-proxy,
// containerd, runc, CNI and cluster DNS, without a container engine and without an image registry.
//
// Everything of the node lives in namespaces of its own, under one init process (this program again, see init.go). Its
// network has no way out; its mounts, processes and links end with that one process, however it ends. What is left to
// clean is a folder and a cgroup.
//
// It is for tests and demonstrations on one machine. It knows one node of one fixed size, keeps nothing over a `down`
// and makes no attempt at security between the node and root on the machine.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
)

const usage = `Usage: hack/cluster/cluster COMMAND

  up [--cert-manager] [--api-port N] [--gateway-port N] [--dashboard-port N]
                     build what is missing, start the node and wait until it works
  down               stop the node and remove every trace of it
  status             say how the node is and where its logs are
  load IMAGE.tar...  import image archives into the node
  kubeconfig         print a kubeconfig for use from this machine
  exec CMD [ARG...]  run a command in the node's network, with kubectl in PATH and names resolved by the cluster's DNS
  bin                build if needed, and print the folder with etcd, kube-apiserver, kubectl and the others

up, down, load and exec need root. Each can be run again without harm.
`

var errUsage = errors.New("no such command")

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	err := run(ctx, os.Args[1:])
	if errors.Is(err, errUsage) {
		fmt.Fprint(os.Stderr, usage)
		os.Exit(2)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "cluster:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if len(args) == 0 {
		return errUsage
	}
	command, args := args[0], args[1:]
	if command == nodeCommand {
		return runNode(ctx)
	}
	b, err := newBuilder()
	if err != nil {
		return err
	}
	switch command {
	case "up":
		return runUp(ctx, b, args)
	case "down":
		return runDown(ctx, b)
	case "status":
		return runStatus(ctx)
	case "load":
		return runLoad(ctx, args)
	case "kubeconfig":
		return printKubeconfig()
	case "exec":
		return runExec(args)
	case "bin":
		return printBin(ctx, b)
	}
	return errUsage
}

// newBuilder finds the sources, which the wrapper script names, and the user's cache folder.
func newBuilder() (builder, error) {
	source := os.Getenv("DETOUR_CLUSTER_SOURCE")
	if source == "" {
		return builder{}, errors.New("DETOUR_CLUSTER_SOURCE is not set: run hack/cluster/cluster, which sets it")
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return builder{}, fmt.Errorf("finding the cache folder: %w", err)
	}
	return builder{source: source, cache: filepath.Join(cache, "detour", "cluster")}, nil
}

// say tells the user what is being done. Standard output is kept for what a command is asked to print.
func say(format string, args ...any) {
	fmt.Fprintf(os.Stderr, format+"\n", args...)
}
