package plugin

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

func TestClaimNote(t *testing.T) {
	for mode, want := range map[corev1.PersistentVolumeAccessMode]string{
		corev1.ReadWriteMany:    "",
		corev1.ReadOnlyMany:     "",
		corev1.ReadWriteOnce:    "starts only on the same node",
		corev1.ReadWriteOncePod: "cannot be mounted while the original has it",
	} {
		claim := &corev1.PersistentVolumeClaim{}
		claim.Spec.AccessModes = []corev1.PersistentVolumeAccessMode{mode}
		got := strings.Join(claimNote("data", claim), "\n")
		if want == "" && got != "" || !strings.Contains(got, want) {
			t.Errorf("%s: %q, want %q", mode, got, want)
		}
	}
}
