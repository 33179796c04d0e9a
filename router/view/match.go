package view

import (
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/detour-dev/detour/api"
)

// checkMatch reads which requests without the key are to reach the preview. Nobody can tell through which Service a request
// has come to a port, so every Service that leads there has to consent.
func (w *world) checkMatch(p *preview) *api.Problem {
	text, set := w.annotation(p, api.AnnotationMatch)
	if !set {
		return nil
	}
	conditions, err := api.ParseConditions(text)
	if err != nil {
		return problem("InvalidMatch", "%s: annotation %s: %v", p.name, api.AnnotationMatch, err)
	}
	for _, service := range w.sharing(p.service) {
		if known, _ := consent(service); !slices.Contains(known, api.AllowMatch) {
			return problem("NotAllowed", "%s: annotation %s would lead away requests to Service %s that do not have the key: annotate the Service with %s=%s if that is all right, or remove the annotation",
				p.name, api.AnnotationMatch, service.Name, api.AnnotationAllow, api.AllowMatch)
		}
	}
	p.match = conditions
	return nil
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
	return problem("UnknownConsent", "Service %s: annotation %s has words that consent to nothing (%s): the only one that does is %q",
		service.Name, api.AnnotationAllow, shortList(unknown), api.AllowMatch)
}
