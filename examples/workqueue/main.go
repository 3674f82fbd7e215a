// Command workqueue spreads slow work over as many workers as there are.
//
//	go run ./examples/workqueue worker            # in one terminal, or several
//	go run ./examples/workqueue task "thumbnails ..."   # a second of work for each dot
//
// Each task goes to one worker. A worker takes one at a time, so that a slow
// task holds up nobody else's, and acknowledges it when it is done: if a worker
// dies in the middle, its task goes to another.
package main

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"log"
	"os"
	"os/signal"
	"time"

	"github.com/warrenmq/warren/amqp"
)

// tasks is a quorum queue: in a cluster, a majority of the nodes has each task
// before the publish is confirmed.
var tasks = amqp.QueueDeclare{
	Queue:     "tasks",
	Durable:   true,
	Arguments: amqp.Table{"x-queue-type": "quorum"},
}

func main() {
	log.SetFlags(0)
	uri := cmp.Or(os.Getenv("AMQP_URL"), "amqp://localhost")
	// Ctrl-C lets the worker finish its task and then ends it.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	var err error
	switch args := os.Args[1:]; {
	case len(args) == 2 && args[0] == "task":
		err = submit(ctx, uri, args[1])
	case len(args) == 1 && args[0] == "worker":
		err = work(ctx, uri, os.Stdout)
	default:
		log.Fatal("usage: workqueue task TEXT | workqueue worker")
	}
	if err != nil {
		log.Fatal(err)
	}
}

// submit puts a task into the queue.
func submit(ctx context.Context, uri, text string) error {
	conn, err := amqp.Dial(ctx, uri, nil)
	if err != nil {
		return err
	}
	defer conn.Close()
	ch, err := conn.Channel(ctx)
	if err != nil {
		return err
	}
	if _, err := ch.QueueDeclare(ctx, tasks); err != nil {
		return err
	}
	return ch.Publish(ctx, amqp.BasicPublish{RoutingKey: tasks.Queue}, amqp.Message{
		// A quorum queue keeps every message on disk; delivery mode 2 says that we
		// would have it so in any queue.
		Properties: amqp.Properties{DeliveryMode: 2},
		Body:       []byte(text),
	})
}

// work does tasks until ctx ends, and then finishes the one it is at.
func work(ctx context.Context, uri string, out io.Writer) error {
	conn, err := amqp.Dial(ctx, uri, nil)
	if err != nil {
		return err
	}
	defer conn.Close()
	ch, err := conn.Channel(ctx)
	if err != nil {
		return err
	}
	if _, err := ch.QueueDeclare(ctx, tasks); err != nil {
		return err
	}
	// A handler that returns nil has its delivery acknowledged. With a prefetch of
	// one the broker sends the next task only then, and to whoever is free.
	handler := func(ctx context.Context, d *amqp.Delivery) error {
		effort := time.Duration(bytes.Count(d.Body, []byte("."))) * time.Second
		fmt.Fprintf(out, "%s: %s of work\n", d.Body, effort)
		time.Sleep(effort)
		fmt.Fprintf(out, "%s: done\n", d.Body)
		return nil
	}
	return ch.Serve(ctx, amqp.BasicConsume{Queue: tasks.Queue}, handler, &amqp.ServeOptions{
		Workers:        1,
		ConsumeOptions: amqp.ConsumeOptions{Prefetch: 1},
	})
}
