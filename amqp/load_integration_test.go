//go:build integration

package amqp_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/warrenmq/warren/amqp"
)

// loadBody is message i of a stream: its number, and then octets that depend on
// it, of a length that does as well.
func loadBody(dst []byte, i int) []byte {
	dst = binary.BigEndian.AppendUint64(dst[:0], uint64(i))
	for n := (i * 7919) % 200; n > 0; n-- {
		dst = append(dst, byte(i+n))
	}
	return dst
}

// loadContext is for a whole load: one for each message would be a load by itself.
func loadContext(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 5*patience)
	t.Cleanup(cancel)
	return ctx
}

func loadID(i int) string { return fmt.Sprint("id-", i) }

// publishLoad publishes messages 0 to n-1, all asynchronously, and waits for
// their confirms.
func publishLoad(t *testing.T, ch *amqp.Channel, q string, n int) {
	t.Helper()
	ctx := loadContext(t)
	began := time.Now()
	cfs := make([]*amqp.Confirm, n)
	var body []byte
	for i := range n {
		body = loadBody(body, i)
		var err error
		cfs[i], err = ch.PublishAsync(ctx, toQueue(q), amqp.Message{
			Properties: amqp.Properties{MessageID: loadID(i), DeliveryMode: 1}, Body: body,
		})
		if err != nil {
			t.Fatalf("message %d: %v", i, err)
		}
	}
	for i, cf := range cfs {
		if err := cf.Wait(ctx); err != nil {
			t.Fatalf("message %d: %v", i, err)
		}
	}
	t.Logf("published and confirmed %d in %v", n, time.Since(began).Round(time.Millisecond))
}

// checkLoad holds a delivery to being message i.
func checkLoad(d *amqp.Delivery, i int, want []byte) error {
	if !bytes.Equal(d.Body, want) || d.Properties().MessageID != loadID(i) {
		return fmt.Errorf("got %d octets %q, not message %d", len(d.Body), d.Properties().MessageID, i)
	}
	return nil
}

// TestLoad_100000Messages goes out and comes back, with content and order
// checked, acks coalesced and each on its own, copied and borrowed.
func TestLoad_100000Messages(t *testing.T) {
	_, ch := newSession(t)
	for _, tt := range []struct {
		name string
		n    int
		opts amqp.ConsumeOptions
	}{
		{"coalesced, copied", 100_000, amqp.ConsumeOptions{Prefetch: 1000}},
		{"coalesced, borrowed", 100_000, amqp.ConsumeOptions{Prefetch: 1000, Borrow: true}},
		{"one by one, copied", 20_000, amqp.ConsumeOptions{Prefetch: 1000, AckBatch: 1}},
		{"one by one, borrowed", 20_000, amqp.ConsumeOptions{Prefetch: 1000, AckBatch: 1, Borrow: true}},
		{"window of one", 2_000, amqp.ConsumeOptions{Prefetch: 1, Borrow: true}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			q := durableQueue(t, ch, nil)
			publishLoad(t, ch, q, tt.n)
			began := time.Now()
			c, own := newSession(t)
			cons := mustSubscribe(t, own, q, &tt.opts)
			var want []byte
			var kept []*amqp.Delivery // copies stay as they are
			i := 0
			for d, err := range cons.All() {
				if err != nil {
					t.Fatal(err)
				}
				want = loadBody(want, i)
				if err := checkLoad(d, i, want); err != nil {
					t.Fatal(err)
				}
				if err := d.Ack(); err != nil {
					t.Fatal(err)
				}
				if !tt.opts.Borrow && i%100 == 0 {
					kept = append(kept, d)
				}
				if i++; i == tt.n {
					break
				}
			}
			t.Logf("consumed and acked %d in %v", i, time.Since(began).Round(time.Millisecond))
			noError(t, own.Close(patiently(t)))
			if s := c.Stats(); s.Unacked != 0 {
				t.Errorf("%+v", s)
			}
			mustSettle(t, ch, q, 0)
			for j, d := range kept {
				if err := checkLoad(d, 100*j, loadBody(nil, 100*j)); err != nil {
					t.Fatalf("kept: %v", err)
				}
			}
		})
	}
}

// TestLoad_BothWaysAtOnce publishes on many goroutines while several consumers
// take, on the same connection: nothing is lost, nothing comes twice.
func TestLoad_BothWaysAtOnce(t *testing.T) {
	c, ch := newSession(t)
	q := exclusiveQueue(t, ch, nil)
	ctx := loadContext(t)
	const publishers, each = 8, 2500
	seen := make([]atomic.Int32, publishers*each)
	var left atomic.Int64
	left.Store(publishers * each)
	done := make(chan struct{})
	var taking, giving sync.WaitGroup
	var conss []*amqp.Consumer
	for i := range 4 {
		cons := mustSubscribe(t, mustOpen(t, c), q, &amqp.ConsumeOptions{Borrow: i%2 == 0, Prefetch: 50})
		conss = append(conss, cons)
		taking.Go(func() {
			for d, err := range cons.All() {
				if err != nil {
					t.Error(err)
					return
				}
				n := binary.BigEndian.Uint64(d.Body)
				if !bytes.Equal(d.Body, loadBody(nil, int(n))) {
					t.Errorf("message %d is damaged", n)
				}
				seen[n].Add(1)
				noError(t, d.Ack())
				if left.Add(-1) == 0 {
					close(done)
				}
			}
		})
	}
	for p := range publishers {
		giving.Go(func() {
			for i := range each {
				n := p*each + i
				if err := ch.Publish(ctx, toQueue(q), amqp.Message{Body: loadBody(nil, n)}); err != nil {
					t.Errorf("message %d: %v", n, err)
					return
				}
			}
		})
	}
	giving.Wait()
	mustEnd(t, "all have come", done)
	for _, cons := range conss {
		noError(t, cons.Close(patiently(t)))
	}
	taking.Wait()
	for n := range seen {
		if k := seen[n].Load(); k != 1 {
			t.Errorf("message %d came %d times", n, k)
		}
	}
}

// TestServe_FieldNote14_Drains ends a Serve in the middle of its work: what has
// begun is finished and acked, what has not goes back.
func TestServe_FieldNote14_Drains(t *testing.T) {
	_, watch := newSession(t)
	q := durableQueue(t, watch, nil)
	const n = 500
	mustPut(t, watch, q, numbered(n)...)
	_, ch := newSession(t)
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	var begun, finished atomic.Int64
	err := ch.Serve(ctx, amqp.BasicConsume{Queue: q}, func(ctx context.Context, d *amqp.Delivery) error {
		if begun.Add(1) == 50 {
			stop()
		}
		time.Sleep(5 * time.Millisecond)
		if ctx.Err() != nil {
			t.Error("a handler's context ended with Serve's, and not with the drain")
		}
		finished.Add(1)
		return nil
	}, &amqp.ServeOptions{Workers: 8})
	if err != nil && !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if begun.Load() != finished.Load() || finished.Load() > 100 {
		t.Errorf("%d begun, %d finished", begun.Load(), finished.Load())
	}
	mustSettle(t, watch, q, n-int(finished.Load()))
	if _, consumers := queueDepth(t, watch, q); consumers != 0 {
		t.Errorf("%d consumers are left", consumers)
	}
	mustWork(t, ch)
}

// TestServe_Outcomes: what becomes of the messages whose handlers fail.
func TestServe_Outcomes(t *testing.T) {
	c, ch := newSession(t)
	dead := exclusiveQueue(t, ch, nil)
	q := exclusiveQueue(t, ch, amqp.Table{"x-dead-letter-exchange": "", "x-dead-letter-routing-key": dead})
	mustPut(t, ch, q, "ok", "fail", "panic", "again", "last")
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	var mu sync.Mutex
	times := make(map[string]int)
	err := mustOpen(t, c).Serve(ctx, amqp.BasicConsume{Queue: q}, func(_ context.Context, d *amqp.Delivery) error {
		mu.Lock()
		defer mu.Unlock()
		body := string(d.Body)
		times[body]++
		if len(times) == 5 && times["again"] == 2 {
			stop()
		}
		switch {
		case body == "panic":
			panic("at the test's request")
		case body == "fail", body == "again" && times[body] == 1:
			return errors.New(body)
		}
		return nil
	}, &amqp.ServeOptions{OnError: func(d *amqp.Delivery, err error) amqp.Action {
		if err.Error() == "again" {
			return amqp.ActionRequeue
		}
		if p := (*amqp.PanicError)(nil); string(d.Body) == "panic" && (!errors.As(err, &p) || !strings.Contains(string(p.Stack), "TestServe_Outcomes")) {
			t.Errorf("the panic came as %v", err)
		}
		return amqp.ActionReject
	}})
	if err != nil && !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	mustSettle(t, ch, dead, 2)
	mustSettle(t, ch, q, 0)
	if fmt.Sprint(times) != "map[again:2 fail:1 last:1 ok:1 panic:1]" {
		t.Errorf("handled %v", times)
	}
}

// TestServe_OrderPerKey: 16 workers, and the messages of each key in order.
func TestServe_OrderPerKey(t *testing.T) {
	_, ch := newSession(t)
	q := exclusiveQueue(t, ch, nil)
	const n = 5000
	mustPut(t, ch, q, numbered(n)...)
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	key := func(d *amqp.Delivery) string { return string(d.Body[len(d.Body)-1:]) }
	var mu sync.Mutex
	last := make(map[string]int)
	count := 0
	err := mustOpen(t, ch.Conn()).Serve(ctx, amqp.BasicConsume{Queue: q}, func(_ context.Context, d *amqp.Delivery) error {
		mu.Lock()
		defer mu.Unlock()
		var i int
		fmt.Sscan(string(d.Body), &i)
		if k := key(d); i < last[k] {
			t.Errorf("%d after %d of key %s", i, last[k], k)
		} else {
			last[k] = i
		}
		if count++; count == n {
			stop()
		}
		return nil
	}, &amqp.ServeOptions{Workers: 16, Key: key})
	if err != nil && !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	mustSettle(t, ch, q, 0)
}
