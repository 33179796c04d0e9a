package router

import (
	"context"
	"fmt"
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	authenticationv1 "k8s.io/api/authentication/v1"

	"github.com/detour-dev/detour/router/dashboard"
	"github.com/detour-dev/detour/router/gateway"
	"github.com/detour-dev/detour/router/view"
)

// newGateway gives the gateway what it takes from the rest of the router, the dashboard among it; nil when no URL leads
// to it.
func newGateway(cfg gateway.Config, latest *latest[snapshot], registry prometheus.Registerer, keys *keyring, auth *authenticator, pages *dashboard.Dashboard) (*gateway.Gateway, error) {
	if cfg.URL == "" {
		return nil, nil
	}
	cfg.Dashboard = pages
	cfg.Keys = keys.current
	cfg.Reviewer = linkReviewer{auth}
	g, err := gateway.New(cfg, viewsOf(latest), registry)
	if err != nil {
		return nil, fmt.Errorf("configuring the gateway: %w", err)
	}
	return g, nil
}

func newDashboard(cfg gateway.Config, latest *latest[snapshot], acks *ackStore) *dashboard.Dashboard {
	return dashboard.New(dashboard.Config{Views: viewsOf(latest), Acks: acks.fresh, Open: cfg.Open})
}

func viewsOf(latest *latest[snapshot]) func() (map[string]*view.View, <-chan struct{}) {
	return func() (map[string]*view.View, <-chan struct{}) { return latest.get() }
}

// linkReviewer tells the gateway who may have links: those who may read the status from the router's API.
type linkReviewer struct{ auth *authenticator }

func (l linkReviewer) User(r *http.Request) (authenticationv1.UserInfo, error) { return l.auth.user(r) }

func (l linkReviewer) MayListPods(ctx context.Context, user authenticationv1.UserInfo, namespace string) (bool, error) {
	return l.auth.reviewer.mayListPods(ctx, user, namespace)
}
