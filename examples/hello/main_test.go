package main

import (
	"context"
	"io"
	"testing"

	"github.com/warrenmq/warren/amqp/amqptest"
	"github.com/warrenmq/warren/examples/internal/exampletest"
)

func TestHello(t *testing.T) {
	srv := amqptest.NewServer(t)
	uri := srv.URI()
	if err := send(t.Context(), uri, "before"); err != nil {
		t.Fatal(err)
	}
	receiver := exampletest.Start(t, func(ctx context.Context, out io.Writer) error {
		return receive(ctx, uri, out)
	})
	receiver.Await("received \"before\"\n")
	if err := send(t.Context(), uri, "after"); err != nil {
		t.Fatal(err)
	}
	receiver.Await("received \"after\"\n")
	receiver.Stop()
}
