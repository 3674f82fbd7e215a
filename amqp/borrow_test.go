package amqp_test

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/warrenmq/warren/amqp"
	"github.com/warrenmq/warren/amqp/amqptest"
)

// poisoned is what released memory holds during the tests.
func poisoned(p []byte) bool { return len(p) > 0 && len(bytes.Trim(p, "\xdb")) == 0 }

// lentTo publishes n messages and gives what a borrowing consumer needs.
func lentTo(t *testing.T, n int) (*amqptest.Server, *amqp.Channel) {
	t.Helper()
	srv := amqptest.NewServer(t)
	ch := openQueue(t, connect(t, srv), "q")
	for i := range n {
		msg := amqp.Message{Properties: amqp.Properties{MessageID: fmt.Sprint("id", i)}, Body: fmt.Append(nil, "body ", i)}
		if err := ch.Publish(t.Context(), amqp.BasicPublish{RoutingKey: "q"}, msg); err != nil {
			t.Fatal(err)
		}
	}
	return srv, ch
}

var borrow = amqp.ConsumeOptions{Borrow: true}

func TestBorrow_IsValidUntilTheLoopGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, ch := lentTo(t, 20)
		cons := subscribe(t, ch, &borrow)
		synctest.Wait()
		var before []byte
		i := 0
		for d, err := range cons.All() {
			if err != nil {
				t.Fatal(err)
			}
			if before != nil && !poisoned(before) {
				t.Errorf("the body before is still %q", before)
			}
			if id := d.Properties().MessageID; string(d.Body) != fmt.Sprint("body ", i) || id != fmt.Sprint("id", i) || d.RoutingKey != "q" {
				t.Errorf("%d. delivery: %q, %q, %q", i, d.Body, id, d.RoutingKey)
			}
			before = d.Body
			if err := d.Ack(); err != nil {
				t.Error(err)
			}
			if i++; i == 20 {
				break
			}
		}
		if !poisoned(before) {
			t.Errorf("after the loop the last body is still %q", before)
		}
	})
}

func TestBorrow_ReleaseGivesItBackEarly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv, ch := lentTo(t, 3)
		cons := subscribe(t, ch, &borrow)
		n := 0
		for d := range cons.All() {
			body, id := d.Body, d.Properties().MessageID
			d.Release()
			d.Release()
			if !poisoned(body) || !poisoned([]byte(id)) || d.Body != nil {
				t.Errorf("after Release: %q, %q, %q", body, id, d.Body)
			}
			if err := d.Ack(); err != nil { // it can still be settled
				t.Error(err)
			}
			if n++; n == 3 {
				break
			}
		}
		time.Sleep(time.Second)
		if q, _ := srv.Queue("q"); q.Unacked != 0 || q.Ready != 0 {
			t.Errorf("%d ready and %d unsettled", q.Ready, q.Unacked)
		}
	})
}

// A borrowed delivery that was not settled keeps its own tag for a late Ack,
// however many have come since.
func TestBorrow_LateAckSettlesItsOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv, ch := lentTo(t, 50)
		cons := subscribe(t, ch, &borrow)
		var late []*amqp.Delivery
		i := 0
		for d := range cons.All() {
			if i%10 == 3 {
				late = append(late, d)
			} else if err := d.Ack(); err != nil {
				t.Error(err)
			}
			if i++; i == 50 {
				break
			}
		}
		for i, d := range late {
			if d.DeliveryTag != uint64(i*10+4) {
				t.Errorf("the tag of the %d. late delivery is %d", i, d.DeliveryTag)
			}
			if err := d.Ack(); err != nil {
				t.Error(err)
			}
		}
		time.Sleep(time.Second)
		if q, _ := srv.Queue("q"); q.Unacked != 0 || ch.Err() != nil {
			t.Errorf("%d unsettled; %v", q.Unacked, ch.Err())
		}
	})
}

func TestBorrow_EndsWithTheHandler(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, ch := lentTo(t, 20)
		ctx, cancel := context.WithCancel(t.Context())
		var before []byte
		i := 0
		err := ch.Serve(ctx, amqp.BasicConsume{Queue: "q"}, func(_ context.Context, d *amqp.Delivery) error {
			if before != nil && !poisoned(before) {
				t.Errorf("the body before is still %q", before)
			}
			if string(d.Body) != fmt.Sprint("body ", i) {
				t.Errorf("%d. delivery: %q", i, d.Body)
			}
			before = d.Body
			if i++; i == 20 {
				cancel()
			}
			return nil
		}, &amqp.ServeOptions{ConsumeOptions: borrow})
		if err != nil || !poisoned(before) {
			t.Errorf("Serve: %v; the last body is %q", err, before)
		}
	})
}

// What is not borrowed is the receiver's for ever, of whatever size and in
// whatever pieces it came.
func TestBorrow_CopiesAreTheReceivers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := amqptest.NewServer(t)
		conn := connect(t, srv)
		ch := openQueue(t, conn, "q")
		sizes := []int{0, 1, 100, 300, 300, 300, 1500, 5000, 20 << 10, 40 << 10, 64 << 10, 70 << 10, 300 << 10}
		body := func(i int) string { return strings.Repeat(string(rune('a'+i%26)), sizes[i%len(sizes)]) }
		const n = 200
		for i := range n { // three after each other have the same properties
			msg := amqp.Message{Properties: amqp.Properties{MessageID: fmt.Sprint(i / 3), Headers: amqp.Table{"i": int64(i / 3)}}, Body: []byte(body(i))}
			if err := ch.Publish(t.Context(), amqp.BasicPublish{RoutingKey: "q"}, msg); err != nil {
				t.Fatal(err)
			}
		}
		srv.SplitWrites(100 << 10)
		// A borrowing consumer takes turns, so that the same memory is lent and poisoned.
		lent := make(chan error, 1)
		go func() {
			lent <- ch.Serve(t.Context(), amqp.BasicConsume{Queue: "q"}, func(_ context.Context, d *amqp.Delivery) error { return d.Ack() },
				&amqp.ServeOptions{ConsumeOptions: borrow, Workers: 3})
		}()
		cons, err := ch.Subscribe(t.Context(), amqp.BasicConsume{Queue: "q"}, &amqp.ConsumeOptions{Prefetch: 10})
		if err != nil {
			t.Fatal(err)
		}
		var kept []*amqp.Delivery
		go func() {
			for d := range cons.All() {
				if d == nil {
					break
				}
				kept = append(kept, d)
				d.Ack()
			}
		}()
		time.Sleep(time.Minute)
		conn.Close()
		<-lent
		synctest.Wait()
		if len(kept) < 10 {
			t.Fatalf("only %d were kept", len(kept))
		}
		for _, d := range kept {
			var i int
			fmt.Sscan(d.Properties().MessageID, &i)
			h, err := d.Headers()
			of := func(i int) bool { return string(d.Body) == body(i) }
			if err != nil || h["i"] != int64(i) || !of(3*i) && !of(3*i+1) && !of(3*i+2) || d.RoutingKey != "q" {
				t.Fatalf("message %d: headers %v, %v, key %q, body of %d", i, h, err, d.RoutingKey, len(d.Body))
			}
		}
	})
}
