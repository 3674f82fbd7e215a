// Package peer091 drives github.com/rabbitmq/amqp091-go the way its documentation advises: deferred
// confirmations, one channel per goroutine where the workload has one.
package peer091

import (
	"context"
	"errors"
	"fmt"
	"net"
	"runtime/debug"
	"strconv"
	"sync"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/warrenmq/warren/cmd/amqpbench/internal/frames"
	"github.com/warrenmq/warren/cmd/amqpbench/internal/peer"
)

const module = "github.com/rabbitmq/amqp091-go"

// Peer is amqp091-go.
type Peer struct{}

func (Peer) Name() string { return "amqp091-go" }

// Version is the module's version in this binary.
func (Peer) Version() string {
	info, _ := debug.ReadBuildInfo()
	for _, m := range info.Deps {
		if m.Path == module {
			return m.Version
		}
	}
	return "unknown"
}

func (Peer) Dial(ctx context.Context, uri string) (peer.Conn, error) {
	c, err := amqp.DialConfig(uri, amqp.Config{Dial: func(network, addr string) (net.Conn, error) {
		return (&net.Dialer{Timeout: 30 * time.Second}).DialContext(ctx, network, addr)
	}})
	if err != nil {
		return nil, err
	}
	return &conn{c}, nil
}

type conn struct{ c *amqp.Connection }

func (c *conn) Close() error { return c.c.Close() }

func (c *conn) Channel(context.Context) (peer.Channel, error) {
	ch, err := c.c.Channel()
	if err != nil {
		return nil, err
	}
	return &channel{ch: ch}, nil
}

type channel struct{ ch *amqp.Channel }

func (c *channel) Close() error { return c.ch.Close() }

func (c *channel) Declare(_ context.Context, q peer.Queue) error {
	args := amqp.Table{}
	if q.Type != "" {
		args[amqp.QueueTypeArg] = q.Type
	}
	if q.MaxLength > 0 {
		args["x-max-length"] = int64(q.MaxLength)
	}
	_, err := c.ch.QueueDeclare(q.Name, q.Durable, q.AutoDelete, q.Exclusive, false, args)
	return err
}

func (c *channel) Purge(_ context.Context, queue string) error {
	_, err := c.ch.QueuePurge(queue, false)
	return err
}

func (c *channel) Delete(_ context.Context, queue string) error {
	_, err := c.ch.QueueDelete(queue, false, false, false)
	return err
}

func (c *channel) Sync(_ context.Context, queue string) error {
	_, err := c.ch.QueueDeclarePassive(queue, true, false, false, false, nil)
	return err
}

func (c *channel) Confirm(context.Context) error { return c.ch.Confirm(false) }

func message(job *peer.PublishJob) amqp.Publishing {
	m := amqp.Publishing{Body: job.Body, DeliveryMode: amqp.Transient}
	if job.Persistent {
		m.DeliveryMode = amqp.Persistent
	}
	if job.Headers > 0 {
		m.Headers = amqp.Table{}
		for _, h := range frames.SampleHeaders[:min(job.Headers, len(frames.SampleHeaders))] {
			m.Headers[h.Key] = h.Value
		}
	}
	return m
}

func (c *channel) Publish(ctx context.Context, job *peer.PublishJob) error {
	msg := message(job)
	switch {
	case job.Window == 1:
		return c.publishEach(ctx, job, msg)
	case job.Window > 1:
		return c.publishConfirmed(ctx, job, msg)
	}
	if job.Watched() {
		for i := int64(0); job.N == 0 || i < job.N; i++ {
			if ok, err := job.Before(ctx, job.Body); !ok || err != nil {
				return err
			}
			if err := c.ch.PublishWithContext(ctx, job.Exchange, job.Queue, false, false, msg); err != nil {
				return err
			}
		}
		return nil
	}
	for range job.N {
		if err := c.ch.PublishWithContext(ctx, job.Exchange, job.Queue, false, false, msg); err != nil {
			return err
		}
	}
	return nil
}

func awaitConfirm(ctx context.Context, dc *amqp.DeferredConfirmation) error {
	ok, err := dc.WaitContext(ctx)
	if err == nil && !ok {
		err = errors.New("nacked")
	}
	return err
}

// publishEach waits for each confirm.
func (c *channel) publishEach(ctx context.Context, job *peer.PublishJob, msg amqp.Publishing) error {
	for i := int64(0); job.N == 0 || i < job.N; i++ {
		if ok, err := job.Before(ctx, job.Body); !ok || err != nil {
			return err
		}
		begin := time.Now()
		dc, err := c.ch.PublishWithDeferredConfirmWithContext(ctx, job.Exchange, job.Queue, false, false, msg)
		if err == nil {
			err = awaitConfirm(ctx, dc)
		}
		if err != nil {
			return err
		}
		job.Confirmed(begin)
	}
	return nil
}

// publishConfirmed keeps at most Window deferred confirmations outstanding and waits for the oldest.
func (c *channel) publishConfirmed(ctx context.Context, job *peer.PublishJob, msg amqp.Publishing) error {
	publish := func() (*amqp.DeferredConfirmation, error) {
		return c.ch.PublishWithDeferredConfirmWithContext(ctx, job.Exchange, job.Queue, false, false, msg)
	}
	if job.Watched() {
		return peer.PublishWatched(ctx, job, publish, func(dc *amqp.DeferredConfirmation) error { return awaitConfirm(ctx, dc) })
	}
	ring := make([]*amqp.DeferredConfirmation, job.Window)
	slot := 0
	for range job.N {
		if ring[slot] != nil {
			if err := awaitConfirm(ctx, ring[slot]); err != nil {
				return err
			}
		}
		dc, err := publish()
		if err != nil {
			return err
		}
		ring[slot] = dc
		if slot++; slot == job.Window {
			slot = 0
		}
	}
	for _, dc := range append(ring[slot:], ring[:slot]...) {
		if dc != nil {
			if err := awaitConfirm(ctx, dc); err != nil {
				return err
			}
		}
	}
	return nil
}

func (c *channel) Consume(ctx context.Context, job *peer.ConsumeJob) error {
	if job.Prefetch > 0 {
		if err := c.ch.Qos(job.Prefetch, 0, false); err != nil {
			return err
		}
	}
	args := amqp.Table{}
	if job.Stream {
		args["x-stream-offset"] = "first"
	}
	// The library's documentation makes the delivery channel unbuffered; it buffers behind it by itself.
	deliveries, err := c.ch.Consume(job.Queue, "", job.NoAck, false, false, false, args)
	if err != nil {
		return err
	}
	if job.Ready != nil {
		job.Ready()
	}
	watched := job.Watched()
	pending := 0
	for i := int64(0); job.N == 0 || i < job.N; i++ {
		var d amqp.Delivery
		var ok bool
		if watched {
			select {
			case d, ok = <-deliveries:
			case <-job.Stop:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		} else {
			d, ok = <-deliveries
		}
		if !ok {
			return fmt.Errorf("the delivery channel closed after %d of %d messages", i, job.N)
		}
		if watched {
			job.Got(d.Body)
		}
		if !job.NoAck {
			if pending++; pending >= job.AckEvery || i == job.N-1 {
				if err := d.Ack(pending > 1); err != nil {
					return err
				}
				pending = 0
			}
		}
	}
	return nil
}

// RPC is written as RabbitMQ's tutorial has it, with a map of the calls outstanding so that many can share it.
func (c *conn) RPC(context.Context) (peer.RPC, error) {
	ch, err := c.c.Channel()
	if err != nil {
		return nil, err
	}
	replies, err := ch.Consume("amq.rabbitmq.reply-to", "", true, false, false, false, nil)
	if err != nil {
		return nil, err
	}
	r := &rpc{ch: ch, calls: map[string]chan amqp.Delivery{}}
	go r.dispatch(replies)
	return r, nil
}

type rpc struct {
	ch    *amqp.Channel
	mu    sync.Mutex // guards what follows
	next  uint64
	calls map[string]chan amqp.Delivery
}

func (r *rpc) dispatch(replies <-chan amqp.Delivery) {
	for d := range replies {
		r.mu.Lock()
		call := r.calls[d.CorrelationId]
		delete(r.calls, d.CorrelationId)
		r.mu.Unlock()
		if call != nil {
			call <- d
		}
	}
}

func (r *rpc) Call(ctx context.Context, queue string, body []byte) (int, error) {
	call := make(chan amqp.Delivery, 1)
	r.mu.Lock()
	r.next++
	id := strconv.FormatUint(r.next, 10)
	r.calls[id] = call
	r.mu.Unlock()
	err := r.ch.PublishWithContext(ctx, "", queue, false, false, amqp.Publishing{
		CorrelationId: id, ReplyTo: "amq.rabbitmq.reply-to", Body: body, DeliveryMode: amqp.Transient})
	if err != nil {
		return 0, err
	}
	select {
	case d := <-call:
		return len(d.Body), nil
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

func (r *rpc) Close() error { return r.ch.Close() }
