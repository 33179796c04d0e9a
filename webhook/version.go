package webhook

import (
	"context"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"k8s.io/apimachinery/pkg/util/version"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/discovery"
)

// oldestServer is the first version in which native sidecars are stable and EndpointSlices find their ports by name.
const oldestServer = "1.33"

// checkServerEvery is how soon an upgrade, or a downgrade, of the API server is noticed.
const checkServerEvery = 10 * time.Minute

// serverCheck knows whether the API server can do what injected Pods need. It runs on every replica.
type serverCheck struct {
	server discovery.ServerVersionInterface
	log    *slog.Logger
	old    atomic.Bool
}

func (s *serverCheck) tooOld() bool {
	return s.old.Load()
}

// check asks the server. On an error the last answer stays.
func (s *serverCheck) check() error {
	info, err := s.server.ServerVersion()
	if err != nil {
		return fmt.Errorf("asking the API server for its version: %w", err)
	}
	v, err := version.ParseGeneric(info.GitVersion)
	if err != nil {
		return fmt.Errorf("API server version %q: %w", info.GitVersion, err)
	}
	old := v.LessThan(version.MustParseGeneric(oldestServer))
	if s.old.Swap(old) != old {
		s.log.Info("API server's version decides on injection", "version", info.GitVersion, "oldest", oldestServer, "inject", !old)
	}
	return nil
}

// Start checks until ctx ends.
func (s *serverCheck) Start(ctx context.Context) error {
	wait.UntilWithContext(ctx, func(context.Context) {
		if err := s.check(); err != nil {
			s.log.Error("the version of the API server stays as it was known", "error", err)
		}
	}, checkServerEvery)
	return nil
}

func (s *serverCheck) NeedLeaderElection() bool {
	return false
}
