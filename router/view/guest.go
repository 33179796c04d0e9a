package view

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/detour-dev/detour/api"
)

// Homes says, of objects with the label [api.LabelTarget], which namespaces have some that name other namespaces as their
// target's, and which they name. Their Workloads are the Guests there.
func Homes(labelled []metav1.PartialObjectMetadata) map[string]map[string]bool {
	homes := map[string]map[string]bool{}
	for i := range labelled {
		o := &labelled[i]
		named, set := o.Annotations[api.AnnotationTargetNamespace]
		if !set || named == o.Namespace {
			continue
		}
		if homes[o.Namespace] == nil {
			homes[o.Namespace] = map[string]bool{}
		}
		homes[o.Namespace][named] = true
	}
	return homes
}

// Stray is a preview that no namespace has in its status.
type Stray struct {
	Object  corev1.ObjectReference // the preview's topmost
	Problem api.Problem
}

// Strays are the previews of a namespace that does not take part which name another that does not either, the oldest first.
func Strays(namespace string, o Workloads, members map[string]bool) []Stray {
	w := newWorld(namespace, Objects{Workloads: o, Members: members})
	var strays []Stray
	for _, p := range w.findPreviews() {
		if why := w.checkTargetNamespace(p); why != nil {
			strays = append(strays, Stray{p.object, *why})
		}
	}
	return strays
}

// targetNamespace is an annotation that only counts on an object with the labels: [Homes] sees no other, and a preview must not
// be elsewhere for its own namespace alone.
func (w *world) targetNamespace(p *preview) (named string, set bool) {
	named, _ = w.annotation(p, api.AnnotationTargetNamespace)
	for _, n := range p.labelled {
		if value, has := n.Annotations[api.AnnotationTargetNamespace]; has && value == named {
			return named, true
		}
	}
	return "", false
}

// isElsewhere reports whether p is for another namespace to tell of. What names none that takes part stays at home.
func (w *world) isElsewhere(p *preview) bool {
	named, set := w.targetNamespace(p)
	if p.guest {
		return named != w.namespace
	}
	return set && named != w.namespace && w.members[named]
}

func (w *world) checkTargetNamespace(p *preview) *api.Problem {
	named, set := w.targetNamespace(p)
	switch {
	case !set, named == w.namespace:
		return nil
	case !api.ValidNamespace(named):
		return problem("InvalidTargetNamespace", "%s: annotation %s=%.100q is not the name of a namespace: use that of the namespace of Service %s",
			p.name, api.AnnotationTargetNamespace, named, p.target)
	}
	return problem("TargetNotTakingPart", "%s: annotation %s=%q names no namespace that takes part: correct it, or label the namespace %s=%s",
		p.name, api.AnnotationTargetNamespace, named, api.LabelInject, api.InjectEnabled)
}

// checkInvited asks the target whether previews of another namespace may get its requests, those with a key too. It comes
// before everything that would tell more of the target than its name.
func (w *world) checkInvited(p *preview) *api.Problem {
	if !p.guest {
		return nil
	}
	word := api.AllowNamespace + p.object.Namespace
	for _, service := range w.sharing(p.service) {
		if known, _ := consent(service); !slices.Contains(known, word) {
			return problem("NotAllowed", "%s: annotation %s=%s would lead requests to Service %s to another namespace: have the Service's annotation %s include %q if that is all right, or remove the annotation",
				p.name, api.AnnotationTargetNamespace, w.namespace, service.Name, api.AnnotationAllow, word)
		}
	}
	p.invited = true
	return nil
}

// maxUninvited is how many previews of other namespaces a status names that its own namespace has not consented to: whoever
// makes them must not fill its ConfigMap.
const maxUninvited = 20

// withoutCrowd leaves the oldest of those.
func withoutCrowd(previews []*preview) []*preview {
	uninvited := 0
	return slices.DeleteFunc(previews, func(p *preview) bool {
		if p.guest && !p.invited {
			uninvited++
		}
		return p.guest && !p.invited && uninvited > maxUninvited
	})
}
