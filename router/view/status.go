package view

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/detour-dev/detour/api"
)

func (w *world) previewStatus(p *preview, tables map[types.UID]*api.Table, acks api.Acks) api.PreviewStatus {
	s := api.PreviewStatus{
		Preview: p.name, Target: p.target, Key: p.key, Created: p.created, Commit: w.commit(p), Expires: p.expires,
		Problem: p.problem, Warnings: p.warnings,
	}
	for _, pod := range p.pods {
		if isReady(pod.Pod) {
			s.Endpoints = append(s.Endpoints, pod.Name)
		}
		s.Instances = append(s.Instances, instance(pod.Pod))
	}
	if !p.isRouted() {
		s.State = p.state
		return s
	}
	for _, pod := range w.baseline(p.service) {
		s.Of++
		if reason := w.whyMissing(p, pod, tables[pod.UID], acks[string(pod.UID)].Ack); reason != "" {
			s.Missing = append(s.Missing, api.Missing{Pod: pod.Name, Reason: reason})
			continue
		}
		s.Routed++
		s.Warnings = appendNew(s.Warnings, w.untaken(p.service, pod))
	}
	s.State, s.Problem = p.progress(s)
	return s
}

func instance(p *corev1.Pod) api.Instance {
	i := api.Instance{Pod: p.Name}
	if !isReady(p) {
		i.Unready = whyNotReady(p)
	}
	for _, c := range p.Spec.Containers {
		i.Images = append(i.Images, c.Image)
	}
	for _, status := range p.Status.ContainerStatuses {
		i.Restarts += int(status.RestartCount)
	}
	return i
}

// progress is the state of a preview that nothing keeps from being routed.
func (p *preview) progress(s api.PreviewStatus) (api.State, *api.Problem) {
	switch {
	case len(s.Endpoints) == 0:
		return api.StateNotReady, p.notReady()
	case s.Of == 0:
		return api.StatePending, problem("NoBaseline", "Service %s has no ready Pod, and so no proxy that could route to %s: wait for one, or start one",
			p.target, p.name)
	case s.Routed < s.Of:
		return api.StatePending, nil
	}
	return api.StateRouted, nil
}

// whyMissing says why requests that p's target hands to a Pod do not reach p; "" means that they do.
func (w *world) whyMissing(p *preview, pod *pod, table *api.Table, acked api.Ack) string {
	if table == nil {
		return notInjected(pod)
	}
	ways := waysOf(p.service, pod)
	if len(ways) == 0 {
		return whyUnserved(p.service, pod)
	}
	for _, way := range ways {
		if holder := routeHolder(table, way.app, p.key); holder != p.name {
			return fmt.Sprintf("port %d is also behind another Service, whose preview %s has the same key and is older", way.app, holder)
		}
	}
	if acked.Version != table.Version {
		return "has not acknowledged the routes yet"
	}
	if annotation := p.beyond(acked.Knows); annotation != "" {
		return "its proxy is too old for " + annotation + ", and leads only requests with the key there: restart it"
	}
	for _, way := range ways {
		if !w.leadsToProxy(way.service, way.port, pod, way.app) {
			return "the Service still leads past its proxy"
		}
	}
	return ""
}

// whyUnserved says why a Service does not lead to a port that the Pod's proxy serves.
func whyUnserved(service *corev1.Service, pod *pod) string {
	var names []string
	for _, port := range tcpPorts(service) {
		if _, has := appPort(pod, port); has {
			return "its proxy serves no port of Service " + service.Name + because(pod)
		}
		names = append(names, originalTarget(port).String())
	}
	return fmt.Sprintf("it has no port named %s, where Service %s leads: name its port so, or correct the Service's targetPort",
		strings.Join(names, " or "), service.Name)
}

// beyond names what a preview asks for that a proxy which knows so much does not do; "" if there is nothing.
func (p *preview) beyond(knows []string) (annotation string) {
	if p.mirror && !slices.Contains(knows, api.KnowsMirrors) {
		return api.AnnotationMode
	}
	for _, c := range p.conditions {
		switch {
		case c.Part == api.PartShare && !slices.Contains(knows, api.KnowsShares):
			return api.AnnotationPercent
		case !slices.Contains(knows, api.KnowsMatches):
			return api.AnnotationMatch
		}
	}
	return ""
}

// routeHolder is the preview that gets the requests with a key on a port.
func routeHolder(table *api.Table, port uint16, key string) string {
	for _, p := range table.Ports {
		for _, r := range p.Routes {
			if p.Port == port && r.Key == key {
				return r.Preview
			}
		}
	}
	return ""
}

func notInjected(pod *pod) string {
	if reason := pod.Annotations[api.AnnotationNotInjected]; reason != "" {
		return "not injected: " + reason
	}
	return "not injected: restart it"
}

func because(pod *pod) string {
	if reasons := pod.Annotations[api.AnnotationPortsNotTaken]; reasons != "" {
		return ": " + reasons
	}
	return ": covered after its next restart"
}

// untaken warns of the ports of a Service that an injected Pod's proxy does not serve.
func (w *world) untaken(service *corev1.Service, pod *pod) []api.Problem {
	var problems []api.Problem
	for _, port := range tcpPorts(service) {
		if app, ok := appPort(pod, port); ok && !pod.takes(app) {
			problems = append(problems, *problem("PortNotTaken", "port %d of Service %s does not pass the proxies%s: keyed requests to it reach the baseline",
				port.Port, service.Name, because(pod)))
		}
	}
	return problems
}

func appendNew(list, more []api.Problem) []api.Problem {
	for _, p := range more {
		if !slices.Contains(list, p) {
			list = append(list, p)
		}
	}
	return list
}

// maxNamed is how many Pods a message names.
const maxNamed = 3

func (p *preview) notReady() *api.Problem {
	answer := "are answered 503"
	if p.fallback {
		answer = "go to the baseline"
	}
	var why []string
	for _, pod := range p.pods {
		why = append(why, pod.Name+": "+whyNotReady(pod.Pod))
	}
	if len(why) == 0 {
		why = []string{"it has no Pod"}
	}
	return problem("NotReady", "%s has no ready Pod, requests with key %q %s until it has (%s)", p.name, p.key, answer, shortList(why))
}

func shortList(items []string) string {
	if more := len(items) - maxNamed; more > 0 {
		items = append(slices.Clone(items[:maxNamed]), fmt.Sprintf("and %d more", more))
	}
	return strings.Join(items, "; ")
}

// whyNotReady is the shortest true answer: what kubectl get pods would show.
func whyNotReady(p *corev1.Pod) string {
	if p.DeletionTimestamp != nil {
		return "Terminating"
	}
	for _, status := range slices.Concat(p.Status.InitContainerStatuses, p.Status.ContainerStatuses) {
		if status.State.Waiting != nil && status.State.Waiting.Reason != "PodInitializing" {
			return status.State.Waiting.Reason
		}
	}
	if c := condition(p, corev1.PodScheduled); c.Status == corev1.ConditionFalse {
		return c.Reason
	}
	if p.Status.Phase != corev1.PodRunning {
		return cmp.Or(string(p.Status.Phase), "Pending")
	}
	return "running, but not ready"
}

func (w *world) serviceStatus(service *corev1.Service) api.ServiceStatus {
	s := api.ServiceStatus{Name: service.Name}
	if s.Problem = unsupported(service); s.Problem != nil {
		return s
	}
	var missing []string
	var reason string
	for _, pod := range w.baseline(service) {
		s.Pods++
		word, why := w.whyUncovered(service, pod)
		if why == "" {
			s.Covered++
			continue
		}
		missing = append(missing, pod.Name+": "+why)
		reason = cmp.Or(reason, word)
	}
	switch {
	case s.Pods == 0:
		s.Problem = problem("NoBaseline", "Service %s has no ready Pod", service.Name)
	case len(missing) > 0:
		s.Problem = problem(reason, "%d of %d Pods behind Service %s are not reached through their proxy on every port (%s)",
			len(missing), s.Pods, service.Name, shortList(missing))
	}
	s.Intercepted = s.Problem == nil
	return s
}

// whyUncovered says why a Pod is not reached through its proxy on every TCP port of a Service.
func (w *world) whyUncovered(service *corev1.Service, pod *pod) (reason, why string) {
	if len(pod.taken) == 0 {
		return "NotInjected", notInjected(pod)
	}
	for _, port := range tcpPorts(service) {
		app, ok := appPort(pod, port)
		if !ok { // a Pod without the name gets nothing of that port
			continue
		}
		if !pod.takes(app) {
			return "PortNotTaken", fmt.Sprintf("port %d does not pass its proxy%s", port.Port, because(pod))
		}
		if !w.leadsToProxy(service, port, pod, app) {
			return "NotSwitched", fmt.Sprintf("port %d still leads past its proxy", port.Port)
		}
	}
	return "", ""
}

// maxMissing is how many missing Pods a ConfigMap names for each preview; the router's API names all.
const maxMissing = 10

// statusText is the status as the ConfigMap holds it. It leaves out the instances: they change without a change of state,
// and every replica would write each restart.
func statusText(s api.Status) string {
	s.Previews = slices.Clone(s.Previews)
	for i := range s.Previews {
		p := &s.Previews[i]
		p.Missing = p.Missing[:min(len(p.Missing), maxMissing)]
		p.Instances = nil
	}
	b, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		panic(err) // a Status holds nothing that JSON cannot say
	}
	return string(b) + "\n"
}
