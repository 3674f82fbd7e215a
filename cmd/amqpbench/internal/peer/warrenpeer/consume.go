package warrenpeer

import (
	"context"
	"fmt"
	"sync/atomic"

	"github.com/warrenmq/warren/amqp"
	"github.com/warrenmq/warren/rpc"

	"github.com/warrenmq/warren/cmd/amqpbench/internal/peer"
)

func (c *channel) Consume(ctx context.Context, job *peer.ConsumeJob) error {
	// A consumer without acks must keep up or hold the broker back: a benchmark outruns any buffer.
	opts := &amqp.ConsumeOptions{Prefetch: job.Prefetch, Borrow: job.Borrow, HoldBack: job.NoAck}
	if !job.Coalesce {
		opts.AckBatch = 1
	}
	if job.AckEvery > 1 {
		opts.AckBatch = job.AckEvery
	}
	m := amqp.BasicConsume{Queue: job.Queue, NoAck: job.NoAck}
	if job.Stream {
		m.Arguments = amqp.Table{"x-stream-offset": "first"}
	}
	if job.Borrow && !job.Loop && job.Stop == nil {
		return c.handle(ctx, m, opts, job)
	}
	cons, err := c.ch.Subscribe(ctx, m, opts)
	if err != nil {
		return err
	}
	if job.Ready != nil {
		job.Ready()
	}
	if job.Stop != nil {
		over := make(chan struct{})
		defer close(over)
		go func() {
			select {
			case <-job.Stop:
				cons.Close(ctx)
			case <-over:
			}
		}()
	}
	return take(cons, job)
}

// handle consumes with a handler that runs where the reading is done, the library's way to borrow.
func (c *channel) handle(ctx context.Context, m amqp.BasicConsume, opts *amqp.ConsumeOptions, job *peer.ConsumeJob) error {
	done := make(chan error, 1)
	var n atomic.Int64
	cons, err := c.ch.Handle(ctx, m, func(d *amqp.Delivery) {
		if !job.NoAck {
			if err := d.Ack(); err != nil {
				select {
				case done <- err:
				default:
				}
				return
			}
		}
		if n.Add(1) == job.N {
			done <- nil
		}
	}, opts)
	if err != nil {
		return err
	}
	select {
	case err := <-done:
		return err
	case <-cons.Done():
		return fmt.Errorf("the consumer ended after %d of %d messages: %w", n.Load(), job.N, cons.Err())
	case <-ctx.Done():
		return ctx.Err()
	}
}

// take is the loop.
func take(cons *amqp.Consumer, job *peer.ConsumeJob) error {
	watched, n := job.Watched(), int64(0)
	for d, err := range cons.All() {
		if err != nil {
			return err
		}
		if watched {
			job.Got(d.Body)
		}
		if !job.NoAck {
			if err := d.Ack(); err != nil {
				return err
			}
		}
		if n++; n == job.N {
			return nil
		}
	}
	if job.N > 0 {
		return fmt.Errorf("the consumer ended after %d of %d messages", n, job.N)
	}
	return nil
}

// RPC is package rpc over direct reply-to.
func (c *conn) RPC(context.Context) (peer.RPC, error) { return &caller{rpc.NewClient(c.c, nil)}, nil }

type caller struct{ c *rpc.Client }

func (r *caller) Call(ctx context.Context, queue string, body []byte) (int, error) {
	msg := amqp.Message{Body: body}
	msg.DeliveryMode = 1
	reply, err := r.c.Call(ctx, rpc.Queue(queue), msg)
	if err != nil {
		return 0, err
	}
	return len(reply.Body), nil
}

func (r *caller) Close() error { return r.c.Close(context.Background()) }
