package main

import (
	"context"
	"io"
	"testing"

	"github.com/warrenmq/warren/amqp/amqptest"
	"github.com/warrenmq/warren/examples/internal/exampletest"
)

func TestPubsub_EverybodyHears(t *testing.T) {
	srv := amqptest.NewServer(t)
	uri := srv.URI()
	var listeners []*exampletest.Process
	for range 3 {
		l := exampletest.Start(t, func(ctx context.Context, out io.Writer) error { return listen(ctx, uri, out) })
		l.Await("listening\n")
		listeners = append(listeners, l)
	}
	if err := announce(t.Context(), uri, "Dinner is served"); err != nil {
		t.Fatal(err)
	}
	for _, l := range listeners {
		l.Await("Dinner is served\n")
		l.Stop()
	}
}
