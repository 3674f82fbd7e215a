// Command readme is the program of the README: it declares a queue, publishes
// to it with a confirm, and consumes with an ack.
package main

import (
	"context"
	"fmt"
	"log"
	"os"

	"github.com/warrenmq/warren/amqp"
)

func main() {
	if err := run(context.Background(), os.Getenv("AMQP_URL")); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, uri string) error {
	conn, err := amqp.Dial(ctx, uri, nil) // amqp, amqps, or amqp+unix
	if err != nil {
		return err
	}
	defer conn.Close()
	ch, err := conn.Channel(ctx)
	if err != nil {
		return err
	}
	if _, err := ch.QueueDeclare(ctx, amqp.QueueDeclare{Queue: "jobs", Durable: true}); err != nil {
		return err
	}
	if err := ch.Publish(ctx, amqp.BasicPublish{RoutingKey: "jobs"}, amqp.Message{Body: []byte("hello")}); err != nil {
		return err // not confirmed: the error says whether it was nacked, returned or is unknown
	}
	jobs, err := ch.Subscribe(ctx, amqp.BasicConsume{Queue: "jobs"}, nil)
	if err != nil {
		return err
	}
	for d, err := range jobs.All() {
		if err != nil {
			return err
		}
		fmt.Printf("%s\n", d.Body)
		return d.Ack()
	}
	return jobs.Err()
}
