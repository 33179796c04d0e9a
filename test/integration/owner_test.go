//go:build integration

package integration

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// TestConfigurationsGoWithOurNamespace shows what the garbage collector goes by: there is none here.
func TestConfigurationsGoWithOurNamespace(t *testing.T) {
	namespace := namespaceNamed("detour-system")
	if err := kube.Get(t.Context(), client.ObjectKeyFromObject(namespace), namespace); err != nil {
		t.Fatal(err)
	}
	want := []metav1.OwnerReference{{APIVersion: "v1", Kind: "Namespace", Name: namespace.Name, UID: namespace.UID}}
	for _, configuration := range []client.Object{
		&admissionregistrationv1.MutatingWebhookConfiguration{},
		&admissionregistrationv1.ValidatingWebhookConfiguration{},
	} {
		eventually(t, "our namespace owns the configuration", func() error {
			if err := kube.Get(t.Context(), client.ObjectKey{Name: "detour"}, configuration); err != nil {
				return err
			}
			if diff := cmp.Diff(want, configuration.GetOwnerReferences()); diff != "" {
				return errors.New(diff)
			}
			return nil
		})
	}
}
