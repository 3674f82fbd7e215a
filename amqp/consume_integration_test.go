//go:build integration

package amqp_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/warrenmq/warren/amqp"
)

func TestConsumer_Basics(t *testing.T) {
	_, ch := newSession(t)
	q := exclusiveQueue(t, ch, nil)
	mustPut(t, ch, q, numbered(10)...)
	cons := mustSubscribe(t, ch, q, nil)
	ds := mustTake(t, cons, 10)
	if got := bodiesOf(ds); !slices.Equal(got, numbered(10)) {
		t.Errorf("got %q", got)
	}
	d := ds[3]
	if d.RoutingKey != q || d.Exchange != "" || d.Redelivered || d.DeliveryTag != 4 || d.ConsumerTag() != cons.Tag() || d.Channel() != ch {
		t.Errorf("%+v", d)
	}
	for _, d := range ds {
		noError(t, d.Ack())
	}
	if n := ch.Conn().Stats(); n.Unacked != 0 || n.Consumers != 1 {
		t.Errorf("%+v", n)
	}
	noError(t, cons.Close(patiently(t)))
	noError(t, cons.Close(patiently(t)))
	for d, err := range cons.All() {
		t.Errorf("after Close: %v, %v", d, err)
	}
	noError(t, cons.Err())
	mustPut(t, ch, q, "for nobody")
	mustSettle(t, ch, q, 1)
	if _, n := queueDepth(t, ch, q); n != 0 {
		t.Errorf("%d consumers", n)
	}
}

// TestConsumer_Settling: what each way of settling does with its message.
func TestConsumer_Settling(t *testing.T) {
	_, ch := newSession(t)
	dead := exclusiveQueue(t, ch, nil)
	q := exclusiveQueue(t, ch, amqp.Table{"x-dead-letter-exchange": "", "x-dead-letter-routing-key": dead})
	mustPut(t, ch, q, "acked", "rejected", "requeued", "retried")
	cons := mustSubscribe(t, ch, q, nil)
	ds := mustTake(t, cons, 4)
	noError(t, ds[0].Ack())
	noError(t, ds[1].Reject())
	noError(t, ds[2].Requeue())
	noError(t, ds[3].Retry())
	again := mustTake(t, cons, 2)
	got := bodiesOf(again)
	slices.Sort(got)
	if !slices.Equal(got, []string{"requeued", "retried"}) || !again[0].Redelivered || !again[1].Redelivered {
		t.Errorf("came again: %q", got)
	}
	for _, d := range again {
		noError(t, d.Ack())
	}
	mustSettle(t, ch, dead, 1)
	d := mustGet(t, ch, dead)
	h, err := d.Headers()
	if err != nil || string(d.Body) != "rejected" || h["x-first-death-reason"] != "rejected" {
		t.Errorf("dead letter %q %v %v", d.Body, h, err)
	}
	noError(t, ch.Close(patiently(t)))
	if n, _ := queueDepth(t, mustOpen(t, ch.Conn()), q); n != 0 {
		t.Errorf("%d messages are back", n)
	}
}

// TestFieldNote13_SecondAck: settling twice, or what needs no settling, is a
// local error and nothing is sent, so that the channel stays.
func TestFieldNote13_SecondAck(t *testing.T) {
	c, ch := newSession(t)
	q := exclusiveQueue(t, ch, nil)
	mustPut(t, ch, q, "0", "1", "2", "3")
	cons := mustSubscribe(t, ch, q, &amqp.ConsumeOptions{AckBatch: 1})
	ds := mustTake(t, cons, 4)
	settle := []func(*amqp.Delivery) error{(*amqp.Delivery).Ack, (*amqp.Delivery).Reject, (*amqp.Delivery).Requeue, (*amqp.Delivery).Retry}
	for i, d := range ds[:2] {
		noError(t, settle[i](d))
		sent := c.Stats().FramesOut
		for _, f := range settle {
			wantErr(t, f(d), amqp.ErrSettled)
		}
		if n := c.Stats().FramesOut - sent; n != 0 {
			t.Errorf("%d frames were sent", n)
		}
	}
	// Of many at once exactly one settles.
	var wg sync.WaitGroup
	won := make(chan error, 64)
	for range 64 {
		wg.Go(func() { won <- ds[2].Ack() })
	}
	wg.Wait()
	close(won)
	n := 0
	for err := range won {
		if err == nil {
			n++
		} else {
			wantErr(t, err, amqp.ErrSettled)
		}
	}
	if n != 1 {
		t.Errorf("%d acks of one delivery succeeded", n)
	}
	noError(t, ds[3].Ack())
	noError(t, cons.Close(patiently(t)))
	mustPut(t, ch, q, "no ack wanted", "nor here")
	wantErr(t, mustGet(t, ch, q).Ack(), amqp.ErrSettled)
	free, err := ch.Subscribe(patiently(t), amqp.BasicConsume{Queue: q, NoAck: true}, nil)
	noError(t, err)
	wantErr(t, mustTake(t, free, 1)[0].Ack(), amqp.ErrSettled)
	mustWork(t, ch)
}

// TestFieldNote02_StaleAcks keeps deliveries over the end of their channel,
// three ways. On the channel that takes its place, which has the same number
// and the same delivery tags, they settle nothing.
func TestFieldNote02_StaleAcks(t *testing.T) {
	ends := map[string]func(t *testing.T, ch *amqp.Channel){
		"closed": func(t *testing.T, ch *amqp.Channel) { noError(t, ch.Close(patiently(t))) },
		"exception": func(t *testing.T, ch *amqp.Channel) {
			_, err := ch.QueuePurge(patiently(t), amqp.QueuePurge{Queue: "no-such"})
			wantCode(t, err, amqp.NotFound)
		},
		"connection": func(t *testing.T, ch *amqp.Channel) { noError(t, ch.Conn().Close()) },
	}
	for name, end := range ends {
		t.Run(name, func(t *testing.T) {
			_, watch := newSession(t)
			q := durableQueue(t, watch, nil)
			mustPut(t, watch, q, "0", "1", "2", "3")
			c, old := newSession(t)
			ds := mustTake(t, mustSubscribe(t, old, q, nil), 3)
			got, err := old.Get(patiently(t), amqp.BasicGet{Queue: q})
			if err == nil {
				ds = append(ds, got)
			} // else the consumer has it, and nobody takes it
			noError(t, ds[1].Ack()) // may be under way still: it is honoured or comes again
			end(t, old)
			if c.Err() != nil || name == "connection" {
				c = mustDial(t, nil)
			}
			next := mustOpen(t, c)
			if next.Number() != old.Number() {
				t.Fatalf("channel %d, not %d", next.Number(), old.Number())
			}
			left, _ := queueDepth(t, watch, q)
			eventually(t, "what was taken is back", func() bool {
				left, _ = queueDepth(t, watch, q)
				return left >= 3
			})
			fresh := mustTake(t, mustSubscribe(t, next, q, &amqp.ConsumeOptions{AckBatch: 1}), left)
			for i, d := range ds {
				for _, f := range []func() error{d.Ack, d.Reject, d.Requeue, d.Retry} {
					if err := f(); !errors.Is(err, amqp.ErrStale) && !errors.Is(err, amqp.ErrSettled) {
						t.Errorf("delivery %d: %v", i, err)
					}
				}
			}
			mustWork(t, next)
			noError(t, next.Close(patiently(t)))
			mustSettle(t, watch, q, left) // nobody settled any
			if got := bodiesOf(fresh); !slices.Contains(got, "0") || !slices.Contains(got, "2") || !slices.Contains(got, "3") {
				t.Errorf("came again: %q", got)
			}
		})
	}
}

// TestFieldNote04_UndrainedConsumers: thousands of deliveries that nobody takes
// hold up nobody else on the connection.
func TestFieldNote04_UndrainedConsumers(t *testing.T) {
	c, ch := newSession(t)
	full := exclusiveQueue(t, ch, nil)
	mustPut(t, ch, full, slices.Repeat([]string{"x"}, 20_000)...)
	idle := mustOpen(t, c)
	acked := mustSubscribe(t, idle, full, nil)
	eventually(t, "its prefetch is out", func() bool { return c.Stats().Unacked == 256 }) // and note 11: no more
	unlimited, err := mustOpen(t, c).Subscribe(patiently(t), amqp.BasicConsume{Queue: full, NoAck: true}, nil)
	noError(t, err)

	other := mustOpen(t, c)
	q := exclusiveQueue(t, other, nil)
	for range 100 {
		mustPut(t, other, q, "passes")
		mustGet(t, other, q)
	}
	mustWork(t, idle)
	eventually(t, "the consumer without limit ends", func() bool { return unlimited.Err() != nil })
	wantErr(t, unlimited.Err(), amqp.ErrSlowConsumer)
	n := 0
	for d, err := range unlimited.All() { // what it has is still there to be taken
		if d == nil {
			wantErr(t, err, amqp.ErrSlowConsumer)
			break
		}
		n++
	}
	if n < 16<<10 {
		t.Errorf("%d of the buffered deliveries", n)
	}
	for _, d := range mustTake(t, acked, 256) {
		noError(t, d.Ack())
	}
	// The other may have been sent all the rest before its cancel arrived.
	mustPut(t, ch, full, slices.Repeat([]string{"y"}, 256)...)
	mustTake(t, acked, 256)
}

// TestFieldNote11_BoundedBuffers: a consumer that takes nothing is given as much
// as its prefetch says, 256 by default, and the rest stays with the broker.
func TestFieldNote11_BoundedBuffers(t *testing.T) {
	c, ch := newSession(t)
	q := exclusiveQueue(t, ch, nil)
	mustPut(t, ch, q, numbered(2000)...)
	for _, prefetch := range []int{0, 10} {
		own := mustOpen(t, c)
		cons := mustSubscribe(t, own, q, &amqp.ConsumeOptions{Prefetch: prefetch})
		if prefetch == 0 {
			prefetch = 256
		}
		mustSettle(t, ch, q, 2000-prefetch)
		in := c.Stats().OctetsIn
		for _, d := range mustTake(t, cons, 5) {
			noError(t, d.Ack())
		}
		mustSettle(t, ch, q, 2000-prefetch-5)
		eventually(t, "the window is full again", func() bool { return c.Stats().Unacked == prefetch })
		if n := c.Stats().OctetsIn - in; n > 5000 {
			t.Errorf("%d octets came for five messages", n)
		}
		noError(t, own.Close(patiently(t)))
		mustSettle(t, ch, q, 1995)
		mustPut(t, ch, q, numbered(5)...)
	}
}

// TestConsumer_HoldBack: on a connection of its own a consumer can let TCP hold
// the broker back, and misses nothing.
func TestConsumer_HoldBack(t *testing.T) {
	_, ch := newSession(t)
	q := durableQueue(t, ch, nil)
	mustPut(t, ch, q, numbered(20_000)...)
	c, own := newSession(t)
	cons, err := own.Subscribe(patiently(t), amqp.BasicConsume{Queue: q, NoAck: true}, &amqp.ConsumeOptions{Buffer: 100, HoldBack: true})
	noError(t, err)
	i := 0
	for d, err := range cons.All() {
		if err != nil {
			t.Fatal(err)
		}
		if string(d.Body) != fmt.Sprint(i) {
			t.Fatalf("%q in place of %d", d.Body, i)
		}
		if i++; i == 20_000 {
			break
		}
	}
	mustPut(t, ch, q, slices.Repeat([]string{"x"}, 5000)...) // the reader is held now
	noError(t, c.Close())
}

// TestFieldNote17_CancelledByTheBroker: a consumer whose queue is deleted ends
// with an error, never with zero deliveries; its channel stays.
func TestFieldNote17_CancelledByTheBroker(t *testing.T) {
	c, ch := newSession(t)
	q := exclusiveQueue(t, ch, nil)
	mustPut(t, ch, q, "0", "1")
	cons := mustSubscribe(t, ch, q, nil)
	ds := mustTake(t, cons, 1)
	_, err := mustOpen(t, c).QueueDelete(patiently(t), amqp.QueueDelete{Queue: q})
	noError(t, err)
	eventually(t, "the consumer ends", func() bool { return cons.Err() != nil })
	var end error
	for d, err := range cons.All() {
		if d == nil {
			end = err
			continue
		}
		ds = append(ds, d)
	}
	wantErr(t, end, amqp.ErrCancelled)
	if got := bodiesOf(ds); !cmp.Equal(got, []string{"0", "1"}) {
		t.Errorf("got %q", got)
	}
	for _, d := range ds {
		noError(t, d.Ack()) // late, and no harm
	}
	noError(t, cons.Close(patiently(t)))
	mustWork(t, ch)
}

// TestFieldNote17_ConnectionLost: every loop over a consumer ends with the reason.
func TestFieldNote17_ConnectionLost(t *testing.T) {
	c, ch := newSession(t)
	cons := mustSubscribe(t, ch, exclusiveQueue(t, ch, nil), nil)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			var last error
			for d, err := range cons.All() {
				if d != nil {
					t.Errorf("a delivery: %+v", d)
				}
				last = err
			}
			if last != nil {
				wantErr(t, last, amqp.ErrClosed)
			}
		})
	}
	time.Sleep(50 * time.Millisecond)
	noError(t, c.Close())
	wg.Wait()
	wantErr(t, cons.Err(), amqp.ErrClosed)
}

// TestSubscribe_PrefetchesOfTheirOwn: qos and consume go out as one step, so
// subscribers on one channel at the same time get what each asked for.
func TestSubscribe_PrefetchesOfTheirOwn(t *testing.T) {
	c, ch := newSession(t)
	var queues []string
	for range 20 {
		q := exclusiveQueue(t, ch, nil)
		queues = append(queues, q)
		mustPut(t, ch, q, numbered(40)...)
	}
	own := mustOpen(t, c)
	var wg sync.WaitGroup
	for i, q := range queues {
		wg.Go(func() {
			_, err := own.Subscribe(patiently(t), amqp.BasicConsume{Queue: q}, &amqp.ConsumeOptions{Prefetch: i + 1})
			noError(t, err)
		})
	}
	wg.Wait()
	for i, q := range queues {
		mustSettle(t, ch, q, 40-(i+1))
	}
	eventually(t, "all have arrived", func() bool { return c.Stats().Unacked == 210 })
}

func TestConsumer_CloseRequeuesTheRest(t *testing.T) {
	_, ch := newSession(t)
	q := exclusiveQueue(t, ch, nil)
	mustPut(t, ch, q, numbered(100)...)
	cons := mustSubscribe(t, ch, q, nil)
	taken := 0
	for d, err := range cons.All() {
		if err != nil {
			t.Fatal(err)
		}
		if taken++; taken == 10 {
			noError(t, cons.Close(patiently(t))) // from inside the loop, which then ends
		}
		noError(t, d.Ack()) // the last one after Close: it was taken
	}
	if taken != 10 {
		t.Errorf("%d were taken; Close was called at the tenth", taken)
	}
	mustSettle(t, ch, q, 90)
}

// TestConsumer_LoopsShare: several loops get each delivery once, and what one
// leaves another finds.
func TestConsumer_LoopsShare(t *testing.T) {
	_, ch := newSession(t)
	q := exclusiveQueue(t, ch, nil)
	const n = 2000
	mustPut(t, ch, q, numbered(n)...)
	cons := mustSubscribe(t, ch, q, &amqp.ConsumeOptions{Prefetch: 50})
	var mu sync.Mutex
	seen := make(map[string]int)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for {
				for d, err := range cons.All() {
					if err != nil {
						t.Error(err)
						return
					}
					mu.Lock()
					seen[string(d.Body)]++
					done := len(seen) == n
					mu.Unlock()
					noError(t, d.Ack())
					if done {
						noError(t, cons.Close(context.Background()))
					}
					if len(d.Body) == 3 {
						break // and begin another loop
					}
				}
				mu.Lock()
				done := len(seen) == n
				mu.Unlock()
				if done {
					return
				}
			}
		})
	}
	wg.Wait()
	for i := range n {
		if seen[fmt.Sprint(i)] != 1 {
			t.Errorf("message %d came %d times", i, seen[fmt.Sprint(i)])
		}
	}
	mustSettle(t, ch, q, 0)
}

func TestGet(t *testing.T) {
	_, ch := newSession(t)
	ctx := patiently(t)
	q := exclusiveQueue(t, ch, nil)
	_, err := ch.Get(ctx, amqp.BasicGet{Queue: q})
	wantErr(t, err, amqp.ErrEmpty)
	mustPut(t, ch, q, "0", "1", "2")
	d, err := ch.Get(ctx, amqp.BasicGet{Queue: q})
	if err != nil || string(d.Body) != "0" || d.MessageCount != 2 || d.ConsumerTag() != "" {
		t.Errorf("%+v, %v", d, err)
	}
	noError(t, d.Requeue())
	mustSettle(t, ch, q, 3)
	if d, err = ch.Get(ctx, amqp.BasicGet{Queue: q}); err != nil || !d.Redelivered {
		t.Errorf("%+v, %v", d, err)
	}
	noError(t, d.Ack())
	noError(t, ch.BasicRecover(ctx, amqp.BasicRecover{Requeue: true}))
	mustSettle(t, ch, q, 2)
}
