package main

import (
	"context"
	"io"
	"testing"

	"github.com/warrenmq/warren/amqp/amqptest"
	"github.com/warrenmq/warren/examples/internal/exampletest"
)

func TestTopics_Patterns(t *testing.T) {
	srv := amqptest.NewServer(t)
	uri := srv.URI()
	f := exampletest.Start(t, func(ctx context.Context, out io.Writer) error {
		return follow(ctx, uri, []string{"*.attic.*", "garden.#", "garden.pond.*"}, out)
	})
	f.Await("following\n")
	for _, r := range [][2]string{
		{"house.attic.temperature", "31"},
		{"house.cellar.temperature", "12"}, // matches nothing
		{"house.attic", "1"},               // too short
		{"garden.pond.temperature", "14"},  // matches twice, comes once
		{"garden", "7"},
	} {
		if err := report(t.Context(), uri, r[0], r[1]); err != nil {
			t.Fatal(err)
		}
	}
	f.Await("garden = 7\n")
	want := "following\nhouse.attic.temperature = 31\ngarden.pond.temperature = 14\ngarden = 7\n"
	if got := f.Output(); got != want {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	f.Stop()
}
