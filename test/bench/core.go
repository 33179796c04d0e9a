package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"strconv"

	"golang.org/x/sys/unix"
)

// cores are the two that are used: one for the proxy that is measured, the other for everything else.
type cores struct{ load, proxy unix.CPUSet }

// newCores takes the first two that this process may use. The first, which tends to be interrupted most, gets the load.
func newCores() (cores, error) {
	var c cores
	var allowed unix.CPUSet
	if err := unix.SchedGetaffinity(0, &allowed); err != nil {
		return c, fmt.Errorf("asking for the cores: %w", err)
	}
	sets := []*unix.CPUSet{&c.load, &c.proxy}
	for cpu := 0; cpu < 64*len(allowed) && len(sets) > 0; cpu++ {
		if allowed.IsSet(cpu) {
			sets[0].Set(cpu)
			sets = sets[1:]
		}
	}
	if len(sets) > 0 {
		return c, errors.New("one core: the proxy needs one and the load another")
	}
	return c, nil
}

// pinSelf moves this process to the load's core. Threads that come later inherit it. It collects no garbage, which would
// be in the load's way, unless there is much of it.
func (c cores) pinSelf() error {
	runtime.GOMAXPROCS(1)
	debug.SetGCPercent(-1)
	debug.SetMemoryLimit(512 << 20)
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return err
	}
	for _, t := range tasks {
		id, err := strconv.Atoi(t.Name())
		if err != nil {
			return err
		}
		if err := unix.SchedSetaffinity(id, &c.load); err != nil && err != unix.ESRCH {
			return fmt.Errorf("pinning a thread: %w", err)
		}
	}
	return nil
}

// startProxy starts cmd on the proxy's core, which a child has from the thread that starts it.
func (c cores) startProxy(cmd *exec.Cmd) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := unix.SchedSetaffinity(0, &c.proxy); err != nil {
		return fmt.Errorf("pinning the proxy: %w", err)
	}
	started := cmd.Start()
	return errors.Join(started, unix.SchedSetaffinity(0, &c.load))
}
