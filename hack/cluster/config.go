package main

import (
	"bytes"
	"embed"
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"text/template"
)

// The node has one size and one set of addresses, all in 198.18.0.0/15, which RFC 2544 sets aside for tests on isolated
// networks: should anything ever leak, no router takes it for somebody's.
const (
	nodeName    = "node"
	nodeAddress = "198.18.0.1"
	nodeNetwork = nodeAddress + "/16" // spans Pods and Services, so that the node needs no other route
	podCIDR     = "198.18.128.0/17"
	serviceCIDR = "198.18.64.0/18"
	apiAddress  = "198.18.64.1" // of the Service 'kubernetes': the first of its range
	dnsAddress  = "198.18.64.10"
	apiPort     = "6443"
)

const (
	// stateDir holds everything of a running node that is a file, its logs included. It goes with `down`.
	stateDir         = "/var/lib/detour-cluster"
	logDir           = stateDir + "/logs"
	containerdSocket = stateDir + "/containerd.sock"

	pauseImage       = "localhost/detour-cluster/pause:local"
	dnsImage         = "localhost/detour-cluster/dns:local"
	certManagerImage = "localhost/detour-cluster/certmanager:local"
)

// settings is what the files in config/ refer to.
type settings struct {
	State, CNIPlugins, Cgroup              string
	PodCIDR, DNSAddress                    string
	PauseImage, DNSImage, CertManagerImage string
}

// newSettings needs to be told only where the machine keeps its CNI plugins.
func newSettings(cniPlugins string) settings {
	return settings{
		State: stateDir, CNIPlugins: cniPlugins, Cgroup: cgroupName,
		PodCIDR: podCIDR, DNSAddress: dnsAddress,
		PauseImage: pauseImage, DNSImage: dnsImage, CertManagerImage: certManagerImage,
	}
}

//go:embed config
var configFiles embed.FS

// render fills a file of config/ in. A value that it refers to and data lacks is an error.
func render(name string, data any) ([]byte, error) {
	t, err := template.New(name).
		Funcs(template.FuncMap{"base64": base64.StdEncoding.EncodeToString}).
		Option("missingkey=error").
		ParseFS(configFiles, "config/"+name)
	if err != nil {
		return nil, fmt.Errorf("reading config/%s: %w", name, err)
	}
	var out bytes.Buffer
	if err := t.Execute(&out, data); err != nil {
		return nil, fmt.Errorf("filling in config/%s: %w", name, err)
	}
	return out.Bytes(), nil
}

// writeConfig lays out the folder of a new node: credentials, and what its programs read at their start.
func writeConfig(s settings, hostPort int) error {
	for _, dir := range []string{"", "cni", "kubeconfig", "logs", "pki", "var/lib/detour-cluster", "var/log"} {
		if err := os.MkdirAll(filepath.Join(stateDir, dir), 0o700); err != nil {
			return fmt.Errorf("making the node's folder: %w", err)
		}
	}
	for name, path := range map[string]string{
		"containerd.toml": "containerd.toml",
		"cni.conflist":    "cni/pods.conflist",
		"kubelet.yaml":    "kubelet.yaml",
		"resolv.conf":     "resolv.conf",
	} {
		content, err := render(name, s)
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(stateDir, path), content, 0o644); err != nil {
			return fmt.Errorf("writing the configuration: %w", err)
		}
	}
	return writeCredentials(hostPort)
}
