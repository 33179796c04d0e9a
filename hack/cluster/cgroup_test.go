package main

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestMountedHierarchies(t *testing.T) {
	const root = "25 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw\n"
	for name, test := range map[string]struct {
		table string
		want  []hierarchy
	}{
		"none": {root, nil},
		"version 2": {
			root + "30 25 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n",
			[]hierarchy{{"/sys/fs/cgroup", true}},
		},
		"version 1, with no optional fields": {
			"31 30 0:27 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n",
			[]hierarchy{{"/sys/fs/cgroup/cpu", false}},
		},
		"both: version 2 comes first": {
			"31 30 0:27 / /sys/fs/cgroup/cpu rw shared:5 master:1 - cgroup cgroup rw,cpu\n" +
				"32 30 0:28 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n",
			[]hierarchy{{"/sys/fs/cgroup/unified", true}, {"/sys/fs/cgroup/cpu", false}},
		},
		"damaged lines": {"31 30 - cgroup\n31\n\n31 30 0:27 / /x rw\n", nil},
	} {
		t.Run(name, func(t *testing.T) {
			got := mountedHierarchies(test.table)
			if diff := cmp.Diff(test.want, got, cmp.AllowUnexported(hierarchy{})); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}
