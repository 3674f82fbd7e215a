package amqp_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/warrenmq/warren/amqp"
	"github.com/warrenmq/warren/amqp/amqptest"
)

// newClient makes a client of srv that goes with the test.
func newClient(t *testing.T, srv *amqptest.Server, cfg *amqp.ClientConfig) *amqp.Client {
	t.Helper()
	var conf amqp.ClientConfig
	if cfg != nil {
		conf = *cfg
	}
	if conf.Dial == nil {
		conf.Dial = srv.Dial
	}
	if conf.VHost == "" {
		conf.VHost = "/"
	}
	c, err := amqp.NewClient(srv.URI(), &conf)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func within(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

func text(s string) amqp.Message { return amqp.Message{Body: []byte(s)} }

var orders = &amqp.Topology{
	Exchanges: []amqp.Exchange{{Name: "orders", Type: "topic"}},
	Queues:    []amqp.Queue{amqp.ClassicQueue("orders.all")},
	Bindings:  []amqp.Binding{{Source: "orders", Queue: "orders.all", RoutingKey: "#"}},
}

func TestClient_PublishesAndConsumesOverALostConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := amqptest.NewServer(t)
		c := newClient(t, srv, &amqp.ClientConfig{Topology: orders})
		ctx := within(t, time.Minute)
		if got := c.State(); got != amqp.Idle {
			t.Errorf("state %v before the first use", got)
		}
		if err := c.Publish(ctx, amqp.BasicPublish{Exchange: "orders", RoutingKey: "a"}, text("one")); err != nil {
			t.Fatal(err)
		}
		sub, err := c.Subscribe(ctx, amqp.BasicConsume{Queue: "orders.all"}, nil)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for d, err := range sub.All() {
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, string(d.Body))
			if err := d.Ack(); err != nil {
				t.Fatal(err)
			}
			if len(got) == 3 {
				break
			}
			time.Sleep(10 * time.Millisecond) // the ack is on its way
			if n := srv.KillAll(); n != 2 {
				t.Errorf("killed %d connections, want 2", n)
			}
			synctest.Wait() // the loss is known, or the publish might still have gone the old way
			if err := c.Publish(ctx, amqp.BasicPublish{Exchange: "orders", RoutingKey: "a"}, text(strings.Repeat("x", len(got)))); err != nil {
				t.Fatal(err)
			}
		}
		if want := "one x xx"; strings.Join(got, " ") != want {
			t.Errorf("got %q, want %q", got, want)
		}
		if err := c.Shutdown(ctx); err != nil {
			t.Error(err)
		}
		if s := c.Stats(); s.Resumed != 2 || s.Confirmed != 3 || s.State != amqp.Closed {
			t.Errorf("stats %+v", s)
		}
	})
}

func TestClient_PublishWaitsForAConnectionWithinItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := amqptest.NewServer(t)
		srv.RefuseConnections(true)
		c := newClient(t, srv, nil)
		err := c.Publish(within(t, 3*time.Second), amqp.BasicPublish{RoutingKey: "q"}, text("x"))
		if !errors.Is(err, context.DeadlineExceeded) || !amqp.SafeToRetry(err) || !strings.Contains(err.Error(), "last failure") {
			t.Errorf("got %v", err)
		}
		if c.State() != amqp.Connecting || c.Err() == nil {
			t.Errorf("state %v, %v", c.State(), c.Err())
		}
		time.AfterFunc(time.Second, func() { srv.RefuseConnections(false) })
		if err := c.Publish(within(t, 3*time.Second), amqp.BasicPublish{RoutingKey: "q"}, text("x")); err != nil {
			t.Error(err)
		}
	})
}

func TestClient_AMissingExchangeHarmsNobodyElse(t *testing.T) {
	for _, resend := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			srv := amqptest.NewServer(t)
			c := newClient(t, srv, &amqp.ClientConfig{Topology: orders, Resend: resend})
			ctx := within(t, time.Minute)
			var good []*amqp.Confirm
			for i := range 99 {
				cf, err := c.PublishAsync(ctx, amqp.BasicPublish{Exchange: "orders", RoutingKey: "k"}, text("good"))
				if err != nil {
					t.Fatal(err)
				}
				good = append(good, cf)
				if i == 50 {
					err := c.Publish(ctx, amqp.BasicPublish{Exchange: "nowhere"}, text("bad"))
					if !errors.Is(err, amqp.NotFound) || errors.Is(err, amqp.ErrUnknownOutcome) {
						t.Errorf("resend %v: missing exchange: %v", resend, err)
					}
				}
			}
			for _, cf := range good {
				if err := cf.Wait(ctx); err != nil {
					t.Errorf("resend %v: %v", resend, err)
				}
			}
			if q, _ := srv.Queue("orders.all"); q.Ready != 99 {
				t.Errorf("resend %v: %d messages stored", resend, q.Ready)
			}
		})
	}
}
