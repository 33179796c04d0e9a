package webhook

import (
	"bytes"
	"crypto/x509"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	"github.com/detour-dev/detour/api"
)

// keeping is a keeper whose clock the test turns.
type keeping struct {
	*keeper
	t       *testing.T
	clock   time.Time
	serving *servingCertificate
}

func newKeeping(t *testing.T, objects ...client.Object) *keeping {
	c := fake.NewClientBuilder().WithObjects(testNamespace("detour-system", false)).WithObjects(objects...).Build()
	k := &keeping{t: t, clock: time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)}
	k.keeper = &keeper{
		client: c, members: members{cache: c, own: "detour-system"}, metrics: testMetrics(t), log: slog.New(slog.DiscardHandler),
		names: serverNames("detour-system"),
		now:   func() time.Time { return k.clock },
	}
	k.serving = &servingCertificate{client: c, own: "detour-system", log: k.log}
	return k
}

// testConfigurations are the webhook configurations as the manifests have them.
func testConfigurations() []client.Object {
	mutating := &admissionregistrationv1.MutatingWebhookConfiguration{
		Webhooks: []admissionregistrationv1.MutatingWebhook{{Name: "pods.detour.dev"}, {Name: "services.detour.dev"}},
	}
	validating := &admissionregistrationv1.ValidatingWebhookConfiguration{
		Webhooks: []admissionregistrationv1.ValidatingWebhook{{Name: "previews.detour.dev"}},
	}
	mutating.Name, validating.Name = webhookConfiguration, webhookConfiguration
	return []client.Object{mutating, validating}
}

// configurations are the webhook configurations as they are now.
func (k *keeping) configurations() []client.Object {
	k.t.Helper()
	live := configurations()
	for _, configuration := range live {
		if err := k.client.Get(k.t.Context(), client.ObjectKey{Name: webhookConfiguration}, configuration); err != nil {
			k.t.Fatal(err)
		}
	}
	return live
}

func (k *keeping) after(d time.Duration) {
	k.t.Helper()
	k.clock = k.clock.Add(d)
	if err := k.keep(k.t.Context()); err != nil {
		k.t.Fatal(err)
	}
}

func (k *keeping) bundle() []byte {
	k.t.Helper()
	var cm corev1.ConfigMap
	if err := k.client.Get(k.t.Context(), client.ObjectKey{Namespace: k.members.own, Name: api.ConfigMapCA}, &cm); err != nil {
		k.t.Fatal(err)
	}
	return []byte(cm.Data[api.ConfigMapCAKey])
}

func (k *keeping) secret(name string) *corev1.Secret {
	k.t.Helper()
	var secret corev1.Secret
	if err := k.client.Get(k.t.Context(), client.ObjectKey{Namespace: k.members.own, Name: name}, &secret); err != nil {
		k.t.Fatal(err)
	}
	return &secret
}

// checkTrust verifies both servers' certificates against a bundle.
func (k *keeping) checkTrust(step string, bundle []byte) {
	k.t.Helper()
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(bundle)
	for secret, names := range k.names {
		leaf := parseBundle(k.secret(secret).Data["tls.crt"])[0]
		for _, name := range names {
			if _, err := leaf.Verify(x509.VerifyOptions{Roots: roots, DNSName: name, CurrentTime: k.clock}); err != nil {
				k.t.Errorf("%s: %s as %s: %v", step, secret, name, err)
			}
		}
	}
}

func TestCertificatesAreMadeAndAnnounced(t *testing.T) {
	k := newKeeping(t, testConfigurations()...)
	if _, err := k.serving.get(nil); err == nil {
		t.Error("there is a certificate before it was made")
	}
	k.after(0)
	k.checkTrust("first", k.bundle())
	announced := 0
	for _, configuration := range k.configurations() {
		for _, c := range callers(configuration) {
			announced++
			if !bytes.Equal(c.bundle, k.bundle()) {
				t.Errorf("%s has another CA bundle: %q", c.name, c.bundle)
			}
		}
	}
	if announced != 3 {
		t.Errorf("announced to %d webhooks, want 3", announced)
	}
	if err := k.serving.load(t.Context()); err != nil {
		t.Fatal(err)
	}
	if c, err := k.serving.get(nil); err != nil || c.Leaf.DNSNames[0] != "detour-webhook.detour-system.svc" {
		t.Errorf("serves %v, %v", c, err)
	}
	versions := k.versions()
	k.after(keepEvery)
	if diff := cmp.Diff(versions, k.versions()); diff != "" {
		t.Errorf("the second round wrote again\n%s", diff)
	}
}

func (k *keeping) versions() map[string]string {
	versions := map[string]string{}
	for _, name := range []string{secretAuthority, secretWebhook, secretRouter} {
		versions[name] = k.secret(name).ResourceVersion
	}
	for _, configuration := range k.configurations() {
		versions[callers(configuration)[0].name] = configuration.GetResourceVersion()
	}
	return versions
}

// Over three years, looked at every day and during rotations every five minutes: whoever has the bundle of a round ago
// trusts both servers, and certificates are replaced long before they end.
func TestRotationCutsNobodyOff(t *testing.T) {
	k := newKeeping(t)
	k.after(0)
	authorities, leaves := map[string]bool{}, map[string]bool{}
	for end := k.clock.AddDate(3, 0, 0); k.clock.Before(end); {
		heard := k.bundle()
		step := 24 * time.Hour
		if newest := parseBundle(heard)[0]; k.clock.Sub(newest.NotBefore) < clockSkew+2*spreading {
			step = spreading / 2
		}
		k.after(step)
		k.checkTrust(k.clock.Format(time.DateTime), heard)
		authorities[string(k.secret(secretAuthority).Data["tls.crt"])] = true
		leaf := k.secret(secretRouter).Data["tls.crt"]
		leaves[string(leaf)] = true
		if rest := parseBundle(leaf)[0].NotAfter.Sub(k.clock); rest < leafLife/4 {
			t.Fatalf("%s: only %v are left", k.clock, rest)
		}
		if n := len(parseBundle(k.bundle())); n > 2 {
			t.Fatalf("%s: the bundle has grown to %d", k.clock, n)
		}
	}
	if len(authorities) < 4 || len(leaves) < 18 {
		t.Errorf("%d authorities and %d certificates in three years", len(authorities), len(leaves))
	}
}

func TestDamagedSecretsAreReplaced(t *testing.T) {
	for _, name := range []string{secretAuthority, secretWebhook, secretRouter} {
		k := newKeeping(t)
		k.after(0)
		heard := k.bundle()
		secret := k.secret(name)
		secret.Data["tls.key"] = []byte("nonsense")
		mustUpdate(t, k.client, secret)
		k.after(keepEvery)
		if name != secretAuthority { // its successor signs nothing before it is known
			k.checkTrust(name, heard)
		}
		k.checkTrust(name, k.bundle())
		k.after(spreading)
		k.checkTrust(name, k.bundle())
	}
}

func TestCertificatesFromFiles(t *testing.T) {
	k := newKeeping(t)
	k.dir = t.TempDir()
	if err := k.keep(t.Context()); err == nil {
		t.Error("a missing file is no error")
	}
	var former []byte
	for range 2 {
		authority, err := newAuthority(k.clock)
		if err != nil {
			t.Fatal(err)
		}
		current := encodeCertificate(authority.certificate)
		if err := os.WriteFile(filepath.Join(k.dir, "ca.crt"), current, 0o600); err != nil {
			t.Fatal(err)
		}
		k.after(keepEvery)
		if diff := cmp.Diff(string(current)+string(former), string(k.bundle())); diff != "" {
			t.Errorf("-want +got\n%s", diff)
		}
		former = current
	}
	var secrets corev1.SecretList
	if err := k.client.List(t.Context(), &secrets); err != nil || len(secrets.Items) > 0 {
		t.Errorf("made %d secrets, %v", len(secrets.Items), err)
	}
}

func TestConfigurationsBelongToOurNamespace(t *testing.T) {
	k := newKeeping(t, testConfigurations()...)
	want := []metav1.OwnerReference{{APIVersion: "v1", Kind: "Namespace", Name: "detour-system", UID: "namespace detour-system"}}
	check := func(step string, want []metav1.OwnerReference) {
		t.Helper()
		k.after(keepEvery)
		for _, configuration := range k.configurations() {
			if diff := cmp.Diff(want, configuration.GetOwnerReferences()); diff != "" {
				t.Errorf("%s: %T: (-want +got)\n%s", step, configuration, diff)
			}
		}
	}
	own := func(references ...metav1.OwnerReference) {
		for _, configuration := range k.configurations() {
			configuration.SetOwnerReferences(references)
			if err := k.client.Update(t.Context(), configuration); err != nil {
				t.Fatal(err)
			}
		}
	}
	check("first", want)
	own()
	check("removed", want)
	stale, other := want[0], metav1.OwnerReference{APIVersion: "v1", Kind: "Node", Name: "n", UID: "n"}
	stale.UID = "a namespace of the past"
	own(other, stale)
	check("installed again", []metav1.OwnerReference{other, want[0]})

	k.dir = t.TempDir() // without certificates
	own()
	if err := k.keep(t.Context()); err == nil {
		t.Error("a missing file is no error")
	}
	for _, configuration := range k.configurations() {
		if diff := cmp.Diff(want, configuration.GetOwnerReferences()); diff != "" {
			t.Errorf("without certificates: %T: (-want +got)\n%s", configuration, diff)
		}
	}
}

func TestJoinBundles(t *testing.T) {
	now := time.Now()
	var pem [2][]byte
	for i, made := range []time.Time{now, now.Add(-2 * authorityLife)} {
		a, err := newAuthority(made)
		if err != nil {
			t.Fatal(err)
		}
		pem[i] = encodeCertificate(a.certificate)
	}
	valid, expired := pem[0], pem[1]
	if _, err := joinBundles([]byte("nonsense"), valid, now); err == nil {
		t.Error("a bundle without a certificate is no error")
	}
	noise := bytes.Join([][]byte{[]byte("# a comment\n"), expired, valid, []byte("-----BEGIN")}, nil)
	got, err := joinBundles(valid, noise, now)
	if err != nil || !bytes.Equal(got, valid) {
		t.Errorf("got %q, %v", got, err)
	}
}
