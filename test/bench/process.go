package main

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
)

// A process is one that the benchmark started, with the children it may have. It has a process group of its own, so
// that Ctrl-C reaches the driver alone, which then ends it; it also ends with the driver.
type process struct {
	cmd   *exec.Cmd
	log   string
	ended chan struct{}
}

// spawn starts a program by way of start, its output going to a file in dir.
func spawn(dir string, c command, start func(*exec.Cmd) error) (*process, error) {
	p := &process{log: filepath.Join(dir, "log"), ended: make(chan struct{})}
	log, err := os.Create(p.log)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	p.cmd = exec.Command(c.args[0], c.args[1:]...)
	p.cmd.Env = append([]string{"PATH=" + os.Getenv("PATH")}, c.env...)
	p.cmd.Stdout, p.cmd.Stderr = log, log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := start(p.cmd); err != nil {
		return nil, fmt.Errorf("starting %s: %w", c.args[0], err)
	}
	go p.reap()
	return p, nil
}

func (p *process) reap() {
	p.cmd.Wait()
	close(p.ended)
}

func (p *process) pid() int { return p.cmd.Process.Pid }

// check says why the process is not running, if it is not.
func (p *process) check() error {
	select {
	case <-p.ended:
		return fmt.Errorf("%s ended: %s\n%s", p.cmd.Path, p.cmd.ProcessState, p.output())
	default:
		return nil
	}
}

// output is the end of what the process wrote.
func (p *process) output() []byte {
	b, err := os.ReadFile(p.log)
	if err != nil {
		return fmt.Append(nil, err)
	}
	return bytes.TrimSpace(b[max(0, len(b)-2000):])
}

// stop ends the process and its children.
func (p *process) stop() {
	syscall.Kill(-p.pid(), syscall.SIGKILL)
	<-p.ended
}

// freePorts finds ports that nothing listens on, on loopback.
func freePorts(n int) (ports []uint16, err error) {
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer l.Close()
		ports = append(ports, uint16(l.Addr().(*net.TCPAddr).Port))
	}
	return ports, nil
}
