package main

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestMissingPackages(t *testing.T) {
	all := []string{"containerd", "containerd-shim-runc-v2", "ctr", "runc", "nft", "iptables", "ip", "mount"}
	for name, test := range map[string]struct {
		lacks  []string
		hasCNI bool
		want   []string
	}{
		"nothing":                       {nil, true, nil},
		"one package for many programs": {[]string{"containerd", "containerd-shim-runc-v2", "ctr"}, true, []string{"containerd"}},
		"CNI plugins":                   {nil, false, []string{"containernetworking-plugins"}},
		"everything": {all, false,
			[]string{"containerd", "runc", "nftables", "iptables", "iproute2", "mount", "containernetworking-plugins"}},
	} {
		t.Run(name, func(t *testing.T) {
			has := func(program string) bool { return !slices.Contains(test.lacks, program) }
			if diff := cmp.Diff(test.want, missingPackages(has, test.hasCNI)); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}
