package router

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/detour-dev/detour/api"
)

const aKey = "0123456789abcdef0123456789abcdef"

func newKeyring(objects ...client.Object) *keyring {
	c := fake.NewClientBuilder().WithScheme(scheme.Scheme).WithObjects(objects...).Build()
	return &keyring{client: c, namespace: "detour-system", log: slog.New(slog.DiscardHandler)}
}

func gatewaySecret(keys string) *corev1.Secret {
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: api.SecretGateway, Namespace: "detour-system"}}
	if keys != "" {
		secret.Data = map[string][]byte{api.SecretGatewayKeys: []byte(keys)}
	}
	return secret
}

func TestKeyring(t *testing.T) {
	const another = "a-new-key-that-is-long-enough-for-it"
	for content, c := range map[string]struct {
		keys string // joined by a comma
		err  string
	}{
		aKey:                                     {aKey, ""},
		"\n " + aKey + "\r\n\n" + another + "\n": {aKey + "," + another, ""},
		aKey + "\nshort":                         {"", "has 5 characters"},
	} {
		k := newKeyring(gatewaySecret(content))
		err := k.reread(t.Context())
		if (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) || strings.Contains(textOf(err), aKey) {
			t.Errorf("%q: %v, want %q", content, err, c.err)
		}
		if got := string(bytes.Join(k.current(), []byte(","))); got != c.keys {
			t.Errorf("%q: %q, want %q", content, got, c.keys)
		}
	}
}

func textOf(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// TestKeyringFills an empty Secret, once.
func TestKeyringFills(t *testing.T) {
	for _, empty := range []string{"", "\n"} {
		first := newKeyring(gatewaySecret(empty))
		second := &keyring{client: first.client, namespace: first.namespace, log: first.log}
		for _, k := range []*keyring{first, second} {
			if err := k.reread(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if a, b := first.current(), second.current(); len(a) != 1 || len(a[0]) != 64 || len(b) != 1 || !bytes.Equal(a[0], b[0]) {
			t.Errorf("%d and %d keys", len(a), len(b))
		}
	}
}

// TestKeyringMeetsAnother that fills the Secret between its reading and its writing.
func TestKeyringMeetsAnother(t *testing.T) {
	k := newKeyring(gatewaySecret(""))
	other := &keyring{client: k.client, namespace: k.namespace, log: k.log}
	k.client = interceptor.NewClient(k.client.(client.WithWatch), interceptor.Funcs{
		Update: func(ctx context.Context, c client.WithWatch, o client.Object, opts ...client.UpdateOption) error {
			if err := other.reread(ctx); err != nil {
				return err
			}
			return c.Update(ctx, o, opts...)
		},
	})
	if err := k.reread(t.Context()); !apierrors.IsConflict(err) {
		t.Errorf("%v, want a conflict", err)
	}
	if err := k.reread(t.Context()); err != nil || !bytes.Equal(k.current()[0], other.current()[0]) {
		t.Errorf("the replicas have two keys, or: %v", err)
	}
}

// TestKeyringLosesTheSecret, which is to let nobody in; losing the API server is not.
func TestKeyringLosesTheSecret(t *testing.T) {
	secret := gatewaySecret(aKey)
	k := newKeyring(secret)
	there := k.client
	if err := k.reread(t.Context()); err != nil {
		t.Fatal(err)
	}
	k.client = interceptor.NewClient(there.(client.WithWatch), interceptor.Funcs{
		Get: func(context.Context, client.WithWatch, client.ObjectKey, client.Object, ...client.GetOption) error {
			return errors.New("away")
		},
	})
	if err := k.reread(t.Context()); err == nil || len(k.current()) != 1 {
		t.Errorf("without the API server: %d keys, %v", len(k.current()), err)
	}
	k.client = there
	if err := k.client.Delete(t.Context(), secret); err != nil {
		t.Fatal(err)
	}
	if err := k.reread(t.Context()); err == nil || !strings.Contains(err.Error(), "apply manifests/gateway") || len(k.current()) != 0 {
		t.Errorf("without the Secret: %d keys, %v", len(k.current()), err)
	}
}
