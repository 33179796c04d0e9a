package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"time"
)

// runLoad is the command load.
func runLoad(ctx context.Context, archives []string) error {
	if len(archives) == 0 {
		return errUsage
	}
	if err := needRoot("load"); err != nil {
		return err
	}
	n, err := runningNode()
	if err != nil {
		return err
	}
	for _, path := range archives {
		archive, err := os.Open(path)
		if err != nil {
			return fmt.Errorf("loading an image: %w", err)
		}
		err = n.importImages(ctx, archive)
		archive.Close()
		if err != nil {
			return fmt.Errorf("loading %s: %w", path, err)
		}
		say("loaded %s", path)
	}
	return nil
}

// importProgram packs a binary of ours into an image, and imports that.
func (n node) importProgram(ctx context.Context, reference, binary string) error {
	r, w := io.Pipe()
	go func() { w.CloseWithError(packImage(w, reference, binary)) }()
	defer r.Close()
	if err := n.importImages(ctx, r); err != nil {
		return fmt.Errorf("loading %s: %w", reference, err)
	}
	return nil
}

// importImages hands an archive to containerd, and returns when the kubelet can use the images in it. It waits for
// containerd, which may just have been started.
func (n node) importImages(ctx context.Context, archive io.Reader) error {
	up := func() bool { _, err := ctr(ctx, nil, "version"); return err == nil || !n.alive() }
	if err := poll(ctx, startTimeout, up); err != nil {
		return fmt.Errorf("waiting for containerd: %w", err)
	}
	if _, err := ctr(ctx, archive, "images", "import", "-"); err != nil {
		return err
	}
	known := func() bool {
		list, err := ctr(ctx, nil, "images", "list")
		return err == nil && allManaged(list)
	}
	if err := poll(ctx, 10*time.Second, known); err != nil {
		return fmt.Errorf("waiting until the kubelet sees the image: %w", err)
	}
	return nil
}

// allManaged says whether every image in the list, whose first line is a heading, has the label that containerd's
// Kubernetes side puts on what it has taken notice of.
func allManaged(list string) bool {
	lines := strings.Split(strings.TrimSpace(list), "\n")
	for _, line := range lines[1:] {
		if !strings.Contains(line, "io.cri-containerd.image=managed") {
			return false
		}
	}
	return true
}

// ctr runs containerd's client and returns what it prints.
func ctr(ctx context.Context, input io.Reader, args ...string) (string, error) {
	path, err := findProgram("ctr")
	if err != nil {
		return "", err
	}
	cmd := exec.CommandContext(ctx, path, append([]string{"--address", containerdSocket, "--namespace", "k8s.io"}, args...)...)
	cmd.Stdin = input
	out, err := cmd.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("ctr %s: %w\n%s", strings.Join(args, " "), err, out)
	}
	return string(out), nil
}
