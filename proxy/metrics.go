package proxy

import (
	"fmt"
	"io"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/VictoriaMetrics/metrics"
)

// Reasons of errors: what the metric counts and, where we answer, what the Detour-Error header says.
const (
	reasonAccept           = "accept"            // a connection could not be accepted
	reasonAppRefused       = "app-refused"       // the app did not accept a connection; the client's was reset
	reasonAborted          = "aborted"           // the app or a preview broke off before its answer was complete
	reasonConnect          = "connect"           // 405
	reasonConnectionHeader = "connection-header" // 400
	reasonMalformed        = "malformed"         // 400, or the stream reset
	reasonIdle             = "idle"              // a connection that has carried a key was idle for too long
	reasonNoTable          = "no-table"          // 503
	reasonNoEndpoint       = "no-endpoint"       // 503
	reasonUnreachable      = "unreachable"       // 503
	reasonBaggageFull      = "baggage-full"      // the key did not fit into baggage
	reasonTableRefused     = "table-refused"     // a table could not be used; the one before stays
)

// meters counts what the proxy does, in a set of its own.
type meters struct {
	set             *metrics.Set
	requests        [verdicts]*metrics.Counter
	connections     [protocols]*metrics.Counter
	active          [protocols]*metrics.Gauge
	routerConnected *metrics.Gauge
}

func newMeters(current *atomic.Pointer[table]) *meters {
	m := &meters{set: metrics.NewSet()}
	for v := range verdicts {
		m.requests[v] = m.set.NewCounter(fmt.Sprintf("detour_proxy_requests_total{route=%q}", v))
	}
	for p := range protocols {
		m.connections[p] = m.set.NewCounter(fmt.Sprintf("detour_proxy_connections_total{protocol=%q}", p))
		m.active[p] = m.set.NewGauge(fmt.Sprintf("detour_proxy_connections_active{protocol=%q}", p), nil)
	}
	m.routerConnected = m.set.NewGauge("detour_proxy_router_connected", nil)
	m.set.RegisterMetricsWriter(func(w io.Writer) {
		if t := current.Load(); t != nil {
			metrics.WriteGaugeUint64(w, fmt.Sprintf("detour_proxy_table_info{version=%q}", t.version), 1)
		}
	})
	return m
}

func (m *meters) opened(p protocol) {
	m.connections[p].Inc()
	m.active[p].Inc()
}

func (m *meters) closed(p protocol) { m.active[p].Dec() }

// failed counts an error. Reasons are a closed list, so the set stays small.
func (m *meters) failed(reason string) {
	m.set.GetOrCreateCounter(fmt.Sprintf("detour_proxy_errors_total{reason=%q}", reason)).Inc()
}

// passed counts a connection that is passed through from now on.
func (m *meters) passed(why doubt) {
	m.set.GetOrCreateCounter(fmt.Sprintf("detour_proxy_passed_through_total{reason=%q}", string(why))).Inc()
}

// adminServer serves probes and metrics.
func (p *Proxy) adminServer() *http.Server {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "ok\n") })
	// Ready means that traffic can pass. It does not depend on the router.
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if !p.ready.Load() {
			http.Error(w, "not listening", http.StatusServiceUnavailable)
			return
		}
		io.WriteString(w, "ok\n")
	})
	mux.HandleFunc("GET /metrics", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
		p.meters.set.WritePrometheus(w)
		metrics.WriteProcessMetrics(w)
	})
	return &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second, IdleTimeout: time.Minute}
}
