// Command topics lets a listener choose by pattern.
//
//	go run ./examples/topics follow "*.attic.*" "garden.#"
//	go run ./examples/topics report garden.pond.temperature 14
//
// In a topic exchange routing keys are words with dots between, here of the form
// building.room.quantity. In a binding * stands for exactly one word, and # for
// any number of them, none included. A queue that several of its patterns match
// gets the message once.
package main

import (
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

var readings = amqp.ExchangeDeclare{Exchange: "readings", Type: "topic", Durable: true}

func main() {
	log.SetFlags(0)
	uri := cmp.Or(os.Getenv("AMQP_URL"), "amqp://localhost")
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	var err error
	switch args := os.Args[1:]; {
	case len(args) == 3 && args[0] == "report":
		err = report(ctx, uri, args[1], args[2])
	case len(args) >= 2 && args[0] == "follow":
		err = follow(ctx, uri, args[1:], os.Stdout)
	default:
		log.Fatal("usage: topics report TOPIC VALUE | topics follow PATTERN...")
	}
	if err != nil {
		log.Fatal(err)
	}
}

// report publishes one reading.
func report(ctx context.Context, uri, topic, value string) error {
	conn, err := amqp.Dial(ctx, uri, nil)
	if err != nil {
		return err
	}
	defer conn.Close()
	ch, err := conn.Channel(ctx)
	if err != nil {
		return err
	}
	if err := ch.ExchangeDeclare(ctx, readings); err != nil {
		return err
	}
	return ch.Publish(ctx, amqp.BasicPublish{Exchange: readings.Exchange, RoutingKey: topic}, amqp.Message{
		Properties: amqp.Properties{Timestamp: time.Now()},
		Body:       []byte(value),
	})
}

// follow prints the readings whose topics match a pattern until ctx ends.
func follow(ctx context.Context, uri string, patterns []string, out io.Writer) error {
	conn, err := amqp.Dial(ctx, uri, nil)
	if err != nil {
		return err
	}
	defer conn.Close()
	ch, err := conn.Channel(ctx)
	if err != nil {
		return err
	}
	if err := ch.ExchangeDeclare(ctx, readings); err != nil {
		return err
	}
	queue, err := ch.QueueDeclare(ctx, amqp.QueueDeclare{Exclusive: true})
	if err != nil {
		return err
	}
	for _, pattern := range patterns {
		bind := amqp.QueueBind{Queue: queue.Queue, Exchange: readings.Exchange, RoutingKey: pattern}
		if err := ch.QueueBind(ctx, bind); err != nil {
			return err
		}
	}
	fmt.Fprintln(out, "following")
	handler := func(ctx context.Context, d *amqp.Delivery) error {
		fmt.Fprintf(out, "%s = %s\n", d.RoutingKey, d.Body)
		return nil
	}
	return ch.Serve(ctx, amqp.BasicConsume{Queue: queue.Queue, NoAck: true}, handler, nil)
}
