package plugin

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	authenticationv1 "k8s.io/api/authentication/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/detour-dev/detour/api"
)

const (
	// tokenLasts is the least that the API server gives.
	tokenLasts = 10 * time.Minute

	gatewayTimeout = 30 * time.Second
	maxLink        = 64 << 10
)

func addTokenFile(cmd *cobra.Command, file *string) {
	cmd.Flags().StringVar(file, "token-file", "", "a token of the audience "+api.Audience+" to ask for a signed link with, in the place of one of ServiceAccount "+api.ServiceAccountLinks)
}

// linksToken is what the gateway knows by who asks for a link: the content of a file, or else a token of the namespace's
// ServiceAccount [api.ServiceAccountLinks].
func (s *session) linksToken(ctx context.Context, file string) (string, error) {
	if file != "" {
		content, err := os.ReadFile(file)
		if err != nil {
			return "", fmt.Errorf("reading the token: %w", err)
		}
		return strings.TrimSpace(string(content)), nil
	}
	seconds := int64(tokenLasts / time.Second)
	request := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{Audiences: []string{api.Audience}, ExpirationSeconds: &seconds}}
	answer, err := s.kube.CoreV1().ServiceAccounts(s.namespace).CreateToken(ctx, api.ServiceAccountLinks, request, metav1.CreateOptions{})
	switch {
	case apierrors.IsForbidden(err):
		return "", fail(exitError, "you may not have tokens of ServiceAccount %s of namespace %s, by which links are asked for: ask %s, or bring another token of the audience %s with --token-file",
			api.ServiceAccountLinks, s.namespace, askForRole, api.Audience)
	case apierrors.IsNotFound(err):
		return "", fail(exitError, "namespace %s has no ServiceAccount %s, by whose tokens links are asked for: %s", s.namespace, api.ServiceAccountLinks, s.howToLink())
	case err != nil:
		return "", fmt.Errorf("asking for a token of ServiceAccount %s of namespace %s: %w", api.ServiceAccountLinks, s.namespace, err)
	}
	return answer.Status.Token, nil
}

// howToLink is what it takes to have links to a namespace.
func (s *session) howToLink() string {
	return fmt.Sprintf(`ask someone who may to run
  kubectl create serviceaccount %[1]s -n %[2]s
  kubectl create rolebinding %[1]s -n %[2]s --clusterrole %[1]s --serviceaccount %[2]s:%[1]s
or bring another token of the audience %[3]s with --token-file`, api.ServiceAccountLinks, s.namespace, api.Audience)
}

// askGateway asks the gateway for a link.
func askGateway(ctx context.Context, gateway, token string, request api.LinkRequest) (api.Link, error) {
	ctx, cancel := context.WithTimeout(ctx, gatewayTimeout)
	defer cancel()
	content, err := json.Marshal(request)
	if err != nil {
		return api.Link{}, fmt.Errorf("writing the request for a link: %w", err)
	}
	where := api.GatewayURL(gateway) + api.PathLinks
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, where, bytes.NewReader(content))
	if err != nil {
		return api.Link{}, fmt.Errorf("the status has %q for the gateway: %w", gateway, err)
	}
	r.Header.Set("Authorization", "Bearer "+token)
	r.Header.Set("Content-Type", "application/json")
	answer, err := gatewayClient().Do(r)
	if err != nil {
		return api.Link{}, fmt.Errorf("asking the gateway for a link: %w", err)
	}
	defer answer.Body.Close()
	return readLink(answer, where)
}

func readLink(answer *http.Response, where string) (api.Link, error) {
	var said struct {
		api.Link
		Error string `json:"error"`
	}
	err := json.NewDecoder(io.LimitReader(answer.Body, maxLink)).Decode(&said)
	switch {
	case answer.Header.Get(api.HeaderError) != "" && said.Error != "":
		return api.Link{}, &refusal{answer.Header.Get(api.HeaderError), said.Error}
	case answer.StatusCode != http.StatusOK || err != nil:
		return api.Link{}, fmt.Errorf("%s answers %s, which is not the gateway's answer: whatever is in front of it has to let POST requests pass there, and their header Authorization",
			where, answer.Status)
	}
	return said.Link, nil
}

// refusal is the gateway's own.
type refusal struct {
	reason  string // of [api.HeaderError]
	message string
}

func (r *refusal) Error() string { return "the gateway gives no link: " + r.message }

// gatewayClient follows no redirect, which would take the token elsewhere, and finds what is below localhost on this
// computer, as browsers do (RFC 6761, section 6.3) and resolvers often do not.
func gatewayClient() *http.Client {
	var dialer net.Dialer
	transport := &http.Transport{
		DisableKeepAlives: true,
		ForceAttemptHTTP2: true,
		Proxy: func(r *http.Request) (*url.URL, error) {
			if isLocal(r.URL.Hostname()) {
				return nil, nil
			}
			return http.ProxyFromEnvironment(r)
		},
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			if host, port, err := net.SplitHostPort(address); err == nil && isLocal(host) {
				address = net.JoinHostPort("127.0.0.1", port)
			}
			return dialer.DialContext(ctx, network, address)
		},
	}
	stay := func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &http.Client{Transport: transport, CheckRedirect: stay}
}

func isLocal(host string) bool {
	return strings.HasSuffix("."+strings.TrimSuffix(strings.ToLower(host), "."), ".localhost")
}
