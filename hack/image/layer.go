package main

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// tree holds the entries of a layer by their path, without the leading slash.
type tree map[string]entry

// entry is a file, folder or symbolic link of a layer.
type entry struct {
	source string // file to read the content from
	header tar.Header
}

// layer returns the tar archive that holds the files, sorted by path.
func layer(files []mapping) ([]byte, error) {
	t := tree{}
	for _, m := range files {
		if err := t.copyAll(m); err != nil {
			return nil, fmt.Errorf("copying %s to %s: %w", m.Source, m.Target, err)
		}
	}
	t.addParents()
	return t.archive()
}

// copyAll adds a file, or a folder with all it holds. A source that is itself a symbolic link is followed.
func (t tree) copyAll(m mapping) error {
	root, err := filepath.EvalSymlinks(m.Source)
	if err != nil {
		return err
	}
	return filepath.WalkDir(root, func(file string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		below, err := filepath.Rel(root, file)
		if err != nil {
			return err
		}
		return t.add(path.Join(m.Target, filepath.ToSlash(below)), file, d)
	})
}

// add puts one path into the tree. Only folders may be there already.
func (t tree) add(target, file string, d fs.DirEntry) error {
	header, err := headerFor(target, file, d)
	if err != nil {
		return err
	}
	if header.Name == "/" {
		return nil // the root of the file system is every image's own
	}
	key := strings.TrimSuffix(header.Name, "/")
	if _, taken := t[key]; taken && !d.IsDir() {
		return fmt.Errorf("/%s is there already", key)
	}
	t[key] = entry{source: file, header: header}
	return nil
}

// headerFor describes a path with what is the same on every machine: type, mode, size and link, not owner and times.
func headerFor(target, file string, d fs.DirEntry) (tar.Header, error) {
	info, err := d.Info()
	if err != nil {
		return tar.Header{}, err
	}
	if info.Mode().Type()&^(fs.ModeDir|fs.ModeSymlink) != 0 {
		return tar.Header{}, fmt.Errorf("%s is neither a file nor a folder nor a symbolic link", file)
	}
	link := ""
	if info.Mode().Type() == fs.ModeSymlink {
		if link, err = os.Readlink(file); err != nil {
			return tar.Header{}, err
		}
	}
	full, err := tar.FileInfoHeader(info, link)
	if err != nil {
		return tar.Header{}, err
	}
	name := strings.TrimPrefix(path.Clean(target), "/")
	if info.IsDir() {
		name += "/"
	}
	return tar.Header{
		Typeflag: full.Typeflag, Name: name, Linkname: full.Linkname,
		Mode: full.Mode, Size: full.Size, ModTime: epoch(),
	}, nil
}

// addParents adds the folders above the entries that no source brought along.
func (t tree) addParents() {
	for _, key := range slices.Collect(maps.Keys(t)) {
		for dir := path.Dir(key); dir != "."; dir = path.Dir(dir) {
			if _, ok := t[dir]; !ok {
				t[dir] = entry{header: tar.Header{
					Typeflag: tar.TypeDir, Name: dir + "/", Mode: 0o755, ModTime: epoch(),
				}}
			}
		}
	}
}

// archive writes the tree, parents before children.
func (t tree) archive() ([]byte, error) {
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, key := range slices.Sorted(maps.Keys(t)) {
		if err := t[key].writeTo(w); err != nil {
			return nil, fmt.Errorf("writing /%s: %w", key, err)
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return buf.Bytes(), nil
}

func (e entry) writeTo(w *tar.Writer) error {
	if err := w.WriteHeader(&e.header); err != nil {
		return err
	}
	if e.header.Typeflag != tar.TypeReg {
		return nil
	}
	content, err := os.ReadFile(e.source)
	if err != nil {
		return err
	}
	_, err = w.Write(content)
	return err
}
