package amqp_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/warrenmq/warren/amqp"
	"github.com/warrenmq/warren/amqp/amqptest"
)

// TestChannel_EveryCallHearsTheReason: while a connection or a channel is being
// closed by the broker there is no moment in which calls fail without its reason.
func TestChannel_EveryCallHearsTheReason(t *testing.T) {
	srv := amqptest.NewServer(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	ends := map[string]func(ch *amqp.Channel) amqp.ReplyCode{
		"connection": func(*amqp.Channel) amqp.ReplyCode {
			srv.CloseConnection("victim", amqp.ConnectionForced, "enough")
			return amqp.ConnectionForced
		},
		"channel": func(ch *amqp.Channel) amqp.ReplyCode {
			ch.QueuePurge(ctx, amqp.QueuePurge{Queue: "no such"})
			return amqp.NotFound
		},
	}
	for name, end := range ends {
		t.Run(name, func(t *testing.T) {
			for range 20 {
				c, err := amqp.Dial(ctx, srv.URI(), &amqp.Config{Dial: srv.Dial, Name: "victim"})
				if err != nil {
					t.Fatal(err)
				}
				ch, err := c.Channel(ctx)
				if err != nil {
					t.Fatal(err)
				}
				errs := make(chan error, 8)
				var wg sync.WaitGroup
				for i := range 8 {
					wg.Go(func() {
						for {
							var err error
							if i%2 == 0 {
								_, err = ch.PublishAsync(ctx, amqp.BasicPublish{Exchange: "amq.fanout"}, amqp.Message{})
							} else {
								err = ch.ExchangeDeclare(ctx, amqp.ExchangeDeclare{Exchange: "amq.topic", Passive: true})
							}
							if err != nil {
								errs <- err
								return
							}
						}
					})
				}
				time.Sleep(time.Millisecond)
				code := end(ch)
				wg.Wait()
				for range 8 {
					if err := <-errs; !errors.Is(err, code) || !errors.Is(err, amqp.ErrClosed) {
						t.Errorf("got %v, want %v", err, code)
					}
				}
				c.Close()
			}
		})
	}
}
