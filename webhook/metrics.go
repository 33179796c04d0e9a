package webhook

import (
	"errors"
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	injected    prometheus.Counter
	notInjected *prometheus.CounterVec // by reason
	refused     prometheus.Counter
	switched    *prometheus.CounterVec // by direction: "name" or "number"
	errors      *prometheus.CounterVec // by where they happened
}

// newMetrics registers the counters, or finds those of an earlier [Run] in the same process.
func newMetrics(registry prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		injected: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "detour_webhook_pods_injected_total",
			Help: "Pods that were given a proxy.",
		}),
		notInjected: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "detour_webhook_pods_not_injected_total",
			Help: "Pods that were left without a proxy, by reason.",
		}, []string{"reason"}),
		refused: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "detour_webhook_previews_refused_total",
			Help: "Changes of workloads that were refused, because a preview would have received ordinary traffic.",
		}),
		switched: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "detour_webhook_services_switched_total",
			Help: "Services whose ports the reconciler led to the proxies (to=\"name\") or back to the apps (to=\"number\").",
		}, []string{"to"}),
		errors: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "detour_webhook_errors_total",
			Help: "Errors of the webhook's own, by where they happened. An object whose admission failed was admitted unchanged.",
		}, []string{"where"}),
	}
	return m, errors.Join(
		register(registry, &m.injected),
		register(registry, &m.notInjected),
		register(registry, &m.refused),
		register(registry, &m.switched),
		register(registry, &m.errors))
}

func register[C prometheus.Collector](registry prometheus.Registerer, collector *C) error {
	err := registry.Register(*collector)
	var before prometheus.AlreadyRegisteredError
	if errors.As(err, &before) {
		*collector = before.ExistingCollector.(C)
		return nil
	}
	if err != nil {
		return fmt.Errorf("registering metrics: %w", err)
	}
	return nil
}
