// Command rpc is RabbitMQ's tutorial on remote procedure calls: a server that
// computes Fibonacci numbers from the queue rpc_queue, and a program that asks
// it for one.
//
//	go run ./examples/rpc serve
//	go run ./examples/rpc call 19
//
// Its requests and replies are numbers as text, as the tutorial's are, so
// either side can be any language's. The queue greeter is served beside it,
// by a typed function inside middleware: the usual way for a service of one's own.
//
// AMQP_URL says where the broker is; amqp://localhost is the default.
package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"os"
	"os/signal"
	"strconv"
	"sync"
	"time"

	"github.com/warrenmq/warren/amqp"
	"github.com/warrenmq/warren/rpc"
)

func main() {
	log.SetFlags(0)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, cmp.Or(os.Getenv("AMQP_URL"), "amqp://localhost"), os.Args[1:]); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, uri string, args []string) error {
	conn, err := amqp.Dial(ctx, uri, nil)
	if err != nil {
		return err
	}
	defer conn.Close()
	switch {
	case len(args) == 1 && args[0] == "serve":
		return serve(ctx, conn, func() { fmt.Println("awaiting requests") })
	case len(args) == 2 && args[0] == "call":
		n, err := call(ctx, conn, args[1])
		fmt.Printf("fib(%s) = %s\n", args[1], n)
		return err
	}
	return errors.New("usage: rpc serve | rpc call N")
}

// call asks for one number. The context bounds the whole of it: the server has
// the deadline, and stops when nobody waits any more.
func call(ctx context.Context, conn *amqp.Conn, n string) (string, error) {
	client := rpc.NewClient(conn, nil)
	defer client.Close(ctx)
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	reply, err := client.Call(ctx, rpc.Queue("rpc_queue"), amqp.Message{Body: []byte(n)})
	if err != nil {
		return "", err // an *rpc.RemoteError where the server did not like it
	}
	return string(reply.Body), nil
}

// Greeting is what the typed service answers.
type Greeting struct {
	Text string `json:"text"`
}

// greet is the typed service: encoding and errors are rpc's business.
func greet(ctx context.Context, name string) (Greeting, error) {
	if name == "" {
		return Greeting{}, &rpc.RemoteError{Code: "no-name", Text: "whom shall I greet?"}
	}
	return Greeting{Text: "Hello, " + name}, nil
}

// serve answers both queues until ctx ends, and what it has begun then still.
func serve(ctx context.Context, conn *amqp.Conn, ready func()) error {
	ch, err := conn.Channel(ctx)
	if err != nil {
		return err
	}
	services := map[string]rpc.Handler{
		"rpc_queue": fibonacci,
		"greeter": rpc.Chain(rpc.Typed(greet),
			rpc.Logging(slog.Default()), rpc.Recovery(slog.Default()), rpc.Deadline(10*time.Second)),
	}
	for queue := range services {
		if _, err := ch.QueueDeclare(ctx, amqp.QueueDeclare{Queue: queue}); err != nil {
			return err
		}
	}
	ready()
	var wg sync.WaitGroup
	errs := make(chan error, len(services))
	for queue, h := range services {
		wg.Go(func() { errs <- rpc.Serve(ctx, ch, queue, h, nil) })
	}
	wg.Wait()
	close(errs)
	var all []error
	for err := range errs {
		all = append(all, err)
	}
	return errors.Join(all...)
}

// fibonacci is the tutorial's, recursion included: it takes its time, and
// looks now and then whether anybody still waits.
func fibonacci(ctx context.Context, req *rpc.Request) (*amqp.Message, error) {
	n, err := strconv.Atoi(string(req.Body))
	if err != nil || n < 0 || n > 40 {
		return nil, &rpc.RemoteError{Code: rpc.CodeBadRequest, Text: fmt.Sprintf("%q is no number from 0 to 40", req.Body)}
	}
	v, err := fib(ctx, n)
	if err != nil {
		return nil, err
	}
	return &amqp.Message{Body: strconv.AppendInt(nil, int64(v), 10)}, nil
}

func fib(ctx context.Context, n int) (int, error) {
	if n < 2 {
		return n, nil
	}
	if n > 20 && ctx.Err() != nil {
		return 0, context.Cause(ctx)
	}
	a, err := fib(ctx, n-1)
	if err != nil {
		return 0, err
	}
	b, err := fib(ctx, n-2)
	return a + b, err
}
