package amqp_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/warrenmq/warren/amqp"
	"github.com/warrenmq/warren/amqp/amqptest"
)

// TestDelivery_AckThatWaitsDiesWithItsChannel: an ack that waits for others to
// go with is not sent on the channel that has its number next: there it would
// settle another message, or close the channel.
func TestDelivery_AckThatWaitsDiesWithItsChannel(t *testing.T) {
	srv := amqptest.NewServer(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	c, err := amqp.Dial(ctx, srv.URI(), &amqp.Config{Dial: srv.Dial})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	open := func() *amqp.Channel {
		t.Helper()
		ch, err := c.Channel(ctx)
		if err != nil {
			t.Fatal(err)
		}
		return ch
	}
	setup := open()
	if _, err := setup.QueueDeclare(ctx, amqp.QueueDeclare{Queue: "q"}); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := setup.Publish(ctx, amqp.BasicPublish{RoutingKey: "q"}, amqp.Message{}); err != nil {
			t.Fatal(err)
		}
	}
	for range 50 {
		old := open()
		cons, err := old.Subscribe(ctx, amqp.BasicConsume{Queue: "q"}, nil)
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		for d, err := range cons.All() {
			if err != nil {
				t.Fatal(err)
			}
			if n++; n == 1 {
				continue // tag 1 stays open, so that an ack of 2 is not for all before it
			}
			// Its exception is on the way before the ack is made, or just behind it.
			go old.QueuePurge(ctx, amqp.QueuePurge{Queue: "no such"})
			if err := d.Ack(); err != nil && !errors.Is(err, amqp.ErrStale) {
				t.Fatal(err)
			}
			break
		}
		<-old.Done()
		next := open()
		if next.Number() != old.Number() {
			t.Fatalf("channel %d after %d", next.Number(), old.Number())
		}
		time.Sleep(3 * time.Millisecond) // acks wait a millisecond at most
		if _, err := next.QueueDeclare(ctx, amqp.QueueDeclare{Queue: "q", Passive: true}); err != nil {
			t.Fatalf("the new channel got the old one's ack: %v", err)
		}
		next.Close(ctx)
		// An ack that was in time took its message.
		if err := setup.Publish(ctx, amqp.BasicPublish{RoutingKey: "q"}, amqp.Message{}); err != nil {
			t.Fatal(err)
		}
	}
}
