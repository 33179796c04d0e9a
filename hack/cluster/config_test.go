package main

import (
	"encoding/json"
	"net/netip"
	"strings"
	"testing"
)

func TestRender(t *testing.T) {
	for name, want := range map[string]string{
		"containerd.toml":  `bin_dir = "/usr/lib/cni"`,
		"cni.conflist":     `{"subnet": "198.18.128.0/17"}`,
		"kubelet.yaml":     `cgroupRoot: /detour-cluster`,
		"resolv.conf":      "nameserver 198.18.64.10\n",
		"dns.yaml":         "clusterIP: 198.18.64.10\n",
		"certmanager.yaml": "image: localhost/detour-cluster/certmanager:local\n",
	} {
		content, err := render(name, newSettings("/usr/lib/cni"))
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if !strings.Contains(string(content), want) {
			t.Errorf("%s lacks %q:\n%s", name, want, content)
		}
	}
}

func TestRenderKubeconfig(t *testing.T) {
	content, err := render("kubeconfig.yaml", kubeconfig{Server: "https://127.0.0.1:1", CA: []byte("ca"), Key: []byte("key")})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`server: "https://127.0.0.1:1"`, "certificate-authority-data: Y2E=}", "client-key-data: a2V5}"} {
		if !strings.Contains(string(content), want) {
			t.Errorf("%q is missing in\n%s", want, content)
		}
	}
}

func TestRenderCNIIsJSON(t *testing.T) {
	content, err := render("cni.conflist", newSettings(""))
	if err != nil {
		t.Fatal(err)
	}
	if !json.Valid(content) {
		t.Errorf("this is no JSON:\n%s", content)
	}
}

// Addresses stay in the range for tests on isolated networks, and what is given out automatically does not meet what is
// fixed.
func TestAddresses(t *testing.T) {
	network := netip.MustParsePrefix(nodeNetwork).Masked()
	pods, services := netip.MustParsePrefix(podCIDR), netip.MustParsePrefix(serviceCIDR)
	node := netip.MustParseAddr(nodeAddress)
	for _, p := range []netip.Prefix{pods, services} {
		if !network.Contains(p.Addr()) || p.Contains(node) || p != p.Masked() {
			t.Errorf("%s does not fit into %s beside %s", p, network, node)
		}
	}
	if pods.Overlaps(services) {
		t.Errorf("%s overlaps %s", pods, services)
	}
	if first := services.Addr().Next(); first.String() != apiAddress {
		t.Errorf("the API server's Service gets %s, not %s", first, apiAddress)
	}
	if !services.Contains(netip.MustParseAddr(dnsAddress)) {
		t.Errorf("%s is not in %s", dnsAddress, services)
	}
}
