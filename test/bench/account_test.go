package main

import (
	"os"
	"os/exec"
	"slices"
	"testing"
	"time"
)

func TestParseStat(t *testing.T) {
	for in, want := range map[string][2]int{
		"12 (nginx) S 11 11 7 0 -1":            {12, 11},
		"12 (nginx: worker process) S 11 11 7": {12, 11},
		"12 (a) b) 3 S) R 1 11 7":              {12, 1},
	} {
		pid, parent, err := parseStat([]byte(in))
		if err != nil || pid != want[0] || parent != want[1] {
			t.Errorf("%q: %d, %d, error %v, want %d", in, pid, parent, err, want)
		}
	}
	if _, _, err := parseStat([]byte("12")); err == nil {
		t.Error("no error of half a stat")
	}
}

func TestParseSchedstat(t *testing.T) {
	got, err := parseSchedstat([]byte("139210000 897166 2\n"))
	if err != nil || got != 139210*time.Microsecond {
		t.Errorf("%s, error %v", got, err)
	}
	for _, in := range []string{"", "1 2", "x 2 3"} {
		if _, err := parseSchedstat([]byte(in)); err == nil {
			t.Errorf("%q: no error", in)
		}
	}
}

func TestParsePSS(t *testing.T) {
	got, err := parsePSS([]byte("5000-6000 ---p 0 00:00 0  [rollup]\nRss:    1600 kB\nPss:     270 kB\nPss_Dirty:  112 kB\n"))
	if err != nil || got != 270*1024 {
		t.Errorf("%g, error %v", got, err)
	}
	if _, err := parsePSS([]byte("Rss: 1 kB\n")); err == nil {
		t.Error("no error without Pss")
	}
}

// TestMeter accounts for a shell and the child of it that works.
func TestMeter(t *testing.T) {
	cmd := exec.Command("sh", "-c", "sh -c 'while :; do :; done' & wait")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var pids []int
	defer func() {
		for _, pid := range pids {
			p, _ := os.FindProcess(pid)
			p.Kill()
		}
		cmd.Wait()
	}()
	pids = []int{cmd.Process.Pid}
	for end := time.Now().Add(10 * time.Second); len(pids) < 2 && time.Now().Before(end); {
		pids, _ = family(cmd.Process.Pid)
	}
	m := &meter{pid: cmd.Process.Pid}
	if err := m.open(); err != nil || len(m.pids) != 2 || !slices.Contains(m.pids, cmd.Process.Pid) {
		t.Fatalf("family %v, error %v", m.pids, err)
	}
	for end := time.Now().Add(10 * time.Second); m.used == 0 && time.Now().Before(end); {
		if err := m.close(); err != nil {
			t.Fatal(err)
		}
	}
	if m.used == 0 {
		t.Error("a busy child used no CPU time")
	}
	if size, err := memory(m.pids); err != nil || size < 10_000 {
		t.Errorf("memory %g, error %v", size, err)
	}
}
