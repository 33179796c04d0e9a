package router

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/detour-dev/detour/api"
)

// keyring holds the keys of signed links, which are in the Secret [api.SecretGateway]. The manifests bring the Secret
// empty; the first replica that finds it so makes a key. It needs no right to create or to watch Secrets, which RBAC
// could not limit to one name, or not as plainly.
type keyring struct {
	client    client.Client
	namespace string
	log       *slog.Logger

	keys atomic.Pointer[[][]byte]
	said string // the last error in the log
}

// rereadKeys is how long a key may count that somebody has taken out.
const rereadKeys = 10 * time.Second

// minKey is how long a key has to be, in bytes: as long as what HMAC makes of it (RFC 2104, section 3).
const minKey = sha256.Size

// current returns no keys while it has none.
func (k *keyring) current() [][]byte {
	if keys := k.keys.Load(); keys != nil {
		return *keys
	}
	return nil
}

func (k *keyring) run(ctx context.Context) error {
	for {
		err := k.reread(ctx)
		if apierrors.IsConflict(err) {
			continue // another replica has made a key
		}
		k.say(ctx, err)
		if !pause(ctx, rereadKeys) {
			return nil
		}
	}
}

// reread keeps the keys it has while the API server does not answer. What the Secret itself says counts: without it, or
// with nonsense in it, there are no keys.
func (k *keyring) reread(ctx context.Context) error {
	var secret corev1.Secret
	err := k.client.Get(ctx, client.ObjectKey{Namespace: k.namespace, Name: api.SecretGateway}, &secret)
	if apierrors.IsNotFound(err) {
		k.keys.Store(nil)
		return fmt.Errorf("there is no Secret %s in namespace %s: apply manifests/gateway, which brings it", api.SecretGateway, k.namespace)
	}
	if err != nil {
		return fmt.Errorf("reading Secret %s: %w", api.SecretGateway, err)
	}
	if len(bytes.TrimSpace(secret.Data[api.SecretGatewayKeys])) == 0 {
		if err := k.fill(ctx, &secret); err != nil {
			return err
		}
	}
	keys, err := parseKeys(secret.Data[api.SecretGatewayKeys])
	k.keys.Store(&keys)
	return err
}

// fill makes a key, unless the Secret has changed since it was read.
func (k *keyring) fill(ctx context.Context, secret *corev1.Secret) error {
	key := make([]byte, minKey)
	_, _ = rand.Read(key) // it never fails
	if secret.Data == nil {
		secret.Data = map[string][]byte{}
	}
	secret.Data[api.SecretGatewayKeys] = []byte(hex.EncodeToString(key) + "\n")
	if err := k.client.Update(ctx, secret, client.FieldOwner("detour-router")); err != nil {
		return fmt.Errorf("writing a key into Secret %s: %w", api.SecretGateway, err)
	}
	k.log.Info("made the key of signed links", "secret", api.SecretGateway)
	return nil
}

// say tells of an error once, for as long as it is the same.
func (k *keyring) say(ctx context.Context, err error) {
	said := ""
	if err != nil {
		said = err.Error()
	}
	if said != k.said && said != "" && ctx.Err() == nil {
		k.log.Error("reading the keys of signed links", "error", err)
	}
	k.said = said
}

// parseKeys reads one key a line.
func parseKeys(content []byte) ([][]byte, error) {
	var keys [][]byte
	for line := range bytes.Lines(content) {
		key := bytes.TrimSpace(line)
		if len(key) == 0 {
			continue
		}
		if len(key) < minKey {
			return nil, fmt.Errorf("a key in Secret %s has %d characters: use at least %d", api.SecretGateway, len(key), minKey)
		}
		keys = append(keys, key)
	}
	return keys, nil
}
