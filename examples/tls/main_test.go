package main

import (
	"strings"
	"testing"

	"github.com/warrenmq/warren/amqp"
	"github.com/warrenmq/warren/amqp/amqptest"
	"github.com/warrenmq/warren/internal/rabbittest"
)

func TestTLS(t *testing.T) {
	certs, err := rabbittest.NewCerts("guest")
	if err != nil {
		t.Fatal(err)
	}
	srv := amqptest.NewServer(t, amqptest.Config{TLS: certs.ServerTLS()})
	paths := certs.Write(t)
	for _, files := range []amqp.TLSFiles{
		{CA: paths.CA},
		{CA: paths.CA, Cert: paths.ClientCert, Key: paths.ClientKey},
	} {
		var out strings.Builder
		if err := run(t.Context(), srv.URI(), files, &out); err != nil {
			t.Fatalf("with certificate %q: %v", files.Cert, err)
		}
		if want := "over TLS: \"for my eyes only\"\n"; out.String() != want {
			t.Errorf("got %q, want %q", out.String(), want)
		}
	}
	// The system's authorities know nothing of this broker's certificate.
	if err := run(t.Context(), srv.URI(), amqp.TLSFiles{}, &strings.Builder{}); err == nil {
		t.Error("a certificate of nobody's was trusted")
	}
}
