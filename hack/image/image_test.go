package main

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/validate"
)

const testTag = "ghcr.io/detour-dev/hello:dev"

func TestArchiveHoldsWhatWasAskedFor(t *testing.T) {
	dir := sources(t)
	archive := filepath.Join(t.TempDir(), "hello.tar")
	err := run([]string{
		"-tag", testTag, "-entrypoint", "/usr/bin/hello", "-o", archive,
		"-label", "org.opencontainers.image.licenses=Apache-2.0",
		filepath.Join(dir, "hello") + "=/usr/bin/hello",
		filepath.Join(dir, "data") + "=/data",
	})
	if err != nil {
		t.Fatal(err)
	}

	img := read(t, archive)
	if err := validate.Image(img); err != nil {
		t.Errorf("archive is not a valid image: %v", err)
	}
	wantConfig := v1.Config{
		User:       "65532:65532",
		Entrypoint: []string{"/usr/bin/hello"},
		WorkingDir: "/",
		Env:        []string{"PATH=/usr/local/bin:/usr/bin:/bin:/"},
		Labels: map[string]string{
			"org.opencontainers.image.title":    "hello",
			"org.opencontainers.image.version":  "dev",
			"org.opencontainers.image.source":   "https://github.com/detour-dev/detour",
			"org.opencontainers.image.licenses": "Apache-2.0",
		},
	}
	config, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(wantConfig, config.Config); diff != "" {
		t.Errorf("config (-want +got):\n%s", diff)
	}
	if got, want := config.OS+"/"+config.Architecture, "linux/"+runtime.GOARCH; got != want {
		t.Errorf("platform is %s, want %s", got, want)
	}
	wantFiles := []file{
		{Path: "data/", Mode: 0o750},
		{Path: "data/current", Mode: 0o777, Link: "sub/note"},
		{Path: "data/sub/", Mode: 0o755},
		{Path: "data/sub/note", Mode: 0o640, Content: "a note"},
		{Path: "usr/", Mode: 0o755},
		{Path: "usr/bin/", Mode: 0o755},
		{Path: "usr/bin/hello", Mode: 0o755, Content: "a program"},
	}
	if diff := cmp.Diff(wantFiles, files(t, img)); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}
}

func TestSameInputGivesTheSameBytes(t *testing.T) {
	var archives [][]byte
	for _, mtime := range []time.Time{time.Unix(1_000_000_000, 0), time.Unix(1_700_000_000, 5)} {
		dir := sources(t)
		hello := filepath.Join(dir, "hello")
		if err := os.Chtimes(hello, mtime, mtime); err != nil {
			t.Fatal(err)
		}
		out := filepath.Join(dir, "out.tar")
		args := []string{"-tag", testTag, "-entrypoint", "/hello", "-o", out, hello + "=/hello", dir + "/data=/"}
		if err := run(args); err != nil {
			t.Fatal(err)
		}
		content, err := os.ReadFile(out)
		if err != nil {
			t.Fatal(err)
		}
		archives = append(archives, content)
	}
	if !bytes.Equal(archives[0], archives[1]) {
		t.Error("two archives of the same files differ")
	}
}

func TestMistakesAreNamed(t *testing.T) {
	dir := sources(t)
	hello := filepath.Join(dir, "hello")
	out := filepath.Join(dir, "out.tar")
	for _, tc := range []struct {
		name string
		args []string
		want string
	}{
		{"nothing to copy", []string{"-tag", testTag, "-entrypoint", "/hello", "-o", out}, "at least one SOURCE=TARGET"},
		{"relative target", []string{"-tag", testTag, "-entrypoint", "/hello", "-o", out, hello + "=hello"}, "absolute TARGET"},
		{"short reference", []string{"-tag", "hello", "-entrypoint", "/hello", "-o", out, hello + "=/hello"}, `-tag "hello"`},
		{"missing source", []string{"-tag", testTag, "-entrypoint", "/hello", "-o", out, dir + "/no=/no"}, "no such file"},
		{"one target twice", []string{"-tag", testTag, "-entrypoint", "/hello", "-o", out, hello + "=/hello", hello + "=/hello"}, "/hello is there already"},
		{"label without value", []string{"-label", "x", "-tag", testTag}, "want KEY=VALUE"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			err := run(tc.args)
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got error %v, want one with %q", err, tc.want)
			}
		})
	}
}

// sources makes a program, and a folder with a file and a symbolic link, and returns where they are.
func sources(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	err := errors.Join(
		os.WriteFile(filepath.Join(dir, "hello"), []byte("a program"), 0o755),
		os.MkdirAll(filepath.Join(dir, "data/sub"), 0o755),
		os.WriteFile(filepath.Join(dir, "data/sub/note"), []byte("a note"), 0o640),
		os.Symlink("sub/note", filepath.Join(dir, "data/current")),
		os.Chmod(filepath.Join(dir, "data"), 0o750),
	)
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// read opens an archive by the reference that it must have kept.
func read(t *testing.T, archive string) v1.Image {
	t.Helper()
	tag, err := name.NewTag(testTag)
	if err != nil {
		t.Fatal(err)
	}
	img, err := tarball.ImageFromPath(archive, &tag)
	if err != nil {
		t.Fatal(err)
	}
	return img
}

// file is a path of an image as a test compares it.
type file struct {
	Path    string
	Mode    int64
	Link    string
	Content string
}

// files lists the image's files in the order of its layer. It fails where one has an owner or a time of its own.
func files(t *testing.T, img v1.Image) []file {
	t.Helper()
	layers, err := img.Layers()
	if err != nil || len(layers) != 1 {
		t.Fatalf("got %d layers (error %v), want one", len(layers), err)
	}
	content, err := layers[0].Uncompressed()
	if err != nil {
		t.Fatal(err)
	}
	defer content.Close()
	var all []file
	for r := tar.NewReader(content); ; {
		header, err := r.Next()
		if err == io.EOF {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		if header.Uid != 0 || header.Gid != 0 || header.Uname != "" || !header.ModTime.Equal(epoch()) {
			t.Errorf("%s has an owner or a time of its own: %+v", header.Name, header)
		}
		body, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, file{header.Name, header.Mode, header.Linkname, string(body)})
	}
}
