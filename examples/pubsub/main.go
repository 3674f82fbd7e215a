// Command pubsub tells everybody who listens.
//
//	go run ./examples/pubsub listen               # in one terminal, or several
//	go run ./examples/pubsub announce "Dinner is served"
//
// A fanout exchange gives every queue that is bound to it a copy of each
// message. Each listener brings a queue of its own, which goes when it goes. What
// was announced while nobody listened is lost, as on the radio.
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

var announcements = amqp.ExchangeDeclare{Exchange: "announcements", Type: "fanout", Durable: true}

func main() {
	log.SetFlags(0)
	uri := cmp.Or(os.Getenv("AMQP_URL"), "amqp://localhost")
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	var err error
	switch args := os.Args[1:]; {
	case len(args) == 2 && args[0] == "announce":
		err = announce(ctx, uri, args[1])
	case len(args) == 1 && args[0] == "listen":
		err = listen(ctx, uri, os.Stdout)
	default:
		log.Fatal("usage: pubsub announce TEXT | pubsub listen")
	}
	if err != nil {
		log.Fatal(err)
	}
}

// announce publishes one message to whoever listens now.
func announce(ctx context.Context, uri, text string) error {
	conn, err := amqp.Dial(ctx, uri, nil)
	if err != nil {
		return err
	}
	defer conn.Close()
	ch, err := conn.Channel(ctx)
	if err != nil {
		return err
	}
	if err := ch.ExchangeDeclare(ctx, announcements); err != nil {
		return err
	}
	// A fanout exchange does not look at the routing key.
	return ch.Publish(ctx, amqp.BasicPublish{Exchange: announcements.Exchange}, amqp.Message{Body: []byte(text)})
}

// listen prints announcements until ctx ends.
func listen(ctx context.Context, uri string, out io.Writer) error {
	conn, err := amqp.Dial(ctx, uri, nil)
	if err != nil {
		return err
	}
	defer conn.Close()
	ch, err := conn.Channel(ctx)
	if err != nil {
		return err
	}
	if err := ch.ExchangeDeclare(ctx, announcements); err != nil {
		return err
	}
	// Without a name, the broker makes one up. Exclusive: for this connection
	// alone, and deleted with it.
	queue, err := ch.QueueDeclare(ctx, amqp.QueueDeclare{Exclusive: true})
	if err != nil {
		return err
	}
	if err := ch.QueueBind(ctx, amqp.QueueBind{Queue: queue.Queue, Exchange: announcements.Exchange}); err != nil {
		return err
	}
	fmt.Fprintln(out, "listening")
	handler := func(ctx context.Context, d *amqp.Delivery) error {
		fmt.Fprintf(out, "%s\n", d.Body)
		return nil
	}
	// Nobody else could take a message that this listener leaves unfinished, so
	// there is nothing to acknowledge.
	return ch.Serve(ctx, amqp.BasicConsume{Queue: queue.Queue, NoAck: true}, handler, nil)
}
