package amqp_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/warrenmq/warren/amqp"
	"github.com/warrenmq/warren/amqp/amqptest"
)

func TestSubscription_FollowsAServerNamedQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := amqptest.NewServer(t)
		c := newClient(t, srv, &amqp.ClientConfig{Topology: orders})
		ctx := within(t, time.Minute)
		queue := amqp.TemporaryQueue()
		sub, err := c.Subscribe(ctx, amqp.BasicConsume{}, &amqp.ConsumeOptions{Resume: &amqp.Resume{
			Declare: &queue, Bindings: []amqp.Binding{{Source: "orders", RoutingKey: "mine.#"}},
		}})
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		publish := func() {
			names = append(names, sub.Queue())
			if err := c.Publish(ctx, amqp.BasicPublish{Exchange: "orders", RoutingKey: "mine.x", Mandatory: true}, text("x")); err != nil {
				t.Error(err)
			}
		}
		publish()
		var next sync.WaitGroup
		for d, err := range sub.All() {
			if err != nil {
				t.Fatal(err)
			}
			d.Ack()
			next.Wait()
			if len(names) == 3 {
				break
			}
			srv.KillConnection(srv.Consumers()[0].Connection)
			next.Go(func() {
				for sub.Queue() == names[len(names)-1] {
					time.Sleep(time.Millisecond)
				}
				publish()
			})
		}
		slices.Sort(names)
		if n := len(slices.Compact(names)); n != 3 {
			t.Errorf("names %q", names)
		}
	})
}

func TestSubscription_WhenTheBrokerCancels(t *testing.T) {
	for name, test := range map[string]struct {
		policy   amqp.CancelPolicy
		topology *amqp.Topology
		giveUp   time.Duration
		want     error // nil: it goes on
	}{
		"named by the topology":  {topology: orders},
		"deleted for good":       {giveUp: 20 * time.Second, want: amqp.NotFound},
		"the policy is to end":   {policy: amqp.EndOnCancel, topology: orders, want: amqp.ErrCancelled},
		"not raised by a stray":  {giveUp: time.Second, topology: &amqp.Topology{}, want: amqp.NotFound},
		"back within the bounds": {giveUp: time.Hour, topology: &amqp.Topology{}},
	} {
		synctest.Test(t, func(t *testing.T) {
			srv := amqptest.NewServer(t)
			c := newClient(t, srv, &amqp.ClientConfig{Topology: test.topology})
			ctx := within(t, time.Hour)
			ch, err := c.Channel(ctx)
			if err != nil {
				t.Fatal(err)
			}
			declare := func() {
				if _, err := ch.QueueDeclare(ctx, amqp.QueueDeclare{Queue: "orders.all", Durable: true, Arguments: amqp.Table{"x-queue-type": "classic"}}); err != nil {
					t.Errorf("%s: %v", name, err)
				}
			}
			declare()
			sub, err := c.Subscribe(ctx, amqp.BasicConsume{Queue: "orders.all"}, &amqp.ConsumeOptions{Resume: &amqp.Resume{OnCancel: test.policy, GiveUp: test.giveUp}})
			if err != nil {
				t.Fatal(err)
			}
			var others sync.WaitGroup
			defer others.Wait()
			others.Go(func() {
				time.Sleep(time.Second)
				srv.DeleteQueue("", "orders.all")
				if name == "back within the bounds" {
					time.Sleep(time.Minute)
					declare()
				}
				time.Sleep(15 * time.Second)
				if test.want == nil {
					if err := c.Publish(ctx, amqp.BasicPublish{RoutingKey: "orders.all", Mandatory: true}, text("x")); err != nil {
						t.Errorf("%s: %v", name, err)
					}
				}
			})
			for d, err := range sub.All() {
				if d != nil {
					d.Ack()
					if test.want != nil {
						t.Errorf("%s: a delivery", name)
					}
					return
				}
				if test.want == nil || !errors.Is(err, test.want) || !errors.Is(sub.Err(), test.want) {
					t.Errorf("%s: ended with %v", name, err)
				}
			}
		})
	}
}

// A vhost that is deleted and made again takes permissions away for a moment,
// also on connections that are open.
func TestSubscription_OutlastsAMomentWithoutPermission(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := amqptest.NewServer(t)
		c := newClient(t, srv, nil)
		ctx := within(t, time.Hour)
		queue := amqp.ClassicQueue("q")
		sub, err := c.Subscribe(ctx, amqp.BasicConsume{}, &amqp.ConsumeOptions{Resume: &amqp.Resume{Declare: &queue}})
		if err != nil {
			t.Fatal(err)
		}
		srv.RefuseQueueDeclare("q", amqp.AccessRefused, "no access")
		time.AfterFunc(20*time.Second, func() { srv.RefuseQueueDeclare("q", 0, "") })
		time.AfterFunc(time.Second, func() { srv.DeleteQueue("/", "q") })
		published := make(chan error, 1)
		time.AfterFunc(30*time.Second, func() {
			published <- c.Publish(ctx, amqp.BasicPublish{RoutingKey: "q", Mandatory: true}, text("x"))
		})
		for d, err := range sub.All() {
			if err != nil {
				t.Fatal(err)
			}
			if err := d.Ack(); err != nil {
				t.Error(err)
			}
			break
		}
		if err := <-published; err != nil {
			t.Error(err)
		}
	})
}

func TestSubscription_StreamGoesOnAfterTheLastOffsetHandled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := amqptest.NewServer(t)
		c := newClient(t, srv, &amqp.ClientConfig{Topology: &amqp.Topology{Queues: []amqp.Queue{amqp.StreamQueue("log", 0, 0)}}})
		ctx := within(t, time.Hour)
		const total = 60
		for i := range total {
			if err := c.Publish(ctx, amqp.BasicPublish{RoutingKey: "log"}, text(fmt.Sprint(i))); err != nil {
				t.Fatal(err)
			}
		}
		var got []int
		m := amqp.BasicConsume{Queue: "log", Arguments: amqp.Table{"x-stream-offset": "first"}}
		sub, err := c.Subscribe(ctx, m, &amqp.ConsumeOptions{Prefetch: 7})
		if err != nil {
			t.Fatal(err)
		}
		var kept *amqp.Delivery
		for d, err := range sub.All() {
			if err != nil {
				t.Fatal(err)
			}
			var n int
			fmt.Sscan(string(d.Body), &n)
			got = append(got, n)
			switch {
			case n == 20 && kept == nil:
				kept = d // not handled when the connection goes: it comes again, alone
				continue
			case n == 25 && len(got) == 26, n == 40:
				d.Ack()
				srv.KillAll()
				synctest.Wait()
				continue
			}
			d.Ack()
			if n == total-1 {
				break
			}
		}
		want := make([]int, 0, total+1)
		for i := range total {
			if want = append(want, i); i == 25 {
				want = append(want, 20)
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("got  %v\nwant %v", got, want)
		}
		if err := kept.Ack(); !errors.Is(err, amqp.ErrStale) {
			t.Errorf("stale ack: %v", err)
		}
		if _, err := c.Subscribe(ctx, amqp.BasicConsume{Queue: "log", NoAck: true}, nil); !errors.Is(err, amqp.ErrRefused) {
			t.Errorf("without acks: %v", err)
		}
	})
}

func TestClient_ShutdownLetsHandlersEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := amqptest.NewServer(t)
		c := newClient(t, srv, &amqp.ClientConfig{Topology: orders})
		ctx := within(t, time.Hour)
		for range 20 {
			if err := c.Publish(ctx, amqp.BasicPublish{RoutingKey: "orders.all"}, text("x")); err != nil {
				t.Fatal(err)
			}
		}
		began, ended := 0, 0
		served := make(chan error, 1)
		go func() {
			served <- c.Serve(ctx, amqp.BasicConsume{Queue: "orders.all"}, func(ctx context.Context, d *amqp.Delivery) error {
				began++
				time.Sleep(2 * time.Second)
				if err := c.Publish(ctx, amqp.BasicPublish{Exchange: "orders", RoutingKey: "done"}, text("done")); err != nil {
					t.Errorf("publish from a handler during Shutdown: %v", err)
				}
				ended++
				return nil
			}, nil)
		}()
		time.Sleep(time.Second)
		if err := c.Shutdown(ctx); err != nil {
			t.Error(err)
		}
		if err := <-served; err != nil {
			t.Errorf("Serve: %v", err)
		}
		if began != 1 || ended != 1 {
			t.Errorf("%d handlers began, %d ended", began, ended)
		}
		if q, _ := srv.Queue("orders.all"); q.Ready != 20 || q.Unacked != 0 { // 19, and what the handler published
			t.Errorf("%+v", q)
		}
	})
}

// What a handler or a loop would wait for is its own end: Shutdown refuses, and
// nothing has happened. From another client's, or on another goroutine, it works.
func TestClient_ShutdownFromAHandler(t *testing.T) {
	type handle = func(*amqp.Delivery)
	ways := map[string]func(ctx context.Context, c *amqp.Client, h handle) error{
		"Serve": func(ctx context.Context, c *amqp.Client, h handle) error {
			return c.Serve(ctx, amqp.BasicConsume{Queue: "orders.all"}, func(_ context.Context, d *amqp.Delivery) error { h(d); return nil }, nil)
		},
		"Serve, keyed": func(ctx context.Context, c *amqp.Client, h handle) error {
			opts := amqp.ServeOptions{Workers: 2, Key: func(*amqp.Delivery) string { return "" }}
			return c.Serve(ctx, amqp.BasicConsume{Queue: "orders.all"}, func(_ context.Context, d *amqp.Delivery) error { h(d); return nil }, &opts)
		},
		"loop": func(ctx context.Context, c *amqp.Client, h handle) error {
			sub, err := c.Subscribe(ctx, amqp.BasicConsume{Queue: "orders.all"}, nil)
			if err != nil {
				return err
			}
			for d, err := range sub.All() {
				if err != nil {
					return err
				}
				h(d)
				d.Ack()
			}
			return nil
		},
	}
	for name, consume := range ways {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				srv := amqptest.NewServer(t)
				c, other := newClient(t, srv, &amqp.ClientConfig{Topology: orders}), newClient(t, srv, nil)
				ctx := within(t, time.Hour)
				for range 2 {
					if err := c.Publish(ctx, amqp.BasicPublish{Exchange: "orders"}, text("x")); err != nil {
						t.Fatal(err)
					}
				}
				ended, handled := make(chan error, 1), 0
				err := consume(ctx, c, func(*amqp.Delivery) {
					if err := c.Shutdown(ctx); !errors.Is(err, amqp.ErrInHandler) {
						t.Errorf("Shutdown inside: %v", err)
					}
					if err := c.Ping(ctx); err != nil {
						t.Errorf("after it was refused: %v", err)
					}
					if err := other.Shutdown(ctx); err != nil {
						t.Errorf("of another client: %v", err)
					}
					if handled++; handled == 2 {
						go func() { ended <- c.Shutdown(ctx) }()
					}
				})
				if err != nil {
					t.Error(err)
				}
				if err := <-ended; err != nil {
					t.Errorf("Shutdown: %v", err)
				}
				if q, _ := srv.Queue("orders.all"); handled != 2 || q.Ready+q.Unacked != 0 {
					t.Errorf("%d were handled, %d are left", handled, q.Ready+q.Unacked)
				}
			})
		})
	}
}

func TestClient_ShutdownIsBoundedByItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := amqptest.NewServer(t)
		c := newClient(t, srv, &amqp.ClientConfig{Topology: orders})
		ctx := within(t, time.Hour)
		if err := c.Publish(ctx, amqp.BasicPublish{RoutingKey: "orders.all"}, text("x")); err != nil {
			t.Fatal(err)
		}
		release := make(chan struct{})
		done := make(chan struct{})
		go func() {
			defer close(done)
			c.Serve(ctx, amqp.BasicConsume{Queue: "orders.all"}, func(context.Context, *amqp.Delivery) error {
				<-release
				return nil
			}, nil)
		}()
		time.Sleep(time.Second)
		short, cancel := context.WithTimeout(ctx, 3*time.Second)
		defer cancel()
		began := time.Now()
		if err := c.Shutdown(short); !errors.Is(err, context.DeadlineExceeded) || time.Since(began) > 4*time.Second {
			t.Errorf("%v after %v", err, time.Since(began))
		}
		close(release)
		<-done
	})
}

func TestRetry_DelaysThenParks(t *testing.T) {
	for _, kind := range []amqp.QueueType{amqp.Classic, amqp.Quorum} {
		synctest.Test(t, func(t *testing.T) {
			srv := amqptest.NewServer(t)
			c := newClient(t, srv, &amqp.ClientConfig{Topology: &amqp.Topology{
				Exchanges: []amqp.Exchange{{Name: "in", Type: "fanout"}},
				Queues:    []amqp.Queue{{Name: "work", Type: kind}},
				Bindings:  []amqp.Binding{{Source: "in", Queue: "work"}},
			}})
			ctx := within(t, time.Hour)
			began := time.Now()
			var times []time.Duration
			go c.Serve(ctx, amqp.BasicConsume{Queue: "work"}, func(context.Context, *amqp.Delivery) error {
				times = append(times, time.Since(began).Round(time.Second))
				return errors.New("never")
			}, &amqp.ServeOptions{Retry: &amqp.Retry{Delays: []time.Duration{time.Second, 10 * time.Second}, Parking: "parked"}})
			msg := amqp.Message{Properties: amqp.Properties{MessageID: "7", UserID: "guest", Headers: amqp.Table{"a": "b"}}, Body: []byte("x")}
			if err := c.Publish(ctx, amqp.BasicPublish{Exchange: "in", RoutingKey: "k"}, msg); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Minute)
			synctest.Wait()
			if want := []time.Duration{0, time.Second, 11 * time.Second}; !slices.Equal(times, want) {
				t.Errorf("%s: handled at %v, want %v", kind, times, want)
			}
			parked := srv.Messages("parked")
			if len(parked) != 1 {
				t.Fatalf("%s: %d messages are parked", kind, len(parked))
			}
			p := parked[0]
			if h := p.Headers; p.MessageID != "7" || h["a"] != "b" || h["x-warren-failures"] != int64(3) || h["x-warren-exchange"] != "in" || h["x-warren-routing-key"] != "k" || h["x-warren-user-id"] != "guest" {
				t.Errorf("%s: %+v", kind, p)
			}
			if q, _ := srv.Queue("parked"); q.Type != string(kind) {
				t.Errorf("parked in a %s queue", q.Type)
			}
		})
	}
}

func TestRetry_LimitCountsDeliveries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := amqptest.NewServer(t)
		c := newClient(t, srv, &amqp.ClientConfig{Topology: &amqp.Topology{Queues: amqp.QuorumWithParking("work", 100)}})
		ctx := within(t, time.Hour)
		hard := errors.New("hopeless")
		n := map[string]int{}
		go c.Serve(ctx, amqp.BasicConsume{Queue: "work"}, func(_ context.Context, d *amqp.Delivery) error {
			n[string(d.Body)]++
			if string(d.Body) == "hopeless" {
				return hard
			}
			panic("soft")
		}, &amqp.ServeOptions{Retry: &amqp.Retry{Limit: 4, GiveUp: func(err error) bool { return errors.Is(err, hard) }}})
		for _, body := range []string{"soft", "hopeless"} {
			if err := c.Publish(ctx, amqp.BasicPublish{RoutingKey: "work"}, text(body)); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if n["soft"] != 4 || n["hopeless"] != 1 {
			t.Errorf("handled %v", n)
		}
		if len(srv.Messages("work.dead")) != 2 {
			t.Errorf("dead: %+v", srv.Messages("work.dead"))
		}
	})
}

func TestRetry_RefusesWhatCannotWork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := amqptest.NewServer(t)
		c := newClient(t, srv, nil)
		h := func(context.Context, *amqp.Delivery) error { return nil }
		temporary := amqp.TemporaryQueue()
		for want, o := range map[string]*amqp.ServeOptions{
			"together with OnError":    {Retry: &amqp.Retry{Limit: 1}, OnError: func(*amqp.Delivery, error) amqp.Action { return 0 }},
			"one of Delays and Limit":  {Retry: &amqp.Retry{}},
			"Limit is negative":        {Retry: &amqp.Retry{Limit: -1, Delays: []time.Duration{1}}},
			"can't be come back to":    {Retry: &amqp.Retry{Limit: 1}, ConsumeOptions: amqp.ConsumeOptions{Resume: &amqp.Resume{Declare: &temporary}}},
			"TTL is below":             {Retry: &amqp.Retry{Delays: []time.Duration{1}}},
			"Bindings: set without De": {ConsumeOptions: amqp.ConsumeOptions{Resume: &amqp.Resume{Bindings: []amqp.Binding{{Source: "x"}}}}},
		} {
			if err := c.Serve(t.Context(), amqp.BasicConsume{Queue: "q"}, h, o); !contains(err, want) {
				t.Errorf("want %q, got %v", want, err)
			}
		}
	})
}

// What only a Client can do a Channel refuses, where it would be forgotten.
func TestChannel_RefusesAClientsOptions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ch, err := connect(t, amqptest.NewServer(t)).Channel(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		resume := amqp.ConsumeOptions{Resume: &amqp.Resume{}}
		m := amqp.BasicConsume{Queue: "q"}
		h := func(context.Context, *amqp.Delivery) error { return nil }
		_, subscribed := ch.Subscribe(t.Context(), m, &resume)
		for _, test := range []struct {
			want string
			err  error
		}{
			{"ConsumeOptions.Resume", subscribed},
			{"ConsumeOptions.Resume", ch.Serve(t.Context(), m, h, &amqp.ServeOptions{ConsumeOptions: resume})},
			{"ServeOptions.Retry", ch.Serve(t.Context(), m, h, &amqp.ServeOptions{Retry: &amqp.Retry{Limit: 1}})},
		} {
			var bad *amqp.ConfigError
			if !errors.As(test.err, &bad) || bad.Field != test.want {
				t.Errorf("want %s, got %v", test.want, test.err)
			}
		}
	})
}
