package webhook

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"

	"github.com/detour-dev/detour/api"
)

// disown takes the target ports that admission has changed from those who wrote them with an update. Somebody else who
// applies the same manifest server-side, such as whoever goes from client-side to server-side apply, would meet a
// conflict over a value that neither of them has asked for. Updates need no ownership, and get it back with the next one.
// Those who apply server-side keep theirs: it says what they want to be removed once they no longer apply it.
func disown(service *corev1.Service) {
	changed := changedPaths(service)
	if changed.Empty() {
		return
	}
	for i := range service.ManagedFields {
		if entry := &service.ManagedFields[i]; entry.Operation == metav1.ManagedFieldsOperationUpdate {
			remove(entry, changed)
		}
	}
}

// changedPaths are the target ports that have a name of ours.
func changedPaths(service *corev1.Service) *fieldpath.Set {
	paths := fieldpath.NewSet()
	for _, port := range service.Spec.Ports {
		if _, ours := api.OriginalPort(port.TargetPort.StrVal); ours {
			key := fieldpath.KeyByFields("port", int64(port.Port), "protocol", string(port.Protocol))
			paths.Insert(fieldpath.MakePathOrDie("spec", "ports", key, "targetPort"))
		}
	}
	return paths
}

// remove leaves an entry as it is that cannot be read.
func remove(entry *metav1.ManagedFieldsEntry, paths *fieldpath.Set) {
	if entry.FieldsV1 == nil {
		return
	}
	var owned fieldpath.Set
	if err := owned.FromJSON(entry.FieldsV1.GetRawReader()); err != nil || owned.Intersection(paths).Empty() {
		return
	}
	if left, err := owned.Difference(paths).ToJSON(); err == nil {
		entry.FieldsV1.SetRawBytes(left)
	}
}
