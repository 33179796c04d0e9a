package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// cgroupName is the cgroup of the node, at the root of every hierarchy. The kubelet keeps its Pods below it.
	cgroupName = "detour-cluster"
	// leafName is the cgroup below it that the node's own programs are in. Version 2 has processes in leaves only.
	leafName = "programs"
)

// hierarchy is one mounted tree of cgroups: the only one (version 2), or that of some controllers (version 1).
type hierarchy struct {
	path    string
	unified bool // version 2
}

// hierarchies are the machine's, by its mount table; that of version 2 comes first.
func hierarchies() ([]hierarchy, error) {
	table, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("looking for cgroups: %w", err)
	}
	found := mountedHierarchies(string(table))
	if len(found) == 0 {
		return nil, errors.New("looking for cgroups: none is mounted")
	}
	return found, nil
}

// mountedHierarchies reads a mount table in the format of /proc/PID/mountinfo (proc_pid_mountinfo(5)).
func mountedHierarchies(table string) []hierarchy {
	var unified, others []hierarchy
	for line := range strings.Lines(table) {
		mount, source, _ := strings.Cut(line, " - ")
		fields, kind := strings.Fields(mount), strings.Fields(source)
		if len(fields) < 5 || len(kind) == 0 {
			continue
		}
		switch h := (hierarchy{path: fields[4]}); kind[0] {
		case "cgroup2":
			h.unified = true
			unified = append(unified, h)
		case "cgroup":
			others = append(others, h)
		}
	}
	return append(unified, others...)
}

func (h hierarchy) node() string { return filepath.Join(h.path, cgroupName) }

// members is the file through which the node's programs join the cgroup that says that they are the node's. One
// hierarchy is enough for that, and in version 1 leaves all limits as they are.
func members(all []hierarchy) string { return filepath.Join(all[0].node(), leafName, "cgroup.procs") }

// makeCgroups makes the node's cgroup in each hierarchy.
func makeCgroups(all []hierarchy) error {
	for _, h := range all {
		if h.unified {
			delegate(h.path)
		}
		if err := os.MkdirAll(h.node(), 0o755); err != nil {
			return fmt.Errorf("making a cgroup: %w", err)
		}
	}
	if err := os.MkdirAll(filepath.Dir(members(all)), 0o755); err != nil {
		return fmt.Errorf("making a cgroup: %w", err)
	}
	return nil
}

// delegate lets children of a cgroup have its controllers. Where one cannot be had, the kubelet says which it misses.
func delegate(cgroup string) {
	controllers, err := os.ReadFile(filepath.Join(cgroup, "cgroup.controllers"))
	if err != nil {
		return
	}
	for _, c := range strings.Fields(string(controllers)) {
		_ = os.WriteFile(filepath.Join(cgroup, "cgroup.subtree_control"), []byte("+"+c), 0)
	}
}

// processes are all that are in the node's cgroup or below.
func processes(h hierarchy) ([]int, error) {
	var pids []int
	for _, dir := range below(h.node()) {
		f, err := os.Open(filepath.Join(dir, "cgroup.procs"))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("looking for the node's processes: %w", err)
		}
		for lines := bufio.NewScanner(f); lines.Scan(); {
			if pid, err := strconv.Atoi(lines.Text()); err == nil && pid > 0 {
				pids = append(pids, pid)
			}
		}
		f.Close()
	}
	return pids, nil
}

// below are a folder and all folders in it, parents first. Those that vanish meanwhile are left out.
func below(root string) []string {
	var dirs []string
	_ = filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		if err == nil && e.IsDir() {
			dirs = append(dirs, path)
		}
		return nil
	})
	return dirs
}

// removeCgroups ends whatever is in the node's cgroups, which is the node's by that alone, and removes them.
func removeCgroups(ctx context.Context, all []hierarchy) error {
	var last error
	remove := func() bool {
		last = nil
		for _, h := range all {
			if err := removeCgroup(h); err != nil {
				last = err
			}
		}
		return last == nil
	}
	if err := poll(ctx, 20*time.Second, remove); err != nil {
		return fmt.Errorf("removing the node's cgroups: %w", errors.Join(last, err))
	}
	return nil
}

func removeCgroup(h hierarchy) error {
	pids, err := processes(h)
	if err != nil {
		return err
	}
	for _, pid := range pids {
		if err := unix.Kill(pid, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("ending process %d: %w", pid, err)
		}
	}
	for _, dir := range slices.Backward(below(h.node())) {
		if err := unix.Rmdir(dir); err != nil && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("%s: %w", dir, err)
		}
	}
	return nil
}
