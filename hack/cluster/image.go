package main

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"runtime"
	"time"
)

// imageUser is whom the programs of packed images run as: not root.
const imageUser = "65532:65532"

// packImage writes an image archive, as `docker save` makes them, with one layer that holds one static binary. The
// project's own images are made by hack/image; these few must be there before anything else runs.
func packImage(w io.Writer, reference, binary string) error {
	content, err := os.ReadFile(binary)
	if err != nil {
		return fmt.Errorf("reading the binary of %s: %w", reference, err)
	}
	var layer bytes.Buffer
	if err := writeTar(&layer, entry{"app", 0o755, content}); err != nil {
		return fmt.Errorf("packing the layer of %s: %w", reference, err)
	}
	sum := sha256.Sum256(layer.Bytes())
	config, err := json.Marshal(map[string]any{
		"architecture": runtime.GOARCH,
		"os":           "linux",
		"config":       map[string]any{"Entrypoint": []string{"/app"}, "User": imageUser},
		"rootfs":       map[string]any{"type": "layers", "diff_ids": []string{"sha256:" + hex.EncodeToString(sum[:])}},
	})
	if err != nil {
		return fmt.Errorf("writing the configuration of %s: %w", reference, err)
	}
	manifest, err := json.Marshal([]map[string]any{{
		"Config": "config.json", "RepoTags": []string{reference}, "Layers": []string{"layer.tar"},
	}})
	if err != nil {
		return fmt.Errorf("writing the manifest of %s: %w", reference, err)
	}
	return writeTar(w,
		entry{"layer.tar", 0o644, layer.Bytes()},
		entry{"config.json", 0o644, config},
		entry{"manifest.json", 0o644, manifest},
	)
}

type entry struct {
	name    string
	mode    int64
	content []byte
}

func writeTar(w io.Writer, entries ...entry) error {
	t := tar.NewWriter(w)
	for _, e := range entries {
		header := &tar.Header{Name: e.name, Mode: e.mode, Size: int64(len(e.content)), ModTime: time.Unix(0, 0)}
		if err := t.WriteHeader(header); err != nil {
			return err
		}
		if _, err := t.Write(e.content); err != nil {
			return err
		}
	}
	return t.Close()
}
