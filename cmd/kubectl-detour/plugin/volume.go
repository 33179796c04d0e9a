package plugin

import (
	"context"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// volumeNotes warns of volumes that the preview shares with the original and that not every node, or no second Pod, can
// mount. Whoever may not read the claims gets no warning.
func (s *session) volumeNotes(ctx context.Context, spec *corev1.PodSpec) []string {
	var notes []string
	for _, volume := range spec.Volumes {
		if volume.PersistentVolumeClaim == nil {
			continue
		}
		claims := s.kube.CoreV1().PersistentVolumeClaims(s.namespace)
		claim, err := claims.Get(ctx, volume.PersistentVolumeClaim.ClaimName, metav1.GetOptions{})
		if err == nil {
			notes = append(notes, claimNote(volume.Name, claim)...)
		}
	}
	return notes
}

func claimNote(volume string, claim *corev1.PersistentVolumeClaim) []string {
	modes := claim.Spec.AccessModes
	switch {
	case slices.Contains(modes, corev1.ReadWriteMany), slices.Contains(modes, corev1.ReadOnlyMany):
		return nil
	case slices.Contains(modes, corev1.ReadWriteOncePod):
		return []string{fmt.Sprintf("its volume %s cannot be mounted while the original has it: PersistentVolumeClaim %s is %s", volume, claim.Name, corev1.ReadWriteOncePod)}
	}
	return []string{fmt.Sprintf("it shares its volume %s with the original, and starts only on the same node: PersistentVolumeClaim %s is %s", volume, claim.Name, corev1.ReadWriteOnce)}
}
