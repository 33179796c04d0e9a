package main

import (
	"embed"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"text/template"

	"github.com/detour-dev/detour/api"
)

// Names of the peers, which are columns of the table.
const (
	ours    = "ours"
	haproxy = "haproxy"
	nginx   = "nginx"
	nethttp = "net/http"
)

// key is the one that leads to the preview, in every peer.
const key = "pr-42"

// A site is where a proxy is to run and what it is to do there.
type site struct {
	Dir          string // for its files, and its own
	Listen       uint16
	Admin        uint16
	App, Preview netip.AddrPort
	Protocol     api.Protocol
	Key          string
	Table        *api.Table // of ours; nil for the one route that all have
	Root         bool
	Stream       string // nginx's module for TCP
}

// A command is a proxy's program with what it needs.
type command struct {
	args []string
	env  []string
}

// A peer is a proxy that takes part.
type peer struct {
	name    string
	command func(site) (command, error) // nil: no proxy at all, the load goes to the backend
}

// peers are those that can do what the protocol asks: ours, haproxy, and those beside them.
func (b *bench) peers(protocol api.Protocol) []peer {
	all := []peer{{ours, b.oursWith(b.options.proxy)}, {haproxy, haproxyCommand}, {nginx, nginxCommand}}
	if protocol != api.ProtocolTCP {
		all = append(all, peer{nethttp, b.nethttpCommand})
	}
	return all
}

// oursWith is the command of a binary of the proxy.
func (b *bench) oursWith(binary string) func(site) (command, error) {
	return func(s site) (command, error) { return oursCommand(binary, s) }
}

func oursCommand(binary string, s site) (command, error) {
	table := s.Table
	if table == nil {
		table = oneRoute(s)
	}
	body, err := json.Marshal(table)
	if err != nil {
		return command{}, err
	}
	routes := filepath.Join(s.Dir, "routes.json")
	if err := os.WriteFile(routes, body, 0o600); err != nil {
		return command{}, err
	}
	ports := []api.TakenPort{{Name: "http", Listen: s.Listen, App: s.App.Port()}}
	return command{
		args: []string{binary, "-routes", routes},
		env: []string{
			api.EnvPorts + "=" + api.FormatPorts(ports),
			fmt.Sprintf("%s=%d", api.EnvAdminPort, s.Admin),
			api.EnvPodIPs + "=" + s.App.Addr().String(),
			api.EnvNamespace + "=shop",
			api.EnvPod + "=api-0",
		},
	}, nil
}

func haproxyCommand(s site) (command, error) {
	config, err := s.render("haproxy.cfg")
	return command{args: []string{"haproxy", "-db", "-q", "-f", config}}, err
}

func nginxCommand(s site) (command, error) {
	config, err := s.render("nginx.conf")
	return command{args: []string{"nginx", "-p", s.Dir, "-e", "stderr", "-c", config}}, err
}

func (b *bench) nethttpCommand(s site) (command, error) {
	return command{args: []string{
		b.program("reverseproxy"), "-listen", fmt.Sprintf("127.0.0.1:%d", s.Listen),
		"-app", s.App.String(), "-preview", s.Preview.String(), "-key", s.Key,
		fmt.Sprintf("-h2c=%v", s.Protocol == api.ProtocolH2C),
	}}, nil
}

//go:embed peers
var configs embed.FS

// render writes a configuration file for s, and returns its path.
func (s site) render(name string) (path string, err error) {
	t, err := template.ParseFS(configs, "peers/"+name)
	if err != nil {
		return "", err
	}
	path = filepath.Join(s.Dir, name)
	f, err := os.Create(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	return path, t.Execute(f, s)
}

// newSite chooses free ports for a proxy, and a folder of its own.
func (b *bench) newSite(protocol api.Protocol, bulk bool) (site, error) {
	s := site{
		App: b.backend.app(bulk), Preview: b.backend.preview(bulk),
		Protocol: protocol, Key: key, Root: os.Geteuid() == 0,
		Stream: "/usr/lib/nginx/modules/ngx_stream_module.so",
	}
	ports, err := freePorts(2)
	if err != nil {
		return s, err
	}
	s.Listen, s.Admin = ports[0], ports[1]
	s.Dir, err = os.MkdirTemp(b.dir, "site")
	return s, err
}
