package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// node is what is noted of a running node.
type node struct {
	PID      int // of its init process
	Ports    ports
	Programs string // folder of its kubelet and the others
}

var errNotRunning = errors.New("no node is running; start one with: hack/cluster/cluster up")

func recordPath() string { return filepath.Join(stateDir, "node.json") }

func (n node) write() error {
	content, err := json.Marshal(n)
	if err != nil {
		return fmt.Errorf("noting the node: %w", err)
	}
	if err := os.WriteFile(recordPath(), content, 0o600); err != nil {
		return fmt.Errorf("noting the node: %w", err)
	}
	return nil
}

// runningNode is the node whose init process lives; errNotRunning if there is none.
func runningNode() (node, error) {
	content, err := os.ReadFile(recordPath())
	if errors.Is(err, os.ErrNotExist) {
		return node{}, errNotRunning
	}
	if err != nil {
		return node{}, fmt.Errorf("looking for a running node: %w", err)
	}
	var n node
	if err := json.Unmarshal(content, &n); err != nil || !n.alive() {
		return node{}, errNotRunning
	}
	return n, nil
}

// alive says whether the init process lives. Its number may have gone to another process, its cgroup cannot have.
func (n node) alive() bool {
	all, err := hierarchies()
	if err != nil {
		return false
	}
	content, err := os.ReadFile(members(all))
	return err == nil && slices.Contains(strings.Fields(string(content)), strconv.Itoa(n.PID))
}

// client talks to the API server through the forward.
func (n node) client() (client, error) {
	return newClient(net.JoinHostPort("127.0.0.1", fmt.Sprint(n.Ports.API)))
}

// works says whether the node is of use: it is alive and Ready, and its DNS answers, through a Service, from a Pod that
// has reached the API server through another.
func (n node) works(ctx context.Context) bool {
	c, err := n.client()
	return err == nil && n.alive() && c.condition(ctx, "/api/v1/nodes/"+nodeName, "Ready") && n.resolves(ctx)
}

// resolves asks the cluster's DNS for the API server's Service.
func (n node) resolves(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	resolver := net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return n.dial(ctx, "udp", net.JoinHostPort(dnsAddress, "53"))
	}}
	addresses, err := resolver.LookupHost(ctx, "kubernetes.default.svc.cluster.local.")
	return err == nil && slices.Contains(addresses, apiAddress)
}

// explain adds the end of init's log to an error. It names the component at fault, if it was one.
func (n node) explain(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%w\n%s\nall logs are in %s", err, tail(logPath(nodeCommand), 30), logDir)
}

// tail is the last lines of a file, or why they cannot be read.
func tail(path string, lines int) string {
	f, err := os.Open(path)
	if err != nil {
		return err.Error()
	}
	defer f.Close()
	var last []string
	for s := bufio.NewScanner(f); s.Scan(); {
		last = append(last, "  "+s.Text())
		last = last[max(0, len(last)-lines):]
	}
	return strings.Join(last, "\n")
}

// runStatus is the command status. It fails where the node does not work, so that scripts can ask.
func runStatus(ctx context.Context) error {
	n, err := runningNode()
	if err != nil {
		return err
	}
	c, err := n.client()
	if err != nil {
		return err
	}
	works := n.works(ctx)
	line := func(name, value string) { fmt.Printf("%-14s%s\n", name+":", value) }
	line("node", word(works, "works", "is not ready, or its DNS does not answer"))
	line("cert-manager", word(c.condition(ctx, certManagerPath, "Available"), "runs", "does not run"))
	for _, f := range forwards(n.Ports) {
		line(f.Name, fmt.Sprintf("127.0.0.1:%d, leads to %s", f.Port, f.Target))
	}
	line("kubeconfig", kubeconfigPath(hostUser))
	line("programs", n.Programs)
	line("logs", logDir)
	if !works {
		return errors.New("the node does not work")
	}
	return nil
}

func word(yes bool, ifYes, ifNo string) string {
	if yes {
		return ifYes
	}
	return ifNo
}

// printKubeconfig is the command kubeconfig.
func printKubeconfig() error {
	if _, err := runningNode(); err != nil {
		return err
	}
	content, err := os.ReadFile(kubeconfigPath(hostUser))
	if err != nil {
		return fmt.Errorf("reading the kubeconfig: %w", err)
	}
	_, err = os.Stdout.Write(content)
	return err
}
