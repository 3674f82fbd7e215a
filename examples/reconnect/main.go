// Command reconnect publishes and handles orders, and goes on when the broker
// is restarted, its connections are closed or it runs short of memory. Ctrl-C
// ends it in good order.
//
//	go run ./examples/reconnect
//
// Restart the broker meanwhile, or close its connections on its management
// page: what was under way is sent again, and nothing that was confirmed is lost.
package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"os/signal"
	"sync"
	"time"

	"github.com/warrenmq/warren/amqp"
)

func main() {
	log.SetFlags(0)
	uri := cmp.Or(os.Getenv("AMQP_URL"), "amqp://localhost")
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, uri, 500*time.Millisecond, os.Stdout); err != nil {
		log.Fatal(err)
	}
}

// topology is what must exist. The client declares it at every connection, so
// it is there again after a broker that forgot it.
var topology = &amqp.Topology{
	Exchanges: []amqp.Exchange{{Name: "reconnect.orders", Type: "topic"}},
	Queues:    []amqp.Queue{amqp.QuorumQueue("reconnect.work")},
	Bindings:  []amqp.Binding{{Source: "reconnect.orders", Queue: "reconnect.work", RoutingKey: "order.#"}},
}

// run publishes an order every now and then, and handles them, until ctx ends.
func run(ctx context.Context, uri string, every time.Duration, out io.Writer) error {
	var mu sync.Mutex
	say := func(format string, args ...any) {
		mu.Lock()
		defer mu.Unlock()
		fmt.Fprintf(out, format+"\n", args...)
	}
	client, err := amqp.NewClient(uri, &amqp.ClientConfig{
		Topology: topology,
		Resend:   true, // after a loss, what has no confirm yet goes again
		Config: amqp.Config{Trace: &amqp.Trace{
			Reconnect: func(_ context.Context, r amqp.ReconnectInfo) {
				say("connection lost or not made, next attempt in %s: %v", r.Delay.Round(time.Millisecond), r.Err)
			},
			Handshake: func(_ context.Context, h amqp.HandshakeInfo) { say("connected: %s", h.Conn.Name) },
			Blocked:   func(_ context.Context, _ amqp.ConnInfo, reason string) { say("blocked: %s", reason) },
			Unblocked: func(context.Context, amqp.ConnInfo) { say("unblocked") },
		}},
	})
	if err != nil {
		return err
	}
	defer client.Close()

	served := make(chan error, 1)
	go func() {
		// It ends by Shutdown, and not with ctx, so that what was published last
		// is handled as well as may be.
		served <- client.Serve(context.WithoutCancel(ctx), amqp.BasicConsume{Queue: "reconnect.work"}, func(_ context.Context, d *amqp.Delivery) error {
			say("handled %s", d.Body) // it may come twice: a handler has to bear that
			return nil
		}, nil)
	}()
	for n := 1; ctx.Err() == nil; n++ {
		m := amqp.BasicPublish{Exchange: "reconnect.orders", RoutingKey: "order.new", Mandatory: true}
		switch err := client.Publish(ctx, m, amqp.Message{Body: fmt.Appendf(nil, "order %d", n)}); {
		case err == nil:
		case errors.Is(err, amqp.ErrUnknownOutcome):
			say("order %d: it may have been sent: %v", n, err)
		default:
			say("order %d: not sent: %v", n, err)
		}
		select {
		case <-time.After(every):
		case <-ctx.Done():
		}
	}
	bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	if err := client.Shutdown(bounded); err != nil {
		return err
	}
	say("shut down")
	return <-served
}
