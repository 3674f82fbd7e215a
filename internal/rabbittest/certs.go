package rabbittest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// Certs is a certificate authority made for one run, with a certificate of the
// server's and one of a client's under it. Everything is PEM.
type Certs struct {
	CA                    []byte
	ServerCert, ServerKey []byte
	ClientCert, ClientKey []byte
}

// CertFiles are the paths of what [Certs.Write] wrote.
type CertFiles struct {
	CA                    string
	ServerCert, ServerKey string
	ClientCert, ClientKey string
}

// NewCerts makes an authority and both certificates, valid from an hour ago for
// a day. The server's names localhost, both loopback addresses and hosts; the
// client's has user as its common name, which EXTERNAL takes for the user.
func NewCerts(user string, hosts ...string) (*Certs, error) {
	ca, err := newAuthority("Warren test CA")
	if err != nil {
		return nil, err
	}
	c := &Certs{CA: ca.pem}
	server := &x509.Certificate{
		Subject:     pkix.Name{CommonName: "localhost"},
		DNSNames:    append([]string{"localhost"}, hosts...),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	if c.ServerCert, c.ServerKey, err = ca.issue(server); err != nil {
		return nil, err
	}
	client := &x509.Certificate{
		Subject:     pkix.Name{CommonName: user},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	if c.ClientCert, c.ClientKey, err = ca.issue(client); err != nil {
		return nil, err
	}
	return c, nil
}

// ServerTLS is for a server that asks for a client's certificate and checks the
// one that it is given.
func (c *Certs) ServerTLS() *tls.Config {
	return &tls.Config{
		MinVersion:   tls.VersionTLS12,
		Certificates: []tls.Certificate{mustPair(c.ServerCert, c.ServerKey)},
		ClientCAs:    c.pool(),
		ClientAuth:   tls.VerifyClientCertIfGiven,
	}
}

// ClientTLS is for a client that trusts the authority and nobody else. With
// identify it shows the client's certificate.
func (c *Certs) ClientTLS(identify bool) *tls.Config {
	cfg := &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: c.pool()}
	if identify {
		cfg.Certificates = []tls.Certificate{mustPair(c.ClientCert, c.ClientKey)}
	}
	return cfg
}

// Write puts everything into files that last as long as the test, for what
// takes its certificates by path.
func (c *Certs) Write(t testing.TB) CertFiles {
	t.Helper()
	dir := t.TempDir()
	write := func(name string, data []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	return CertFiles{
		CA:         write("ca.pem", c.CA),
		ServerCert: write("server.pem", c.ServerCert),
		ServerKey:  write("server-key.pem", c.ServerKey),
		ClientCert: write("client.pem", c.ClientCert),
		ClientKey:  write("client-key.pem", c.ClientKey),
	}
}

func (c *Certs) pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(c.CA)
	return pool
}

// mustPair parses what this package made itself.
func mustPair(cert, key []byte) tls.Certificate {
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		panic(fmt.Sprintf("rabbittest: own certificate: %v", err))
	}
	return pair
}

type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  []byte
}

func newAuthority(name string) (*authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		Subject:               pkix.Name{CommonName: name},
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		IsCA:                  true,
		BasicConstraintsValid: true,
	}
	if err := date(template); err != nil {
		return nil, err
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	return &authority{cert, key, encodePEM("CERTIFICATE", der)}, nil
}

func (a *authority) issue(template *x509.Certificate) (cert, key []byte, err error) {
	priv, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	template.KeyUsage = x509.KeyUsageDigitalSignature
	if err := date(template); err != nil {
		return nil, nil, err
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, priv.Public(), a.key)
	if err != nil {
		return nil, nil, err
	}
	// The older "EC PRIVATE KEY" form: every Erlang that RabbitMQ runs on reads it.
	raw, err := x509.MarshalECPrivateKey(priv)
	if err != nil {
		return nil, nil, err
	}
	return encodePEM("CERTIFICATE", der), encodePEM("EC PRIVATE KEY", raw), nil
}

func date(template *x509.Certificate) (err error) {
	template.NotBefore = time.Now().Add(-time.Hour)
	template.NotAfter = time.Now().Add(24 * time.Hour)
	template.SerialNumber, err = rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	return err
}

func encodePEM(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}
