package amqp_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/warrenmq/warren/amqp"
	"github.com/warrenmq/warren/amqp/amqptest"
)

// An auto-delete queue goes with its last consumer. Where the topology names it
// the next connection makes it again; otherwise it stays dead, and the
// subscription says so.
func TestClient_AutoDeleteQueuesStayDeadUnlessNamed(t *testing.T) {
	queue := amqp.Queue{Name: "passing", Type: amqp.Classic, AutoDelete: true}
	for name, top := range map[string]*amqp.Topology{"named": {Queues: []amqp.Queue{queue}}, "not named": nil} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				srv := amqptest.NewServer(t)
				c := newClient(t, srv, &amqp.ClientConfig{Topology: top})
				ctx := within(t, time.Hour)
				if top == nil {
					conn := connect(t, srv)
					if err := (&amqp.Topology{Queues: []amqp.Queue{queue}}).Apply(ctx, conn); err != nil {
						t.Fatal(err)
					}
				}
				sub, err := c.Subscribe(ctx, amqp.BasicConsume{Queue: "passing"}, &amqp.ConsumeOptions{Resume: &amqp.Resume{GiveUp: 20 * time.Second}})
				if err != nil {
					t.Fatal(err)
				}
				ended := make(chan error, 1)
				go func() {
					for d, err := range sub.All() {
						if err != nil {
							ended <- err
							return
						}
						d.Ack()
					}
					ended <- nil
				}()
				synctest.Wait()
				srv.KillAll()
				time.Sleep(time.Minute)
				if _, there := srv.Queue("passing"); there != (top != nil) {
					t.Errorf("the queue is there: %v", there)
				}
				if top != nil {
					sub.Close(ctx)
				}
				if err := <-ended; (top == nil) != errors.Is(err, amqp.NotFound) {
					t.Errorf("ended with %v", err)
				}
			})
		})
	}
}

// A delivery that is kept for longer than the broker allows costs the consumer.
// By default there is another, and what comes too late is stale and sends
// nothing; by policy it is the end.
func TestClient_ConsumerTimeout(t *testing.T) {
	for _, policy := range []amqp.CancelPolicy{amqp.Resubscribe, amqp.EndOnCancel} {
		synctest.Test(t, func(t *testing.T) {
			srv := amqptest.NewServer(t, amqptest.Config{ConsumerTimeout: time.Minute})
			var exceptions atomic.Int64
			c := newClient(t, srv, &amqp.ClientConfig{
				Topology: &amqp.Topology{Queues: []amqp.Queue{amqp.QuorumQueue("work")}},
				Config: amqp.Config{Trace: &amqp.Trace{ChannelClosed: func(_ context.Context, _ amqp.ConnInfo, _ uint16, err error) {
					if errors.Is(err, amqp.PreconditionFailed) {
						exceptions.Add(1)
					}
				}}},
			})
			ctx := within(t, time.Hour)
			if err := c.Publish(ctx, amqp.BasicPublish{RoutingKey: "work"}, text("x")); err != nil {
				t.Fatal(err)
			}
			sub, err := c.Subscribe(ctx, amqp.BasicConsume{Queue: "work"}, &amqp.ConsumeOptions{Resume: &amqp.Resume{OnCancel: policy}})
			if err != nil {
				t.Fatal(err)
			}
			times, ended := 0, error(nil)
			for d, err := range sub.All() {
				if err != nil {
					ended = err
					break
				}
				if times++; times == 1 {
					time.Sleep(2 * time.Minute)
					d.Ack() // late
					continue
				}
				if err := d.Ack(); err != nil || !d.Redelivered {
					t.Errorf("the second time: %v, redelivered %v", err, d.Redelivered)
				}
				break
			}
			time.Sleep(time.Second)
			q, _ := srv.Queue("work")
			if policy == amqp.Resubscribe && (times != 2 || ended != nil || q.Ready+q.Unacked != 0) {
				t.Errorf("came %d times, ended with %v; %+v", times, ended, q)
			}
			if policy == amqp.EndOnCancel && (times != 1 || !errors.Is(ended, amqp.ErrCancelled)) {
				t.Errorf("came %d times, ended with %v", times, ended)
			}
			if n := exceptions.Load(); n != 0 {
				t.Errorf("%d channels were closed by the broker", n)
			}
		})
	}
}

// What was given up without a parking queue is dead-lettered as its queue says,
// whichever way it was tried.
func TestRetry_GivesUpToTheDeadLetterExchange(t *testing.T) {
	for name, retry := range map[string]*amqp.Retry{"delays": {Delays: []time.Duration{time.Second}}, "limit": {Limit: 2}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				srv := amqptest.NewServer(t)
				c := newClient(t, srv, &amqp.ClientConfig{Topology: &amqp.Topology{Queues: amqp.QuorumWithParking("work", 100)}})
				ctx := within(t, time.Hour)
				var times atomic.Int64
				go c.Serve(ctx, amqp.BasicConsume{Queue: "work"}, func(context.Context, *amqp.Delivery) error {
					times.Add(1)
					return errors.New("never")
				}, &amqp.ServeOptions{Retry: retry})
				if err := c.Publish(ctx, amqp.BasicPublish{RoutingKey: "work"}, text("x")); err != nil {
					t.Fatal(err)
				}
				time.Sleep(time.Minute)
				synctest.Wait()
				if dead := srv.Messages("work.dead"); times.Load() != 2 || len(dead) != 1 || string(dead[0].Body) != "x" {
					t.Errorf("handled %d times, dead: %+v", times.Load(), dead)
				}
				c.Close()
			})
		})
	}
}
