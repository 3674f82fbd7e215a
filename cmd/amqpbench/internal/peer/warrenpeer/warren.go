// Package warrenpeer drives Warren as its documentation advises.
package warrenpeer

import (
	"context"
	"runtime/debug"
	"time"

	"github.com/warrenmq/warren/amqp"

	"github.com/warrenmq/warren/cmd/amqpbench/internal/frames"
	"github.com/warrenmq/warren/cmd/amqpbench/internal/peer"
)

// Peer is Warren.
type Peer struct {
	ReadPause time.Duration // see amqp.Config
}

func (Peer) Name() string { return "warren" }

// Version is the revision that this program was built from.
func (Peer) Version() string {
	info, _ := debug.ReadBuildInfo()
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			return s.Value[:min(12, len(s.Value))]
		}
	}
	return "(this tree)"
}

func (p Peer) Dial(ctx context.Context, uri string) (peer.Conn, error) {
	c, err := amqp.Dial(ctx, uri, &amqp.Config{ReadPause: p.ReadPause})
	if err != nil {
		return nil, err
	}
	return &conn{c}, nil
}

type conn struct{ c *amqp.Conn }

func (c *conn) Close() error { return c.c.Close() }

func (c *conn) Channel(ctx context.Context) (peer.Channel, error) {
	ch, err := c.c.Channel(ctx)
	if err != nil {
		return nil, err
	}
	return &channel{ch: ch}, nil
}

type channel struct{ ch *amqp.Channel }

func (c *channel) Close() error { return c.ch.Close(context.Background()) }

func (c *channel) Declare(ctx context.Context, q peer.Queue) error {
	args := amqp.Table{}
	if q.Type != "" {
		args["x-queue-type"] = q.Type
	}
	if q.MaxLength > 0 {
		args["x-max-length"] = int64(q.MaxLength)
	}
	_, err := c.ch.QueueDeclare(ctx, amqp.QueueDeclare{Queue: q.Name, Durable: q.Durable, AutoDelete: q.AutoDelete,
		Exclusive: q.Exclusive, Arguments: args})
	return err
}

func (c *channel) Purge(ctx context.Context, queue string) error {
	_, err := c.ch.QueuePurge(ctx, amqp.QueuePurge{Queue: queue})
	return err
}

func (c *channel) Delete(ctx context.Context, queue string) error {
	_, err := c.ch.QueueDelete(ctx, amqp.QueueDelete{Queue: queue})
	return err
}

func (c *channel) Sync(ctx context.Context, queue string) error {
	_, err := c.ch.QueueDeclare(ctx, amqp.QueueDeclare{Queue: queue, Passive: true})
	return err
}

func (c *channel) Confirm(ctx context.Context) error {
	return c.ch.ConfirmSelect(ctx, amqp.ConfirmSelect{})
}

func message(job *peer.PublishJob) amqp.Message {
	m := amqp.Message{Body: job.Body}
	m.DeliveryMode = 1
	if job.Persistent {
		m.DeliveryMode = 2
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
	to, msg := amqp.BasicPublish{Exchange: job.Exchange, RoutingKey: job.Queue}, message(job)
	switch {
	case job.Window == 1:
		return c.publishEach(ctx, job, to, msg)
	case job.Window > 1:
		return c.publishConfirmed(ctx, job, to, msg)
	case job.Watched():
		for i := int64(0); job.N == 0 || i < job.N; i++ {
			if ok, err := job.Before(ctx, job.Body); !ok || err != nil {
				return err
			}
			if err := c.ch.BasicPublish(ctx, to, msg); err != nil {
				return err
			}
		}
		return nil
	}
	for range job.N {
		if err := c.ch.BasicPublish(ctx, to, msg); err != nil {
			return err
		}
	}
	return nil
}

// publishEach waits for each confirm.
func (c *channel) publishEach(ctx context.Context, job *peer.PublishJob, to amqp.BasicPublish, msg amqp.Message) error {
	for i := int64(0); job.N == 0 || i < job.N; i++ {
		if ok, err := job.Before(ctx, job.Body); !ok || err != nil {
			return err
		}
		begin := time.Now()
		if err := c.ch.Publish(ctx, to, msg); err != nil {
			return err
		}
		job.Confirmed(begin)
	}
	return nil
}

// publishConfirmed keeps at most Window confirms outstanding and waits for the oldest.
func (c *channel) publishConfirmed(ctx context.Context, job *peer.PublishJob, to amqp.BasicPublish, msg amqp.Message) error {
	if job.Watched() {
		return peer.PublishWatched(ctx, job, func() (*amqp.Confirm, error) { return c.ch.PublishAsync(ctx, to, msg) },
			func(cf *amqp.Confirm) error { return cf.Wait(ctx) })
	}
	ring := make([]*amqp.Confirm, job.Window)
	slot := 0
	for range job.N {
		if ring[slot] != nil {
			if err := ring[slot].Wait(ctx); err != nil {
				return err
			}
		}
		cf, err := c.ch.PublishAsync(ctx, to, msg)
		if err != nil {
			return err
		}
		ring[slot] = cf
		if slot++; slot == job.Window {
			slot = 0
		}
	}
	for _, cf := range append(ring[slot:], ring[:slot]...) {
		if cf != nil {
			if err := cf.Wait(ctx); err != nil {
				return err
			}
		}
	}
	return nil
}
