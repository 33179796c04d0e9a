package view

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/detour-dev/detour/api"
)

// checkMode reads whether the preview gets requests without the key, or copies of them.
func (w *world) checkMode(p *preview) *api.Problem {
	value, set := w.annotation(p, api.AnnotationMode)
	if set && value != api.ModeForward && value != api.ModeMirror {
		return problem("InvalidMode", "%s: annotation %s=%.100q: want %q or %q", p.name, api.AnnotationMode, value, api.ModeForward, api.ModeMirror)
	}
	p.mirror = value == api.ModeMirror
	return nil
}

// checkConditions reads which requests without the key are to reach the preview.
func (w *world) checkConditions(p *preview) *api.Problem {
	if text, set := w.annotation(p, api.AnnotationMatch); set {
		conditions, err := api.ParseConditions(text)
		if err != nil {
			return problem("InvalidMatch", "%s: annotation %s: %v", p.name, api.AnnotationMatch, err)
		}
		p.conditions = conditions
	}
	text, set := w.annotation(p, api.AnnotationPercent)
	if !set {
		return nil
	}
	share, err := api.ParsePercent(text)
	if err != nil {
		return problem("InvalidPercent", "%s: annotation %s=%.100q: %v", p.name, api.AnnotationPercent, text, err)
	}
	if len(p.conditions) == api.MaxConditions {
		return problem("InvalidPercent", "%s: annotation %s=%.100q is one more condition than the %d that there may be: leave one out of annotation %s",
			p.name, api.AnnotationPercent, text, api.MaxConditions, api.AnnotationMatch)
	}
	p.conditions = append(p.conditions, share)
	return nil
}

// checkConsent asks the target about what its clients have not asked for.
func (w *world) checkConsent(p *preview) *api.Problem {
	if p.mirror { // which leads nobody away
		return w.checkAllowed(p, api.AnnotationMode, api.AllowMirror, "copy")
	}
	for _, want := range []struct{ annotation, word string }{
		{api.AnnotationMatch, api.AllowMatch}, {api.AnnotationPercent, api.AllowPercent},
	} {
		if _, set := w.annotation(p, want.annotation); !set {
			continue
		}
		if found := w.checkAllowed(p, want.annotation, want.word, "lead away"); found != nil {
			return found
		}
	}
	return nil
}

// checkAllowed asks for one word. Nobody can tell through which Service a request has come to a port, so every Service that
// leads there has to consent.
func (w *world) checkAllowed(p *preview, annotation, word, does string) *api.Problem {
	for _, service := range w.sharing(p.service) {
		if known, _ := consent(service); !slices.Contains(known, word) {
			return problem("NotAllowed", "%s: annotation %s would %s requests to Service %s that do not have the key: have the Service's annotation %s include %q if that is all right, or remove the annotation",
				p.name, annotation, does, service.Name, api.AnnotationAllow, word)
		}
	}
	return nil
}

// picks reports whether the preview gets requests without the key, or copies of them.
func (p *preview) picks() bool { return p.mirror || len(p.conditions) > 0 }

// warnShadowed warns of an older preview that gets all the requests without the key that p would.
func (p *preview) warnShadowed(older []*preview) {
	i := slices.IndexFunc(older, p.isShadowedBy)
	if i < 0 {
		return
	}
	p.warnings = append(p.warnings, *problem("MatchShadowed", "%s gets no requests but those with its key: all others that it asks for, or copies of them, go to %s, which is older: have one of them ask for something else",
		p.name, older[i].name))
}

func (p *preview) isShadowedBy(older *preview) bool {
	if p.service != older.service || p.mirror != older.mirror || !p.picks() || !older.picks() {
		return false
	}
	return !slices.ContainsFunc(older.conditions, func(c api.Condition) bool {
		return c.Part == api.PartShare || !slices.Contains(p.conditions, c)
	})
}

// sharing lists a Service and the others that lead to a port that it leads to.
func (w *world) sharing(service *corev1.Service) []*corev1.Service {
	services := []*corev1.Service{service}
	for _, pod := range w.pods {
		if !selects(service, pod.Labels) {
			continue
		}
		own := waysOf(service, pod)
		for _, other := range w.ways(pod) {
			shares := slices.ContainsFunc(own, func(way way) bool { return way.app == other.app })
			if shares && !slices.Contains(services, other.service) {
				services = append(services, other.service)
			}
		}
	}
	return services
}

// consent is what a Service allows beyond requests with a key.
func consent(service *corev1.Service) (known, unknown []string) {
	text, set := service.Annotations[api.AnnotationAllow]
	if !set {
		return nil, nil
	}
	return api.ParseConsent(text)
}

// unknownConsent warns of words that consent to nothing.
func unknownConsent(service *corev1.Service) *api.Problem {
	_, unknown := consent(service)
	if len(unknown) == 0 {
		return nil
	}
	for i, word := range unknown {
		unknown[i] = fmt.Sprintf("%.100q", word)
	}
	return problem("UnknownConsent", "Service %s: annotation %s has words that consent to nothing (%s): those that do are %s and %s<name>",
		service.Name, api.AnnotationAllow, shortList(unknown), strings.Join(api.Consents, ", "), api.AllowNamespace)
}
