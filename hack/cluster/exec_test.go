package main

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestExecEnvironment(t *testing.T) {
	got := execEnvironment([]string{
		"HOME=/root", "PATH=/bin", "KUBECONFIG=/elsewhere", "https_proxy=http://proxy", "HTTP_PROXY=http://proxy", "NO_PROXY=*",
	}, "/programs")
	want := []string{
		"HOME=/root", "NO_PROXY=*",
		"PATH=/programs:/bin", "KUBECONFIG=/var/lib/detour-cluster/kubeconfig/admin",
		"KUBECACHEDIR=/var/lib/detour-cluster/kubectl-cache",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}
