package main

import "testing"

func TestAllManaged(t *testing.T) {
	const (
		heading = "REF TYPE DIGEST SIZE PLATFORMS LABELS\n"
		managed = "a:dev application/x sha256:1 1 MiB linux/amd64 io.cri-containerd.image=managed\n"
		fresh   = "b:dev application/x sha256:2 1 MiB linux/amd64 -\n"
	)
	for name, test := range map[string]struct {
		list string
		want bool
	}{
		"no image":     {heading, true},
		"all":          {heading + managed + managed, true},
		"the last not": {heading + managed + fresh, false},
		"one not":      {heading + fresh + managed, false},
	} {
		t.Run(name, func(t *testing.T) {
			if got := allManaged(test.list); got != test.want {
				t.Errorf("got %v, want %v", got, test.want)
			}
		})
	}
}
