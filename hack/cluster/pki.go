package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

// apiNames are the names that the API server is called by, from Pods and from the machine.
var apiNames = []string{
	"localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local",
}

// validity is longer than any node of this kind lives.
const validity = 365 * 24 * time.Hour

// authority signs every certificate of the node.
type authority struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
	pem         []byte // the certificate
}

// pair is a certificate and its private key, as PEM.
type pair struct{ certificate, key []byte }

func newAuthority() (authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return authority{}, fmt.Errorf("making the authority's key: %w", err)
	}
	template := certificate("detour-cluster")
	template.IsCA = true
	template.BasicConstraintsValid = true
	template.KeyUsage |= x509.KeyUsageCertSign
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return authority{}, fmt.Errorf("signing the authority: %w", err)
	}
	signed, err := x509.ParseCertificate(der)
	if err != nil {
		return authority{}, fmt.Errorf("reading the authority's certificate: %w", err)
	}
	return authority{certificate: signed, key: key, pem: encode("CERTIFICATE", der)}, nil
}

// client makes a certificate that the API server, and the kubelet, take for that user and those groups.
func (a authority) client(user string, groups ...string) (pair, error) {
	template := certificate(user)
	template.Subject.Organization = groups
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	return a.sign(template)
}

// server makes the API server's certificate, for every name and address it is called by.
func (a authority) server(names []string, addresses ...string) (pair, error) {
	template := certificate("kube-apiserver")
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	template.DNSNames = names
	for _, address := range addresses {
		template.IPAddresses = append(template.IPAddresses, net.ParseIP(address))
	}
	return a.sign(template)
}

func (a authority) sign(template *x509.Certificate) (pair, error) {
	key, keyPEM, err := newKey()
	if err != nil {
		return pair{}, err
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.certificate, key.Public(), a.key)
	if err != nil {
		return pair{}, fmt.Errorf("signing the certificate of %s: %w", template.Subject.CommonName, err)
	}
	return pair{certificate: encode("CERTIFICATE", der), key: keyPEM}, nil
}

// certificate has what all of them have.
func certificate(name string) *x509.Certificate {
	now := time.Now()
	return &x509.Certificate{
		SerialNumber: big.NewInt(now.UnixNano()),
		Subject:      pkix.Name{CommonName: name},
		NotBefore:    now.Add(-time.Hour), // clocks of tests may stand a little back
		NotAfter:     now.Add(validity),
		KeyUsage:     x509.KeyUsageDigitalSignature,
	}
}

func newKey() (*ecdsa.PrivateKey, []byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("making a key: %w", err)
	}
	keyPEM, err := keyPEM(key)
	return key, keyPEM, err
}

// keyPEM writes a key in the one format that the API server also reads the public key from.
func keyPEM(key *ecdsa.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("writing a key: %w", err)
	}
	return encode("EC PRIVATE KEY", der), nil
}

func encode(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

// users are the programs that call the API server, by the name of their kubeconfig.
var users = []struct {
	file, user string
	groups     []string
}{
	{"admin", "admin", []string{"system:masters"}},
	{"kube-controller-manager", "system:kube-controller-manager", nil},
	{"kube-proxy", "system:kube-proxy", nil},
	{"kube-scheduler", "system:kube-scheduler", nil},
	{"kubelet", "system:node:" + nodeName, []string{"system:nodes"}},
}

// hostUser is the name of the admin's second kubeconfig, for use outside the node's network.
const hostUser = "host"

// writeCredentials makes a new authority and writes all that the node's programs and the user need to trust each other.
func writeCredentials(hostPort int) error {
	ca, err := newAuthority()
	if err != nil {
		return err
	}
	if err := writeKubeconfigs(ca, hostPort); err != nil {
		return err
	}
	caKey, err := keyPEM(ca.key)
	if err != nil {
		return err
	}
	_, tokenKey, err := newKey()
	if err != nil {
		return err
	}
	server, err := ca.server(apiNames, "127.0.0.1", nodeAddress, apiAddress)
	if err != nil {
		return err
	}
	toKubelet, err := ca.client("kube-apiserver-kubelet-client", "system:masters")
	if err != nil {
		return err
	}
	return writeFiles(filepath.Join(stateDir, "pki"), map[string][]byte{
		"ca.crt": ca.pem, "ca.key": caKey,
		"apiserver.crt": server.certificate, "apiserver.key": server.key,
		"to-kubelet.crt": toKubelet.certificate, "to-kubelet.key": toKubelet.key,
		"service-accounts.key": tokenKey,
	})
}

// kubeconfig is what config/kubeconfig.yaml refers to.
type kubeconfig struct {
	Server               string
	CA, Certificate, Key []byte
}

// writeKubeconfigs writes one for each user, and the admin's second one.
func writeKubeconfigs(ca authority, hostPort int) error {
	files := map[string][]byte{}
	for _, u := range users {
		credentials, err := ca.client(u.user, u.groups...)
		if err != nil {
			return err
		}
		config := kubeconfig{
			Server: "https://" + net.JoinHostPort(nodeAddress, apiPort),
			CA:     ca.pem, Certificate: credentials.certificate, Key: credentials.key,
		}
		if files[u.file], err = render("kubeconfig.yaml", config); err != nil {
			return err
		}
		if u.file == "admin" {
			config.Server = fmt.Sprintf("https://127.0.0.1:%d", hostPort)
			if files[hostUser], err = render("kubeconfig.yaml", config); err != nil {
				return err
			}
		}
	}
	return writeFiles(filepath.Join(stateDir, "kubeconfig"), files)
}

// kubeconfigPath is where the kubeconfig of that name is.
func kubeconfigPath(name string) string { return filepath.Join(stateDir, "kubeconfig", name) }

// writeFiles writes files that are nobody else's to read.
func writeFiles(dir string, files map[string][]byte) error {
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			return fmt.Errorf("writing credentials: %w", err)
		}
	}
	return nil
}
