package proxy

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/VictoriaMetrics/metrics"

	"github.com/detour-dev/detour/api"
)

const (
	firstBackoff = 200 * time.Millisecond
	maxBackoff   = 10 * time.Second
	maxTable     = 16 << 20 // bytes of one table
	ackTimeout   = 10 * time.Second
	dialTimeout  = 5 * time.Second
)

// router brings tables from the router and tells it what is in force. Whatever happens to it, the last table stays.
type router struct {
	url                 string
	tokenFile, caFile   string
	to                  sink
	log                 *slog.Logger
	connected           *metrics.Gauge
	keepAlive, ackEvery time.Duration

	trouble string // the kind of what went wrong last, so that it is logged once
}

func newRouter(cfg Config, p *Proxy) *router {
	return &router{
		url:       strings.TrimSuffix(cfg.Sidecar.Router, "/"),
		tokenFile: cfg.TokenFile,
		caFile:    cfg.CAFile,
		to:        p,
		log:       cfg.Log,
		connected: p.meters.routerConnected,
		keepAlive: api.KeepAlive,
		ackEvery:  api.AckEvery,
	}
}

// run connects again and again until ctx is done.
func (r *router) run(ctx context.Context) {
	backoff := firstBackoff
	for {
		heard, err := r.session(ctx)
		if ctx.Err() != nil {
			return
		}
		if heard {
			backoff = firstBackoff
		}
		r.report(err)
		pause(ctx, backoff/2+rand.N(backoff/2)) // jitter, so that a router that comes back is not met by all at once
		backoff = min(2*backoff, maxBackoff)
	}
}

// trouble is an error with the kind of thing that went wrong.
type trouble struct {
	kind string
	err  error
}

func (t trouble) Error() string { return t.kind + ": " + t.err.Error() }
func (t trouble) Unwrap() error { return t.err }

// report logs what is wrong when it changes, not at each attempt.
func (r *router) report(err error) {
	kind := "stream ended"
	if t := (trouble{}); errors.As(err, &t) {
		kind = t.kind
	}
	if kind != r.trouble {
		r.log.Warn("no table stream from the router; the last table stays in force", "router", r.url, "error", err)
	}
	r.trouble = kind
}

// session is one connection to the router, from its credentials to its end. It reports whether a table came.
func (r *router) session(ctx context.Context) (heard bool, err error) {
	client, err := r.client()
	if err != nil {
		return false, trouble{"reading the CA", err}
	}
	defer client.CloseIdleConnections()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	// Nothing read for three keep-alives: the connection is dead, whatever TCP says.
	silence := 3 * r.keepAlive
	watchdog := time.AfterFunc(silence, func() { cancel(trouble{"silence", fmt.Errorf("nothing heard for %s", silence)}) })
	defer watchdog.Stop()
	resp, err := r.ask(ctx, client, http.MethodGet, api.PathRoutes, nil)
	if err != nil {
		return false, causeOf(ctx, err)
	}
	defer resp.Body.Close()
	r.connected.Set(1)
	defer r.connected.Set(0)
	r.trouble = ""
	r.log.Info("connected to the router", "router", r.url)

	fresh := make(chan struct{}, 1)
	var acks sync.WaitGroup
	defer acks.Wait()
	defer cancel(nil)
	acks.Go(func() { r.acknowledge(ctx, client, fresh) })
	heard, err = r.read(resp.Body, func() { watchdog.Reset(silence) }, fresh)
	return heard, causeOf(ctx, err)
}

// causeOf prefers the reason why ctx was cancelled to the error that followed from it.
func causeOf(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// read puts the tables of a stream in force, one a line, and signals on fresh. alive is called for each line.
func (r *router) read(stream io.Reader, alive func(), fresh chan<- struct{}) (heard bool, err error) {
	lines := bufio.NewScanner(stream)
	lines.Buffer(nil, maxTable)
	for lines.Scan() {
		alive()
		line := bytes.TrimSpace(lines.Bytes())
		if len(line) == 0 {
			continue
		}
		var t api.Table
		if err := json.Unmarshal(line, &t); err != nil {
			return heard, trouble{"reading a table", err}
		}
		heard = true
		if err := r.to.apply(t); err != nil {
			r.log.Error("table refused; the last one stays in force", "error", err)
			continue
		}
		select {
		case fresh <- struct{}{}:
		default: // one is waiting, and it will say the newest
		}
	}
	if err := lines.Err(); err != nil {
		return heard, trouble{"reading", err}
	}
	return heard, trouble{"stream ended", io.EOF}
}

// acknowledge sends what is in force after each table, and now and then for the counters' sake.
func (r *router) acknowledge(ctx context.Context, client *http.Client, fresh <-chan struct{}) {
	tick := time.NewTicker(r.ackEvery)
	defer tick.Stop()
	for {
		select {
		case <-fresh:
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		if err := r.sendAck(ctx, client); err != nil && ctx.Err() == nil {
			r.log.Debug("acknowledging", "error", err) // the stream tells whether the router is there
		}
	}
}

func (r *router) sendAck(ctx context.Context, client *http.Client) error {
	body, err := json.Marshal(r.to.ack())
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, ackTimeout)
	defer cancel()
	resp, err := r.ask(ctx, client, http.MethodPost, api.PathAcks, body)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, io.LimitReader(resp.Body, 4<<10)) // so that the connection can be used again
	return err
}

// ask sends a request with the Pod's token, which the kubelet renews in its file.
func (r *router) ask(ctx context.Context, client *http.Client, method, path string, body []byte) (*http.Response, error) {
	token, err := os.ReadFile(r.tokenFile)
	if err != nil {
		return nil, trouble{"reading the token", err}
	}
	req, err := http.NewRequestWithContext(ctx, method, r.url+path, bytes.NewReader(body))
	if err != nil {
		return nil, trouble{"asking", err}
	}
	req.Header.Set("Authorization", "Bearer "+string(bytes.TrimSpace(token)))
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, trouble{"asking", err}
	}
	if resp.StatusCode/100 != 2 {
		said, _ := io.ReadAll(io.LimitReader(resp.Body, 200))
		resp.Body.Close()
		return nil, trouble{resp.Status, fmt.Errorf("the router answered %s: %s", resp.Status, bytes.TrimSpace(said))}
	}
	return resp, nil
}

// client trusts the CA as it is now. It keeps two HTTP/1.1 connections: one for the stream, one for acks.
func (r *router) client() (*http.Client, error) {
	pem, err := os.ReadFile(r.caFile)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s holds no certificate", r.caFile)
	}
	t := &http.Transport{
		DialContext:         (&net.Dialer{Timeout: dialTimeout}).DialContext,
		TLSHandshakeTimeout: dialTimeout,
		TLSClientConfig:     &tls.Config{RootCAs: roots},
		Protocols:           new(http.Protocols),
	}
	t.Protocols.SetHTTP1(true)
	return &http.Client{Transport: t}, nil
}

// pause waits, or not if ctx is done.
func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
