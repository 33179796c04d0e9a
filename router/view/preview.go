package view

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/detour-dev/detour/api"
)

// preview is a workload or a bare Pod that is labelled with a target and a key.
//
// Labels of a Pod template reach ReplicaSets and Pods too, so several labelled objects below one controller with the
// same target and key are one preview, named after the topmost.
type preview struct {
	name     string // as [api.PreviewStatus] has it
	guest    bool   // it is of another namespace than the target
	target   string
	key      string
	object   corev1.ObjectReference // the topmost; Events go there
	created  time.Time
	labelled []*node // the oldest first
	pods     []*pod  // those that have not ended, by name

	service    *corev1.Service // the target, once it is found
	invited    bool            // a guest that the target has consented to
	fallback   bool
	ports      map[int32]api.PortRef // where they differ from the target's, by the Service's port
	conditions []api.Condition       // of requests without the key
	mirror     bool                  // it gets copies of these, or of all if there are no conditions
	expires    time.Time             // zero if it does not
	problem    *api.Problem          // why it is not routed; nil when it is
	state      api.State             // that the problem puts it into
	warnings   []api.Problem
}

// previewID tells the previews below one controller apart: a Deployment and its template may name different keys.
type previewID struct {
	top         types.UID
	target, key string
}

// findPreviews lists the previews that are the namespace's to tell of, the oldest first.
func (w *world) findPreviews() []*preview {
	found := map[previewID]*preview{}
	member := map[types.UID]*preview{}
	var previews []*preview
	for _, n := range w.nodes {
		l := w.lineage(n)
		if !w.isLabelled(n, l) {
			continue
		}
		id := previewID{l.top.UID, n.Labels[api.LabelTarget], n.Labels[api.LabelKey]}
		p := found[id]
		if p == nil {
			p = newPreview(id, l)
			found[id] = p
			previews = append(previews, p)
		}
		p.labelled = append(p.labelled, n)
		member[n.UID] = p
	}
	w.assignPods(member)
	slices.SortFunc(previews, byAge)
	return slices.DeleteFunc(previews, w.isElsewhere)
}

// isLabelled reports whether n says that there is a preview. Objects that only trail behind do not: those of a
// controller that is being deleted, ReplicaSets that a Deployment keeps for a rollback, Pods that have ended and will
// be replaced.
func (w *world) isLabelled(n *node, l lineage) bool {
	_, target := n.Labels[api.LabelTarget]
	_, key := n.Labels[api.LabelKey]
	owned := l.top.UID != n.UID
	switch {
	case !l.live, !target && !key:
		return false
	case !owned:
		return true
	case n.idle && !w.isCurrent(n), n.pod != nil && ended(n.pod):
		return false
	}
	return target && key
}

// revision is the annotation by which a Deployment knows its newest ReplicaSet.
const revision = "deployment.kubernetes.io/revision"

func (w *world) isCurrent(replicaSet *node) bool {
	for _, owner := range replicaSet.OwnerReferences {
		if above := w.byUID[owner.UID]; above != nil && above.Namespace == replicaSet.Namespace {
			return above.Annotations[revision] == replicaSet.Annotations[revision]
		}
	}
	return false
}

func newPreview(id previewID, l lineage) *preview {
	// A workload that is itself unlabelled is as old as it is, not as its newest ReplicaSet; one of a kind that is
	// not tracked is as old as what it owns.
	oldest := l.nodes[len(l.nodes)-1]
	name := strings.ToLower(l.top.Kind) + "/" + l.top.Name
	if oldest.guest {
		name = l.top.Namespace + "/" + name
	}
	return &preview{
		name:    name,
		guest:   oldest.guest,
		target:  id.target,
		key:     id.key,
		object:  l.top,
		created: oldest.CreationTimestamp.UTC(),
	}
}

// byAge orders previews by age, then UID; one controller's previews differ in target or key.
func byAge(a, b *preview) int {
	return cmp.Or(a.created.Compare(b.created), cmp.Compare(a.object.UID, b.object.UID),
		cmp.Compare(a.target, b.target), cmp.Compare(a.key, b.key))
}

// assignPods gives each Pod to the previews of the labelled objects above it.
func (w *world) assignPods(member map[types.UID]*preview) {
	for _, pod := range slices.Concat(w.pods, w.guests) {
		for _, n := range w.lineage(w.byUID[pod.UID]).nodes {
			p := member[n.UID]
			if p != nil && !slices.Contains(p.pods, pod) {
				p.pods = append(p.pods, pod)
			}
		}
	}
}

// checkAll finds what keeps previews from being routed.
func (w *world) checkAll(previews []*preview) {
	winner := map[[2]string]*preview{}
	var routed []*preview
	for _, p := range previews {
		if p.problem = w.check(p); p.problem != nil {
			p.state = api.StateInvalid
			continue
		}
		if p.problem = w.checkExpired(p); p.problem != nil {
			p.state = api.StateExpired
			continue
		}
		p.warn()
		slot := [2]string{p.target, p.key}
		if older := winner[slot]; older != nil {
			p.state = api.StateConflict
			p.problem = problem("Conflict", "%s has the same target %q and key %q as %s, which is older and gets the requests: change the label %s of one of them",
				p.name, p.target, p.key, older.name, api.LabelKey)
			continue
		}
		winner[slot] = p
		p.warnShadowed(routed)
		routed = append(routed, p)
	}
}

func (w *world) check(p *preview) *api.Problem {
	for _, check := range []func(*preview) *api.Problem{
		w.checkTargetNamespace, w.checkKey, w.checkTarget, w.checkInvited, w.checkSupported, w.checkFallback, w.checkTTL,
		w.checkSelector, w.checkPairs, w.checkPorts, w.checkMode, w.checkConditions, w.checkConsent,
	} {
		if found := check(p); found != nil {
			return found
		}
	}
	return nil
}

func (w *world) checkKey(p *preview) *api.Problem {
	if api.ValidKey(p.key) {
		return nil
	}
	return problem("InvalidKey", "%s: label %s=%q is not a key: use 1 to 63 characters of [A-Za-z0-9._-], the first and the last a letter or a digit",
		p.name, api.LabelKey, p.key)
}

func (w *world) checkTarget(p *preview) *api.Problem {
	service := w.service(p.target)
	if service == nil {
		return problem("UnknownTarget", "%s: label %s=%q names no Service of namespace %s: use the name of the Service that it is a preview of",
			p.name, api.LabelTarget, p.target, w.namespace)
	}
	p.service = service
	return nil
}

func (w *world) checkSupported(p *preview) *api.Problem {
	if why := unsupported(p.service); why != nil {
		return problem("UnsupportedTarget", "%s: label %s=%q: %s: use the name of a Service with a cluster IP, a selector and a TCP port",
			p.name, api.LabelTarget, p.target, why.Message)
	}
	if !slices.ContainsFunc(tcpPorts(p.service), func(port corev1.ServicePort) bool { return protocolOf(port) != api.ProtocolTCP }) {
		return problem("NotHTTP", "%s: label %s=%q: every port of Service %s has an appProtocol that is passed through without looking for keys: correct the appProtocol if the port speaks HTTP",
			p.name, api.LabelTarget, p.target, p.target)
	}
	return nil
}

func (w *world) checkFallback(p *preview) *api.Problem {
	value, set := w.annotation(p, api.AnnotationFallback)
	if set && value != api.FallbackBaseline {
		return problem("InvalidFallback", "%s: annotation %s=%q: the only value is %q; remove it to answer 503 while there is no ready Pod",
			p.name, api.AnnotationFallback, value, api.FallbackBaseline)
	}
	p.fallback = set
	return nil
}

// annotation is what a preview says under a name. Where several of its objects do, because its Pod template has the
// labels, the topmost counts, and then the newest: during a rollout that is the one that will stay.
func (w *world) annotation(p *preview, name string) (value string, set bool) {
	if top := w.byUID[p.object.UID]; top != nil && top.Namespace == p.object.Namespace {
		value, set = top.Annotations[name]
	}
	for i := len(p.labelled) - 1; i >= 0 && !set; i-- {
		value, set = p.labelled[i].Annotations[name]
	}
	return value, set
}

// commit is looked for as annotations are.
func (w *world) commit(p *preview) (commit string) {
	if top := w.byUID[p.object.UID]; top != nil && top.Namespace == p.object.Namespace {
		commit = top.Labels[api.LabelCommit]
	}
	for i := len(p.labelled) - 1; i >= 0 && commit == ""; i-- {
		commit = p.labelled[i].Labels[api.LabelCommit]
	}
	return commit
}

// checkSelector refuses a preview that receives ordinary traffic because its target selects it. No Service selects Pods of
// another namespace.
func (w *world) checkSelector(p *preview) *api.Problem {
	if p.guest {
		return nil
	}
	for _, n := range p.labelled {
		if selects(p.service, n.podLabels) {
			return w.pollutes(p)
		}
	}
	for _, pod := range p.pods {
		if selects(p.service, pod.Labels) {
			return w.pollutes(p)
		}
	}
	return nil
}

func (w *world) pollutes(p *preview) *api.Problem {
	var selector []string
	for _, label := range slices.Sorted(maps.Keys(p.service.Spec.Selector)) {
		selector = append(selector, label+"="+p.service.Spec.Selector[label])
	}
	return problem("Pollutes", "%s: its Pods match the selector of Service %s (%s) and so receive ordinary traffic: give its Pod template another value of one of these labels",
		p.name, p.target, strings.Join(selector, ","))
}

// warn notes what makes a preview less useful than its owner may think.
func (p *preview) warn() {
	if unknown := unknownConsent(p.service); unknown != nil {
		p.warnings = append(p.warnings, *unknown)
	}
	for _, port := range tcpPorts(p.service) {
		if len(p.pods) > 0 && !p.declares(port) {
			p.warnings = append(p.warnings, *problem("NoPort", "%s: its Pods declare no port named %s: keyed requests to port %d of Service %s are answered 503",
				p.name, p.portFor(port), port.Port, p.target))
		}
	}
}

func (p *preview) isRouted() bool { return p.problem == nil }

func problem(reason, format string, args ...any) *api.Problem {
	return &api.Problem{Reason: reason, Message: fmt.Sprintf(format, args...)}
}
