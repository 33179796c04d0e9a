package router

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/tools/record"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/detour-dev/detour/api"
	"github.com/detour-dev/detour/router/view"
)

// publisher keeps each namespace's ConfigMap and emits Events.
//
// There is no leader: every replica writes what it sees, with the resourceVersion that it has read, so that of
// several that see the same only the first one's write succeeds and the others find nothing left to write. Who has
// written emits the Events for what its write has changed; thus each turning point has one.
type publisher struct {
	client   client.Client
	recorder record.EventRecorder
	latest   *latest[snapshot]
	strays   *latest[[]view.Stray]
	askPeers func(context.Context)
	started  time.Time
	log      *slog.Logger

	published map[string]published // by namespace
	told      map[string]bool      // Events of strays, by name
}

// published is the last attempt to publish a status, and when to look again although it is the same.
type published struct {
	text   string
	again  time.Time
	absent bool // the ConfigMap was not there
}

const (
	settleFor    = 500 * time.Millisecond // a change comes in company, and acknowledgements follow
	lookAgain    = 30 * time.Second       // someone may have edited the ConfigMap
	retryAfter   = 5 * time.Second
	hearEveryone = api.AckEvery // a proxy acknowledges at least this often
)

// eventSource is who kubectl says an Event is from.
const eventSource = "detour-router"

// errTooEarly keeps a replica that has just started from declaring lost what it has not heard of yet.
var errTooEarly = errors.New("not every proxy has had the time to acknowledge to this replica")

func (p *publisher) run(ctx context.Context) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		snapshot, changed := p.latest.get()
		p.forgetAllBut(snapshot)
		if p.isDue(snapshot) {
			p.publishAll(ctx)
		}
		p.tellStrays(ctx)
		select {
		case <-changed:
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// forgetAllBut lets a namespace that comes back, to an empty ConfigMap, have its status at once.
func (p *publisher) forgetAllBut(s snapshot) {
	maps.DeleteFunc(p.published, func(namespace string, _ published) bool { return s[namespace] == nil })
}

func (p *publisher) isDue(s snapshot) bool {
	for namespace, v := range s {
		if v != nil && p.isNamespaceDue(namespace, v) {
			return true
		}
	}
	return false
}

func (p *publisher) isNamespaceDue(namespace string, v *view.View) bool {
	last := p.published[namespace]
	return last.text != v.Text || !time.Now().Before(last.again)
}

// publishAll lets the proxies acknowledge what has changed, to whichever replica, and asks the other replicas, so that
// none writes less than another knows. Then the router's loop needs a moment to take in what they say.
func (p *publisher) publishAll(ctx context.Context) {
	if !pause(ctx, settleFor) {
		return
	}
	p.askPeers(ctx)
	if !pause(ctx, 2*debounce) {
		return
	}
	snapshot, _ := p.latest.get()
	for _, namespace := range slices.Sorted(maps.Keys(snapshot)) {
		if v := snapshot[namespace]; v != nil && p.isNamespaceDue(namespace, v) {
			p.attempt(ctx, namespace, v)
		}
	}
}

// attempt publishes one status and notes when to look again.
func (p *publisher) attempt(ctx context.Context, namespace string, v *view.View) {
	err := p.publish(ctx, namespace, v)
	now := time.Now()
	next := published{text: v.Text, again: now.Add(retryAfter)}
	switch {
	case err == nil:
		next.again = now.Add(lookAgain)
	case apierrors.IsConflict(err), errors.Is(err, errTooEarly): // look again with the next tick
		next.again = now
	case apierrors.IsNotFound(err):
		next.absent = true
		if !p.published[namespace].absent {
			p.log.Info("waiting for the webhook to make the ConfigMap", "namespace", namespace, "configmap", api.ConfigMapStatus)
		}
	case ctx.Err() == nil:
		p.log.Error("publishing the status", "namespace", namespace, "error", err)
	}
	p.published[namespace] = next
}

// publish brings one ConfigMap up to date.
func (p *publisher) publish(ctx context.Context, namespace string, v *view.View) error {
	var cm corev1.ConfigMap
	if err := p.client.Get(ctx, client.ObjectKey{Namespace: namespace, Name: api.ConfigMapStatus}, &cm); err != nil {
		return fmt.Errorf("reading ConfigMap %s: %w", api.ConfigMapStatus, err)
	}
	if cm.Data[api.ConfigMapStatusKey] == v.Text {
		return nil
	}
	var old api.Status // stays empty when someone has written nonsense
	_ = json.Unmarshal([]byte(cm.Data[api.ConfigMapStatusKey]), &old)
	if time.Since(p.started) < hearEveryone && losesRoute(old, v.Status) {
		return errTooEarly
	}
	if cm.Data == nil {
		cm.Data = map[string]string{}
	}
	cm.Data[api.ConfigMapStatusKey] = v.Text
	if err := p.client.Update(ctx, &cm); err != nil {
		return fmt.Errorf("writing ConfigMap %s: %w", api.ConfigMapStatus, err)
	}
	for _, t := range transitions(old, v.Status) {
		p.announce(namespace, v, t)
	}
	return nil
}

func (p *publisher) announce(namespace string, v *view.View, t transition) {
	p.log.Info("preview changed", "namespace", namespace, "preview", t.preview.Preview, "service", t.preview.Target,
		"key", t.preview.Key, "state", t.preview.State, "reason", t.reason, "message", t.message)
	if object, ok := v.References[t.preview.Preview]; ok && t.eventType != "" {
		p.recorder.Event(&object, t.eventType, t.reason, t.message)
	}
}

// losesRoute reports whether a preview that was routed is only pending now.
func losesRoute(old, now api.Status) bool {
	before := byIdentity(old)
	return slices.ContainsFunc(now.Previews, func(p api.PreviewStatus) bool {
		return p.State == api.StatePending && before[identity(p)].State == api.StateRouted
	})
}

// transition is a turning point of one preview.
type transition struct {
	preview   api.PreviewStatus
	eventType string // "" is worth a line in the log only
	reason    string
	message   string
}

// transitions lists what a person wants to hear of between two statuses.
func transitions(old, now api.Status) []transition {
	before, after := byIdentity(old), byIdentity(now)
	var list []transition
	for _, p := range now.Previews {
		was, existed := before[identity(p)]
		if !existed || was.State != p.State || reasonOf(was) != reasonOf(p) {
			list = append(list, turn(p, existed))
		}
		for _, warning := range p.Warnings {
			if !slices.Contains(was.Warnings, warning) {
				list = append(list, transition{p, corev1.EventTypeWarning, warning.Reason, warning.Message})
			}
		}
	}
	for _, p := range old.Previews {
		if _, exists := after[identity(p)]; !exists {
			list = append(list, transition{p, "", "Removed", p.Preview + " is no longer a preview"})
		}
	}
	return list
}

func turn(p api.PreviewStatus, existed bool) transition {
	switch {
	case p.State == api.StateRouted:
		return transition{p, corev1.EventTypeNormal, "Routed", fmt.Sprintf("requests with key %q to Service %s reach %s: every ready Pod behind the Service sends them (%d of %d)",
			p.Key, p.Target, p.Preview, p.Routed, p.Of)}
	case p.State == api.StateNotReady && !existed, // how each preview begins
		p.State == api.StateExpired: // and how it was to end
		return transition{p, corev1.EventTypeNormal, p.Problem.Reason, p.Problem.Message}
	case p.Problem != nil:
		return transition{p, corev1.EventTypeWarning, p.Problem.Reason, p.Problem.Message}
	}
	return transition{p, "", "Pending", fmt.Sprintf("%d of %d ready Pods behind Service %s send requests with key %q to %s",
		p.Routed, p.Of, p.Target, p.Key, p.Preview)}
}

func reasonOf(p api.PreviewStatus) string {
	if p.Problem == nil {
		return ""
	}
	return p.Problem.Reason
}

func identity(p api.PreviewStatus) [3]string { return [3]string{p.Preview, p.Target, p.Key} }

func byIdentity(s api.Status) map[[3]string]api.PreviewStatus {
	previews := map[[3]string]api.PreviewStatus{}
	for _, p := range s.Previews {
		previews[identity(p)] = p
	}
	return previews
}
