// Command confirms shows three ways to know what became of a message.
//
//	go run ./examples/confirms
//
// A publish has one outcome of four: the broker confirmed it, refused it
// (nacked), handed it back because no queue wanted it (returned), or nobody
// knows, because the connection broke before an answer came.
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
	"time"

	"github.com/warrenmq/warren/amqp"
)

func main() {
	log.SetFlags(0)
	uri := cmp.Or(os.Getenv("AMQP_URL"), "amqp://localhost")
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, uri, 2000, os.Stdout); err != nil {
		log.Fatal(err)
	}
}

// run publishes n messages one by one, n in a stream, and one to nowhere.
func run(ctx context.Context, uri string, n int, out io.Writer) error {
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

	began := time.Now()
	if err := oneByOne(ctx, ch, queue.Queue, n); err != nil {
		return err
	}
	fmt.Fprintf(out, "%d confirmed one by one in %s\n", n, time.Since(began).Round(time.Millisecond))

	began = time.Now()
	if err := stream(ctx, ch, queue.Queue, n); err != nil {
		return err
	}
	fmt.Fprintf(out, "%d confirmed as a stream in %s\n", n, time.Since(began).Round(time.Millisecond))

	fmt.Fprintln(out, "one to nowhere:", describe(toNowhere(ctx, ch)))
	return nil
}

// oneByOne waits for each message's confirm before it sends the next: simple,
// and as slow as the way to the broker and back is long.
func oneByOne(ctx context.Context, ch *amqp.Channel, queue string, n int) error {
	for i := range n {
		if err := ch.Publish(ctx, amqp.BasicPublish{RoutingKey: queue}, message(i)); err != nil {
			return fmt.Errorf("message %d: %w", i, err)
		}
	}
	return nil
}

// stream sends on while confirms come in, and looks at every one of them.
// PublishAsync waits by itself when too many are outstanding
// (Config.Unconfirmed).
func stream(ctx context.Context, ch *amqp.Channel, queue string, n int) error {
	confirms := make([]*amqp.Confirm, 0, n)
	for i := range n {
		c, err := ch.PublishAsync(ctx, amqp.BasicPublish{RoutingKey: queue}, message(i))
		if err != nil {
			return fmt.Errorf("message %d: %w", i, err)
		}
		confirms = append(confirms, c)
	}
	for i, c := range confirms {
		if err := c.Wait(ctx); err != nil {
			return fmt.Errorf("message %d: %w", i, err)
		}
	}
	return nil
}

// toNowhere publishes what no queue is there for. Mandatory makes that an error;
// without it the broker would confirm the message and drop it.
func toNowhere(ctx context.Context, ch *amqp.Channel) error {
	return ch.Publish(ctx, amqp.BasicPublish{RoutingKey: "no such queue", Mandatory: true}, message(0))
}

// describe puts a publish's outcome into words, and says what to do about it.
func describe(err error) string {
	var returned *amqp.ReturnError
	switch {
	case err == nil:
		return "confirmed"
	case errors.As(err, &returned):
		return "returned: no queue wanted it"
	case errors.Is(err, amqp.ErrNacked):
		return "nacked: the broker would not take it; it may later"
	case errors.Is(err, amqp.ErrUnknownOutcome):
		return "unknown: sent again it may arrive twice, not sent again never"
	default:
		return "not sent: " + err.Error()
	}
}

func message(i int) amqp.Message {
	return amqp.Message{Body: fmt.Appendf(nil, "message %d", i)}
}
