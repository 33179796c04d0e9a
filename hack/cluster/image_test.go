package main

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestPackImage(t *testing.T) {
	binary := filepath.Join(t.TempDir(), "pause")
	if err := os.WriteFile(binary, []byte("program"), 0o644); err != nil {
		t.Fatal(err)
	}
	var archive bytes.Buffer
	if err := packImage(&archive, "localhost/x/pause:local", binary); err != nil {
		t.Fatal(err)
	}
	files := readTar(t, archive.Bytes())

	var manifest []struct {
		Config           string
		RepoTags, Layers []string
	}
	if err := json.Unmarshal(files["manifest.json"], &manifest); err != nil {
		t.Fatal(err)
	}
	if len(manifest) != 1 || len(manifest[0].Layers) != 1 {
		t.Fatalf("not one image of one layer: %+v", manifest)
	}
	if diff := cmp.Diff([]string{"localhost/x/pause:local"}, manifest[0].RepoTags); diff != "" {
		t.Errorf("tags (-want +got)\n%s", diff)
	}
	layer := files[manifest[0].Layers[0]]
	if diff := cmp.Diff(map[string][]byte{"app": []byte("program")}, readTar(t, layer)); diff != "" {
		t.Errorf("layer (-want +got)\n%s", diff)
	}

	var config struct {
		RootFS struct {
			DiffIDs []string `json:"diff_ids"`
		}
	}
	if err := json.Unmarshal(files[manifest[0].Config], &config); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{fmt.Sprintf("sha256:%x", sha256.Sum256(layer))}, config.RootFS.DiffIDs); diff != "" {
		t.Errorf("layer's hash (-want +got)\n%s", diff)
	}
}

func readTar(t *testing.T, archive []byte) map[string][]byte {
	t.Helper()
	files := map[string][]byte{}
	for r := tar.NewReader(bytes.NewReader(archive)); ; {
		header, err := r.Next()
		if err == io.EOF {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		if files[header.Name], err = io.ReadAll(r); err != nil {
			t.Fatal(err)
		}
	}
}
