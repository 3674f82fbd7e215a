// Command unixsocket talks AMQP over a unix socket.
//
//	AMQP_URL=amqp+unix:///run/rabbitmq/amqp.sock go run ./examples/unixsocket
//
// RabbitMQ itself listens on TCP alone, but proxies, service meshes and
// test brokers (amqptest's Config.Socket) offer sockets. Who may connect is then
// a matter of the file's permissions. In the URI the path is the socket's, so the
// virtual host is a parameter: amqp+unix:///run/amqp.sock?vhost=orders.
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

func main() {
	log.SetFlags(0)
	uri := cmp.Or(os.Getenv("AMQP_URL"), "amqp+unix:///run/rabbitmq/amqp.sock")
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, uri, os.Stdout); err != nil {
		log.Fatal(err)
	}
}

// run connects and sends a message to itself. Nothing in it depends on how the
// broker is reached.
func run(ctx context.Context, uri string, out io.Writer) error {
	conn, err := amqp.Dial(ctx, uri, nil)
	if err != nil {
		return err
	}
	defer conn.Close()
	ch, err := conn.Channel(ctx)
	if err != nil {
		return err
	}
	queue, err := ch.QueueDeclare(ctx, amqp.QueueDeclare{Exclusive: true})
	if err != nil {
		return err
	}
	if err := ch.Publish(ctx, amqp.BasicPublish{RoutingKey: queue.Queue}, amqp.Message{Body: []byte("from next door")}); err != nil {
		return err
	}
	d, err := ch.Get(ctx, amqp.BasicGet{Queue: queue.Queue, NoAck: true})
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "over a socket: %q\n", d.Body)
	return nil
}
