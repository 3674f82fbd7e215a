package main

import (
	"strings"
	"testing"

	"github.com/warrenmq/warren/amqp/amqptest"
)

func TestDemo(t *testing.T) {
	srv := amqptest.NewServer(t)
	var out strings.Builder
	if err := run(t.Context(), srv.URI(), 500, 16, &out); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"published   500 messages of 16 bytes", "consumed    500", "returned    1 message", "rate "} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in:\n%s", want, out.String())
		}
	}
}
