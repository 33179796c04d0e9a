package main

import (
	"bytes"
	"context"
	"embed"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"time"
)

//go:embed manifests
var manifests embed.FS

// kubectl runs a command as a user would, in the namespace of the apps.
func kubectl(ctx context.Context, args ...string) error {
	_, err := output(ctx, "", args...)
	return err
}

// output is what kubectl prints, given a text on standard input.
func output(ctx context.Context, input string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "kubectl", append([]string{"--namespace", namespace}, args...)...)
	cmd.Stdin = strings.NewReader(input)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("kubectl %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(stderr.String()))
	}
	return stdout.String(), nil
}

func fields(ctx context.Context, args ...string) ([]string, error) {
	out, err := output(ctx, "", args...)
	return strings.Fields(out), err
}

// script runs one of the project's own scripts. The working directory is the project's.
func script(ctx context.Context, args ...string) error {
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", strings.Join(args, " "), err, out)
	}
	return nil
}

// manifest is one of the files, with what it leaves open filled in.
func (d *driver) manifest(name string, fill ...string) (string, error) {
	content, err := manifests.ReadFile("manifests/" + name + ".yaml")
	fill = append(fill, "LOAD_IMAGE", d.image, "REQUESTS_PER_SECOND", strconv.FormatFloat(d.rate, 'f', -1, 64))
	return strings.NewReplacer(fill...).Replace(string(content)), err
}

func (d *driver) apply(ctx context.Context, name string, fill ...string) error {
	content, err := d.manifest(name, fill...)
	if err != nil {
		return err
	}
	_, err = output(ctx, content, "apply", "-f", "-")
	return err
}

// apps are the Deployments behind the Services.
var apps = []string{"web", "num", "db"}

func (d *driver) rolledOut(ctx context.Context, deployments ...string) error {
	for _, name := range deployments {
		if err := kubectl(ctx, "rollout", "status", "deployment/"+name, "--timeout=2m"); err != nil {
			return err
		}
	}
	return nil
}

// roll replaces the Pods of the apps. The old ones may still be ending when it returns.
func (d *driver) roll(ctx context.Context, deployments ...string) error {
	for _, name := range deployments {
		if err := kubectl(ctx, "rollout", "restart", "deployment/"+name); err != nil {
			return err
		}
	}
	return d.rolledOut(ctx, deployments...)
}

// restart replaces the Pods of the apps, and returns when the old ones are gone.
func (d *driver) restart(ctx context.Context, deployments ...string) error {
	old, err := podsOf(ctx, deployments...)
	if err != nil {
		return err
	}
	if err := d.roll(ctx, deployments...); err != nil {
		return err
	}
	return gone(ctx, old)
}

func podsOf(ctx context.Context, deployments ...string) ([]string, error) {
	return fields(ctx, "get", "pods", "-l", "app in ("+strings.Join(deployments, ",")+")", "-o", "name")
}

func gone(ctx context.Context, pods []string, flags ...string) error {
	if len(pods) == 0 {
		return nil
	}
	return kubectl(ctx, slices.Concat([]string{"wait", "--for=delete", "--timeout=60s"}, flags, pods)...)
}

// eventually polls until the condition holds. What it last said is the error if it never does.
func eventually(ctx context.Context, limit time.Duration, holds func() error) error {
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	deadline := time.Now().Add(limit)
	for {
		err := holds()
		if err == nil || time.Now().After(deadline) {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// leads waits until the Services with numeric target ports lead to the proxies, or to the apps.
func (d *driver) leads(ctx context.Context, toProxies bool) error {
	if d.control {
		return nil
	}
	want := map[string]string{"num": "8080 9090", "db": "6379"}
	if toProxies {
		want = map[string]string{"num": "detour-8080 detour-9090", "db": "detour-6379"}
	}
	return eventually(ctx, 90*time.Second, func() error {
		for service, ports := range want {
			got, err := output(ctx, "", "get", "service", service, "-o", "jsonpath={.spec.ports[*].targetPort}")
			if err != nil {
				return err
			}
			if got != ports {
				return fmt.Errorf("service %s leads to %q, want %q", service, got, ports)
			}
		}
		return nil
	})
}

// edit runs kubectl edit with an editor that replaces one text by another.
func edit(ctx context.Context, object, old, new string) error {
	cmd := exec.CommandContext(ctx, "kubectl", "--namespace", namespace, "edit", object)
	cmd.Env = append(os.Environ(), "EDITOR=sed -i s/"+old+"/"+new+"/")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("kubectl edit %s: %w: %s", object, err, out)
	}
	return nil
}
