package rabbittest

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"strings"
	"testing"
	"time"
)

func TestSplitImage(t *testing.T) {
	for _, tt := range []struct{ ref, repository, tag string }{
		{"rabbitmq", "rabbitmq", "latest"},
		{"rabbitmq:4", "rabbitmq", "4"},
		{"rabbitmq-local:3.10", "rabbitmq-local", "3.10"},
		{"localhost:5000/mq/rabbitmq", "localhost:5000/mq/rabbitmq", "latest"},
		{"localhost:5000/rabbitmq:4.1-alpine", "localhost:5000/rabbitmq", "4.1-alpine"},
		{"rabbitmq@sha256:0123", "rabbitmq@sha256:0123", ""},
	} {
		repository, tag := splitImage(tt.ref)
		if repository != tt.repository || tag != tt.tag {
			t.Errorf("splitImage(%q) = %q, %q; want %q, %q", tt.ref, repository, tag, tt.repository, tt.tag)
		}
	}
}

func TestVersionAtLeast(t *testing.T) {
	for _, tt := range []struct {
		version      string
		major, minor int
		want         bool
	}{
		{"4.3.6", 4, 3, true},
		{"4.3.6", 4, 0, true},
		{"4.3.6", 3, 12, true},
		{"3.10.8", 4, 0, false},
		{"3.10.8", 3, 10, true},
		{"3.10.8", 3, 11, false},
		{"4.3.0-rc.1", 4, 3, true},
	} {
		if got := versionAtLeast(tt.version, tt.major, tt.minor); got != tt.want {
			t.Errorf("versionAtLeast(%q, %d, %d) = %t", tt.version, tt.major, tt.minor, got)
		}
	}
}

func TestAMQPURL_Escapes(t *testing.T) {
	got := amqpURL("amqp", "127.0.0.1:5672", "a b", "p@ss/:", "/")
	if want := "amqp://a%20b:p%40ss%2F%3A@127.0.0.1:5672/%2F"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestCerts_ServeMutualTLS(t *testing.T) {
	certs, err := NewCerts("somebody")
	if err != nil {
		t.Fatal(err)
	}
	for _, identify := range []bool{false, true} {
		client, server := net.Pipe()
		defer func() { _, _ = client.Close(), server.Close() }()
		_ = client.SetDeadline(time.Now().Add(10 * time.Second))
		_ = server.SetDeadline(time.Now().Add(10 * time.Second))
		cfg := certs.ClientTLS(identify)
		cfg.ServerName = "127.0.0.1"
		done := make(chan error, 1)
		go func() { done <- tls.Client(client, cfg).Handshake() }()
		conn := tls.Server(server, certs.ServerTLS())
		if err := conn.Handshake(); err != nil {
			t.Fatal(err)
		}
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		peers := conn.ConnectionState().PeerCertificates
		if identify && (len(peers) != 1 || peers[0].Subject.CommonName != "somebody") {
			t.Errorf("the server saw %d client certificates", len(peers))
		}
		if !identify && len(peers) != 0 {
			t.Errorf("a client that shows no certificate showed %d", len(peers))
		}
	}
}

func TestHandshake_NotABroker(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	go func() {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		_, _ = io.WriteString(conn, "HTTP/1.1 400 Bad Request\r\n\r\n")
		_ = conn.Close()
	}()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if _, err := Handshake(ctx, l.Addr().String()); err == nil || !strings.Contains(err.Error(), "not an AMQP frame") {
		t.Errorf("got %v", err)
	}
}

func TestProxy_PassesAndCuts(t *testing.T) {
	echo, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = echo.Close() }()
	go func() {
		for {
			conn, err := echo.Accept()
			if err != nil {
				return
			}
			go func() { _, _ = io.Copy(conn, conn); _ = conn.Close() }()
		}
	}()
	path := UnixSocket(t, echo.Addr().String())
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	if _, err := io.WriteString(conn, "hello"); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 5)
	if _, err := io.ReadFull(conn, got); err != nil || string(got) != "hello" {
		t.Fatalf("got %q, %v", got, err)
	}
}
