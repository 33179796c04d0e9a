package proxy

import (
	"fmt"
	"io"
	"sync/atomic"

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
	bytes           traffic
	mirrored        *metrics.Counter
	routerConnected *metrics.Gauge
}

// traffic counts the bytes that were received from clients and sent to them.
type traffic struct{ received, sent *metrics.Counter }

func newMeters(current *atomic.Pointer[table]) *meters {
	m := &meters{set: metrics.NewSet()}
	for v := range verdicts {
		m.requests[v] = m.set.NewCounter(fmt.Sprintf("detour_proxy_requests_total{route=%q}", v))
	}
	for p := range protocols {
		m.connections[p] = m.set.NewCounter(fmt.Sprintf("detour_proxy_connections_total{protocol=%q}", p))
		m.active[p] = m.set.NewGauge(fmt.Sprintf("detour_proxy_connections_active{protocol=%q}", p), nil)
	}
	m.bytes = traffic{
		received: m.set.NewCounter(`detour_proxy_bytes_total{direction="received"}`),
		sent:     m.set.NewCounter(`detour_proxy_bytes_total{direction="sent"}`),
	}
	m.mirrored = m.set.NewCounter("detour_proxy_mirrored_total")
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

// dropped counts a copy that did not reach its preview.
func (m *meters) dropped(why string) {
	m.set.GetOrCreateCounter(fmt.Sprintf("detour_proxy_mirror_dropped_total{reason=%q}", why)).Inc()
}

// passed counts a connection that is passed through from now on.
func (m *meters) passed(why doubt) {
	m.set.GetOrCreateCounter(fmt.Sprintf("detour_proxy_passed_through_total{reason=%q}", string(why))).Inc()
}
