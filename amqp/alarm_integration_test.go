//go:build integration

package amqp_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/warrenmq/warren/amqp"
	"github.com/warrenmq/warren/internal/rabbittest"
)

// blocking is a connection that counts what the broker tells it of alarms.
type blocking struct {
	*amqp.Conn
	ch                 *amqp.Channel
	blocked, unblocked atomic.Int32
	reason             atomic.Value
}

func dialBlocking(t *testing.T, cfg amqp.Config) *blocking {
	t.Helper()
	b := new(blocking)
	cfg.Trace = &amqp.Trace{
		Blocked: func(_ context.Context, _ amqp.ConnInfo, reason string) {
			b.reason.Store(reason)
			b.blocked.Add(1)
		},
		Unblocked: func(context.Context, amqp.ConnInfo) { b.unblocked.Add(1) },
	}
	b.Conn = mustDial(t, &cfg)
	b.ch = mustOpen(t, b.Conn)
	return b
}

// TestFieldNote01_19_MemoryAlarm lives through one memory alarm. The broker
// stops reading from a connection at the first publish it sees there; some
// megabytes more go into the sockets' buffers, and then nothing.
func TestFieldNote01_19_MemoryAlarm(t *testing.T) {
	b := rabbittest.Shared(t)
	stuck := dialBlocking(t, amqp.Config{CloseTimeout: time.Second})
	patient := dialBlocking(t, amqp.Config{})
	hasty := dialBlocking(t, amqp.Config{FailWhenBlocked: true})
	consumer := dialBlocking(t, amqp.Config{})
	q := durableQueue(t, patient.ch, nil)
	mustPut(t, patient.ch, q, numbered(500)...)
	full := q
	q = durableQueue(t, patient.ch, nil) // some of what is published from here on arrives

	clear := b.MemoryAlarm(t)
	fillSocket(t, stuck, q)
	waits := make(chan error, 1)
	t.Run("01 publish returns when its context ends", func(t *testing.T) {
		for range 3 {
			err := stuck.ch.Publish(briefly(t), toQueue(q), amqp.Message{Body: make([]byte, 1<<20)})
			wantErr(t, err, context.DeadlineExceeded)
			if !amqp.SafeToRetry(err) {
				t.Errorf("not sent, and it does not say so: %v", err)
			}
		}
		if s := stuck.Stats(); !s.Blocked {
			t.Errorf("%+v", s)
		}
		if r, _ := stuck.reason.Load().(string); r == "" {
			t.Error("blocked without a reason")
		}
	})
	t.Run("other calls return when their contexts end", func(t *testing.T) {
		_, err := stuck.ch.QueueDeclare(briefly(t), amqp.QueueDeclare{Queue: q, Passive: true})
		wantErr(t, err, context.DeadlineExceeded)
		_, err = stuck.Channel(briefly(t))
		wantErr(t, err, context.DeadlineExceeded)
		wantErr(t, stuck.ch.Close(briefly(t)), context.DeadlineExceeded)
	})
	t.Run("fail fast where asked to", func(t *testing.T) {
		eventually(t, "ErrBlocked", func() bool {
			err := hasty.ch.Publish(briefly(t), toQueue(q), amqp.Message{})
			return errors.Is(err, amqp.ErrBlocked) && amqp.SafeToRetry(err)
		})
	})
	t.Run("consumers and acks go on elsewhere", func(t *testing.T) {
		cons := mustSubscribe(t, consumer.ch, full, &amqp.ConsumeOptions{Prefetch: 20})
		for range 500 {
			noError(t, mustTake(t, cons, 1)[0].Ack())
		}
		noError(t, consumer.ch.Close(patiently(t)))
		consumer.ch = mustOpen(t, consumer.Conn)
		if n, _ := queueDepth(t, consumer.ch, full); n != 0 {
			t.Errorf("%d messages came back: the acks did not arrive", n)
		}
	})
	t.Run("01 Close returns within CloseTimeout", func(t *testing.T) {
		closed := make(chan error, 1)
		go func() { closed <- stuck.Close() }()
		select {
		case err := <-closed:
			wantErr(t, err, amqp.ErrClosed) // it was not orderly
		case <-time.After(patience):
			t.Fatal("Close hangs")
		}
	})
	// One publish is what makes the broker block the connection; the next waits.
	first, err := patient.ch.PublishAsync(patiently(t), toQueue(q), amqp.Message{})
	noError(t, err)
	eventually(t, "blocked", func() bool { return patient.blocked.Load() == 1 })
	go func() { waits <- patient.ch.Publish(patiently(t), toQueue(q), amqp.Message{}) }()
	eventually(t, "a publish waits", func() bool { return patient.Stats().Waiting == 1 })
	clear()
	t.Run("19 blocked publishers resume", func(t *testing.T) {
		noError(t, <-waits)
		noError(t, first.Wait(patiently(t)))
		eventually(t, "unblocked", func() bool { return patient.unblocked.Load() == 1 })
		mustPut(t, patient.ch, q, "as before")
		if s := patient.Stats(); s.Blocked || s.Waiting != 0 || s.Unconfirmed != 0 {
			t.Errorf("%+v", s)
		}
		eventually(t, "ErrBlocked is over", func() bool {
			return hasty.ch.Publish(patiently(t), toQueue(q), amqp.Message{}) == nil
		})
	})
}

// fillSocket publishes until nothing goes any more.
func fillSocket(t *testing.T, b *blocking, q string) {
	t.Helper()
	body := make([]byte, 256<<10)
	for range 200 {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		_, err := b.ch.PublishAsync(ctx, toQueue(q), amqp.Message{Body: body})
		cancel()
		if err != nil {
			wantErr(t, err, context.DeadlineExceeded)
			return
		}
	}
	t.Fatal("50 MB went into a broker that reads nothing")
}

// TestFieldNote01_StalledPeer: the same with a broker that says nothing at all,
// not even that it is blocked, and with heartbeats to notice it by.
func TestFieldNote01_StalledPeer(t *testing.T) {
	b := rabbittest.Shared(t)
	c := mustDial(t, &amqp.Config{CloseTimeout: 500 * time.Millisecond})
	ch := mustOpen(t, c)
	q := exclusiveQueue(t, ch, nil)
	mustPut(t, ch, q, "x")
	b.Pause(t)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for {
				ctx, cancel := context.WithTimeout(context.Background(), time.Second)
				_, err := ch.PublishAsync(ctx, toQueue(q), amqp.Message{Body: make([]byte, 1<<20)})
				cancel()
				if err != nil {
					wantErr(t, err, context.DeadlineExceeded)
					return
				}
			}
		})
	}
	wg.Wait()
	if c.Stats().Outbox == 0 {
		t.Error("nothing is held up")
	}
	wantErr(t, c.Close(), amqp.ErrClosed)
	b.Unpause(t)
}

// TestFieldNoteAlso_HalfOpenConnection: heartbeats find that nobody is there.
func TestFieldNoteAlso_HalfOpenConnection(t *testing.T) {
	b := rabbittest.Shared(t)
	c := mustDial(t, &amqp.Config{Heartbeat: time.Second})
	idle := mustDial(t, &amqp.Config{Heartbeat: time.Second})
	ch := mustOpen(t, c)
	cons := mustSubscribe(t, ch, exclusiveQueue(t, ch, nil), nil)
	time.Sleep(2500 * time.Millisecond) // longer than either side would put up with silence
	mustLive(t, c)
	mustLive(t, idle)
	b.Pause(t)
	mustEnd(t, "the connection is given up", c.Done())
	for _, err := range cons.All() {
		wantErr(t, err, amqp.ErrClosed)
	}
	wantErr(t, cons.Err(), amqp.ErrClosed)
	b.Unpause(t)
}
