package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"time"
)

const pollEvery = 100 * time.Millisecond

// poll asks until the answer is yes.
func poll(ctx context.Context, timeout time.Duration, done func() bool) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	for tick := time.NewTicker(pollEvery); ; {
		if done() {
			tick.Stop()
			return nil
		}
		select {
		case <-ctx.Done():
			tick.Stop()
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// client asks the API server. What needs more than a question is left to kubectl.
type client struct {
	base string
	http *http.Client
}

// newClient makes a client with the rights of the API server itself towards the kubelet, which are an administrator's.
func newClient(address string) (client, error) {
	pki := filepath.Join(stateDir, "pki")
	own, err := tls.LoadX509KeyPair(filepath.Join(pki, "to-kubelet.crt"), filepath.Join(pki, "to-kubelet.key"))
	if err != nil {
		return client{}, fmt.Errorf("reading credentials: %w", err)
	}
	ca, err := os.ReadFile(filepath.Join(pki, "ca.crt"))
	if err != nil {
		return client{}, fmt.Errorf("reading credentials: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(ca) {
		return client{}, errors.New("reading credentials: ca.crt holds no certificate")
	}
	return client{base: "https://" + address, http: &http.Client{
		Timeout:   5 * time.Second,
		Transport: &http.Transport{TLSClientConfig: &tls.Config{Certificates: []tls.Certificate{own}, RootCAs: roots}},
	}}, nil
}

// get reads the object at path into into.
func (c client) get(ctx context.Context, path string, into any) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, c.base+path, nil)
	if err != nil {
		return err
	}
	response, err := c.http.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return fmt.Errorf("reading %s: %w", path, err)
	}
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("reading %s: %s", path, response.Status)
	}
	if into == nil {
		return nil
	}
	return json.Unmarshal(body, into)
}

// ready says whether the API server serves.
func (c client) ready(ctx context.Context) bool { return c.get(ctx, "/readyz", nil) == nil }

// condition says whether the object at path has that condition, and it is true.
func (c client) condition(ctx context.Context, path, kind string) bool {
	var object struct {
		Status struct {
			Conditions []struct{ Type, Status string }
		}
	}
	if c.get(ctx, path, &object) != nil {
		return false
	}
	for _, have := range object.Status.Conditions {
		if have.Type == kind {
			return have.Status == "True"
		}
	}
	return false
}
