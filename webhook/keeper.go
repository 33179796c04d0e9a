package webhook

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"gomodules.xyz/jsonpatch/v2"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"

	"github.com/detour-dev/detour/api"
)

// Names of the objects that hold certificates, all in Detour's own namespace but for the last.
const (
	secretAuthority      = "detour-authority"   // the authority that signs the other two
	secretWebhook        = "detour-webhook-tls" // what this server shows
	secretRouter         = "detour-router-tls"  // what the router shows
	webhookConfiguration = "detour"             // both webhook configurations, which hold the CA bundle
)

// keepEvery is how often the certificates and the configurations are looked at.
const keepEvery = 10 * time.Second

// keeper keeps the certificates; it runs on the leader. In a rotation the new authority is told first, beside the old
// one, and signs only when everyone had the time to hear of it:
//
//	authority -> CA bundle, in our ConfigMap -> copies in the namespaces, the webhook configurations -> certificates
//
// With certificates from files, which somebody else signs, only the bundle is its work. Either way it has the webhook
// configurations belong to our namespace. Once that is being deleted, it keeps nothing.
type keeper struct {
	client  client.Client // asks the API server for everything but ConfigMaps and Namespaces
	members members
	dir     string // where certificates come from; empty if they are signed here
	names   map[string][]string
	now     func() time.Time
	metrics *metrics
	log     *slog.Logger
}

// Start keeps until ctx ends.
func (k *keeper) Start(ctx context.Context) error {
	wait.UntilWithContext(ctx, func(ctx context.Context) {
		if err := k.keep(ctx); err != nil && ctx.Err() == nil {
			k.metrics.errors.WithLabelValues("certificates").Inc()
			k.log.Error("certificates or webhook configurations stay as they are, trying again", "error", err)
		}
	}, keepEvery)
	return nil
}

func (k *keeper) keep(ctx context.Context) error {
	if k.members.dissolved(ctx) {
		return nil
	}
	return errors.Join(k.keepCertificates(ctx), k.keepOwner(ctx))
}

func (k *keeper) keepCertificates(ctx context.Context) error {
	if k.dir != "" {
		current, err := os.ReadFile(filepath.Join(k.dir, "ca.crt"))
		if err != nil {
			return err
		}
		_, err = k.keepBundle(ctx, current)
		return err
	}
	authority, err := k.keepAuthority(ctx)
	if err != nil {
		return err
	}
	bundle, err := k.keepBundle(ctx, encodeCertificate(authority.certificate))
	if err != nil {
		return err
	}
	for _, configuration := range configurations() {
		if err := k.announce(ctx, configuration, bundle); err != nil {
			return err
		}
	}
	var errs []error
	for secret, names := range k.names {
		errs = append(errs, k.keepLeaf(ctx, secret, names, authority, bundle))
	}
	return errors.Join(errs...)
}

// keepAuthority returns the authority, a new one when there is none or it has become old.
func (k *keeper) keepAuthority(ctx context.Context) (pair, error) {
	secret, authority, err := k.load(ctx, secretAuthority)
	if err == nil {
		err = authority.usableAuthority(k.now())
	}
	if err == nil || secret == nil {
		return authority, err
	}
	k.log.Info("new authority", "secret", secretAuthority, "reason", err)
	if authority, err = newAuthority(k.now()); err != nil {
		return pair{}, err
	}
	return authority, k.save(ctx, secret, authority, encodeCertificate(authority.certificate))
}

// keepLeaf makes sure that a Secret holds a usable certificate and the bundle.
func (k *keeper) keepLeaf(ctx context.Context, name string, names []string, authority pair, bundle []byte) error {
	secret, leaf, err := k.load(ctx, name)
	if err == nil {
		err = leaf.usableLeaf(authority, bundle, names, k.now())
	}
	switch {
	case secret == nil:
		return err
	case err == nil && bytes.Equal(secret.Data[corev1.ServiceAccountRootCAKey], bundle):
		return nil
	case err != nil:
		k.log.Info("new certificate", "secret", name, "reason", err)
		if leaf, err = authority.sign(names, k.now()); err != nil {
			return err
		}
	}
	return k.save(ctx, secret, leaf, bundle)
}

// load reads a Secret. The error says why there is no usable pair in it; if the Secret is nil, it could not be read
// at all.
func (k *keeper) load(ctx context.Context, name string) (*corev1.Secret, pair, error) {
	secret := &corev1.Secret{}
	err := k.client.Get(ctx, client.ObjectKey{Namespace: k.members.own, Name: name}, secret)
	if apierrors.IsNotFound(err) {
		return &corev1.Secret{ObjectMeta: ourMeta(k.members.own, name), Type: corev1.SecretTypeTLS}, pair{}, err
	}
	if err != nil {
		return nil, pair{}, fmt.Errorf("reading secret %s: %w", name, err)
	}
	p, err := parsePair(secret.Data[corev1.TLSCertKey], secret.Data[corev1.TLSPrivateKeyKey])
	return secret, p, err
}

// save creates or updates a Secret. When a former leader interferes, one of the two gets a conflict.
func (k *keeper) save(ctx context.Context, secret *corev1.Secret, p pair, bundle []byte) error {
	certificate, key, err := p.encode()
	if err != nil {
		return err
	}
	secret.Data = map[string][]byte{
		corev1.TLSCertKey:              certificate,
		corev1.TLSPrivateKeyKey:        key,
		corev1.ServiceAccountRootCAKey: bundle, // "ca.crt"
	}
	if secret.ResourceVersion == "" {
		err = k.client.Create(ctx, secret, client.FieldOwner(fieldOwner))
	} else {
		err = k.client.Update(ctx, secret, client.FieldOwner(fieldOwner))
	}
	if err != nil {
		return fmt.Errorf("writing secret %s: %w", secret.Name, err)
	}
	return nil
}

// keepBundle keeps the bundle in our own ConfigMap, from which [namespaceReconciler] copies it.
func (k *keeper) keepBundle(ctx context.Context, current []byte) ([]byte, error) {
	var former corev1.ConfigMap
	err := k.client.Get(ctx, client.ObjectKey{Namespace: k.members.own, Name: api.ConfigMapCA}, &former)
	if client.IgnoreNotFound(err) != nil {
		return nil, fmt.Errorf("reading the CA bundle: %w", err)
	}
	bundle, err := joinBundles(current, []byte(former.Data[api.ConfigMapCAKey]), k.now())
	if err != nil {
		return nil, err
	}
	return bundle, writeBundle(ctx, k.client, k.members.own, string(bundle))
}

// configurations are the objects that have the API server ask this one.
func configurations() []client.Object {
	return []client.Object{
		&admissionregistrationv1.MutatingWebhookConfiguration{},
		&admissionregistrationv1.ValidatingWebhookConfiguration{},
	}
}

// caller is what a webhook configuration says of one webhook: its name, and whom the API server is to trust.
type caller struct {
	name   string
	bundle []byte
}

func callers(configuration client.Object) []caller {
	var found []caller
	switch c := configuration.(type) {
	case *admissionregistrationv1.MutatingWebhookConfiguration:
		for _, w := range c.Webhooks {
			found = append(found, caller{w.Name, w.ClientConfig.CABundle})
		}
	case *admissionregistrationv1.ValidatingWebhookConfiguration:
		for _, w := range c.Webhooks {
			found = append(found, caller{w.Name, w.ClientConfig.CABundle})
		}
	}
	return found
}

// announce tells the API server whom to trust. Without a configuration there is nobody who asks.
func (k *keeper) announce(ctx context.Context, configuration client.Object, bundle []byte) error {
	if err := k.client.Get(ctx, client.ObjectKey{Name: webhookConfiguration}, configuration); err != nil {
		return client.IgnoreNotFound(err)
	}
	var patch []jsonpatch.JsonPatchOperation
	for i, c := range callers(configuration) {
		if !bytes.Equal(c.bundle, bundle) {
			path := fmt.Sprintf("/webhooks/%d", i)
			patch = append(patch,
				jsonpatch.NewOperation("test", path+"/name", c.name),
				jsonpatch.NewOperation("add", path+"/clientConfig/caBundle", bundle))
		}
	}
	if len(patch) == 0 {
		return nil
	}
	body, err := json.Marshal(patch)
	if err != nil {
		return err
	}
	err = k.client.Patch(ctx, configuration, client.RawPatch(types.JSONPatchType, body), client.FieldOwner(fieldOwner))
	if err != nil {
		return fmt.Errorf("writing the CA bundle of webhook configuration %s: %w", webhookConfiguration, err)
	}
	for _, c := range callers(configuration) {
		k.log.Info("CA bundle announced", "webhook", c.name)
	}
	return nil
}

// keepOwner has the webhook configurations go with our namespace, whoever deletes it: one that nobody answers any more
// would hold up Pods. The namespace's UID, by which the garbage collector knows it, is found only in the cluster.
func (k *keeper) keepOwner(ctx context.Context) error {
	var namespace corev1.Namespace
	if err := k.client.Get(ctx, client.ObjectKey{Name: k.members.own}, &namespace); err != nil {
		return fmt.Errorf("reading namespace %s: %w", k.members.own, err)
	}
	var errs []error
	for _, configuration := range configurations() {
		errs = append(errs, k.handOver(ctx, configuration, &namespace))
	}
	return errors.Join(errs...)
}

// handOver leaves other owners as they are.
func (k *keeper) handOver(ctx context.Context, configuration client.Object, namespace *corev1.Namespace) error {
	if err := k.client.Get(ctx, client.ObjectKey{Name: webhookConfiguration}, configuration); err != nil {
		return client.IgnoreNotFound(err)
	}
	before := configuration.DeepCopyObject().(client.Object)
	if err := controllerutil.SetOwnerReference(namespace, configuration, k.client.Scheme()); err != nil {
		return err
	}
	if equality.Semantic.DeepEqual(before, configuration) {
		return nil
	}
	patch := client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{})
	if err := k.client.Patch(ctx, configuration, patch, client.FieldOwner(fieldOwner)); err != nil {
		return fmt.Errorf("writing the owner of webhook configuration %s: %w", webhookConfiguration, err)
	}
	for _, c := range callers(configuration) {
		k.log.Info("webhook goes with our namespace", "webhook", c.name, "namespace", namespace.Name)
	}
	return nil
}

// servingCertificate is what this server shows, read from its Secret on every replica.
type servingCertificate struct {
	client  client.Reader // asks the API server
	own     string
	log     *slog.Logger
	current atomic.Pointer[tls.Certificate]
}

// get is a tls.Config's GetCertificate.
func (s *servingCertificate) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	if c := s.current.Load(); c != nil {
		return c, nil
	}
	return nil, errors.New("there is no certificate yet")
}

// Start reads the Secret until ctx ends, once a second until it is there.
func (s *servingCertificate) Start(ctx context.Context) error {
	for ctx.Err() == nil {
		if err := s.load(ctx); err != nil && s.current.Load() != nil {
			s.log.Error("keeping the certificate in use", "error", err)
		}
		pause := keepEvery
		if s.current.Load() == nil {
			pause = time.Second
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
	}
	return nil
}

func (s *servingCertificate) load(ctx context.Context) error {
	var secret corev1.Secret
	if err := s.client.Get(ctx, client.ObjectKey{Namespace: s.own, Name: secretWebhook}, &secret); err != nil {
		return fmt.Errorf("reading secret %s: %w", secretWebhook, err)
	}
	c, err := tls.X509KeyPair(secret.Data[corev1.TLSCertKey], secret.Data[corev1.TLSPrivateKeyKey])
	if err != nil {
		return fmt.Errorf("secret %s: %w", secretWebhook, err)
	}
	if before := s.current.Swap(&c); before == nil || !bytes.Equal(before.Certificate[0], c.Certificate[0]) {
		s.log.Info("certificate in use", "secret", secretWebhook, "until", c.Leaf.NotAfter)
	}
	return nil
}

func (s *servingCertificate) NeedLeaderElection() bool {
	return false
}
