package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"time"

	"github.com/detour-dev/detour/test/lossless/result"
)

// namespace is where the apps and their clients are.
const namespace = "lossless"

// driver takes the cluster through the timeline, and tells the clients what to expect.
type driver struct {
	control, brutal bool
	hold, gone      time.Duration
	rate            float64
	image           string
	previous        string

	clients []string // the addresses of the clients' Pods
	orders  result.Orders
	started time.Time
}

// run goes through the timeline.
func (d *driver) run(ctx context.Context) error {
	if err := d.prepare(ctx); err != nil {
		return err
	}
	for _, step := range d.timeline() {
		d.log("%s", step.name)
		d.orders.Phase = step.name
		if err := d.order(ctx); err != nil {
			return err
		}
		if err := step.do(ctx); err != nil {
			return fmt.Errorf("%s: %w", step.name, err)
		}
		if err := d.rest(ctx, d.hold); err != nil {
			return err
		}
	}
	return nil
}

func (d *driver) log(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "%s %4.0f s  %s\n", time.Now().Format("15:04:05.000"), time.Since(d.started).Seconds(), fmt.Sprintf(format, args...))
}

func (d *driver) rest(ctx context.Context, pause time.Duration) error {
	select {
	case <-time.After(pause):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// prepare starts the apps and the clients.
func (d *driver) prepare(ctx context.Context) error {
	if !d.control {
		if err := d.deploy(ctx); err != nil {
			return err
		}
	}
	for _, name := range []string{"namespace", "services", "apps"} {
		if err := d.apply(ctx, name); err != nil {
			return err
		}
	}
	if err := d.rolledOut(ctx, apps...); err != nil {
		return err
	}
	if err := d.apply(ctx, "clients"); err != nil { // when the Services are there: the kubelet tells them their addresses
		return err
	}
	if err := kubectl(ctx, "wait", "pods", "-l", "app=clients", "--for=condition=Ready", "--timeout=60s"); err != nil {
		return err
	}
	var err error
	d.clients, err = fields(ctx, "get", "pods", "-l", "app=clients", "-o", "jsonpath={.items[*].status.podIP}")
	return err
}

// order tells every Pod of clients, and returns when they have obeyed.
func (d *driver) order(ctx context.Context) error {
	body, err := json.Marshal(d.orders)
	if err != nil {
		return err
	}
	for _, client := range d.clients {
		if _, err := ask(ctx, http.MethodPut, "http://"+client+":9000/orders", body); err != nil {
			return fmt.Errorf("telling the clients: %w", err)
		}
	}
	return nil
}

// sendEach has clients send keys to the services that they are given with; who says who may answer. Nobody sends a key in
// the control run.
func (d *driver) sendEach(ctx context.Context, who result.Strictness, services map[string]string) error {
	if d.control {
		return nil
	}
	for key, service := range services {
		d.orders.Keys[key] = result.Key{Service: service, Who: who}
	}
	return d.order(ctx)
}

// sendNoMore returns when no request with the keys is under way any more.
func (d *driver) sendNoMore(ctx context.Context, keys ...string) error {
	for _, key := range keys {
		delete(d.orders.Keys, key)
	}
	return d.order(ctx)
}

func (d *driver) reports(ctx context.Context) ([]result.Report, error) {
	var reports []result.Report
	for _, client := range d.clients {
		body, err := ask(ctx, http.MethodGet, "http://"+client+":9000/report", nil)
		if err != nil {
			return reports, fmt.Errorf("asking the clients what they saw: %w", err)
		}
		var r result.Report
		if err := json.Unmarshal(body, &r); err != nil {
			return reports, err
		}
		reports = append(reports, r)
	}
	return reports, nil
}

func ask(ctx context.Context, method, url string, body []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if resp.StatusCode != http.StatusOK {
		err = errors.Join(err, fmt.Errorf("%s: %s: %.200s", url, resp.Status, answer))
	}
	return answer, err
}
