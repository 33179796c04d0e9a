package main

import (
	"crypto/tls"
	"crypto/x509"
	"testing"
)

func TestCertificatesAreTrusted(t *testing.T) {
	ca, err := newAuthority()
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca.pem)
	server, err := ca.server(apiNames, "127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	client, err := ca.client("somebody", "some:group")
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		pair    pair
		options x509.VerifyOptions
	}{
		"server by address": {server, x509.VerifyOptions{DNSName: "127.0.0.1"}},
		"server by name":    {server, x509.VerifyOptions{DNSName: "kubernetes.default.svc"}},
		"client":            {client, x509.VerifyOptions{KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}},
	} {
		t.Run(name, func(t *testing.T) {
			loaded, err := tls.X509KeyPair(test.pair.certificate, test.pair.key)
			if err != nil {
				t.Fatal(err)
			}
			test.options.Roots = roots
			if _, err := loaded.Leaf.Verify(test.options); err != nil {
				t.Error(err)
			}
		})
	}
}

// The API server takes the first as the user and the second as its groups.
func TestClientSubject(t *testing.T) {
	ca, err := newAuthority()
	if err != nil {
		t.Fatal(err)
	}
	made, err := ca.client("somebody", "some:group")
	if err != nil {
		t.Fatal(err)
	}
	loaded, err := tls.X509KeyPair(made.certificate, made.key)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := loaded.Leaf.Subject.String(), "CN=somebody,O=some:group"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}
