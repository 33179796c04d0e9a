package router

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/detour-dev/detour/api"
)

// peers asks the other replicas what proxies have told them: a proxy acknowledges to one replica, and each is to tell
// the whole truth.
type peers struct {
	address    string // host:port of a Service whose host resolves to every replica; "" means that there are none
	self       []netip.Addr
	serverName string
	caFile     string
	tokenFile  string
	lookup     func(ctx context.Context, network, host string) ([]netip.Addr, error)
	acks       *ackStore
	latest     *latest[snapshot]
	log        *slog.Logger
	trouble    atomic.Pointer[string] // the last that was logged; it is not logged at each attempt
}

const (
	askOften    = 2 * time.Second // while a preview is on its way
	askRarely   = 15 * time.Second
	peerTimeout = time.Second
	maxPeerAcks = 64 << 20
)

func newPeers(cfg Config, acks *ackStore, latest *latest[snapshot]) *peers {
	p := &peers{
		address: cfg.Peers, serverName: cfg.ServerName, tokenFile: cfg.TokenFile,
		caFile: filepath.Join(cfg.CertDir, "ca.crt"),
		lookup: net.DefaultResolver.LookupNetIP,
		acks:   acks, latest: latest, log: cfg.Log,
	}
	for part := range strings.SplitSeq(cfg.PodIP, ",") {
		if ip, err := netip.ParseAddr(strings.TrimSpace(part)); err == nil {
			p.self = append(p.self, ip)
		}
	}
	return p
}

func (p *peers) run(ctx context.Context) error {
	var last time.Time
	tick := time.NewTicker(askOften)
	defer tick.Stop()
	for {
		snapshot, _ := p.latest.get()
		if snapshot.hasUnrouted() || time.Since(last) >= askRarely {
			p.ask(ctx)
			last = time.Now()
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// hasUnrouted reports whether an acknowledgement may be missing.
func (s snapshot) hasUnrouted() bool {
	for _, v := range s {
		if v == nil {
			continue
		}
		for _, p := range v.Status.Previews {
			if p.State == api.StatePending {
				return true
			}
		}
	}
	return false
}

// ask asks every other replica, all at once. One that does not answer in time is left out: it is going or coming, and
// its proxies acknowledge elsewhere.
func (p *peers) ask(ctx context.Context) {
	if p.address == "" {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, peerTimeout)
	defer cancel()
	urls, err := p.urls(ctx)
	if err != nil {
		p.report(fmt.Errorf("looking up %s: %w", p.address, err))
		return
	}
	client, err := p.client()
	if err != nil {
		p.report(err)
		return
	}
	p.report(nil)
	defer client.CloseIdleConnections()
	var asked sync.WaitGroup
	for _, url := range urls {
		asked.Go(func() {
			acks, err := p.get(ctx, client, url)
			if err != nil {
				p.log.Debug("asking a peer", "peer", url, "error", err)
				return
			}
			p.acks.merge(acks)
		})
	}
	asked.Wait()
}

// report logs what keeps the replica from asking anyone, when it changes.
func (p *peers) report(err error) {
	message := ""
	if err != nil {
		message = err.Error()
	}
	if last := p.trouble.Swap(&message); message != "" && (last == nil || *last != message) {
		p.log.Warn("cannot ask the other replicas what proxies have acknowledged", "error", err)
	}
}

// urls lists where the other replicas tell what they know.
func (p *peers) urls(ctx context.Context) ([]string, error) {
	host, port, err := net.SplitHostPort(p.address)
	if err != nil {
		return nil, err
	}
	ips, err := p.lookup(ctx, "ip", host)
	if err != nil {
		return nil, err
	}
	var urls []string
	for _, ip := range ips {
		if ip = ip.Unmap(); !slices.Contains(p.self, ip) {
			urls = append(urls, "https://"+net.JoinHostPort(ip.String(), port)+api.PathAcks)
		}
	}
	return urls, nil
}

// client trusts what the CA file says now.
func (p *peers) client() (*http.Client, error) {
	pem, err := os.ReadFile(p.caFile)
	if err != nil {
		return nil, fmt.Errorf("reading the CA of peers: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("reading the CA of peers: %s holds no certificate", p.caFile)
	}
	return &http.Client{Transport: &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: roots, ServerName: p.serverName, MinVersion: tls.VersionTLS12},
	}}, nil
}

func (p *peers) get(ctx context.Context, client *http.Client, url string) (api.Acks, error) {
	token, err := os.ReadFile(p.tokenFile)
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(token)))
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		return nil, errors.New(resp.Status)
	}
	var acks api.Acks
	err = json.NewDecoder(io.LimitReader(resp.Body, maxPeerAcks)).Decode(&acks)
	return acks, err
}
