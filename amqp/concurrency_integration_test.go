//go:build integration

package amqp_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/warrenmq/warren/amqp"
	"github.com/warrenmq/warren/internal/rabbittest"
	"go.uber.org/goleak"
)

// TestFieldNote05_ContextsOnCalls makes every call to a broker that is frozen.
// Each returns with its context; afterwards the channel works, and no late
// reply was taken for another's.
func TestFieldNote05_ContextsOnCalls(t *testing.T) {
	b := rabbittest.Shared(t)
	c, ch := newSession(t)
	q := exclusiveQueue(t, ch, nil)
	mustPut(t, ch, q, "first", "second")
	tx := mustOpen(t, c)
	noError(t, tx.TxSelect(patiently(t)))
	closing := mustOpen(t, c)
	cons := mustSubscribe(t, mustOpen(t, c), exclusiveQueue(t, ch, nil), nil)
	b.Pause(t)
	calls := map[string]func(ctx context.Context) error{
		"queue.declare": func(ctx context.Context) error {
			_, err := ch.QueueDeclare(ctx, amqp.QueueDeclare{Exclusive: true})
			return err
		},
		"basic.get": func(ctx context.Context) error {
			_, err := ch.Get(ctx, amqp.BasicGet{Queue: q})
			return err
		},
		"basic.consume": func(ctx context.Context) error {
			_, err := ch.Subscribe(ctx, amqp.BasicConsume{Queue: q}, nil)
			return err
		},
		"channel.open": func(ctx context.Context) error { _, err := c.Channel(ctx); return err },
		"exchange.declare": func(ctx context.Context) error {
			return ch.ExchangeDeclare(ctx, amqp.ExchangeDeclare{Exchange: "amq.topic", Passive: true})
		},
		"basic.qos":                func(ctx context.Context) error { return ch.BasicQos(ctx, amqp.BasicQos{PrefetchCount: 1}) },
		"tx.commit":                tx.TxCommit,
		"channel.close":            closing.Close,
		"consumer.close":           cons.Close,
		"publish":                  func(ctx context.Context) error { return ch.Publish(ctx, toQueue(q), amqp.Message{}) },
		"connection.update-secret": func(ctx context.Context) error { return c.UpdateSecret(ctx, "guest", "") },
	}
	var wg sync.WaitGroup
	for name, call := range calls {
		wg.Go(func() {
			if err := call(briefly(t)); !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, amqp.ErrUnknownOutcome) {
				t.Errorf("%s: %v", name, err)
			}
		})
	}
	wg.Wait()
	over, cancel := context.WithCancel(context.Background())
	cancel()
	for name, call := range calls {
		if name == "channel.close" || name == "consumer.close" {
			continue // they are closed already
		}
		if err := call(over); !errors.Is(err, context.Canceled) || !amqp.SafeToRetry(err) {
			t.Errorf("%s with a context that is over: %v", name, err)
		}
	}
	b.Unpause(t)

	for range 20 { // each its own reply
		name := unique("own")
		ok, err := ch.QueueDeclare(patiently(t), amqp.QueueDeclare{Queue: name, Exclusive: true})
		if err != nil || ok.Queue != name {
			t.Fatalf("declared %q and was told of %q, %v", name, ok.Queue, err)
		}
	}
	// What the abandoned get and consumer were given is back, and no consumer
	// is left behind; the abandoned publish arrived.
	mustSettle(t, ch, q, 3)
	if _, n := queueDepth(t, ch, q); n != 0 {
		t.Errorf("%d consumers", n)
	}
	noError(t, tx.TxCommit(patiently(t)))
	eventually(t, "abandoned channels are closed", func() bool { return c.Stats().Channels == 3 })
	mustLive(t, c)
}

// TestFieldNote05_CancelledAtAnyMoment cancels calls at random while they run.
func TestFieldNote05_CancelledAtAnyMoment(t *testing.T) {
	c, ch := newSession(t)
	q := exclusiveQueue(t, ch, nil)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 60 {
				ctx, cancel := context.WithTimeout(context.Background(), time.Duration(rand.N(2_000_000)))
				name := unique("own")
				ok, err := ch.QueueDeclare(ctx, amqp.QueueDeclare{Queue: name, Exclusive: true})
				if err == nil && ok.Queue != name {
					t.Errorf("declared %q and was told of %q", name, ok.Queue)
				}
				if other, err := c.Channel(ctx); err == nil {
					noError(t, other.Close(patiently(t)))
				}
				if cons, err := ch.Subscribe(ctx, amqp.BasicConsume{Queue: q}, nil); err == nil {
					noError(t, cons.Close(patiently(t)))
				}
				_ = ch.Publish(ctx, toQueue(q), amqp.Message{Body: make([]byte, rand.N(1000))})
				if d, err := ch.Get(ctx, amqp.BasicGet{Queue: q}); err == nil {
					noError(t, d.Requeue())
				}
				cancel()
			}
		})
	}
	wg.Wait()
	eventually(t, "consumers that were given up are gone", func() bool {
		_, n := queueDepth(t, ch, q)
		return n == 0
	})
	eventually(t, "channels that were given up are closed", func() bool { return c.Stats().Channels == 1 })
	mustWork(t, ch)
}

// TestFieldNote06_64GoroutinesShareAChannel: declares, publishes, gets,
// consumers and closes on one channel, each with its own answer.
func TestFieldNote06_64GoroutinesShareAChannel(t *testing.T) {
	c, ch := newSession(t)
	shared := exclusiveQueue(t, ch, nil)
	var wg sync.WaitGroup
	for g := range 64 {
		wg.Go(func() {
			for i := range 5 {
				if err := shareRound(t, c, ch, shared, unique("own"), (g+i)%4); err != nil {
					t.Errorf("goroutine %d, round %d: %v", g, i, err)
					return
				}
			}
		})
	}
	wg.Wait()
	if s := c.Stats(); s.Channels != 1 || s.Consumers != 0 || s.Unconfirmed != 0 {
		t.Errorf("%+v", s)
	}
	mustWork(t, ch)
}

// shareRound is one round of one goroutine.
func shareRound(t *testing.T, c *amqp.Conn, ch *amqp.Channel, shared, name string, turn int) error {
	ctx := patiently(t)
	ok, err := ch.QueueDeclare(ctx, amqp.QueueDeclare{Queue: name, Exclusive: true})
	if err != nil || ok.Queue != name {
		return fmt.Errorf("declared %q and was told of %q: %w", name, ok.Queue, err)
	}
	if err := ch.Publish(ctx, toQueue(name), amqp.Message{Body: []byte(name)}); err != nil {
		return err
	}
	switch turn {
	case 0:
		d, err := ch.Get(ctx, amqp.BasicGet{Queue: name})
		if err != nil || string(d.Body) != name {
			return fmt.Errorf("got %q: %w", d.Body, err)
		}
		if err := d.Ack(); err != nil {
			return err
		}
	case 1:
		cons, err := ch.Subscribe(ctx, amqp.BasicConsume{Queue: name}, &amqp.ConsumeOptions{Prefetch: 1})
		if err != nil {
			return err
		}
		d := mustTake(t, cons, 1)[0]
		if string(d.Body) != name {
			return fmt.Errorf("consumed %q", d.Body)
		}
		if err := errors.Join(d.Ack(), cons.Close(ctx)); err != nil {
			return err
		}
	case 2:
		own, err := c.Channel(ctx)
		if err != nil {
			return err
		}
		if err := own.Close(ctx); err != nil {
			return err
		}
		if _, err := ch.QueueDeclare(ctx, amqp.QueueDeclare{Queue: shared, Passive: true}); err != nil {
			return err
		}
	}
	_, err = ch.QueueDelete(ctx, amqp.QueueDelete{Queue: name})
	return err
}

// TestFieldNote06_CloseUnderway closes a shared channel while others use it:
// each of them gets its answer or ErrClosed, and nobody hangs.
func TestFieldNote06_CloseUnderway(t *testing.T) {
	c, ch := newSession(t)
	q := exclusiveQueue(t, ch, nil)
	for range 5 {
		own := mustOpen(t, c)
		var wg sync.WaitGroup
		for range 32 {
			wg.Go(func() {
				for {
					_, err := own.QueueDeclare(patiently(t), amqp.QueueDeclare{Queue: q, Passive: true})
					if err == nil {
						err = own.Publish(patiently(t), toQueue(q), amqp.Message{})
					}
					if err != nil {
						wantErr(t, err, amqp.ErrClosed)
						return
					}
				}
			})
		}
		time.Sleep(10 * time.Millisecond)
		noError(t, own.Close(patiently(t)))
		wg.Wait()
	}
	mustWork(t, ch)
}

// TestFieldNote15_NothingLeaks opens and closes a thousand channels, and some
// connections.
func TestFieldNote15_NothingLeaks(t *testing.T) {
	rabbittest.Shared(t)
	before := goleak.IgnoreCurrent()
	c, err := amqp.Dial(patiently(t), rabbittest.Shared(t).URL(), nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 1000 {
		ch := mustOpen(t, c)
		if ch.Number() != 1 {
			t.Fatalf("channel %d in round %d", ch.Number(), i)
		}
		switch i % 4 {
		case 1:
			mustSubscribe(t, ch, exclusiveQueue(t, ch, nil), nil)
		case 2:
			noError(t, ch.Publish(patiently(t), amqp.BasicPublish{Exchange: "amq.fanout"}, amqp.Message{}))
		case 3: // the broker closes it
			_, err := ch.QueuePurge(patiently(t), amqp.QueuePurge{Queue: "no-such"})
			wantCode(t, err, amqp.NotFound)
		}
		noError(t, ch.Close(patiently(t)))
	}
	if s := c.Stats(); s.Channels != 0 || s.Consumers != 0 || s.Unconfirmed != 0 || s.Unacked != 0 {
		t.Errorf("%+v", s)
	}
	noError(t, c.Close())
	for range 5 {
		if _, err := amqp.Dial(patiently(t), rabbittest.Shared(t).URL()+"?auth_mechanism=plain&channel_max=1", &amqp.Config{VHost: "no-such"}); err == nil {
			t.Fatal("there is such a vhost")
		}
	}
	goleak.VerifyNone(t, before)
}

// counted counts the writes to a stream.
type counted struct {
	net.Conn
	writes atomic.Int64
}

func (c *counted) Write(p []byte) (int, error) {
	c.writes.Add(1)
	return c.Conn.Write(p)
}

// TestFieldNote20_ManyFramesAWrite: a stream of publishes shares its system
// calls, and so do the acks of a stream of deliveries.
func TestFieldNote20_ManyFramesAWrite(t *testing.T) {
	nc := &counted{Conn: dialRaw(t, "tcp", rabbittest.Shared(t).Addr())}
	c, err := amqp.NewConn(patiently(t), nc, nil)
	if err != nil {
		t.Fatal(err)
	}
	closeWithTest(t, c)
	ch := mustOpen(t, c)
	q := exclusiveQueue(t, ch, nil)
	frames, writes := c.Stats().FramesOut, nc.writes.Load()
	const n = 10_000
	mustPut(t, ch, q, numbered(n)...)
	f, w := int64(c.Stats().FramesOut-frames), nc.writes.Load()-writes
	t.Logf("publishing: %d frames in %d writes", f, w)
	if f < 3*n || w > f/10 {
		t.Errorf("%d frames in %d writes", f, w)
	}
	frames, writes = c.Stats().FramesOut, nc.writes.Load()
	cons := mustSubscribe(t, ch, q, &amqp.ConsumeOptions{Prefetch: 1000})
	i := 0
	for d, err := range cons.All() {
		if err != nil {
			t.Fatal(err)
		}
		noError(t, d.Ack())
		if i++; i == n {
			break
		}
	}
	noError(t, cons.Close(patiently(t)))
	f, w = int64(c.Stats().FramesOut-frames), nc.writes.Load()-writes
	t.Logf("acks of %d deliveries: %d frames in %d writes", n, f, w)
	if f > n/2 || w > n/2 {
		t.Errorf("%d frames in %d writes for %d acks", f, w, n)
	}
	mustSettle(t, ch, q, 0)
}

// TestFieldNoteAlso_Tracing carries a trace's id from publisher to consumer in
// the headers, and ends what it began.
func TestFieldNoteAlso_Tracing(t *testing.T) {
	type key struct{}
	var mu sync.Mutex
	var log []string
	note := func(format string, args ...any) {
		mu.Lock()
		defer mu.Unlock()
		log = append(log, fmt.Sprintf(format, args...))
	}
	c := mustDial(t, &amqp.Config{Trace: &amqp.Trace{
		PublishStart: func(ctx context.Context, _ uint16, m *amqp.BasicPublish, msg *amqp.Message) context.Context {
			msg.Headers = amqp.Table{"traceparent": "00-" + string(msg.Body)}
			return context.WithValue(ctx, key{}, string(msg.Body))
		},
		PublishDone: func(ctx context.Context, _ uint16, err error) { note("published %v: %v", ctx.Value(key{}), err) },
		Deliver: func(ctx context.Context, d *amqp.Delivery) context.Context {
			h, _ := d.Headers()
			note("delivered %v", h["traceparent"])
			return ctx
		},
		Settle: func(_ context.Context, s amqp.SettleInfo, err error) {
			note("%v %d: %v", s.Settlement, s.DeliveryTag, err)
		},
	}})
	ch := mustOpen(t, c)
	q := exclusiveQueue(t, ch, nil)
	noError(t, ch.Publish(patiently(t), toQueue(q), amqp.Message{Body: []byte("7")}))
	d := mustTake(t, mustSubscribe(t, ch, q, nil), 1)[0]
	noError(t, d.Ack())
	wantErr(t, d.Ack(), amqp.ErrSettled)
	want := []string{"published 7: <nil>", "delivered 00-7", "acked 1: <nil>", "acked 1: " + amqp.ErrSettled.Error()}
	eventually(t, fmt.Sprint(want), func() bool {
		mu.Lock()
		defer mu.Unlock()
		return fmt.Sprint(log) == fmt.Sprint(want)
	})
}
