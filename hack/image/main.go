// Command image writes a container image without a container engine.
//
// The image has one layer, made of the files and folders named on the command line, and runs as a user that is not
// root. It is written as an archive that containerd, Docker, kind and minikube load under the given reference:
//
//	image -tag ghcr.io/detour-dev/proxy:dev -entrypoint /proxy -o proxy.tar bin/proxy=/proxy
//	ctr -n k8s.io images import proxy.tar
//
// The same input gives the same bytes: times are fixed, owners are root, entries are sorted, nothing is compressed.
// A folder is copied with all it holds, symbolic links and modes kept. The image is for the platform that this
// program runs on. It does not run build steps, has no base image and pushes nowhere.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
)

const usage = `usage: image -tag REFERENCE -entrypoint PATH -o FILE [-label KEY=VALUE]... SOURCE=TARGET...

Writes a one-layer image archive. SOURCE is a file or a folder, TARGET its absolute path in the image.

`

func main() {
	err := run(os.Args[1:])
	switch {
	case errors.Is(err, flag.ErrHelp):
	case err != nil:
		fmt.Fprintln(os.Stderr, "image:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	s, out, err := parse(args)
	if err != nil {
		return err
	}
	img, err := build(s)
	if err != nil {
		return fmt.Errorf("building %s: %w", s.Tag, err)
	}
	return write(img, s.Tag, out)
}

// parse reads the command line: what to build and the file to write it to.
func parse(args []string) (spec, string, error) {
	s := spec{Labels: map[string]string{}}
	flags := flag.NewFlagSet("image", flag.ContinueOnError)
	flags.SetOutput(io.Discard) // main reports the error
	tag := flags.String("tag", "", "complete reference, such as ghcr.io/detour-dev/proxy:dev")
	flags.StringVar(&s.Entrypoint, "entrypoint", "", "path of the program in the image")
	out := flags.String("o", "", "archive to write")
	flags.Func("label", "label to add, as KEY=VALUE; may be repeated", func(arg string) error {
		key, value, ok := strings.Cut(arg, "=")
		if !ok || key == "" {
			return errors.New("want KEY=VALUE")
		}
		s.Labels[key] = value
		return nil
	})
	err := flags.Parse(args)
	if errors.Is(err, flag.ErrHelp) {
		fmt.Print(usage)
		flags.SetOutput(os.Stdout)
		flags.PrintDefaults()
	}
	if err != nil {
		return spec{}, "", err
	}
	if *tag == "" || s.Entrypoint == "" || *out == "" || flags.NArg() == 0 {
		return spec{}, "", errors.New("want -tag, -entrypoint, -o and at least one SOURCE=TARGET; see image -h")
	}
	if s.Tag, err = name.NewTag(*tag, name.StrictValidation); err != nil {
		return spec{}, "", fmt.Errorf("-tag %q: %w", *tag, err)
	}
	for _, arg := range flags.Args() {
		source, target, ok := strings.Cut(arg, "=")
		if !ok || source == "" || !strings.HasPrefix(target, "/") {
			return spec{}, "", fmt.Errorf("%q: want SOURCE=TARGET with an absolute TARGET", arg)
		}
		s.Files = append(s.Files, mapping{Source: source, Target: target})
	}
	return s, *out, nil
}
