package plugin

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/detour-dev/detour/api"
)

const (
	// trafficTimeout is how long an answer without the traffic is held up for it.
	trafficTimeout = 5 * time.Second
	maxTraffic     = 32 << 20
)

// addTraffic asks the router, through its gateway, what its proxies have counted of reports. All else in a report is told
// without the router, so that it is a note where it cannot be asked.
func (s *session) addTraffic(ctx context.Context, b *board, tokenFile string, reports []report) {
	previews, err := s.askTraffic(ctx, b, tokenFile)
	if err != nil {
		s.note("note: the router alone knows what was requested last, and could not be asked: %v", err)
		return
	}
	for i, r := range reports {
		for _, p := range previews {
			if p.Preview == r.Preview && p.Key == r.Key {
				reports[i].Traffic = p.Traffic
			}
		}
	}
}

// askTraffic reads the namespace's page for programs, by a link that is asked for as any other.
func (s *session) askTraffic(ctx context.Context, b *board, tokenFile string) ([]api.PreviewStatus, error) {
	ctx, cancel := context.WithTimeout(ctx, trafficTimeout)
	defer cancel()
	if b.Gateway == "" {
		return nil, fmt.Errorf("it runs without -gateway-url, so that only Pods reach it, at https://detour-router.%s:8443%s%s with a token of the audience %s",
			system, api.PathStatus, s.namespace, api.Audience)
	}
	link, err := (&visit{dashboard: true, tokenFile: tokenFile}).linkBy(ctx, s, b)
	if err != nil {
		return nil, err
	}
	page, err := url.Parse(link.URL)
	if err != nil {
		return nil, fmt.Errorf("reading the link: %w", err)
	}
	signature := page.Query().Get(api.ParameterSignature)
	page.RawQuery, page.Path = "", page.Path+api.PageStatus
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, page.String(), nil)
	if err != nil {
		return nil, fmt.Errorf("writing the request: %w", err)
	}
	if signature != "" {
		r.Header.Set(api.HeaderSignature, signature)
	}
	answer, err := gatewayClient().Do(r)
	if err != nil {
		return nil, fmt.Errorf("asking the gateway: %w", err)
	}
	defer answer.Body.Close()
	var said api.Status
	err = json.NewDecoder(io.LimitReader(answer.Body, maxTraffic)).Decode(&said)
	if answer.StatusCode != http.StatusOK || err != nil {
		return nil, fmt.Errorf("%s answers %s, which is not the gateway's answer", page, answer.Status)
	}
	return said.Previews, nil
}

// requestsText tells c in a line.
func requestsText(c api.Counters) string {
	var b strings.Builder
	fmt.Fprint(&b, c.Requests)
	if c.Errors > 0 {
		fmt.Fprintf(&b, ", %d of them not answered by it", c.Errors)
	}
	if !c.Last.IsZero() { // older proxies do not tell
		fmt.Fprintf(&b, "; the last %s ago", age(c.Last))
	}
	return b.String()
}
