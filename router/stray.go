package router

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"maps"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/detour-dev/detour/router/view"
)

func straysOf(s sight) []view.Stray {
	members := map[string]bool{}
	for name := range s.members {
		members[name] = true
	}
	var strays []view.Stray
	for _, name := range slices.Sorted(maps.Keys(s.homes)) {
		if workloads := s.homes[name]; workloads != nil {
			strays = append(strays, view.Strays(name, *workloads, members)...)
		}
	}
	return strays
}

// maxTold keeps a namespace full of strays from holding up the statuses: the next look tells of the next ones.
const maxTold = 10

// tellStrays emits the Events of the previews that are in no status. There is no ConfigMap that could settle which replica
// does: the Event's name does, which follows from what it says.
func (p *publisher) tellStrays(ctx context.Context) {
	strays, _ := p.strays.get()
	told := map[string]bool{}
	asked := 0
	for _, stray := range strays {
		event := strayEvent(stray, time.Now())
		if p.told[event.Name] {
			told[event.Name] = true
		} else if asked++; asked <= maxTold {
			told[event.Name] = p.tell(ctx, event)
		}
	}
	p.told = told
}

// tell reports whether there is nothing more to do about an Event.
func (p *publisher) tell(ctx context.Context, event *corev1.Event) bool {
	err := p.client.Create(ctx, event)
	log := p.log.With("namespace", event.Namespace, "preview", event.InvolvedObject.Name, "reason", event.Reason)
	switch {
	case err == nil:
		log.Info("preview strays", "message", event.Message)
	case apierrors.IsAlreadyExists(err), apierrors.IsForbidden(err), apierrors.IsNotFound(err):
		// Another replica has told, or the namespace is ending.
	default:
		log.Error("telling a preview's owner", "error", err)
		return false
	}
	return true
}

func strayEvent(s view.Stray, now time.Time) *corev1.Event {
	digest := sha256.Sum256([]byte(string(s.Object.UID) + s.Problem.Message))
	at := metav1.NewTime(now)
	return &corev1.Event{
		ObjectMeta:     metav1.ObjectMeta{Namespace: s.Object.Namespace, Name: "detour." + hex.EncodeToString(digest[:16])},
		InvolvedObject: s.Object, Reason: s.Problem.Reason, Message: s.Problem.Message, Type: corev1.EventTypeWarning,
		Source: corev1.EventSource{Component: eventSource}, FirstTimestamp: at, LastTimestamp: at, Count: 1,
	}
}
