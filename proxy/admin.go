package proxy

import (
	"bytes"
	"fmt"
	"net/http"
	"net/netip"
	"time"

	"github.com/VictoriaMetrics/metrics"
)

// admin answers probes, says what the meters have counted, and takes the order to drain. It is served by the loops that
// serve the app's ports, so that a probe that is answered shows that traffic can pass. Every connection is for one request.
type admin struct {
	proxy *Proxy
	late  *timer
}

const (
	adminTime = 5 * time.Second // for a whole connection
	adminHead = 8 << 10
)

// greet takes a connection to the admin port.
func (p *Proxy) greet(l *loop, fd int, from netip.AddrPort) {
	a := &admin{proxy: p}
	s, err := l.adopt(fd, from, a)
	if err != nil {
		p.log.Warn("accepting", "port", "admin", "error", err)
		return
	}
	a.late = l.after(adminTime, s.close)
}

func (a *admin) data(s *socket, b []byte) int {
	end := headEnd(b, 0)
	if end == 0 && len(b) < adminHead {
		return 0
	}
	if s.out.end == endNone {
		a.answer(s, b[:end])
	}
	return len(b)
}

// answer writes the whole answer and ends the connection.
func (a *admin) answer(s *socket, head []byte) {
	status, body := http.StatusBadRequest, "not an HTTP/1 request\n"
	if line, _, ok := cutLine(head); ok && readRequest(head).doubt == "" {
		method, rest, _ := bytes.Cut(line, []byte(" "))
		target, _, _ := bytes.Cut(rest, []byte(" "))
		path, _, _ := bytes.Cut(target, []byte("?"))
		status, body = a.proxy.tell(string(method), string(path), s.remote)
	}
	s.send(fmt.Appendf(nil, "HTTP/1.1 %d %s\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s",
		status, http.StatusText(status), len(body), body))
	s.finish()
}

// tell is what is said at a path.
func (p *Proxy) tell(method, path string, from netip.AddrPort) (status int, body string) {
	switch {
	case method == http.MethodPost && path == pathDrain:
		return p.orderToDrain(from)
	case method != http.MethodGet, path == pathDrain:
		return http.StatusMethodNotAllowed, "only GET is served here, and POST at " + pathDrain + "\n"
	case path == "/readyz" && !p.ready.Load(): // it does not depend on the router
		return http.StatusServiceUnavailable, "not listening\n"
	case path == "/readyz", path == "/healthz":
		return http.StatusOK, "ok\n"
	case path == "/metrics":
		var b bytes.Buffer
		p.meters.set.WritePrometheus(&b)
		metrics.WriteProcessMetrics(&b)
		return http.StatusOK, b.String()
	}
	return http.StatusNotFound, "there are /healthz, /readyz and /metrics\n"
}

func (a *admin) connected(*socket)     {}
func (a *admin) clogged(*socket, bool) {}

func (a *admin) ended(s *socket, _ []byte) { s.end() }

func (a *admin) closed(*socket, error) { a.late.stop() }
