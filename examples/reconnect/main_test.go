package main

import (
	"context"
	"io"
	"testing"
	"time"

	"github.com/warrenmq/warren/amqp/amqptest"
	"github.com/warrenmq/warren/examples/internal/exampletest"
)

func TestReconnect(t *testing.T) {
	srv := amqptest.NewServer(t)
	p := exampletest.Start(t, func(ctx context.Context, out io.Writer) error {
		return run(ctx, srv.URI(), 10*time.Millisecond, out)
	})
	p.Await("handled order 3\n")
	srv.Restart(true)
	p.Await("connection lost")
	p.Await("handled order 50\n")
	p.Stop()
	p.Await("shut down")
}
