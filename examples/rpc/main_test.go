package main

import (
	"context"
	"errors"
	"testing"

	"github.com/warrenmq/warren/amqp"
	"github.com/warrenmq/warren/amqp/amqptest"
	"github.com/warrenmq/warren/rpc"
)

func TestRPC_Tutorial(t *testing.T) {
	srv := amqptest.NewServer(t)
	ctx, stop := context.WithCancel(t.Context())
	conn, err := amqp.Dial(ctx, srv.URI(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ready, served := make(chan struct{}), make(chan error, 1)
	go func() { served <- serve(ctx, conn, func() { close(ready) }) }()
	<-ready
	if got, err := call(ctx, conn, "19"); err != nil || got != "4181" {
		t.Errorf("fib(19): got %s, %v; want 4181", got, err)
	}
	if _, err := call(ctx, conn, "many"); !errors.Is(err, &rpc.RemoteError{Code: rpc.CodeBadRequest}) {
		t.Errorf("fib(many): got %v", err)
	}
	client := rpc.NewClient(conn, nil)
	defer client.Close(ctx)
	if g, err := rpc.Call[Greeting](ctx, client, rpc.Queue("greeter"), "World"); err != nil || g.Text != "Hello, World" {
		t.Errorf("greeter: got %v, %v", g, err)
	}
	if _, err := rpc.Call[Greeting](ctx, client, rpc.Queue("greeter"), ""); !errors.Is(err, &rpc.RemoteError{Code: "no-name"}) {
		t.Errorf("greeter: got %v", err)
	}
	stop()
	if err := <-served; err != nil {
		t.Error(err)
	}
}
