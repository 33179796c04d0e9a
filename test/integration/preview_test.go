//go:build integration

package integration

import (
	"errors"
	"fmt"
	"maps"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/detour-dev/detour/api"
)

// asPreview labels a workload, or a template, as a preview of Service web.
var asPreview = map[string]string{api.LabelTarget: "web", api.LabelKey: "pr-42"}

// TestPreviewCannotPollute tries to make a preview of Pods that the target's Service selects, in each way there is.
func TestPreviewCannotPollute(t *testing.T) {
	newNamespace(t, "pollute")
	create(t, newService("pollute", "web", intstr.FromInt32(8080)))
	copied := map[string]string{"app": "web"} // what the Service selects
	polluting := func(name string) *appsv1.Deployment {
		d := newDeployment("pollute", name, copied)
		d.Labels = asPreview
		return d
	}
	eventually(t, "the webhook knows the Service", func() error {
		return refused(kube.Create(t.Context(), polluting("first"), client.DryRunAll))
	})

	statefulSet := &appsv1.StatefulSet{ObjectMeta: polluting("created").ObjectMeta}
	statefulSet.Spec.Selector, statefulSet.Spec.Template = polluting("").Spec.Selector, polluting("").Spec.Template
	replicaSet := &appsv1.ReplicaSet{ObjectMeta: polluting("created").ObjectMeta}
	replicaSet.Spec.Selector, replicaSet.Spec.Template = statefulSet.Spec.Selector, statefulSet.Spec.Template
	inTemplate := newDeployment("pollute", "created", copied)
	inTemplate.Spec.Template.Labels = maps.Clone(asPreview)
	maps.Copy(inTemplate.Spec.Template.Labels, copied)
	for name, object := range map[string]client.Object{
		"Deployment": polluting("created"), "StatefulSet": statefulSet, "ReplicaSet": replicaSet, "labelled template": inTemplate,
	} {
		if err := refused(kube.Create(t.Context(), object)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}

	baseline := newDeployment("pollute", "web", copied)
	create(t, baseline)
	if err := refused(label(t, baseline, asPreview)); err != nil {
		t.Errorf("a Deployment that is labelled: %v", err)
	}
	create(t, newPod("pollute", "web-1", inTemplate.Spec.Template.Labels, 8080)) // a Pod is never refused
	fine := newDeployment("pollute", "web-pr-42", map[string]string{"app": "web-pr-42"})
	create(t, fine)
	if err := label(t, fine, asPreview); err != nil {
		t.Errorf("a preview with labels of its own: %v", err)
	}
	create(t, namespaceNamed("not-polluted"))
	elsewhere := polluting("created")
	elsewhere.Namespace = "not-polluted"
	create(t, elsewhere)
}

// TestPollutingPreviewCanBeChanged shows that a preview which pollutes already is not stuck.
func TestPollutingPreviewCanBeChanged(t *testing.T) {
	newNamespace(t, "slipped")
	deployment := newDeployment("slipped", "web-pr-42", map[string]string{"app": "web"})
	deployment.Labels = asPreview
	create(t, deployment) // there is no Service yet
	create(t, newService("slipped", "web", intstr.FromInt32(8080)))
	eventually(t, "the webhook knows the Service", func() error {
		another := newDeployment("slipped", "another", map[string]string{"app": "web"})
		another.Labels = asPreview
		return refused(kube.Create(t.Context(), another, client.DryRunAll))
	})

	deployment.Spec.Template.Spec.Containers[0].Image = "app:2"
	deployment.Spec.Replicas = ptr.To(int32(3))
	if err := kube.Update(t.Context(), deployment); err != nil {
		t.Errorf("changing its image: %v", err)
	}
	scale := &autoscalingv1.Scale{Spec: autoscalingv1.ScaleSpec{Replicas: 2}}
	if err := kube.SubResource("scale").Update(t.Context(), deployment, client.WithSubResourceBody(scale)); err != nil {
		t.Errorf("scaling it: %v", err)
	}
	replicaSet := &appsv1.ReplicaSet{ObjectMeta: metav1.ObjectMeta{
		Name: "web-pr-42-1", Namespace: "slipped", Labels: asPreview,
		OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(deployment, appsv1.SchemeGroupVersion.WithKind("Deployment"))},
	}}
	replicaSet.Spec.Selector, replicaSet.Spec.Template = deployment.Spec.Selector, deployment.Spec.Template
	create(t, replicaSet)
	if err := kube.Delete(t.Context(), deployment); err != nil {
		t.Errorf("deleting it: %v", err)
	}
}

// label changes an object's labels as kubectl label does.
func label(t *testing.T, object client.Object, labels map[string]string) error {
	before := object.DeepCopyObject().(client.Object)
	object.SetLabels(labels)
	return kube.Patch(t.Context(), object, client.MergeFrom(before))
}

// refused returns an error unless err is the answer to a preview that would pollute.
func refused(err error) error {
	switch {
	case err == nil:
		return errors.New("it is admitted")
	case !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), "Service web selects its Pods (app=web)"):
		return fmt.Errorf("it is refused for another reason: %w", err)
	}
	return nil
}
