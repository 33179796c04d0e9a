package router

import (
	"context"
	"crypto/sha256"
	"fmt"
	"maps"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"
	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/detour-dev/detour/api"
	"github.com/detour-dev/detour/router/gateway"
)

// reviewer asks the API server about tokens and the users behind them.
type reviewer interface {
	// reviewToken says who shows a token that is made for [api.Audience].
	reviewToken(ctx context.Context, token string) (authenticationv1.TokenReviewStatus, error)
	// mayListPods reports whether a user may list the Pods of a namespace.
	mayListPods(ctx context.Context, user authenticationv1.UserInfo, namespace string) (bool, error)
}

// authenticator finds out who makes a request. It remembers the tokens that were accepted for a while, so that a
// thousand proxies that come back at once do not become a thousand reviews a second for as long as they retry.
type authenticator struct {
	reviewer  reviewer
	tokenFile string // the router's own token
	count     func(result string)

	flights singleflight.Group
	mu      sync.Mutex
	known   map[[sha256.Size]byte]acceptance
}

type acceptance struct {
	user  authenticationv1.UserInfo
	until time.Time
}

const (
	acceptedFor   = time.Minute
	maxAccepted   = 10_000
	reviewTimeout = 10 * time.Second
)

// errUnauthorized is wrapped by the errors that say why a caller is not let in.
var errUnauthorized = gateway.ErrUnauthorized

func newAuthenticator(r reviewer, tokenFile string, count func(result string)) *authenticator {
	return &authenticator{
		reviewer: r, tokenFile: tokenFile, count: count,
		known: map[[sha256.Size]byte]acceptance{},
	}
}

// user is whoever shows a token that is made for the router.
func (a *authenticator) user(r *http.Request) (authenticationv1.UserInfo, error) {
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	token = strings.TrimSpace(token)
	if !strings.EqualFold(scheme, "Bearer") || token == "" {
		return authenticationv1.UserInfo{}, fmt.Errorf("%w: show a token for the audience %s as 'Authorization: Bearer <token>'", errUnauthorized, api.Audience)
	}
	return a.accept(r.Context(), token)
}

// podRef is a Pod as its token names it.
type podRef struct {
	types.NamespacedName
	uid types.UID
}

// pod is the Pod that a request's token is bound to.
func (a *authenticator) pod(r *http.Request) (podRef, error) {
	user, err := a.user(r)
	if err != nil {
		return podRef{}, err
	}
	pod, ok := podOf(user)
	if !ok {
		return podRef{}, fmt.Errorf("%w: the token of %s is not bound to a Pod: use a projected serviceAccountToken volume", errUnauthorized, user.Username)
	}
	return pod, nil
}

// podOf reads the claims that the API server puts into a bound token's user
// (https://kubernetes.io/docs/reference/access-authn-authz/service-accounts-admin/).
func podOf(user authenticationv1.UserInfo) (podRef, bool) {
	account, found := strings.CutPrefix(user.Username, "system:serviceaccount:")
	namespace, _, separated := strings.Cut(account, ":")
	name := user.Extra["authentication.kubernetes.io/pod-name"]
	uid := user.Extra["authentication.kubernetes.io/pod-uid"]
	if !found || !separated || len(name) != 1 || len(uid) != 1 || uid[0] == "" {
		return podRef{}, false
	}
	return podRef{types.NamespacedName{Namespace: namespace, Name: name[0]}, types.UID(uid[0])}, true
}

// peer lets in replicas of the router: those who run as the same ServiceAccount.
func (a *authenticator) peer(r *http.Request) error {
	user, err := a.user(r)
	if err != nil {
		return err
	}
	token, err := os.ReadFile(a.tokenFile)
	if err != nil {
		return fmt.Errorf("reading the router's own token: %w", err)
	}
	self, err := a.accept(r.Context(), strings.TrimSpace(string(token)))
	if err != nil {
		return fmt.Errorf("reviewing the router's own token: %v", err)
	}
	if user.Username != self.Username {
		return fmt.Errorf("%w: %s is not a replica of the router", errUnauthorized, user.Username)
	}
	return nil
}

func (a *authenticator) accept(ctx context.Context, token string) (authenticationv1.UserInfo, error) {
	hash := sha256.Sum256([]byte(token))
	a.mu.Lock()
	known, ok := a.known[hash]
	a.mu.Unlock()
	if ok && time.Now().Before(known.until) {
		a.count("cached")
		return known.user, nil
	}
	// Whoever waits for the same answer shares it, so one who goes away must not end the question.
	user, err, _ := a.flights.Do(string(hash[:]), func() (any, error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), reviewTimeout)
		defer cancel()
		user, err := a.review(ctx, token)
		if err == nil {
			a.remember(hash, user)
		}
		return user, err
	})
	return user.(authenticationv1.UserInfo), err
}

func (a *authenticator) review(ctx context.Context, token string) (authenticationv1.UserInfo, error) {
	status, err := a.reviewer.reviewToken(ctx, token)
	switch {
	case err != nil:
		a.count("error")
		return authenticationv1.UserInfo{}, fmt.Errorf("asking the API server to review a token: %w", err)
	case !status.Authenticated:
		a.count("rejected")
		return authenticationv1.UserInfo{}, fmt.Errorf("%w: the token is not valid for the audience %s", errUnauthorized, api.Audience)
	case !slices.Contains(status.Audiences, api.Audience):
		a.count("rejected")
		return authenticationv1.UserInfo{}, fmt.Errorf("%w: the token is made for the audience %v, not for %s", errUnauthorized, status.Audiences, api.Audience)
	}
	a.count("accepted")
	return status.User, nil
}

func (a *authenticator) remember(hash [sha256.Size]byte, user authenticationv1.UserInfo) {
	now := time.Now()
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.known) >= maxAccepted {
		maps.DeleteFunc(a.known, func(_ [sha256.Size]byte, k acceptance) bool { return now.After(k.until) })
	}
	if len(a.known) >= maxAccepted {
		clear(a.known)
	}
	a.known[hash] = acceptance{user, now.Add(acceptedFor)}
}

// apiReviewer is the API server.
type apiReviewer struct{ client client.Client }

func (r apiReviewer) reviewToken(ctx context.Context, token string) (authenticationv1.TokenReviewStatus, error) {
	review := &authenticationv1.TokenReview{
		Spec: authenticationv1.TokenReviewSpec{Token: token, Audiences: []string{api.Audience}},
	}
	err := r.client.Create(ctx, review)
	return review.Status, err
}

func (r apiReviewer) mayListPods(ctx context.Context, user authenticationv1.UserInfo, namespace string) (bool, error) {
	extra := map[string]authorizationv1.ExtraValue{}
	for key, value := range user.Extra {
		extra[key] = authorizationv1.ExtraValue(value)
	}
	review := &authorizationv1.SubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{
		User: user.Username, Groups: user.Groups, UID: user.UID, Extra: extra,
		ResourceAttributes: &authorizationv1.ResourceAttributes{Namespace: namespace, Verb: "list", Resource: "pods"},
	}}
	err := r.client.Create(ctx, review)
	return review.Status.Allowed, err
}
