package amqp_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/warrenmq/warren/amqp"
	"github.com/warrenmq/warren/amqp/amqptest"
)

// fill publishes n messages to q.
func fill(t *testing.T, ch *amqp.Channel, n int) {
	t.Helper()
	for i := range n {
		if err := ch.BasicPublish(t.Context(), amqp.BasicPublish{RoutingKey: "q"}, amqp.Message{Body: fmt.Append(nil, i)}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := ch.QueueDeclare(t.Context(), amqp.QueueDeclare{Queue: "q", Passive: true}); err != nil {
		t.Fatal(err)
	}
}

func TestConsumer_UndrainedStopsNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := amqptest.NewServer(t)
		ch := openQueue(t, connect(t, srv), "q")
		fill(t, ch, 100)
		subscribe(t, ch, &amqp.ConsumeOptions{Prefetch: 20}) // and never takes
		slow, err := ch.Subscribe(t.Context(), amqp.BasicConsume{Queue: "q", NoAck: true}, &amqp.ConsumeOptions{Buffer: 10})
		if err != nil {
			t.Fatal(err)
		}
		<-slow.Done()
		if err := slow.Err(); !errors.Is(err, amqp.ErrSlowConsumer) {
			t.Errorf("the consumer without acks ended with %v", err)
		}
		n := 0
		for d, err := range slow.All() { // what was there can still be taken
			if d == nil && !errors.Is(err, amqp.ErrSlowConsumer) {
				t.Errorf("All ended with %v", err)
			}
			if d != nil {
				n++
			}
		}
		if n <= 10 || n > 80 {
			t.Errorf("%d were there", n)
		}
		fill(t, ch, 10) // the channel goes on
		synctest.Wait()
		if c := srv.Consumers(); len(c) != 1 {
			t.Errorf("%d consumers, want the one with acks", len(c))
		}
	})
}

// Of a consumer without a limit that fell behind, what comes while its cancel is
// on the way goes back.
func TestConsumer_SlowWithAcksRequeuesWhatComesLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := amqptest.NewServer(t)
		ch := openQueue(t, connect(t, srv), "q")
		fill(t, ch, 100)
		srv.Slow(time.Millisecond)
		srv.SplitWrites(300)
		cons := subscribe(t, ch, &amqp.ConsumeOptions{Prefetch: -1, Buffer: 10})
		<-cons.Done()
		time.Sleep(10 * time.Second)
		if err := cons.Close(t.Context()); err != nil {
			t.Errorf("Close: %v", err)
		}
		time.Sleep(10 * time.Second)
		if q, _ := srv.Queue("q"); q.Ready != 100 || q.Unacked != 0 {
			t.Errorf("the queue has %d ready and %d unsettled", q.Ready, q.Unacked)
		}
	})
}

func TestConsumer_HoldsBackWhereAsked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := amqptest.NewServer(t)
		ch := openQueue(t, connect(t, srv), "q")
		const n = 3000
		fill(t, ch, n)
		conn := connectTo(t, srv, amqp.Config{Heartbeat: 4 * time.Second})
		own, err := conn.Channel(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		cons, err := own.Subscribe(t.Context(), amqp.BasicConsume{Queue: "q", NoAck: true}, &amqp.ConsumeOptions{Buffer: 10, HoldBack: true})
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		before := conn.Stats().OctetsIn
		time.Sleep(time.Minute)
		if after := conn.Stats().OctetsIn; after != before {
			t.Errorf("%d octets were read meanwhile", after-before)
		}
		for i, d := range takeN(t, cons, n) {
			if string(d.Body) != fmt.Sprint(i) {
				t.Fatalf("got %s where %d was to come", d.Body, i)
			}
		}
	})
}

// A close of anything is answered, although the reader is held.
func TestConsumer_HeldBackReaderLetsClosesThrough(t *testing.T) {
	closes := map[string]func(*amqp.Consumer) error{
		"consumer":   func(c *amqp.Consumer) error { return c.Close(context.Background()) },
		"channel":    func(c *amqp.Consumer) error { return c.Channel().Close(context.Background()) },
		"connection": func(c *amqp.Consumer) error { return c.Channel().Conn().Close() },
	}
	for name, closeIt := range closes {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				srv := amqptest.NewServer(t)
				fill(t, openQueue(t, connect(t, srv), "q"), 1000)
				ch, err := connect(t, srv).Channel(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				cons, err := ch.Subscribe(t.Context(), amqp.BasicConsume{Queue: "q", NoAck: true}, &amqp.ConsumeOptions{Buffer: 10, HoldBack: true})
				if err != nil {
					t.Fatal(err)
				}
				synctest.Wait()
				start := time.Now()
				if err := closeIt(cons); err != nil || time.Since(start) > time.Second {
					t.Errorf("Close: %v after %v", err, time.Since(start))
				}
			})
		})
	}
}

func TestConsumer_CloseRequeuesWhatNobodyTook(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := amqptest.NewServer(t)
		ch := openQueue(t, connect(t, srv), "q")
		fill(t, ch, 10)
		cons := subscribe(t, ch, nil)
		synctest.Wait()
		n := 0
		for d, err := range cons.All() { // what the loop has got in one go counts too
			if err != nil {
				t.Errorf("All: %v", err)
				break
			}
			if n++; n == 3 {
				if err := cons.Close(t.Context()); err != nil {
					t.Errorf("Close: %v", err)
				}
			}
			d.Ack()
		}
		time.Sleep(time.Millisecond)
		synctest.Wait()
		if q, _ := srv.Queue("q"); n != 3 || q.Ready != 7 || q.Unacked != 0 {
			t.Errorf("%d taken, %d ready, %d unsettled; want 3, 7, 0", n, q.Ready, q.Unacked)
		}
		if err := cons.Close(t.Context()); err != nil || cons.Err() != nil {
			t.Errorf("Close again: %v; Err: %v", err, cons.Err())
		}
	})
}

func TestConsumer_HandleStopsWithClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := amqptest.NewServer(t)
		ch := openQueue(t, connect(t, srv), "q")
		fill(t, ch, 10)
		n := 0
		closed := make(chan error, 1)
		ready := make(chan *amqp.Consumer, 1)
		cons, err := ch.Handle(t.Context(), amqp.BasicConsume{Queue: "q"}, func(d *amqp.Delivery) {
			if n++; n == 3 {
				closed <- (<-ready).Close(t.Context())
			}
			d.Ack()
		}, nil)
		if err != nil {
			t.Fatal(err)
		}
		ready <- cons
		if err := <-closed; err != nil {
			t.Errorf("Close: %v", err)
		}
		time.Sleep(time.Second)
		if q, _ := srv.Queue("q"); n != 3 || q.Ready != 7 || q.Unacked != 0 {
			t.Errorf("%d handled, %d ready, %d unsettled; want 3, 7, 0", n, q.Ready, q.Unacked)
		}
	})
}

// Leaving the loop keeps what it had taken for the next one.
func TestConsumer_LoopsGoOnWhereTheLastOneLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ch := openQueue(t, connect(t, amqptest.NewServer(t)), "q")
		fill(t, ch, 50)
		cons := subscribe(t, ch, nil)
		for i := range 50 {
			if d := takeN(t, cons, 1)[0]; string(d.Body) != fmt.Sprint(i) {
				t.Fatalf("got %s where %d was to come", d.Body, i)
			}
		}
	})
}

func TestConsumer_BrokerCancels(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := amqptest.NewServer(t)
		ch := openQueue(t, connect(t, srv), "q")
		cons := subscribe(t, ch, nil)
		other := make(chan error, 1)
		go func() {
			for _, err := range cons.All() {
				other <- err
			}
		}()
		synctest.Wait()
		srv.DeleteQueue("/", "q")
		if err := <-other; !errors.Is(err, amqp.ErrCancelled) {
			t.Errorf("All: %v", err)
		}
		<-cons.Done()
		if err := cons.Close(t.Context()); err != nil || !errors.Is(cons.Err(), amqp.ErrCancelled) {
			t.Errorf("Close: %v; Err: %v", err, cons.Err())
		}
		if n := ch.Conn().Stats().Consumers; n != 0 {
			t.Errorf("%d consumers", n)
		}
		if _, err := ch.QueueDeclare(t.Context(), amqp.QueueDeclare{Queue: "q"}); err != nil {
			t.Errorf("the channel has ended: %v", err)
		}
	})
}

func TestConsumer_EndsWithItsChannel(t *testing.T) {
	ends := map[string]func(*amqptest.Server, *amqp.Channel){
		"by the broker": func(_ *amqptest.Server, ch *amqp.Channel) {
			ch.QueueDeclare(context.Background(), amqp.QueueDeclare{Queue: "none", Passive: true})
		},
		"by Close":        func(_ *amqptest.Server, ch *amqp.Channel) { ch.Close(context.Background()) },
		"connection lost": func(srv *amqptest.Server, _ *amqp.Channel) { srv.KillAll() },
	}
	for name, end := range ends {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				srv := amqptest.NewServer(t)
				ch := openQueue(t, connect(t, srv), "q")
				fill(t, ch, 10)
				cons := subscribe(t, ch, nil)
				synctest.Wait()
				n := 0
				var last error
				for d, err := range cons.All() {
					if last = err; d == nil {
						break
					}
					if n++; n == 1 {
						end(srv, ch)
						synctest.Wait()
					}
				}
				var ex *amqp.Error
				if n != 1 || !errors.As(last, &ex) || !errors.Is(last, amqp.ErrClosed) {
					t.Errorf("after %d deliveries, which can't be settled any more, All ended with %v", n, last)
				}
			})
		})
	}
}

func TestBody_OverTheLimitCostsTheMessageOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := amqptest.NewServer(t)
		big := openQueue(t, connect(t, srv), "q")
		conn := connectTo(t, srv, amqp.Config{MaxBody: 200 << 10})
		ch, err := conn.Channel(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		body := bytes.Repeat([]byte("x"), 200<<10+1)
		publish := func(ch *amqp.Channel, b []byte) error {
			return ch.Publish(t.Context(), amqp.BasicPublish{RoutingKey: "q"}, amqp.Message{Body: b})
		}
		if err := publish(ch, body); !errors.Is(err, amqp.ErrRefused) || !amqp.SafeToRetry(err) {
			t.Errorf("Publish: %v", err)
		}
		for _, b := range [][]byte{body, body[:200<<10], body, []byte("last")} {
			if err := publish(big, b); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := ch.Get(t.Context(), amqp.BasicGet{Queue: "q"}); !errors.Is(err, amqp.ContentTooLarge) {
			t.Errorf("Get: %v", err)
		}
		list := takeN(t, subscribe(t, ch, nil), 2)
		if !bytes.Equal(list[0].Body, body[1:]) || string(list[1].Body) != "last" {
			t.Errorf("got bodies of %d and %d octets", len(list[0].Body), len(list[1].Body))
		}
		synctest.Wait()
		if q, _ := srv.Queue("q"); q.Ready != 0 || q.Unacked != 2 {
			t.Errorf("the queue has %d ready and %d unsettled, want 0 and 2", q.Ready, q.Unacked)
		}
		if n := conn.Stats().Dropped; n != 2 {
			t.Errorf("%d dropped, want 2", n)
		}
	})
}

// Subscribe sends the prefetch with the consumer, so that several at a time get
// each their own.
func TestSubscribe_EachHasItsOwnPrefetch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := amqptest.NewServer(t)
		ch := openQueue(t, connect(t, srv), "q")
		done := make(chan error)
		const n = 30
		for i := range n {
			go func() {
				_, err := ch.Subscribe(t.Context(), amqp.BasicConsume{Queue: "q", ConsumerTag: fmt.Sprint(i + 1)}, &amqp.ConsumeOptions{Prefetch: i + 1})
				done <- err
			}()
		}
		for range n {
			if err := <-done; err != nil {
				t.Fatal(err)
			}
		}
		for _, c := range srv.Consumers() {
			if c.Tag != fmt.Sprint(c.Prefetch) {
				t.Errorf("consumer %s has a prefetch of %d", c.Tag, c.Prefetch)
			}
		}
	})
}
