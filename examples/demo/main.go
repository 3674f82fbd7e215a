// Command demo does Warren's main job and shows it: it declares an exchange and
// a queue, publishes messages that the broker confirms, consumes them with
// acknowledgements in several workers, and checks that each arrived once.
//
//	make demo
//	AMQP_URL=amqp://guest:guest@localhost make demo
//
// Without AMQP_URL it talks to a broker in its own process, over TCP.
package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"os"
	"os/signal"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/warrenmq/warren/amqp"
	"github.com/warrenmq/warren/amqp/amqptest"
)

func main() {
	log.SetFlags(0)
	n := flag.Int("n", 50_000, "`number` of messages")
	size := flag.Int("size", 64, "body size in `bytes`")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	uri := os.Getenv("AMQP_URL")
	if uri == "" {
		srv, err := amqptest.Start(nil)
		if err != nil {
			log.Fatal(err)
		}
		defer srv.Close()
		uri = srv.URI()
		fmt.Println("broker      in this process; AMQP_URL names another")
	}
	if err := run(ctx, uri, *n, *size, os.Stdout); err != nil {
		log.Fatal("demo: ", err)
	}
}

// exchange goes when its last binding does, and the queue when the connection
// does: a demonstration leaves nothing behind.
var (
	exchange = amqp.ExchangeDeclare{Exchange: "warren.demo", Type: "direct", AutoDelete: true}
	queue    = amqp.QueueDeclare{Exclusive: true}
)

const (
	routingKey = "parcels"
	workers    = 4
)

// run is the whole demonstration, with n messages of size bytes.
func run(ctx context.Context, uri string, n, size int, out io.Writer) error {
	conn, err := amqp.Dial(ctx, uri, &amqp.Config{Name: "warren demo"})
	if err != nil {
		return err
	}
	defer conn.Close()
	product := conn.ServerProperties()
	fmt.Fprintf(out, "connected   %v %v\n", cmp.Or(product["product"], any("a broker")), product["version"])

	// A channel each for the two directions: an error in one leaves the other.
	in, err := conn.Channel(ctx)
	if err != nil {
		return err
	}
	name, err := declare(ctx, in, out)
	if err != nil {
		return err
	}
	pub, err := conn.Channel(ctx)
	if err != nil {
		return err
	}
	began := time.Now()
	received := make(chan error, 1)
	tally := newTally(n)
	go func() { received <- tally.receive(ctx, in, name) }()
	if err := publish(ctx, pub, n, size); err != nil {
		return err
	}
	fmt.Fprintf(out, "published   %d messages of %d bytes, all confirmed\n", n, size)
	if err := <-received; err != nil {
		return err
	}
	took := time.Since(began)
	fmt.Fprintf(out, "consumed    %d in %d workers, each once, all acknowledged\n", n, workers)
	if err := showReturn(ctx, pub, out); err != nil {
		return err
	}
	fmt.Fprintf(out, "rate        %.0f messages a second, there and back (%s)\n",
		float64(n)/took.Seconds(), took.Round(time.Millisecond))
	return conn.Close()
}

// declare makes the exchange, the queue and the binding between them.
func declare(ctx context.Context, ch *amqp.Channel, out io.Writer) (name string, err error) {
	if err := ch.ExchangeDeclare(ctx, exchange); err != nil {
		return "", err
	}
	ok, err := ch.QueueDeclare(ctx, queue)
	if err != nil {
		return "", err
	}
	bind := amqp.QueueBind{Queue: ok.Queue, Exchange: exchange.Exchange, RoutingKey: routingKey}
	if err := ch.QueueBind(ctx, bind); err != nil {
		return "", err
	}
	fmt.Fprintf(out, "declared    %s exchange %s -- %s --> queue %s\n",
		exchange.Type, exchange.Exchange, routingKey, ok.Queue)
	return ok.Queue, nil
}

// publish sends the messages without waiting for each, and then waits for all
// their confirms. The message id says which is which.
func publish(ctx context.Context, ch *amqp.Channel, n, size int) error {
	confirms := make([]*amqp.Confirm, n)
	body := make([]byte, size)
	for i := range confirms {
		c, err := ch.PublishAsync(ctx,
			amqp.BasicPublish{Exchange: exchange.Exchange, RoutingKey: routingKey, Mandatory: true},
			amqp.Message{Properties: amqp.Properties{MessageID: strconv.Itoa(i)}, Body: body})
		if err != nil {
			return fmt.Errorf("message %d: %w", i, err)
		}
		confirms[i] = c
	}
	for i, c := range confirms {
		if err := c.Wait(ctx); err != nil {
			return fmt.Errorf("message %d: %w", i, err)
		}
	}
	return nil
}

// tally counts what arrives.
type tally struct {
	seen []atomic.Int32 // how often, by message id
	left atomic.Int64   // how many are still to come
}

func newTally(n int) *tally {
	t := &tally{seen: make([]atomic.Int32, n)}
	t.left.Store(int64(n))
	return t
}

// receive consumes until every message was seen.
func (t *tally) receive(ctx context.Context, ch *amqp.Channel, queue string) error {
	consumer, err := ch.Subscribe(ctx, amqp.BasicConsume{Queue: queue}, &amqp.ConsumeOptions{Prefetch: 1000})
	if err != nil {
		return err
	}
	// Loops over one consumer share its deliveries. All of them end when it is
	// closed: by the worker that saw the last message, or because ctx ended.
	closed := context.WithoutCancel(ctx)
	stop := context.AfterFunc(ctx, func() { _ = consumer.Close(closed) })
	defer stop()
	var wg sync.WaitGroup
	errs := make([]error, workers)
	for i := range errs {
		wg.Go(func() {
			for d, err := range consumer.All() {
				if err == nil {
					err = t.take(d)
				}
				if err == nil && t.left.Load() > 0 {
					continue
				}
				errs[i] = err
				_ = consumer.Close(closed)
				break
			}
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return err
	}
	return t.verdict(ctx)
}

// take counts one message and acknowledges it.
func (t *tally) take(d *amqp.Delivery) error {
	id, err := strconv.Atoi(d.Properties().MessageID)
	if err != nil || id < 0 || id >= len(t.seen) {
		return fmt.Errorf("a message that nobody sent: id %q", d.Properties().MessageID)
	}
	t.seen[id].Add(1)
	if err := d.Ack(); err != nil {
		return err
	}
	t.left.Add(-1)
	return nil
}

// verdict is an error unless every message came once.
func (t *tally) verdict(ctx context.Context) error {
	if left := t.left.Load(); left > 0 {
		return fmt.Errorf("%d messages never came: %w", left, ctx.Err())
	}
	for id := range t.seen {
		if got := t.seen[id].Load(); got != 1 {
			return fmt.Errorf("message %d came %d times", id, got)
		}
	}
	return nil
}

// showReturn publishes to where no queue is bound: the broker hands it back.
func showReturn(ctx context.Context, ch *amqp.Channel, out io.Writer) error {
	err := ch.Publish(ctx,
		amqp.BasicPublish{Exchange: exchange.Exchange, RoutingKey: "letters", Mandatory: true},
		amqp.Message{Body: []byte("to nobody")})
	var returned *amqp.ReturnError
	if !errors.As(err, &returned) {
		return fmt.Errorf("a message to nowhere was not returned: %v", err)
	}
	fmt.Fprintf(out, "returned    1 message that no queue wanted: %v\n", returned)
	return nil
}
