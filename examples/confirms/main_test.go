package main

import (
	"strings"
	"testing"

	"github.com/warrenmq/warren/amqp/amqptest"
)

func TestConfirms(t *testing.T) {
	srv := amqptest.NewServer(t)
	var out strings.Builder
	if err := run(t.Context(), srv.URI(), 100, &out); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"100 confirmed one by one", "100 confirmed as a stream", "one to nowhere: returned"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in %q", want, out.String())
		}
	}
}
