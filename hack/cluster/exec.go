package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// kubectlCache keeps kubectl from leaving a cache of a throw-away API server in the user's home.
const kubectlCache = "KUBECACHEDIR=" + stateDir + "/kubectl-cache"

// runExec is the command exec. It becomes the command that it is given.
func runExec(args []string) error {
	if len(args) == 0 {
		return errUsage
	}
	if err := needRoot("exec"); err != nil {
		return err
	}
	n, err := runningNode()
	if err != nil {
		return err
	}
	environment := execEnvironment(os.Environ(), n.Programs)
	if err := os.Setenv("PATH", value(environment, "PATH")); err != nil { // LookPath goes by it
		return err
	}
	path, err := exec.LookPath(args[0])
	if err != nil {
		return fmt.Errorf("finding the command: %w", err)
	}
	runtime.LockOSThread() // namespaces are a thread's, and the one that calls exec decides
	if err := n.enterNetwork(); err != nil {
		return err
	}
	if err := useClusterDNS(); err != nil {
		return err
	}
	if err := unix.Exec(path, args, environment); err != nil {
		return fmt.Errorf("running %s: %w", path, err)
	}
	return nil
}

// execEnvironment is the caller's, with the node's programs first in PATH and the API server's address inside. Proxies
// are left out: there is no way to them.
func execEnvironment(own []string, programs string) []string {
	environment := slices.DeleteFunc(slices.Clone(own), func(e string) bool {
		name, _, _ := strings.Cut(e, "=")
		switch strings.ToUpper(name) {
		case "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "PATH", "KUBECONFIG", "KUBECACHEDIR":
			return true
		}
		return false
	})
	return append(environment,
		"PATH="+programs+":"+value(own, "PATH"),
		"KUBECONFIG="+kubeconfigPath("admin"),
		kubectlCache,
	)
}

// value is that of a variable in an environment.
func value(environment []string, name string) string {
	for _, e := range environment {
		if v, ok := strings.CutPrefix(e, name+"="); ok {
			return v
		}
	}
	return ""
}

// enterNetwork moves the calling thread into the node's network.
func (n node) enterNetwork() error {
	f, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", n.PID))
	if err != nil {
		return fmt.Errorf("entering the node's network: %w", err)
	}
	defer f.Close()
	if err := unix.Setns(int(f.Fd()), unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("entering the node's network: %w", err)
	}
	return nil
}

// useClusterDNS puts the cluster's resolv.conf before the machine's, for the calling thread and what it executes.
func useClusterDNS() error {
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("making a mount namespace: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("keeping mounts to ourselves: %w", err)
	}
	if err := unix.Mount(filepath.Join(stateDir, "resolv.conf"), "/etc/resolv.conf", "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("using the cluster's DNS: %w", err)
	}
	return nil
}

// dial connects from inside the node's network.
func (n node) dial(ctx context.Context, network, address string) (conn net.Conn, err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // and never unlock it: the thread ends with the goroutine, in the wrong network
		if err = n.enterNetwork(); err == nil {
			var d net.Dialer
			conn, err = d.DialContext(ctx, network, address)
		}
	}()
	<-done
	return conn, err
}
