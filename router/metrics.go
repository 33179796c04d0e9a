package router

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
)

// metrics are the router's own; those of previews are read from the snapshot when they are asked for.
type metrics struct {
	registry *prometheus.Registry
	proxies  prometheus.Gauge
	rebuilds prometheus.Histogram
	reviews  *prometheus.CounterVec
	acks     prometheus.Counter
}

func newMetrics(latest *latest[snapshot], acks *ackStore) *metrics {
	m := &metrics{
		registry: prometheus.NewRegistry(),
		proxies: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "detour_router_proxies", Help: "Proxies that are connected to this replica.",
		}),
		rebuilds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "detour_router_rebuild_seconds", Help: "How long it takes to rebuild all tables.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 4, 8),
		}),
		reviews: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "detour_router_token_reviews_total", Help: "Tokens shown, by result: accepted, cached, rejected, error.",
		}, []string{"result"}),
		acks: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "detour_router_acks_total", Help: "Acknowledgements that proxies have sent to this replica.",
		}),
	}
	m.registry.MustRegister(m.proxies, m.rebuilds, m.reviews, m.acks, previewCollector{latest, acks},
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

func (m *metrics) countReview(result string) { m.reviews.WithLabelValues(result).Inc() }

var (
	previewsDesc = prometheus.NewDesc("detour_previews",
		"Previews by namespace and state.", []string{"namespace", "state"}, nil)
	requestsDesc = prometheus.NewDesc("detour_preview_requests",
		"Requests for a preview, summed over the proxies that run now.", []string{"namespace", "preview"}, nil)
	clearedDesc = prometheus.NewDesc("detour_router_proxies_cleared",
		"Proxies that have acknowledged the empty table, to whichever replica. hack/undeploy waits for them.", []string{"namespace"}, nil)
	errorsDesc = prometheus.NewDesc("detour_preview_errors",
		"Requests for a preview that a proxy answered itself, summed over the proxies that run now.", []string{"namespace", "preview"}, nil)
)

// previewCollector reads the snapshot, so that a preview that is gone leaves no series behind. The sums are gauges:
// they fall when a Pod and its proxy go.
type previewCollector struct {
	latest *latest[snapshot]
	acks   *ackStore
}

func (c previewCollector) Describe(descs chan<- *prometheus.Desc) {
	descs <- previewsDesc
	descs <- requestsDesc
	descs <- errorsDesc
	descs <- clearedDesc
}

func (c previewCollector) Collect(out chan<- prometheus.Metric) {
	snapshot, _ := c.latest.get()
	acks := c.acks.fresh()
	gauge := func(desc *prometheus.Desc, value float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, value, labels...)
	}
	for namespace, n := range cleared(acks) {
		gauge(clearedDesc, float64(n), namespace)
	}
	for namespace, v := range snapshot {
		if v == nil {
			continue
		}
		states := map[string]int{}
		counted := v.Traffic(acks)
		for name := range v.References {
			gauge(requestsDesc, float64(counted[name].Requests), namespace, name)
			gauge(errorsDesc, float64(counted[name].Errors), namespace, name)
		}
		for _, p := range v.Status.Previews {
			states[string(p.State)]++
		}
		for state, n := range states {
			gauge(previewsDesc, float64(n), namespace, state)
		}
	}
}
