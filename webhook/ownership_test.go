package webhook

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// TestDisown: of a port that leads to proxies, only who applies server-side goes on owning the target port.
func TestDisown(t *testing.T) {
	const both = `{"f:spec":{"f:ports":{".":{},` +
		`"k:{\"port\":80,\"protocol\":\"TCP\"}":{".":{},"f:port":{},"f:targetPort":{}},` +
		`"k:{\"port\":90,\"protocol\":\"TCP\"}":{".":{},"f:port":{},"f:targetPort":{}}}}}`
	const one = `{"f:spec":{"f:ports":{".":{},` +
		`"k:{\"port\":80,\"protocol\":\"TCP\"}":{".":{},"f:port":{}},` +
		`"k:{\"port\":90,\"protocol\":\"TCP\"}":{".":{},"f:port":{},"f:targetPort":{}}}}}`
	for name, tc := range map[string]struct {
		operation   metav1.ManagedFieldsOperationType
		target      intstr.IntOrString
		fields      string
		wantedAfter string
	}{
		"an update":             {metav1.ManagedFieldsOperationUpdate, intstr.FromString("detour-8080"), both, one},
		"server-side apply":     {metav1.ManagedFieldsOperationApply, intstr.FromString("detour-8080"), both, both},
		"not led to proxies":    {metav1.ManagedFieldsOperationUpdate, intstr.FromInt32(8080), both, both},
		"a name of the user":    {metav1.ManagedFieldsOperationUpdate, intstr.FromString("http"), both, both},
		"it owned none of them": {metav1.ManagedFieldsOperationUpdate, intstr.FromString("detour-8080"), one, one},
		"nonsense":              {metav1.ManagedFieldsOperationUpdate, intstr.FromString("detour-8080"), `{"x":1}`, `{"x":1}`},
	} {
		service := &corev1.Service{
			ObjectMeta: metav1.ObjectMeta{ManagedFields: []metav1.ManagedFieldsEntry{
				{Manager: "a", Operation: tc.operation, FieldsV1: metav1.NewFieldsV1(tc.fields)},
				{Manager: "b", Operation: tc.operation},
			}},
			Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{
				{Port: 80, Protocol: corev1.ProtocolTCP, TargetPort: tc.target},
				{Port: 90, Protocol: corev1.ProtocolTCP, TargetPort: intstr.FromInt32(9090)},
			}},
		}
		disown(service)
		if diff := cmp.Diff(tc.wantedAfter, service.ManagedFields[0].FieldsV1.GetRawString()); diff != "" {
			t.Errorf("%s: -want +got\n%s", name, diff)
		}
	}
}
