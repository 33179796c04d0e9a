package gateway

import (
	"cmp"
	"context"
	"fmt"
	"iter"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"

	"github.com/detour-dev/detour/api"
	"github.com/detour-dev/detour/router/view"
)

// target is where a request goes, and what it carries.
type target struct {
	name  api.HostName
	entry view.Entry
}

// find looks a host up. While the routes to its preview are on their way it waits for them a little: they are withdrawn
// for a moment with every change of any preview of the same Service.
func (g *Gateway) find(ctx context.Context, host string) (target, *refusal) {
	ctx, cancel := context.WithTimeout(ctx, g.hold)
	defer cancel()
	for {
		views, newer := g.views()
		t, why := g.lookUp(views, host)
		if why == nil || !why.passing {
			return t, why
		}
		select {
		case <-newer:
		case <-ctx.Done():
			return t, why
		}
	}
}

// directory is every namespace's view; nil where a cache is not filled yet.
type directory map[string]*view.View

func (g *Gateway) lookUp(d directory, host string) (target, *refusal) {
	label, ok := g.labelOf(host)
	if !ok {
		return target{}, unknown("this gateway serves <key>--<service>--<namespace>.%s, not %s", g.base.domain, host)
	}
	t, why := d.target(label, g.cfg.Namespace)
	if why == nil {
		t.name.Key = d.keyOf(t.name)
		why = d.blocker(t.name)
	}
	if why != nil && why.status == http.StatusNotFound && !d.isComplete() {
		return t, &refusal{http.StatusServiceUnavailable, "starting", "the router does not know all previews yet", true}
	}
	return t, why
}

// labelOf is the part of a host before the domain.
func (g *Gateway) labelOf(host string) (string, bool) {
	label, ok := strings.CutSuffix(hostname(host), "."+g.base.domain)
	return label, ok && !strings.Contains(label, ".")
}

// hostname is a host without its port, in the form in which hosts are compared.
func hostname(host string) string {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	return strings.TrimSuffix(strings.ToLower(host), ".")
}

func (d directory) target(label, defaultNamespace string) (target, *refusal) {
	name, ok := d.name(label, defaultNamespace)
	if !ok {
		return target{}, unknown("%s is not of the form <key>--<service>--<namespace>, nor the short form of a preview that exists", label)
	}
	v, takesPart := d[name.Namespace]
	if v == nil {
		if takesPart {
			return target{name: name}, unknown("namespace %s is not known yet", name.Namespace)
		}
		return target{name: name}, unknown("there is no namespace %s that takes part: label it %s=%s", name.Namespace, api.LabelInject, api.InjectEnabled)
	}
	entry, ok := v.Entries[name.Service]
	switch {
	case !ok:
		return target{name: name}, unknown("there is no Service %s in namespace %s", name.Service, name.Namespace)
	case entry.Problem != nil:
		return target{name: name}, unknown("%s", entry.Problem.Message)
	}
	return target{name, entry}, nil
}

// name is what a label says, whether there is such a Service or not.
func (d directory) name(label, defaultNamespace string) (api.HostName, bool) {
	name, ok := api.ParseHostLabel(label)
	if !ok {
		name, ok = api.FindHostLabel(label, d.keys(), d.services())
	}
	name.Namespace = cmp.Or(name.Namespace, defaultNamespace)
	return name, ok && name.Namespace != ""
}

func unknown(format string, args ...any) *refusal {
	return &refusal{http.StatusNotFound, "unknown-host", fmt.Sprintf(format, args...), false}
}

// blocker says what keeps a request from meeting the previews of its key; nil when nothing does. A tester must not be
// shown the baseline by mistake. Where one preview has expired, the baseline is no mistake; where all have, the host has.
func (d directory) blocker(name api.HostName) *refusal {
	previews := withoutUninvited(d.previews(name))
	if len(previews) == 0 {
		return unknown("no preview has the key %s", name.Key)
	}
	live := slices.DeleteFunc(slices.Clone(previews), func(p preview) bool { return p.State == api.StateExpired })
	if len(live) == 0 {
		return previews[0].refusal(http.StatusGone, "preview-expired")
	}
	var passing *refusal
	for _, p := range live {
		why := p.blocker(live)
		if why != nil && !why.passing {
			return why
		}
		passing = cmp.Or(passing, why)
	}
	return passing
}

// withoutUninvited leaves out those of other namespaces that are invalid, if there are others: the target may not have
// consented to them, and whoever makes one must not keep a host from those that are there.
func withoutUninvited(previews []preview) []preview {
	invited := slices.DeleteFunc(slices.Clone(previews), func(p preview) bool {
		home, _ := p.Home()
		return home != "" && p.State == api.StateInvalid
	})
	if len(invited) == 0 {
		return previews
	}
	return invited
}

// preview is what the status says of one.
type preview struct {
	api.PreviewStatus
	view *view.View
}

// previews are those of the host's key in its namespace. Where there is none it may be one that a Service of another
// namespace is called with.
func (d directory) previews(name api.HostName) []preview {
	if own := previewsOf(d[name.Namespace], name.Key); len(own) > 0 {
		return own
	}
	var previews []preview
	for _, namespace := range slices.Sorted(maps.Keys(d)) {
		previews = append(previews, previewsOf(d[namespace], name.Key)...)
	}
	return previews
}

// keyOf is the host's key, or that of the preview whose commit it names.
func (d directory) keyOf(name api.HostName) string {
	if len(d.previews(name)) > 0 {
		return name.Key
	}
	namespaces := append([]string{name.Namespace}, slices.Sorted(maps.Keys(d))...)
	for _, namespace := range namespaces {
		if v := d[namespace]; v != nil {
			for _, p := range v.Status.Previews {
				if p.Runs(name.Key) {
					return p.Key
				}
			}
		}
	}
	return name.Key
}

func previewsOf(v *view.View, key string) []preview {
	var previews []preview
	if v != nil {
		for _, status := range v.Status.Previews {
			if status.Key == key {
				previews = append(previews, preview{status, v})
			}
		}
	}
	return previews
}

// blocker says what keeps requests from meeting p, one of those with its key. One in conflict keeps nobody from the older
// one, nor does one that is invalid keep anybody from another in its place.
func (p preview) blocker(all []preview) *refusal {
	switch {
	case p.State == api.StateInvalid && !slices.ContainsFunc(all, p.isReplacedBy):
		return p.refusal(http.StatusServiceUnavailable, "invalid")
	case p.State == api.StateNotReady && !p.fallsBack():
		return p.refusal(http.StatusServiceUnavailable, "not-ready")
	case p.State == api.StatePending && p.Routed == 0:
		why := p.refusal(http.StatusServiceUnavailable, "not-routed")
		why.passing = true
		return why
	}
	return nil
}

// isReplacedBy reports whether q, which has the same key, gets the requests that p would get if it were valid.
func (p preview) isReplacedBy(q preview) bool {
	return q.view == p.view && q.Target == p.Target && q.State != api.StateInvalid
}

func (p preview) refusal(status int, reason string) *refusal {
	message := p.Preview + " gets no requests yet"
	switch {
	case p.Problem != nil:
		message = p.Problem.Message
	case len(p.Missing) > 0:
		message += ": Pod " + p.Missing[0].Pod + " of Service " + p.Target + ": " + p.Missing[0].Reason
	}
	return &refusal{status, reason, message, false}
}

// fallsBack reports whether p's requests go to the baseline while it is not ready.
func (p preview) fallsBack() bool {
	for _, table := range p.view.Tables {
		for _, port := range table.Ports {
			for _, route := range port.Routes {
				if route.Preview == p.Preview && route.Key == p.Key && route.Fallback {
					return true
				}
			}
		}
	}
	return false
}

func (d directory) isComplete() bool {
	for _, v := range d {
		if v == nil {
			return false
		}
	}
	return d != nil
}

// keys are those of all previews, and what stands for them; one that several have comes several times.
func (d directory) keys() iter.Seq[string] {
	return func(yield func(string) bool) {
		for _, v := range d {
			if v == nil {
				continue
			}
			for _, p := range v.Status.Previews {
				if !yield(p.Key) || p.Commit != "" && !yield(p.ShortCommit()) {
					return
				}
			}
		}
	}
}

// services are the names and namespaces of all Services.
func (d directory) services() iter.Seq2[string, string] {
	return func(yield func(string, string) bool) {
		for namespace, v := range d {
			if v == nil {
				continue
			}
			for name := range v.Entries {
				if !yield(name, namespace) {
					return
				}
			}
		}
	}
}
