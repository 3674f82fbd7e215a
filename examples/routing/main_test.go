package main

import (
	"context"
	"errors"
	"io"
	"testing"

	"github.com/warrenmq/warren/amqp/amqptest"
	"github.com/warrenmq/warren/examples/internal/exampletest"
)

func TestRouting_ToWhoAskedForIt(t *testing.T) {
	srv := amqptest.NewServer(t)
	uri := srv.URI()
	start := func(kinds ...string) *exampletest.Process {
		w := exampletest.Start(t, func(ctx context.Context, out io.Writer) error { return watch(ctx, uri, kinds, out) })
		w.Await("watching\n")
		return w
	}
	both, fire := start("fire", "flood"), start("fire")
	for _, a := range [][2]string{{"flood", "cellar"}, {"fire", "kitchen"}} {
		if err := alarm(t.Context(), uri, a[0], a[1]); err != nil {
			t.Fatal(err)
		}
	}
	both.Await("flood: cellar\nfire: kitchen\n")
	fire.Await("watching\nfire: kitchen\n")
	if err := alarm(t.Context(), uri, "locusts", "everywhere"); !errors.Is(err, errUnheard) {
		t.Errorf("an alarm that nobody watches for: got %v", err)
	}
	both.Stop()
	fire.Stop()
}
