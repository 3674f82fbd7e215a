package amqp

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"io"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// authority signs certificates for one test.
type authority struct {
	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{t: t}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test authority"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	a.cert, a.key = a.sign(tmpl, nil, nil)
	return a
}

func (a *authority) sign(tmpl, parent *x509.Certificate, parentKey *ecdsa.PrivateKey) (*x509.Certificate, *ecdsa.PrivateKey) {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	if parent == nil {
		parent, parentKey = tmpl, key
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, parent, &key.PublicKey, parentKey)
	if err != nil {
		a.t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	return cert, key
}

// issue makes a certificate for a name that is valid until then.
func (a *authority) issue(name string, until time.Time) tls.Certificate {
	a.t.Helper()
	cert, key := a.sign(&x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: until,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}, a.cert, a.key)
	return tls.Certificate{Certificate: [][]byte{cert.Raw}, PrivateKey: key, Leaf: cert}
}

func (a *authority) pool() *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(a.cert)
	return p
}

func writePEM(t *testing.T, path string, blocks ...*pem.Block) string {
	t.Helper()
	var b []byte
	for _, block := range blocks {
		b = append(b, pem.EncodeToMemory(block)...)
	}
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func certBlock(der []byte) *pem.Block { return &pem.Block{Type: "CERTIFICATE", Bytes: der} }

func keyBlock(t *testing.T, c tls.Certificate) *pem.Block {
	t.Helper()
	der, err := x509.MarshalECPrivateKey(c.PrivateKey.(*ecdsa.PrivateKey))
	if err != nil {
		t.Fatal(err)
	}
	return &pem.Block{Type: "EC PRIVATE KEY", Bytes: der}
}

// serveTLS echoes over TLS until the test ends.
func serveTLS(t *testing.T, conf *tls.Config) (addr string) {
	t.Helper()
	l := listen(t, "tcp", "127.0.0.1:0")
	echo(t, tls.NewListener(l, conf))
	return l.Addr().String()
}

// to is a dialer that reaches addr whatever it is asked for, so that a test's
// server can have any name.
func to(addr string) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, addr)
	}
}

var soon = time.Now().Add(time.Hour)

func TestDialTransport_TLS(t *testing.T) {
	ca := newAuthority(t)
	addr := serveTLS(t, &tls.Config{Certificates: []tls.Certificate{ca.issue("broker.test", soon)}})
	caFile := writePEM(t, filepath.Join(t.TempDir(), "ca.pem"), certBlock(ca.cert.Raw))
	for _, tt := range []struct {
		name, uri string
		cfg       *Config
	}{
		{"RootCAs", "amqps://broker.test", &Config{TLS: &tls.Config{RootCAs: ca.pool()}}},
		{"CA file", "amqps://broker.test", &Config{TLSFiles: TLSFiles{CA: caFile}}},
		{"cacertfile", "amqps://broker.test?verify=verify_peer&cacertfile=" + escape(caFile), &Config{}},
		{"server_name_indication", "amqps://10.0.0.1?server_name_indication=broker.test&cacertfile=" + escape(caFile), &Config{}},
		{"ServerName", "amqps://10.0.0.1?server_name_indication=other", &Config{TLS: &tls.Config{RootCAs: ca.pool(), ServerName: "broker.test"}}},
	} {
		tt.cfg.Dial = to(addr)
		nc, secure, err := dialFirst(t.Context(), tt.uri, tt.cfg)
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		if !secure {
			t.Errorf("%s: said not to be encrypted", tt.name)
		}
		if v := nc.(*tls.Conn).ConnectionState().Version; v < tls.VersionTLS12 {
			t.Errorf("%s: version %x", tt.name, v)
		}
		checkEcho(t, nc)
		nc.Close()
	}
}

func TestDialTransport_TLSRefusesWhatItCannotVerify(t *testing.T) {
	ca, other := newAuthority(t), newAuthority(t)
	good := serveTLS(t, &tls.Config{Certificates: []tls.Certificate{ca.issue("broker.test", soon)}})
	expired := serveTLS(t, &tls.Config{Certificates: []tls.Certificate{ca.issue("broker.test", time.Now().Add(-time.Hour))}})
	old := serveTLS(t, &tls.Config{Certificates: []tls.Certificate{ca.issue("broker.test", soon)},
		MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11})
	plain := listen(t, "tcp", "127.0.0.1:0")
	defer plain.Close()
	go func() { // as RabbitMQ's plain port does
		nc, err := plain.Accept()
		if err != nil {
			return
		}
		defer nc.Close()
		nc.Read(make([]byte, 8))
		nc.Write([]byte(protocolHeader))
		io.Copy(io.Discard, nc)
	}()
	is := func(target any) func(error) bool { return func(err error) bool { return errors.As(err, target) } }
	for _, tt := range []struct {
		name, addr, uri string
		roots           *x509.CertPool
		want            func(error) bool
	}{
		{"another name", good, "amqps://other.test", ca.pool(), is(new(x509.HostnameError))},
		{"another name by the URI", good, "amqps://broker.test?server_name_indication=x.test", ca.pool(), is(new(x509.HostnameError))},
		{"unknown authority", good, "amqps://broker.test", other.pool(), is(new(x509.UnknownAuthorityError))},
		{"the system's authorities", good, "amqps://broker.test", nil, is(new(x509.UnknownAuthorityError))},
		{"expired", expired, "amqps://broker.test", ca.pool(), func(err error) bool {
			var e x509.CertificateInvalidError
			return errors.As(err, &e) && e.Reason == x509.Expired
		}},
		{"TLS 1.1", old, "amqps://broker.test", ca.pool(), func(err error) bool { return strings.Contains(err.Error(), "protocol version") }},
		{"no TLS", plain.Addr().String(), "amqps://broker.test", ca.pool(), is(new(tls.RecordHeaderError))},
	} {
		nc, _, err := dialFirst(t.Context(), tt.uri, &Config{Dial: to(tt.addr), TLS: &tls.Config{RootCAs: tt.roots}})
		var e *DialError
		if !errors.As(err, &e) || e.Op != "tls" || !tt.want(err) {
			t.Errorf("%s: got %v, %v", tt.name, nc, err)
		}
	}
}

func TestDialTransport_MutualTLS(t *testing.T) {
	ca, other := newAuthority(t), newAuthority(t)
	addr := serveTLS(t, &tls.Config{Certificates: []tls.Certificate{ca.issue("broker.test", soon)},
		ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: ca.pool()})
	dir := t.TempDir()
	client, stranger := ca.issue("client", soon), other.issue("client", soon)
	caFile := writePEM(t, filepath.Join(dir, "ca.pem"), certBlock(ca.cert.Raw))
	certFile := writePEM(t, filepath.Join(dir, "c.pem"), certBlock(client.Certificate[0]))
	keyFile := writePEM(t, filepath.Join(dir, "k.pem"), keyBlock(t, client))
	both := writePEM(t, filepath.Join(dir, "both.pem"), certBlock(client.Certificate[0]), keyBlock(t, client))
	strange := writePEM(t, filepath.Join(dir, "strange.pem"), certBlock(stranger.Certificate[0]), keyBlock(t, stranger))

	for _, tt := range []struct {
		name, uri string
		cfg       Config
		ok        bool
	}{
		{"files", "amqps://broker.test", Config{TLSFiles: TLSFiles{CA: caFile, Cert: certFile, Key: keyFile}}, true},
		{"one file", "amqps://broker.test", Config{TLSFiles: TLSFiles{CA: caFile, Cert: both}}, true},
		{"the URI's files", "amqps://broker.test?cacertfile=" + escape(caFile) + "&certfile=" + escape(certFile) + "&keyfile=" + escape(keyFile), Config{}, true},
		{"Certificates", "amqps://broker.test", Config{TLS: &tls.Config{RootCAs: ca.pool(), Certificates: []tls.Certificate{client}}}, true},
		{"no certificate", "amqps://broker.test", Config{TLSFiles: TLSFiles{CA: caFile}}, false},
		{"a stranger's", "amqps://broker.test", Config{TLSFiles: TLSFiles{CA: caFile, Cert: strange}}, false},
	} {
		tt.cfg.Dial = to(addr)
		nc, _, err := dialFirst(t.Context(), tt.uri, &tt.cfg)
		if err == nil && !tt.ok {
			// TLS 1.3 tells the client only after its own half is over.
			nc.SetDeadline(time.Now().Add(10 * time.Second))
			_, err = io.ReadFull(nc, make([]byte, 1))
			nc.Close()
			if err == nil || !strings.Contains(err.Error(), "certificate") {
				t.Errorf("%s: got %v", tt.name, err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		checkEcho(t, nc)
		nc.Close()
	}
}

// The broker changes its authority, and the files follow: the next dial works
// without a new Config.
func TestDialTransport_ReadsCertificatesAtEachDial(t *testing.T) {
	dir := t.TempDir()
	files := TLSFiles{CA: filepath.Join(dir, "ca.pem"), Cert: filepath.Join(dir, "c.pem"), Key: filepath.Join(dir, "k.pem")}
	cfg := &Config{TLSFiles: files}
	for range 2 {
		ca := newAuthority(t)
		client := ca.issue("client", soon)
		cfg.Dial = to(serveTLS(t, &tls.Config{Certificates: []tls.Certificate{ca.issue("broker.test", soon)},
			ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: ca.pool()}))
		_, _, err := dialFirst(t.Context(), "amqps://broker.test", cfg)
		if err == nil {
			t.Fatal("connected with the certificates of before")
		}
		writePEM(t, files.CA, certBlock(ca.cert.Raw))
		writePEM(t, files.Cert, certBlock(client.Certificate[0]))
		writePEM(t, files.Key, keyBlock(t, client))
		nc, _, err := dialFirst(t.Context(), "amqps://broker.test", cfg)
		if err != nil {
			t.Fatal(err)
		}
		checkEcho(t, nc)
		nc.Close()
	}
	for _, tt := range []struct{ path, want string }{
		{files.CA, "no certificate in " + files.CA},
		{files.Key, "certificate " + files.Cert + " with key " + files.Key},
	} {
		good, err := os.ReadFile(tt.path)
		if err != nil {
			t.Fatal(err)
		}
		os.WriteFile(tt.path, []byte("rubbish"), 0o600)
		_, _, err = dialFirst(t.Context(), "amqps://broker.test", cfg)
		var e *DialError
		if !errors.As(err, &e) || e.Op != "certificates" || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("got %v", err)
		}
		os.WriteFile(tt.path, good, 0o600)
	}
}

// A server that accepts and then says nothing holds nobody up.
func TestDialTransport_ContextBoundsTheTLSHandshake(t *testing.T) {
	l := listen(t, "tcp", "127.0.0.1:0")
	accepted := make(chan net.Conn, 1)
	go func() {
		if nc, err := l.Accept(); err == nil {
			accepted <- nc
		}
	}()
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		nc := <-accepted
		nc.Read(make([]byte, 1)) // the client's hello: it waits for an answer now
		cancel()
		nc.Read(make([]byte, 4096))
		nc.Close()
	}()
	_, _, err := dialFirst(ctx, "amqps://"+l.Addr().String(), nil)
	var e *DialError
	if !errors.As(err, &e) || e.Op != "tls" || !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	l.Close()
}
