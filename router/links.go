package router

import (
	"context"
	"fmt"
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	authenticationv1 "k8s.io/api/authentication/v1"

	"github.com/detour-dev/detour/router/gateway"
	"github.com/detour-dev/detour/router/view"
)

// newGateway gives the gateway what it takes from the rest of the router; nil when no URL leads to it. This is the one
// place where what is served on the gateway's own host beside links is set: cfg.Dashboard.
func newGateway(cfg gateway.Config, latest *latest[snapshot], registry prometheus.Registerer, keys *keyring, auth *authenticator) (*gateway.Gateway, error) {
	if cfg.URL == "" {
		return nil, nil
	}
	cfg.Keys = keys.current
	cfg.Reviewer = linkReviewer{auth}
	views := func() (map[string]*view.View, <-chan struct{}) { return latest.get() }
	g, err := gateway.New(cfg, views, registry)
	if err != nil {
		return nil, fmt.Errorf("configuring the gateway: %w", err)
	}
	return g, nil
}

// linkReviewer tells the gateway who may have links: those who may read the status from the router's API.
type linkReviewer struct{ auth *authenticator }

func (l linkReviewer) User(r *http.Request) (authenticationv1.UserInfo, error) { return l.auth.user(r) }

func (l linkReviewer) MayListPods(ctx context.Context, user authenticationv1.UserInfo, namespace string) (bool, error) {
	return l.auth.reviewer.mayListPods(ctx, user, namespace)
}
