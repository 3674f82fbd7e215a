package amqp_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/warrenmq/warren/amqp"
	"github.com/warrenmq/warren/amqp/amqptest"
)

const (
	budgeted   = 2 << 20 // MaxBytes; half of it is for deliveries
	bulk       = 32 << 10
	mayCome    = budgeted/2 + 256<<10 + bulk // a read may take it over the bound
	bulkNumber = 200
)

// loaded makes a client with a small budget, and queues that hold several times
// as much.
func loaded(t *testing.T, cfg amqp.ClientConfig, queues ...string) (*amqptest.Server, *amqp.Client) {
	t.Helper()
	srv := amqptest.NewServer(t)
	top := &amqp.Topology{}
	for _, q := range queues {
		top.Queues = append(top.Queues, amqp.ClassicQueue(q))
	}
	filler := newClient(t, srv, &amqp.ClientConfig{Topology: top})
	for _, q := range queues {
		for i := range bulkNumber {
			body := fmt.Appendf(make([]byte, 0, bulk), "%d ", i)[:bulk]
			if err := filler.Publish(t.Context(), amqp.BasicPublish{RoutingKey: q}, amqp.Message{Body: body}); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := filler.Close(); err != nil {
		t.Fatal(err)
	}
	cfg.MaxBytes, cfg.Topology = budgeted, top
	return srv, newClient(t, srv, &cfg)
}

var plenty = amqp.ConsumeOptions{Prefetch: 1000}

// However a client consumes, and however slowly, what it buffers is bounded,
// everything comes, and the connection lives on.
func TestClient_MaxBytesBoundsDeliveries(t *testing.T) {
	type handle = func(d *amqp.Delivery)
	ways := map[string]func(t *testing.T, c *amqp.Client, h handle){
		"loop": func(t *testing.T, c *amqp.Client, h handle) {
			sub, err := c.Subscribe(t.Context(), amqp.BasicConsume{Queue: "q"}, &plenty)
			if err != nil {
				t.Error(err)
				return
			}
			for d := range sub.All() {
				h(d)
			}
		},
		"one loop for each": func(t *testing.T, c *amqp.Client, h handle) {
			sub, err := c.Subscribe(t.Context(), amqp.BasicConsume{Queue: "q"}, &amqp.ConsumeOptions{Prefetch: 20})
			if err != nil {
				t.Error(err)
				return
			}
			for more := true; more; {
				more = false
				for d := range sub.All() {
					h(d)
					more = true
					break
				}
			}
		},
		"workers":            serveBulk(amqp.ServeOptions{ConsumeOptions: plenty, Workers: 3}),
		"keyed":              serveBulk(amqp.ServeOptions{ConsumeOptions: plenty, Workers: 3, Key: func(*amqp.Delivery) string { return "" }}),
		"borrowed":           serveBulk(amqp.ServeOptions{ConsumeOptions: amqp.ConsumeOptions{Prefetch: 1000, Borrow: true}}),
		"without a prefetch": serveBulk(amqp.ServeOptions{ConsumeOptions: amqp.ConsumeOptions{Prefetch: -1}}),
		"inline": func(t *testing.T, c *amqp.Client, h handle) {
			ch, err := c.Channel(t.Context())
			if err == nil {
				_, err = ch.Handle(t.Context(), amqp.BasicConsume{Queue: "q"}, h, &plenty)
			}
			if err != nil {
				t.Error(err)
			}
		},
	}
	for name, consume := range ways {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				_, c := loaded(t, amqp.ClientConfig{Config: amqp.Config{Heartbeat: 3 * time.Second}}, "q")
				var got atomic.Int64
				var most int64
				all := make(chan struct{})
				ended := make(chan struct{})
				go func() {
					defer close(ended)
					consume(t, c, func(d *amqp.Delivery) {
						time.Sleep(400 * time.Millisecond)
						d.Ack()
						if got.Add(1) == bulkNumber {
							close(all)
						}
					})
				}()
				for waiting := true; waiting; {
					select {
					case <-all:
						waiting = false
					case <-time.After(100 * time.Millisecond):
						most = max(most, c.Stats().Buffered)
					case <-time.After(time.Hour):
						t.Fatalf("%d came", got.Load())
					}
				}
				if err := c.Shutdown(within(t, time.Minute)); err != nil {
					t.Error(err)
				}
				<-ended
				if s := c.Stats(); most > mayCome || most < 8*bulk || s.Opened != 1 || s.Buffered != 0 || got.Load() != bulkNumber {
					t.Errorf("at most %d bytes were buffered; %d came; %+v", most, got.Load(), s)
				}
			})
		})
	}
}

func serveBulk(opts amqp.ServeOptions) func(*testing.T, *amqp.Client, func(*amqp.Delivery)) {
	return func(t *testing.T, c *amqp.Client, h func(*amqp.Delivery)) {
		err := c.Serve(t.Context(), amqp.BasicConsume{Queue: "q"}, func(_ context.Context, d *amqp.Delivery) error {
			h(d)
			return nil
		}, &opts)
		if err != nil {
			t.Error(err)
		}
	}
}

// heldBack has a handler at work that makes the client hold the broker back,
// and says when it does.
func heldBack(t *testing.T, c *amqp.Client, h func(d *amqp.Delivery)) {
	t.Helper()
	began := make(chan struct{})
	sub, err := c.Subscribe(t.Context(), amqp.BasicConsume{Queue: "q"}, &plenty)
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		first := true
		for d := range sub.All() {
			if first {
				close(began)
			}
			first = false
			h(d)
		}
	}()
	<-began
	synctest.Wait()
	if n := c.Stats().Buffered; n < budgeted/2 {
		t.Errorf("only %d bytes are buffered", n)
	}
}

// While the broker is held back everything that needs an answer gets it, from
// inside the handler as from elsewhere, and at once.
func TestClient_MaxBytesHoldsNoAnswerBack(t *testing.T) {
	calls := map[string]func(ctx context.Context, c *amqp.Client) error{
		"Channel": func(ctx context.Context, c *amqp.Client) error {
			ch, err := c.Channel(ctx)
			if err == nil {
				err = ch.Close(ctx)
			}
			return err
		},
		"Ping": func(ctx context.Context, c *amqp.Client) error { return c.Ping(ctx) },
		"Publish": func(ctx context.Context, c *amqp.Client) error {
			return c.Publish(ctx, amqp.BasicPublish{RoutingKey: "other"}, text("x"))
		},
		"PublishAsync": func(ctx context.Context, c *amqp.Client) error {
			cf, err := c.PublishAsync(ctx, amqp.BasicPublish{RoutingKey: "other"}, text("x"))
			if err != nil {
				return err
			}
			select {
			case <-cf.Done():
				return cf.Err()
			case <-ctx.Done():
				return ctx.Err()
			}
		},
		"Get": func(ctx context.Context, c *amqp.Client) error {
			ch, err := c.Channel(ctx)
			if err != nil {
				return err
			}
			defer ch.Close(ctx)
			if _, err = ch.Get(ctx, amqp.BasicGet{Queue: "other"}); err == amqp.ErrEmpty {
				err = nil
			}
			return err
		},
		"Close": func(_ context.Context, c *amqp.Client) error { return c.Close() },
	}
	configs := map[string]amqp.ClientConfig{"two connections": {}, "one": {OneConnection: true}, "one, Resend": {OneConnection: true, Resend: true}}
	for name, call := range calls {
		for kind, cfg := range configs {
			t.Run(name+", "+kind, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					_, c := loaded(t, cfg, "q", "other")
					ctx := within(t, time.Hour)
					if err := c.Ping(ctx); err != nil {
						t.Fatal(err)
					}
					inside := make(chan time.Duration, 1)
					first := true
					heldBack(t, c, func(d *amqp.Delivery) {
						if !first {
							return
						}
						first = false
						time.Sleep(time.Minute)
						began := time.Now()
						if err := call(ctx, c); err != nil {
							t.Errorf("inside: %v", err)
						}
						inside <- time.Since(began)
					})
					if name != "Close" {
						began := time.Now()
						if err := call(ctx, c); err != nil || time.Since(began) > 100*time.Millisecond {
							t.Errorf("outside: %v after %v", err, time.Since(began))
						}
					}
					if d := <-inside; d > 100*time.Millisecond {
						t.Errorf("inside: after %v", d)
					}
					c.Close()
				})
			})
		}
	}
}

// Nobody has to take from a subscription for the others to work, and one whose
// loop does not go on leaves the others a trickle.
func TestClient_MaxBytesStarvesNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, c := loaded(t, amqp.ClientConfig{}, "q", "idle")
		opts := &plenty
		if _, err := c.Subscribe(t.Context(), amqp.BasicConsume{Queue: "idle"}, opts); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second) // it has all of its own by then
		began := time.Now()
		takeAll := func(queue string, n int) {
			sub, err := c.Subscribe(t.Context(), amqp.BasicConsume{Queue: queue}, opts)
			if err != nil {
				t.Fatal(err)
			}
			for d := range sub.All() {
				d.Ack()
				if n--; n == 0 {
					break
				}
			}
			sub.Close(t.Context())
		}
		takeAll("q", bulkNumber)
		if d := time.Since(began); d > time.Second {
			t.Errorf("beside an idle subscription it took %v", d)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		_, c := loaded(t, amqp.ClientConfig{}, "q", "other")
		other, done := make(chan struct{}), make(chan struct{})
		go func() {
			sub, err := c.Subscribe(t.Context(), amqp.BasicConsume{Queue: "other"}, &amqp.ConsumeOptions{Prefetch: 1})
			if err != nil {
				t.Error(err)
				return
			}
			for d := range sub.All() {
				d.Ack()
				select {
				case other <- struct{}{}:
				case <-done:
				}
			}
		}()
		first := true
		heldBack(t, c, func(*amqp.Delivery) {
			if first { // against all advice: what it waits for comes by the connection that it holds back
				for range 10 {
					<-other
				}
				close(done)
			}
			first = false
		})
		<-done
		c.Close()
	})
}

// A connection that is lost while it is held back is noticed, and consuming goes
// on by another.
func TestClient_MaxBytesAndALostConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv, c := loaded(t, amqp.ClientConfig{Config: amqp.Config{Heartbeat: 4 * time.Second}}, "q")
		release := make(chan struct{})
		var got atomic.Int64
		heldBack(t, c, func(d *amqp.Delivery) {
			<-release
			if d.Ack() == nil {
				got.Add(1)
			}
		})
		srv.KillAll()
		time.Sleep(5 * time.Second) // the next heartbeat finds it out
		if s := c.Stats(); s.Opened != 2 {
			t.Errorf("%d connections were opened, want 2", s.Opened)
		}
		close(release)
		time.Sleep(time.Minute)
		if q, _ := srv.Queue("q"); q.Ready+q.Unacked != 0 || got.Load() != bulkNumber {
			t.Errorf("%d were acked, and %d are still there", got.Load(), q.Ready+q.Unacked)
		}
		if n := c.Stats().Buffered; n != 0 {
			t.Errorf("%d bytes count as buffered", n)
		}
		c.Close()
	})
}
