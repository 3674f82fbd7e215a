// Package traffic keeps a client busy while a test does things to its broker,
// and says at the end, by package history, whether all went as promised.
package traffic

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/warrenmq/warren/amqp"
	"github.com/warrenmq/warren/internal/history"
)

// Options say what traffic there is. The zero value of a number is its default.
type Options struct {
	Exchange   string // to publish to; what it routes ends up in Queue
	Queue      string
	Publishers int           // 2
	Consumers  int           // 2 loops of Subscribe
	Pace       time.Duration // of a publisher, between messages; 5 ms
	Size       int           // the longest body; 1000
	Seed       uint64
}

// Traffic is publishers and consumers at work.
type Traffic struct {
	c          *amqp.Client
	o          Options
	log        *history.Log
	stop       chan struct{}
	publishers sync.WaitGroup
	consumers  sync.WaitGroup
	received   atomic.Uint64
	confirmed  atomic.Uint64
	witnessed  atomic.Uint64 // messages of witnesses

	mu    sync.Mutex // guards what follows
	under map[string]*progress
	clock *Clock
}

// Start sets a client to work.
func Start(c *amqp.Client, o Options) *Traffic {
	if o.Publishers == 0 {
		o.Publishers = 2
	}
	if o.Consumers == 0 {
		o.Consumers = 2
	}
	if o.Pace == 0 {
		o.Pace = 5 * time.Millisecond
	}
	if o.Size == 0 {
		o.Size = 1000
	}
	t := &Traffic{c: c, o: o, log: history.New(), stop: make(chan struct{}), under: map[string]*progress{}}
	for i := range o.Publishers {
		t.publishers.Go(func() { t.publish(fmt.Sprintf("p%d", i), rand.New(rand.NewPCG(o.Seed, uint64(i)))) })
	}
	for range o.Consumers {
		t.consumers.Go(t.consume)
	}
	return t
}

// publish sends until Finish, without waiting for one message before the next.
func (t *Traffic) publish(name string, r *rand.Rand) {
	var waiting sync.WaitGroup
	defer waiting.Wait()
	m := amqp.BasicPublish{Exchange: t.o.Exchange, RoutingKey: t.o.Queue, Mandatory: true}
	for seq := 1; ; seq++ {
		select {
		case <-t.stop:
			return
		case <-time.After(t.o.Pace):
		}
		id, body := t.log.Send(name, seq, r.IntN(t.o.Size), r)
		t.begins(id)
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
		cf, err := t.c.PublishAsync(ctx, m, amqp.Message{Body: body})
		if err != nil {
			t.done(id, err)
			cancel()
			continue
		}
		waiting.Go(func() {
			defer cancel()
			t.done(id, cf.Wait(ctx))
		})
	}
}

func (t *Traffic) done(id string, err error) {
	o := OutcomeOf(err)
	if o == history.Confirmed {
		t.confirmed.Add(1)
		t.goesOn(id, func(p *progress) { p.confirmed = true })
	} else {
		t.ends(id)
	}
	t.log.Done(id, o, err)
}

// OutcomeOf is what an error of a publish says.
func OutcomeOf(err error) history.Outcome {
	var ret *amqp.ReturnError
	switch {
	case err == nil:
		return history.Confirmed
	case errors.Is(err, amqp.ErrUnknownOutcome):
		return history.Unknown
	case errors.Is(err, amqp.ErrNacked):
		return history.Nacked
	case errors.As(err, &ret):
		return history.Returned
	case amqp.SafeToRetry(err):
		return history.Unsent
	}
	return history.Refused
}

func (t *Traffic) consume() {
	opts := &amqp.ConsumeOptions{Resume: &amqp.Resume{GiveUp: -1}}
	for {
		sub, err := t.c.Subscribe(context.Background(), amqp.BasicConsume{Queue: t.o.Queue}, opts)
		if err != nil {
			if t.c.State() == amqp.Closed {
				return
			}
			time.Sleep(100 * time.Millisecond)
			continue
		}
		for d, err := range sub.All() {
			if err != nil {
				if t.c.State() != amqp.Closed {
					t.log.Violation("the subscription ended: %v", err)
				}
				return
			}
			t.handle(d)
		}
		return
	}
}

func (t *Traffic) handle(d *amqp.Delivery) {
	id := t.log.Received(d.Body, d.Redelivered)
	t.received.Add(1)
	t.goesOn(id, func(p *progress) { p.received = true })
	t.log.Settled(id, d.Ack() == nil)
}

// Counts are how many messages were confirmed and received up to now.
func (t *Traffic) Counts() (confirmed, received uint64) {
	return t.confirmed.Load(), t.received.Load()
}

// Finish ends the traffic: publishing stops, what was confirmed is received,
// within ctx, the client is shut down, and the history is held against its
// rules.
func (t *Traffic) Finish(ctx context.Context) (history.Summary, error) {
	close(t.stop)
	t.publishers.Wait()
	for len(t.log.Missing()) > 0 && ctx.Err() == nil {
		time.Sleep(20 * time.Millisecond)
	}
	err := t.c.Shutdown(ctx)
	t.consumers.Wait()
	s, violations := t.log.Check(history.Rules{Resent: int(t.c.Stats().Resent)})
	return s, errors.Join(err, violations)
}
