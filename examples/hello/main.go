// Command hello is where to begin: one program puts a message into a queue, and
// another takes it out.
//
//	go run ./examples/hello send "Hello, Warren"
//	go run ./examples/hello receive
//
// The order does not matter. A queue is a mailbox in the broker: it keeps what
// was sent until somebody comes for it. Both programs declare it, since neither
// knows which of them runs first; declaring a queue that exists, with the same
// arguments, does nothing.
//
// AMQP_URL says where the broker is; amqp://localhost is the default.
package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"log"
	"os"
	"os/signal"

	"github.com/warrenmq/warren/amqp"
)

// greetings is the queue. It is durable: a broker that restarts has it again.
var greetings = amqp.QueueDeclare{Queue: "greetings", Durable: true}

func main() {
	log.SetFlags(0)
	uri := cmp.Or(os.Getenv("AMQP_URL"), "amqp://localhost")
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	var err error
	switch args := os.Args[1:]; {
	case len(args) == 2 && args[0] == "send":
		err = send(ctx, uri, args[1])
	case len(args) == 1 && args[0] == "receive":
		err = receive(ctx, uri, os.Stdout)
	default:
		log.Fatal("usage: hello send TEXT | hello receive")
	}
	if err != nil {
		log.Fatal(err)
	}
}

// send puts one message into the queue. When it returns nil, the broker has
// taken responsibility for it.
func send(ctx context.Context, uri, text string) error {
	conn, err := amqp.Dial(ctx, uri, nil)
	if err != nil {
		return err
	}
	defer conn.Close()
	ch, err := conn.Channel(ctx)
	if err != nil {
		return err
	}
	if _, err := ch.QueueDeclare(ctx, greetings); err != nil {
		return err
	}
	// A message is not published to a queue but to an exchange, which passes it
	// on. The one without a name, which every broker has, passes it to the queue
	// whose name is the routing key.
	return ch.Publish(ctx, amqp.BasicPublish{RoutingKey: greetings.Queue}, amqp.Message{
		// Delivery mode 2 is persistent: a message that is, in a queue that is
		// durable, outlives the broker's restart.
		Properties: amqp.Properties{ContentType: "text/plain", DeliveryMode: 2},
		Body:       []byte(text),
	})
}

// receive prints what is in the queue, and what comes into it, until ctx ends.
func receive(ctx context.Context, uri string, out io.Writer) error {
	conn, err := amqp.Dial(ctx, uri, nil)
	if err != nil {
		return err
	}
	defer conn.Close()
	ch, err := conn.Channel(ctx)
	if err != nil {
		return err
	}
	if _, err := ch.QueueDeclare(ctx, greetings); err != nil {
		return err
	}
	consumer, err := ch.Subscribe(ctx, amqp.BasicConsume{Queue: greetings.Queue}, nil)
	if err != nil {
		return err
	}
	// Leaving the loop would do as well; this is for a loop that waits.
	stop := context.AfterFunc(ctx, func() { _ = consumer.Close(context.WithoutCancel(ctx)) })
	defer stop()
	for d, err := range consumer.All() {
		if err != nil {
			return err
		}
		fmt.Fprintf(out, "received %q\n", d.Body)
		// Only now does the broker forget the message. Had this program died before,
		// the next one would get it.
		if err := d.Ack(); err != nil {
			return err
		}
	}
	return nil
}
