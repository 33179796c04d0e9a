package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// nodeCommand starts the node's init process. Only `up` calls it.
const nodeCommand = "node"

// order is what `up` has the init process do. Until it has arrived, init does nothing: should `up` die before it has
// put init into the node's cgroup, the pipe closes and init ends.
type order struct {
	Programs string    // folder of etcd, kubelet and the others
	Forwards []forward // for each a listening socket is handed down, in this order
}

// firstFile is the number of the first file that a child of os/exec gets beyond the standard three: the pipe with the
// order. The listeners follow.
const firstFile = 3

// startNode starts the init process in new namespaces, and returns its number before it has been told what to do.
func startNode(listeners []*net.TCPListener) (pid int, tell func(order) error, err error) {
	orders, pipe, err := os.Pipe()
	if err != nil {
		return 0, nil, fmt.Errorf("making a pipe: %w", err)
	}
	defer orders.Close()
	files := []*os.File{orders}
	for _, l := range listeners {
		f, err := l.File()
		if err != nil {
			return 0, nil, fmt.Errorf("handing a listener down: %w", err)
		}
		defer f.Close()
		files = append(files, f)
	}
	log, err := openLog(nodeCommand)
	if err != nil {
		return 0, nil, err
	}
	defer log.Close()
	self, err := os.Executable()
	if err != nil {
		return 0, nil, fmt.Errorf("finding this program: %w", err)
	}
	cmd := exec.Command(self, nodeCommand)
	cmd.Dir, cmd.Stdout, cmd.Stderr, cmd.ExtraFiles = "/", log, log, files
	cmd.Env = []string{"PATH=" + searchPath, "HOME=/root"}
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Setsid:     true,
		Cloneflags: unix.CLONE_NEWNET | unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC,
	}
	if err := cmd.Start(); err != nil {
		return 0, nil, fmt.Errorf("starting the node's init process: %w", err)
	}
	tell = func(o order) error {
		defer pipe.Close()
		return json.NewEncoder(pipe).Encode(o)
	}
	return cmd.Process.Pid, tell, nil
}

// runNode is the init process: the first of the node's own process namespace, and the only one whose end takes
// everything else along.
func runNode(ctx context.Context) error {
	if os.Getpid() != 1 {
		return errUsage
	}
	var o order
	if err := json.NewDecoder(os.NewFile(firstFile, "order")).Decode(&o); err != nil {
		return fmt.Errorf("waiting for an order: %w", err)
	}
	for _, prepare := range []func() error{hideFolders, hideSysctls, connectNetwork} {
		if err := prepare(); err != nil {
			return err
		}
	}
	if err := unix.Sethostname([]byte(nodeName)); err != nil {
		return fmt.Errorf("naming the node: %w", err)
	}
	if err := serveForwards(o.Forwards); err != nil {
		return err
	}
	return supervise(ctx, components(o.Programs))
}

// hideFolders gives the node /run, /var/lib and /var/log of its own, so that what its programs leave at fixed places
// there meets no other container engine's, and ends with it. Only the state folder stays what it is.
func hideFolders() error {
	lib := filepath.Join(stateDir, "var/lib")
	for _, m := range []struct {
		source, target, kind string
		flags                uintptr
	}{
		{"", "/", "", unix.MS_REC | unix.MS_PRIVATE},
		{"proc", "/proc", "proc", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC},
		{"run", "/run", "tmpfs", unix.MS_NOSUID | unix.MS_NODEV},
		{filepath.Join(stateDir, "var/log"), "/var/log", "", unix.MS_BIND},
		{stateDir, filepath.Join(lib, filepath.Base(stateDir)), "", unix.MS_BIND},
		{lib, "/var/lib", "", unix.MS_BIND | unix.MS_REC},
		{"", "/", "", unix.MS_REC | unix.MS_SHARED}, // runc and the kubelet pass mounts on to containers
	} {
		if err := unix.Mount(m.source, m.target, m.kind, m.flags, ""); err != nil {
			return fmt.Errorf("mounting %s: %w", m.target, err)
		}
	}
	return nil
}

// hideSysctls puts the values that the kubelet wants before those of the machine. It would otherwise change them for
// the whole machine, and nobody would change them back.
func hideSysctls() error {
	for name, value := range map[string]string{
		"kernel/keys/root_maxbytes": "25000000",
		"kernel/keys/root_maxkeys":  "1000000",
		"kernel/panic":              "10",
		"kernel/panic_on_oops":      "1",
		"vm/overcommit_memory":      "1",
		"vm/panic_on_oom":           "0",
	} {
		cover := filepath.Join("/run", strings.ReplaceAll(name, "/", "."))
		if err := os.WriteFile(cover, []byte(value+"\n"), 0o444); err != nil {
			return fmt.Errorf("hiding sysctl %s: %w", name, err)
		}
		if err := unix.Mount(cover, "/proc/sys/"+name, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("hiding sysctl %s: %w", name, err)
		}
	}
	return nil
}

// connectNetwork gives the node's network an address and nothing that leads out of it: a pair of links whose other end
// is in the same namespace. Of what is sent to addresses that nobody has, the kernel says so at once.
func connectNetwork() error {
	ip := exec.Command("ip", "-batch", "-")
	ip.Stdin = strings.NewReader(strings.Join([]string{
		"link set lo up",
		"link add node0 type veth peer name node1",
		"link set node0 up",
		"link set node1 up",
		"address add " + nodeNetwork + " dev node0",
	}, "\n"))
	if out, err := ip.CombinedOutput(); err != nil {
		return fmt.Errorf("setting the network up: %w\n%s", err, out)
	}
	for name, value := range map[string]string{
		"ip_forward":     "1", // between Pods
		"icmp_ratelimit": "0", // who calls what is not there should be told each time, not once a second
	} {
		if err := os.WriteFile("/proc/sys/net/ipv4/"+name, []byte(value), 0); err != nil {
			return fmt.Errorf("setting the network up: %w", err)
		}
	}
	return nil
}

// openLog opens the log of one of the node's programs, to add to it.
func openLog(name string) (*os.File, error) {
	f, err := os.OpenFile(logPath(name), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("opening a log: %w", err)
	}
	return f, nil
}

func logPath(name string) string { return filepath.Join(logDir, name+".log") }
