package main

import (
	"fmt"
	"maps"
	"path"
	"runtime"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// user is the 'nonroot' of distroless images. A number, because the kubelet cannot tell of a name that it isn't root.
const user = "65532:65532"

// spec says what an image consists of.
type spec struct {
	Tag        name.Tag
	Entrypoint string            // path of the program in the image
	Labels     map[string]string // added to the standard ones, and stronger than they are
	Files      []mapping
}

// mapping says where a file or folder of this machine goes in the image.
type mapping struct {
	Source string
	Target string // absolute
}

// epoch is the time that everything in an image carries.
func epoch() time.Time { return time.Unix(0, 0).UTC() }

// build makes the image in memory.
func build(s spec) (v1.Image, error) {
	content, err := layer(s.Files)
	if err != nil {
		return nil, err
	}
	img, err := mutate.AppendLayers(empty.Image, static.NewLayer(content, types.DockerUncompressedLayer))
	if err != nil {
		return nil, fmt.Errorf("adding the layer: %w", err)
	}
	config, err := img.ConfigFile()
	if err != nil {
		return nil, fmt.Errorf("reading the configuration: %w", err)
	}
	config = config.DeepCopy()
	config.OS = "linux"
	config.Architecture = runtime.GOARCH
	config.Created = v1.Time{Time: epoch()}
	config.Config = v1.Config{
		User:       user,
		Entrypoint: []string{s.Entrypoint},
		WorkingDir: "/",
		Env:        []string{"PATH=/usr/local/bin:/usr/bin:/bin:/"},
		Labels:     labels(s.Tag, s.Labels),
	}
	return mutate.ConfigFile(img, config)
}

// labels returns the standard labels of an image, overruled and added to by those that the caller asks for.
func labels(tag name.Tag, extra map[string]string) map[string]string {
	all := map[string]string{
		"org.opencontainers.image.title":   path.Base(tag.RepositoryStr()),
		"org.opencontainers.image.version": tag.TagStr(),
		"org.opencontainers.image.source":  "https://github.com/detour-dev/detour",
	}
	maps.Copy(all, extra)
	return all
}

// write puts the image into an archive that keeps its reference.
func write(img v1.Image, tag name.Tag, file string) error {
	if err := tarball.WriteToFile(file, tag, img); err != nil {
		return fmt.Errorf("writing %s: %w", file, err)
	}
	return nil
}
