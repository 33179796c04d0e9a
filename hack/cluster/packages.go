package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// searchPath is where the node's programs look for others, whatever the caller's PATH leaves out.
const searchPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// cniFolders are where distributions and container engines keep CNI plugins.
var cniFolders = []string{"/usr/lib/cni", "/opt/cni/bin", "/usr/libexec/cni"}

const cniPackage = "containernetworking-plugins"

// wanted is the Debian package of each program that the node takes from the machine. Programs are looked for, not
// packages, because containerd may well have come from elsewhere.
var wanted = []struct{ program, pkg string }{
	{"containerd", "containerd"},
	{"containerd-shim-runc-v2", "containerd"},
	{"ctr", "containerd"},
	{"runc", "runc"},
	{"nft", "nftables"},
	{"iptables", "iptables"},
	{"ip", "iproute2"},
	{"mount", "mount"},
}

// missingPackages are the Debian packages to install, given which programs and files the machine has.
func missingPackages(hasProgram func(name string) bool, hasCNI bool) []string {
	var missing []string
	for _, w := range wanted {
		if !hasProgram(w.program) && !slices.Contains(missing, w.pkg) {
			missing = append(missing, w.pkg)
		}
	}
	if !hasCNI {
		missing = append(missing, cniPackage)
	}
	return missing
}

// findProgram looks for a program in the folders of searchPath.
func findProgram(name string) (string, error) {
	for _, dir := range filepath.SplitList(searchPath) {
		path := filepath.Join(dir, name)
		info, err := os.Stat(path)
		if err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
			return path, nil
		}
	}
	return "", fmt.Errorf("%s is not in %s", name, searchPath)
}

func hasProgram(name string) bool {
	_, err := findProgram(name)
	return err == nil
}

// cniFolder is the first folder that has the plugins that config/cni.conflist names; empty if none has.
func cniFolder() string {
	for _, dir := range cniFolders {
		has := func(plugin string) bool { _, err := os.Stat(filepath.Join(dir, plugin)); return err == nil }
		if has("ptp") && has("host-local") && has("portmap") && has("loopback") {
			return dir
		}
	}
	return ""
}

// ensurePackages installs what the machine lacks.
func ensurePackages(ctx context.Context) error {
	missing := missingPackages(hasProgram, cniFolder() != "")
	if len(missing) == 0 {
		return nil
	}
	if !hasProgram("apt-get") {
		return fmt.Errorf("these packages (by their Debian names) are missing, and there is no apt-get: %s", strings.Join(missing, " "))
	}
	say("installing %s", strings.Join(missing, " "))
	allow, err := forbidServices()
	if err != nil {
		return err
	}
	defer allow()
	if err := apt(ctx, "update"); err != nil {
		return err
	}
	if err := apt(ctx, append([]string{"install", "--yes", "--no-install-recommends"}, missing...)...); err != nil {
		return err
	}
	if still := missingPackages(hasProgram, cniFolder() != ""); len(still) > 0 {
		return fmt.Errorf("still missing after installing them: %s", strings.Join(still, " "))
	}
	return nil
}

func apt(ctx context.Context, args ...string) error {
	cmd := exec.CommandContext(ctx, "apt-get", append([]string{"--quiet=2", "--option=Acquire::Retries=3"}, args...)...)
	cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive", "PATH="+searchPath)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("apt-get %s: %w\n%s", strings.Join(args, " "), err, out)
	}
	return nil
}

// forbidServices keeps a package that is being installed from starting its services, by the policy file that Debian
// has for that. A policy that is there already stays. The function returned takes the policy away again.
func forbidServices() (allow func(), err error) {
	const policy = "/usr/sbin/policy-rc.d"
	f, err := os.OpenFile(policy, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o755)
	if errors.Is(err, fs.ErrExist) {
		return func() {}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("forbidding packages to start services: %w", err)
	}
	defer f.Close()
	if _, err := f.WriteString("#!/bin/sh\nexit 101\n"); err != nil {
		return nil, fmt.Errorf("writing %s: %w", policy, err)
	}
	return func() { os.Remove(policy) }, nil
}
