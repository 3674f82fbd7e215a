package amqp_test

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/warrenmq/warren/amqp"
	"github.com/warrenmq/warren/amqp/amqptest"
)

func ack(tag uint64, multiple bool) amqp.Method {
	return &amqp.BasicAck{DeliveryTag: tag, Multiple: multiple}
}

// acked gives a consumer's deliveries, of which a script keeps what is said.
func acking(t *testing.T, n int, opts *amqp.ConsumeOptions) (*script, []*amqp.Delivery) {
	t.Helper()
	s, conn := newScript(t, nil, nil)
	ch, err := conn.Channel(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	cons := subscribe(t, ch, opts)
	s.deliver(1, n, &amqp.Message{})
	list := takeN(t, cons, n)
	synctest.Wait()
	s.since()
	return s, list
}

func (s *script) wantSaid(when string, want ...amqp.Method) {
	s.t.Helper()
	synctest.Wait()
	if diff := cmp.Diff(want, s.methods()); diff != "" {
		s.t.Errorf("%s, said (-want +got):\n%s", when, diff)
	}
}

func TestAcks_GoTogetherWithin1msOrAt64(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, list := acking(t, 200, nil)
		for _, d := range list[:3] {
			if err := d.Ack(); err != nil {
				t.Fatal(err)
			}
		}
		s.wantSaid("at first")
		time.Sleep(time.Millisecond)
		s.wantSaid("after 1 ms", ack(3, true))
		for _, d := range list[3 : 3+130] {
			d.Ack()
		}
		s.wantSaid("at once", ack(3+64, true), ack(3+128, true))
		time.Sleep(time.Millisecond)
		s.wantSaid("after another ms", ack(3+130, true))
		list[133].Ack()
		time.Sleep(time.Millisecond)
		s.wantSaid("alone", ack(134, false))
	})
}

func TestAcks_MultipleCoversOnlyWhatIsHandled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, list := acking(t, 12, nil)
		settle := func(tags ...int) {
			for _, tag := range tags {
				if err := list[tag-1].Ack(); err != nil {
					t.Fatal(err)
				}
			}
			time.Sleep(time.Millisecond)
		}
		settle(2, 5, 4)
		s.wantSaid("without 1 and 3", ack(2, false), ack(4, false), ack(5, false))
		settle(1, 7)
		s.wantSaid("1 closes the gap to 2", ack(1, false), ack(7, false)) // 2 is known already: its tag is of no use
		list[2].Reject()
		s.wantSaid("3 is rejected", &amqp.BasicReject{DeliveryTag: 3})
		settle(6)
		s.wantSaid("up to 7 all is settled", ack(6, false))
		list[8].Requeue()
		list[9].Retry()
		settle(8, 12)
		s.wantSaid("9 and 10 go back, 11 is open",
			&amqp.BasicReject{DeliveryTag: 9, Requeue: true}, &amqp.BasicNack{DeliveryTag: 10, Requeue: true}, ack(8, false), ack(12, false))
		settle(11)
		s.wantSaid("the last", ack(11, false))
	})
}

// A broker finds each ack to be for something that it waits for.
func TestAcks_OutOfOrderAgainstABroker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := amqptest.NewServer(t)
		ch := openQueue(t, connect(t, srv), "q")
		const n = 300
		for range n {
			if err := ch.BasicPublish(t.Context(), amqp.BasicPublish{RoutingKey: "q"}, amqp.Message{}); err != nil {
				t.Fatal(err)
			}
		}
		list := takeN(t, subscribe(t, ch, &amqp.ConsumeOptions{Prefetch: n}), n)
		for i := range n { // every 7th later, every 5th rejected
			if d := list[(i*131)%n]; i%5 == 0 {
				d.Reject()
			} else if i%7 != 0 {
				d.Ack()
			}
			if i%50 == 0 {
				time.Sleep(time.Millisecond)
			}
		}
		for _, d := range list {
			if err := d.Ack(); err != nil && !errors.Is(err, amqp.ErrSettled) {
				t.Fatal(err)
			}
		}
		time.Sleep(time.Second)
		if q, _ := srv.Queue("q"); q.Unacked != 0 || q.Ready != 0 {
			t.Errorf("the queue has %d ready and %d unsettled", q.Ready, q.Unacked)
		}
		if err := ch.Err(); err != nil {
			t.Errorf("the channel ended: %v", err)
		}
	})
}

func TestAcks_DontWaitWhenTheConsumerDoes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, conn := newScript(t, nil, nil)
		ch, err := conn.Channel(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		cons := subscribe(t, ch, nil)
		s.since()
		s.deliver(1, 3, &amqp.Message{})
		go func() {
			for d, err := range cons.All() {
				if err == nil {
					d.Ack()
				}
			}
		}()
		s.wantSaid("the loop waits", ack(3, true))
		s.deliver(1, 1, &amqp.Message{})
		s.wantSaid("again", ack(4, false))
	})
}

func TestAcks_AtOnceWhereTheWindowIsOne(t *testing.T) {
	for _, opts := range []amqp.ConsumeOptions{{Prefetch: 1}, {AckBatch: 1}} {
		synctest.Test(t, func(t *testing.T) {
			s, list := acking(t, 3, &opts)
			for i, d := range list {
				d.Ack()
				s.wantSaid("at once", ack(uint64(i+1), false))
			}
		})
	}
}

// Where all of the prefetch is handled, the broker waits for an ack: it goes at
// once.
func TestAcks_DontWaitWithAFullWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, list := acking(t, 10, &amqp.ConsumeOptions{Prefetch: 10, AckBatch: 64})
		for _, d := range list {
			d.Ack()
		}
		s.wantSaid("at once", ack(10, true))
	})
}

func TestAcks_GoOutBeforeAClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, list := acking(t, 3, nil)
		list[0].Ack()
		list[1].Ack()
		if err := list[0].Channel().Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := s.methods(); len(got) != 2 || !cmp.Equal(got[0], ack(2, true)) {
			t.Errorf("said %v", got)
		}
		if err := list[2].Ack(); !errors.Is(err, amqp.ErrStale) {
			t.Errorf("Ack after Close: %v", err)
		}
		s.wantSaid("after the close")
	})
}

func TestDelivery_SettlesOnceAndOnItsChannelOnly(t *testing.T) {
	settles := map[string]func(*amqp.Delivery) error{
		"Ack": (*amqp.Delivery).Ack, "Reject": (*amqp.Delivery).Reject,
		"Requeue": (*amqp.Delivery).Requeue, "Retry": (*amqp.Delivery).Retry,
	}
	for name, settle := range settles {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, list := acking(t, 2, nil)
				if err := settle(list[0]); err != nil {
					t.Fatal(err)
				}
				time.Sleep(time.Millisecond)
				synctest.Wait()
				s.since()
				for other, again := range settles {
					if err := again(list[0]); !errors.Is(err, amqp.ErrSettled) {
						t.Errorf("%s after %s: %v", other, name, err)
					}
				}
				time.Sleep(time.Millisecond)
				s.wantSaid("the second time")
				s.say(1, &amqp.ChannelClose{ReplyCode: amqp.PreconditionFailed})
				synctest.Wait()
				ch, err := list[0].Channel().Conn().Channel(t.Context()) // has the same number
				if err != nil || ch.Number() != 1 {
					t.Fatal(err)
				}
				s.since()
				if err := settle(list[1]); !errors.Is(err, amqp.ErrStale) {
					t.Errorf("%s of a stale delivery: %v", name, err)
				}
				time.Sleep(time.Millisecond)
				s.wantSaid("of a stale delivery")
			})
		})
	}
}

func TestDelivery_WithoutAcksNeedsNoSettling(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, conn := newScript(t, nil, nil)
		ch, err := conn.Channel(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		cons, err := ch.Subscribe(t.Context(), amqp.BasicConsume{Queue: "q", NoAck: true}, nil)
		if err != nil {
			t.Fatal(err)
		}
		s.deliver(1, 1, &amqp.Message{})
		d := takeN(t, cons, 1)[0]
		s.since()
		if err := d.Ack(); !errors.Is(err, amqp.ErrSettled) {
			t.Errorf("Ack: %v", err)
		}
		time.Sleep(time.Millisecond)
		s.wantSaid("of a delivery without acks")
	})
}
