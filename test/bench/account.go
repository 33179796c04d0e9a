package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"
)

// family lists a process and its descendants.
func family(pid int) ([]int, error) {
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return nil, err
	}
	children := map[int][]int{}
	for _, path := range stats {
		b, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) || len(b) == 0 {
			continue // it has ended meanwhile
		}
		child, parent, err := parseStat(b)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		children[parent] = append(children[parent], child)
	}
	all := []int{pid}
	for i := 0; i < len(all); i++ {
		all = append(all, children[all[i]]...)
	}
	slices.Sort(all)
	return all, nil
}

// parseStat reads the ids of a process and its parent. What stands between them is its name, which may hold anything.
func parseStat(b []byte) (pid, parent int, err error) {
	before, _, _ := bytes.Cut(b, []byte(" "))
	after := bytes.Fields(b[bytes.LastIndexByte(b, ')')+1:])
	if len(after) < 2 {
		return 0, 0, fmt.Errorf("%q is no stat", b)
	}
	if pid, err = strconv.Atoi(string(before)); err != nil {
		return 0, 0, err
	}
	parent, err = strconv.Atoi(string(after[1]))
	return pid, parent, err
}

// cpuTime is what the scheduler has accounted to all threads of some processes. It misses threads that have ended.
func cpuTime(pids []int) (time.Duration, error) {
	var sum time.Duration
	for _, pid := range pids {
		stats, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
		if err != nil {
			return 0, err
		}
		for _, path := range stats {
			b, err := os.ReadFile(path)
			if err != nil {
				return 0, err
			}
			ran, err := parseSchedstat(b)
			if err != nil {
				return 0, fmt.Errorf("%s: %w", path, err)
			}
			sum += ran
		}
	}
	return sum, nil
}

// parseSchedstat reads the first of the three fields: nanoseconds spent on a CPU.
func parseSchedstat(b []byte) (time.Duration, error) {
	fields := bytes.Fields(b)
	if len(fields) != 3 {
		return 0, fmt.Errorf("%q is no schedstat", b)
	}
	ns, err := strconv.ParseInt(string(fields[0]), 10, 64)
	return time.Duration(ns), err
}

// memory is the processes' proportional set size in bytes: every page that is in memory, those that several processes
// share divided among them.
func memory(pids []int) (bytes float64, err error) {
	for _, pid := range pids {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
		if err != nil {
			return 0, err
		}
		pss, err := parsePSS(b)
		if err != nil {
			return 0, fmt.Errorf("process %d: %w", pid, err)
		}
		bytes += pss
	}
	return bytes, nil
}

func parsePSS(rollup []byte) (float64, error) {
	for line := range bytes.Lines(rollup) {
		if kib, found := bytes.CutPrefix(line, []byte("Pss:")); found {
			n, err := strconv.ParseFloat(string(bytes.TrimSpace(bytes.TrimSuffix(bytes.TrimSpace(kib), []byte("kB")))), 64)
			return n * 1024, err
		}
	}
	return 0, errors.New("no Pss in its smaps_rollup")
}

// A meter accounts the CPU time of a process and its descendants over a time.
type meter struct {
	pid    int
	pids   []int
	opened time.Duration
	used   time.Duration
}

func (m *meter) open() (err error) {
	if m.pids, err = family(m.pid); err != nil {
		return err
	}
	m.opened, err = cpuTime(m.pids)
	return err
}

func (m *meter) close() error {
	closed, err := cpuTime(m.pids)
	if err != nil {
		return err
	}
	m.used = closed - m.opened
	now, err := family(m.pid)
	if err == nil && !slices.Equal(now, m.pids) {
		err = fmt.Errorf("the proxy's processes were %v and are %v", m.pids, now)
	}
	return err
}
