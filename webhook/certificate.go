package webhook

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"time"
)

const (
	authorityLife = 365 * 24 * time.Hour
	leafLife      = 90 * 24 * time.Hour // less than the third of authorityLife that an authority has left when it is replaced

	// clockSkew is how far the clocks of those who check a certificate may be behind.
	clockSkew = time.Hour

	// spreading is how long a new authority is only told, before anything is signed with it: kubelets take up to two
	// minutes to bring a changed ConfigMap into running Pods.
	spreading = 10 * time.Minute
)

// pair is a certificate and its key.
type pair struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
}

// newAuthority makes a certificate that signs others.
func newAuthority(now time.Time) (pair, error) {
	return newPair(&x509.Certificate{
		Subject:               pkix.Name{CommonName: "detour"},
		NotBefore:             now.Add(-clockSkew),
		NotAfter:              now.Add(authorityLife),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
		IsCA:                  true,
		BasicConstraintsValid: true,
	}, nil)
}

// sign makes a certificate for a server of these names.
func (authority pair) sign(names []string, now time.Time) (pair, error) {
	return newPair(&x509.Certificate{
		Subject:               pkix.Name{CommonName: "detour"}, // names may be longer than the 64 characters of a common name
		DNSNames:              names,
		NotBefore:             now.Add(-clockSkew),
		NotAfter:              now.Add(leafLife),
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true,
	}, &authority)
}

// newPair makes a key and has it certified by the issuer, or by itself.
func newPair(template *x509.Certificate, issuer *pair) (pair, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return pair{}, fmt.Errorf("making a key: %w", err)
	}
	if issuer == nil {
		issuer = &pair{template, key}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, issuer.certificate, key.Public(), issuer.key)
	if err != nil {
		return pair{}, fmt.Errorf("signing a certificate: %w", err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		return pair{}, fmt.Errorf("reading the signed certificate: %w", err)
	}
	return pair{certificate, key}, nil
}

// parsePair reads what encode has written.
func parsePair(certificate, key []byte) (pair, error) {
	both, err := tls.X509KeyPair(certificate, key)
	if err != nil {
		return pair{}, err
	}
	private, ok := both.PrivateKey.(*ecdsa.PrivateKey)
	if !ok {
		return pair{}, fmt.Errorf("key is a %T, want ECDSA", both.PrivateKey)
	}
	return pair{both.Leaf, private}, nil
}

// encode renders the pair as PEM.
func (p pair) encode() (certificate, key []byte, err error) {
	der, err := x509.MarshalPKCS8PrivateKey(p.key)
	if err != nil {
		return nil, nil, fmt.Errorf("encoding a key: %w", err)
	}
	return encodeCertificate(p.certificate), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

func encodeCertificate(c *x509.Certificate) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})
}

// due reports whether two thirds of a certificate's life have passed.
func due(c *x509.Certificate, now time.Time) bool {
	return now.After(c.NotAfter.Add(-c.NotAfter.Sub(c.NotBefore) / 3))
}

// usableAuthority says why an authority has to be replaced, or nothing.
func (p pair) usableAuthority(now time.Time) error {
	switch {
	case !p.certificate.IsCA:
		return errors.New("it is not an authority")
	case due(p.certificate, now):
		return fmt.Errorf("it ends on %s", p.certificate.NotAfter.Format(time.DateOnly))
	}
	return nil
}

// usableLeaf says why a server's certificate has to be replaced, or nothing. One that an earlier authority signed is
// good while the new authority is being spread.
func (p pair) usableLeaf(authority pair, bundle []byte, names []string, now time.Time) error {
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(bundle)
	_, err := p.certificate.Verify(x509.VerifyOptions{Roots: roots, CurrentTime: now})
	spread := now.After(authority.certificate.NotBefore.Add(clockSkew + spreading))
	switch {
	case err != nil:
		return err
	case !slices.Equal(p.certificate.DNSNames, names):
		return fmt.Errorf("it is for %q, want %q", p.certificate.DNSNames, names)
	case due(p.certificate, now):
		return fmt.Errorf("it ends on %s", p.certificate.NotAfter.Format(time.DateOnly))
	case spread && p.certificate.CheckSignatureFrom(authority.certificate) != nil:
		return errors.New("an earlier authority signed it")
	}
	return nil
}

// joinBundles puts the current authorities before the former ones that still count. Certificates of the former are
// trusted until they end, so that nothing is cut off while a new authority spreads.
func joinBundles(current, former []byte, now time.Time) ([]byte, error) {
	certificates := parseBundle(current)
	if len(certificates) == 0 {
		return nil, errors.New("the current CA bundle holds no certificate")
	}
	var joined []byte
	for _, c := range append(certificates, parseBundle(former)...) {
		block := encodeCertificate(c)
		if now.Before(c.NotAfter) && !bytes.Contains(joined, block) {
			joined = append(joined, block...)
		}
	}
	return joined, nil
}

// parseBundle returns the certificates in a PEM file and skips everything else.
func parseBundle(bundle []byte) []*x509.Certificate {
	var certificates []*x509.Certificate
	for block, rest := pem.Decode(bundle); block != nil; block, rest = pem.Decode(rest) {
		if c, err := x509.ParseCertificate(block.Bytes); err == nil {
			certificates = append(certificates, c)
		}
	}
	return certificates
}
