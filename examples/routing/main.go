// Command routing lets a listener choose what it hears.
//
//	go run ./examples/routing watch fire flood       # in one terminal
//	go run ./examples/routing watch fire             # in another
//	go run ./examples/routing alarm fire "Kitchen, second floor"
//
// A direct exchange passes a message to the queues that were bound with its
// routing key. One queue may be bound with several keys, and many queues with
// the same one.
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

	"github.com/warrenmq/warren/amqp"
)

var alarms = amqp.ExchangeDeclare{Exchange: "alarms", Type: "direct", Durable: true}

func main() {
	log.SetFlags(0)
	uri := cmp.Or(os.Getenv("AMQP_URL"), "amqp://localhost")
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	var err error
	switch args := os.Args[1:]; {
	case len(args) == 3 && args[0] == "alarm":
		err = alarm(ctx, uri, args[1], args[2])
	case len(args) >= 2 && args[0] == "watch":
		err = watch(ctx, uri, args[1:], os.Stdout)
	default:
		log.Fatal("usage: routing alarm KIND TEXT | routing watch KIND...")
	}
	if err != nil {
		log.Fatal(err)
	}
}

// errUnheard is alarm's error when nobody watches for that kind.
var errUnheard = errors.New("nobody watches for that")

// alarm raises an alarm, and says so when nobody would hear it.
func alarm(ctx context.Context, uri, kind, text string) error {
	conn, err := amqp.Dial(ctx, uri, nil)
	if err != nil {
		return err
	}
	defer conn.Close()
	ch, err := conn.Channel(ctx)
	if err != nil {
		return err
	}
	if err := ch.ExchangeDeclare(ctx, alarms); err != nil {
		return err
	}
	// Mandatory: the broker hands a message back that it can route to no queue.
	err = ch.Publish(ctx,
		amqp.BasicPublish{Exchange: alarms.Exchange, RoutingKey: kind, Mandatory: true},
		amqp.Message{Body: []byte(text)})
	var returned *amqp.ReturnError
	if errors.As(err, &returned) {
		return fmt.Errorf("%w: %s", errUnheard, kind)
	}
	return err
}

// watch prints the alarms of some kinds until ctx ends.
func watch(ctx context.Context, uri string, kinds []string, out io.Writer) error {
	conn, err := amqp.Dial(ctx, uri, nil)
	if err != nil {
		return err
	}
	defer conn.Close()
	ch, err := conn.Channel(ctx)
	if err != nil {
		return err
	}
	if err := ch.ExchangeDeclare(ctx, alarms); err != nil {
		return err
	}
	queue, err := ch.QueueDeclare(ctx, amqp.QueueDeclare{Exclusive: true})
	if err != nil {
		return err
	}
	for _, kind := range kinds {
		bind := amqp.QueueBind{Queue: queue.Queue, Exchange: alarms.Exchange, RoutingKey: kind}
		if err := ch.QueueBind(ctx, bind); err != nil {
			return err
		}
	}
	fmt.Fprintln(out, "watching")
	handler := func(ctx context.Context, d *amqp.Delivery) error {
		fmt.Fprintf(out, "%s: %s\n", d.RoutingKey, d.Body)
		return nil
	}
	return ch.Serve(ctx, amqp.BasicConsume{Queue: queue.Queue, NoAck: true}, handler, nil)
}
