package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// certManagerPath is where the API server has cert-manager's Deployment.
const certManagerPath = "/apis/apps/v1/namespaces/cert-manager/deployments/cert-manager"

// addDNS needs the image to be loaded. When DNS answers, everything that a Pod needs works.
func (n node) addDNS(ctx context.Context) error {
	manifest, err := render("dns.yaml", newSettings(""))
	if err != nil {
		return err
	}
	if err := n.kubectl(ctx, manifest, "apply", "--filename=-"); err != nil {
		return err
	}
	return n.await(ctx, "the node and its DNS", "kubelet", func() bool { return n.works(ctx) })
}

// addCertManager is quick where cert-manager runs already.
func (n node) addCertManager(ctx context.Context, build string) error {
	client, err := n.client()
	if err != nil {
		return err
	}
	available := func() bool { return client.condition(ctx, certManagerPath, "Available") }
	if available() {
		return nil
	}
	say("starting cert-manager")
	if err := n.importProgram(ctx, certManagerImage, filepath.Join(build, certManagerProgram.name)); err != nil {
		return err
	}
	manifest, err := render("certmanager.yaml", newSettings(""))
	if err != nil {
		return err
	}
	crds := "--filename=" + filepath.Join(build, "crds")
	for _, step := range []struct {
		input []byte
		args  []string
	}{
		{nil, []string{"apply", "--server-side", crds}},
		{nil, []string{"wait", "--for=condition=Established", "--timeout=60s", crds}},
		{manifest, []string{"apply", "--filename=-"}},
	} {
		if err := n.kubectl(ctx, step.input, step.args...); err != nil {
			return err
		}
	}
	return n.explain(n.await(ctx, "cert-manager", "kubelet", available))
}

// kubectl runs the node's kubectl from outside its network.
func (n node) kubectl(ctx context.Context, input []byte, args ...string) error {
	cmd := exec.CommandContext(ctx, filepath.Join(n.Programs, "kubectl"), args...)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+kubeconfigPath(hostUser), kubectlCache)
	cmd.Stdin = bytes.NewReader(input)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("kubectl %s: %w\n%s", strings.Join(args, " "), err, out)
	}
	return nil
}
