package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
)

// finder says where a port of a service is to be reached at this moment.
type finder interface {
	find(service, port string) (address string, err error)
}

// errNowhere: the client does not know an address yet, and has not sent anything.
var errNowhere = errors.New("no address is known yet")

// place is one service, as a client looks for it.
type place struct {
	finder
	service string
}

func (p place) address(port string) (string, error) { return p.find(p.service, port) }

// newFinder is for one of [result.Ways].
func newFinder(ctx context.Context, way string) (finder, error) {
	switch way {
	case "cluster":
		return byName{}, nil
	case "node":
		return byNode{os.Getenv("NODE_IP")}, nil
	case "pod":
		return newByPod(ctx)
	}
	return nil, fmt.Errorf("WAY=%q: want cluster, node or pod", way)
}

// servicePorts are the ports of the services by name, as the manifests have them.
var servicePorts = map[string]int{"http": 80, "grpc": 90, "redis": 6379}

// byName finds a service by the address that the kubelet has put into the environment, without DNS.
type byName struct{}

func (byName) find(service, port string) (string, error) {
	host := os.Getenv(strings.ToUpper(service) + "_SERVICE_HOST")
	if host == "" {
		return "", fmt.Errorf("the environment says nothing of service %s", service)
	}
	return net.JoinHostPort(host, strconv.Itoa(servicePorts[port])), nil
}

// nodePorts are those of the manifests.
var nodePorts = map[string]int{"web http": 31080, "web grpc": 31090, "num http": 31081, "num grpc": 31091, "db redis": 31379}

type byNode struct{ ip string }

func (n byNode) find(service, port string) (string, error) {
	return net.JoinHostPort(n.ip, strconv.Itoa(nodePorts[service+" "+port])), nil
}

// behind is how old the view of ingress controllers and the like may be.
const behind = 5 * time.Second

// byPod finds the ready Pods of a service in its EndpointSlices, as these were some time ago.
type byPod struct {
	mu    sync.Mutex
	views []podView // the oldest first
}

type podView struct {
	at        time.Time
	addresses map[string][]string // by service and port
}

func newByPod(ctx context.Context) (*byPod, error) {
	client, err := apiClient()
	if err != nil {
		return nil, err
	}
	b := &byPod{}
	go b.follow(ctx, client)
	return b, nil
}

func (b *byPod) find(service, port string) (string, error) {
	addresses := b.all(service, port)
	if len(addresses) == 0 {
		return "", errNowhere
	}
	return addresses[rand.N(len(addresses))], nil
}

// all returns every address that was right then.
func (b *byPod) all(service, port string) []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	for len(b.views) > 1 && time.Since(b.views[1].at) >= behind {
		b.views = b.views[1:]
	}
	if len(b.views) == 0 || time.Since(b.views[0].at) < behind {
		return nil
	}
	return b.views[0].addresses[service+" "+port]
}

// follow looks at the EndpointSlices several times a second. What cannot be read is as it was.
func (b *byPod) follow(ctx context.Context, client *http.Client) {
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		at := time.Now()
		if addresses, err := endpoints(ctx, client); err != nil {
			fmt.Fprintln(os.Stderr, "the EndpointSlices are not to be read:", err)
		} else {
			b.mu.Lock()
			b.views = append(b.views, podView{at, addresses})
			b.mu.Unlock()
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

const account = "/var/run/secrets/kubernetes.io/serviceaccount/"

func apiClient() (*http.Client, error) {
	ca, err := os.ReadFile(account + "ca.crt")
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	return &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}}, nil
}

// endpointSlices is the part of an EndpointSliceList that matters here.
type endpointSlices struct {
	Items []struct {
		Metadata struct {
			Labels map[string]string
		}
		Endpoints []struct {
			Addresses  []string
			Conditions struct{ Ready *bool }
		}
		Ports []struct {
			Name string
			Port int
		}
	}
}

// endpoints asks the API server for the ready endpoints in this namespace.
func endpoints(ctx context.Context, client *http.Client) (map[string][]string, error) {
	namespace, err := os.ReadFile(account + "namespace")
	if err != nil {
		return nil, err
	}
	token, err := os.ReadFile(account + "token")
	if err != nil {
		return nil, err
	}
	url := fmt.Sprintf("https://%s/apis/discovery.k8s.io/v1/namespaces/%s/endpointslices",
		net.JoinHostPort(os.Getenv("KUBERNETES_SERVICE_HOST"), os.Getenv("KUBERNETES_SERVICE_PORT")), namespace)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", "Bearer "+string(token))
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: %.200s (%v)", resp.Status, body, err)
	}
	var list endpointSlices
	if err := json.Unmarshal(body, &list); err != nil {
		return nil, err
	}
	return list.ready(), nil
}

func (l endpointSlices) ready() map[string][]string {
	found := map[string][]string{}
	for _, slice := range l.Items {
		for _, port := range slice.Ports {
			name := slice.Metadata.Labels["kubernetes.io/service-name"] + " " + port.Name
			for _, e := range slice.Endpoints {
				if e.Conditions.Ready == nil || *e.Conditions.Ready {
					found[name] = append(found[name], net.JoinHostPort(e.Addresses[0], strconv.Itoa(port.Port)))
				}
			}
		}
	}
	return found
}
