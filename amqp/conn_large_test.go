package amqp_test

import (
	"bytes"
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/warrenmq/warren/amqp"
	"github.com/warrenmq/warren/amqp/amqptest"
)

func overTCP(t *testing.T, srv *amqptest.Server) *amqp.Channel {
	t.Helper()
	conn, err := amqp.Dial(t.Context(), srv.URI(), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return openQueue(t, conn, "q")
}

// A large body is written from the caller's memory. When the context ends in the
// middle of that, the memory is the caller's all the same.
func TestPublish_LargeBodyIsTheCallersAgain(t *testing.T) {
	srv := amqptest.NewServer(t)
	ch := overTCP(t, srv)
	want := bytes.Repeat([]byte("0123456789abcdef"), 14<<16)
	body := bytes.Clone(want)
	resume := srv.Stall()
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	err := ch.Publish(ctx, amqp.BasicPublish{RoutingKey: "q"}, amqp.Message{Body: body})
	if !errors.Is(err, amqp.ErrUnknownOutcome) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Publish to a server that does not read: %v", err)
	}
	clear(body)
	resume()
	if err := ch.Publish(t.Context(), amqp.BasicPublish{RoutingKey: "q"}, amqp.Message{Body: []byte("after")}); err != nil {
		t.Fatal(err)
	}
	d, err := ch.Get(t.Context(), amqp.BasicGet{Queue: "q", NoAck: true})
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(d.Body, want) {
		t.Error("the message is not the one that was published")
	}
}

func TestPublish_LargeBodiesBesideSmallOnes(t *testing.T) {
	srv := amqptest.NewServer(t)
	ch := overTCP(t, srv)
	large := bytes.Repeat([]byte{'L'}, 3<<20)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for range 20 {
				body := []byte("small")
				if i%4 == 0 {
					body = large
				}
				ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
				err := ch.Publish(ctx, amqp.BasicPublish{RoutingKey: "q"}, amqp.Message{Body: body})
				cancel()
				if err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	cons, err := ch.Subscribe(t.Context(), amqp.BasicConsume{Queue: "q", NoAck: true}, &amqp.ConsumeOptions{HoldBack: true})
	if err != nil {
		t.Fatal(err)
	}
	n, seen := 0, 0
	for d, err := range cons.All() {
		if err != nil {
			t.Fatal(err)
		}
		switch {
		case bytes.Equal(d.Body, large):
			seen++
		case string(d.Body) != "small":
			t.Fatalf("a body of %d octets that nobody published", len(d.Body))
		}
		if n++; n == 160 {
			break
		}
	}
	if seen != 40 {
		t.Errorf("%d large messages of 40", seen)
	}
}
