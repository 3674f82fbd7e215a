package rpc_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/warrenmq/warren/amqp"
	"github.com/warrenmq/warren/amqp/amqptest"
	"github.com/warrenmq/warren/rpc"
)

func dial(t testing.TB, srv *amqptest.Server) *amqp.Conn {
	t.Helper()
	conn, err := amqp.Dial(t.Context(), srv.URI(), &amqp.Config{Dial: srv.Dial})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// answer runs a server by hand on a queue: f makes the replies of a request.
func answer(t testing.TB, conn *amqp.Conn, queue string, f func(d *amqp.Delivery, reply func(amqp.Message))) {
	t.Helper()
	ch, err := conn.Channel(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ch.QueueDeclare(t.Context(), amqp.QueueDeclare{Queue: queue}); err != nil {
		t.Fatal(err)
	}
	if _, err := ch.Handle(t.Context(), amqp.BasicConsume{Queue: queue, NoAck: true}, func(d *amqp.Delivery) {
		p := d.Properties()
		f(d, func(msg amqp.Message) {
			if msg.CorrelationID == "" {
				msg.CorrelationID = p.CorrelationID
			}
			err := ch.BasicPublish(context.Background(), amqp.BasicPublish{RoutingKey: p.ReplyTo}, msg)
			if err != nil && !errors.Is(err, amqp.ErrClosed) { // the test may end under a reply that nobody waits for
				t.Error(err)
			}
		})
	}, nil); err != nil {
		t.Fatal(err)
	}
}

func echo(d *amqp.Delivery, reply func(amqp.Message)) { reply(amqp.Message{Body: d.Body}) }

func newClient(t testing.TB, conn *amqp.Conn, opts *rpc.ClientOptions) *rpc.Client {
	t.Helper()
	c := rpc.NewClient(conn, opts)
	t.Cleanup(func() { c.Close(context.Background()) })
	return c
}

func TestClient_EveryCallerGetsItsOwnReply(t *testing.T) {
	srv := amqptest.NewServer(t)
	answer(t, dial(t, srv), "echo", echo)
	c := newClient(t, dial(t, srv), nil)
	var wg sync.WaitGroup
	for g := range 64 {
		wg.Go(func() {
			for i := range 50 {
				want := fmt.Sprintf("%d/%d", g, i)
				got, err := c.Call(t.Context(), rpc.Queue("echo"), amqp.Message{Body: []byte(want)})
				if err != nil || string(got.Body) != want {
					t.Errorf("got %v, %v; want %s", got, err, want)
					return
				}
			}
		})
	}
	wg.Wait()
	if s := c.Stats(); s.Pending != 0 || s.Calls != 64*50 || s.Late+s.Foreign+s.Malformed != 0 {
		t.Errorf("stats: %+v", s)
	}
}

func TestClient_ReplyQueues(t *testing.T) {
	for name, q := range map[string]rpc.ReplyQueue{
		"direct": {}, "exclusive": {Exclusive: true}, "durable": {Name: "replies", Expires: time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			srv := amqptest.NewServer(t)
			answer(t, dial(t, srv), "echo", echo)
			c := newClient(t, dial(t, srv), &rpc.ClientOptions{ReplyQueue: q})
			got, err := c.Call(t.Context(), rpc.Queue("echo"), amqp.Message{Body: []byte("x")})
			if err != nil || string(got.Body) != "x" {
				t.Fatalf("got %v, %v", got, err)
			}
		})
	}
}

func TestClient_NoServerIsToldAtOnce(t *testing.T) {
	c := newClient(t, dial(t, amqptest.NewServer(t)), nil)
	if _, err := c.Call(t.Context(), rpc.Queue("nobody"), amqp.Message{}); !errors.Is(err, rpc.ErrNoServer) {
		t.Fatalf("got %v", err)
	}
	if err := c.Cast(t.Context(), rpc.Queue("nobody"), amqp.Message{}); !errors.Is(err, rpc.ErrNoServer) {
		t.Fatalf("cast: got %v", err)
	}
}

func TestClient_DropsWhatNobodyWaitsFor(t *testing.T) {
	srv := amqptest.NewServer(t)
	answer(t, dial(t, srv), "q", func(d *amqp.Delivery, reply func(amqp.Message)) {
		reply(amqp.Message{Properties: amqp.Properties{CorrelationID: "\xff\xfe"}})
		reply(amqp.Message{Body: []byte("first")})
		reply(amqp.Message{Body: []byte("second")})
	})
	c := newClient(t, dial(t, srv), nil)
	for range 3 {
		got, err := c.Call(t.Context(), rpc.Queue("q"), amqp.Message{})
		if err != nil || string(got.Body) != "first" {
			t.Fatalf("got %v, %v", got, err)
		}
	}
	if s := c.Stats(); s.Foreign != 3 || s.Late < 2 {
		t.Errorf("stats: %+v", s)
	}
}

func TestClient_DeadlineGoesAlong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := amqptest.NewServer(t)
		conn := dial(t, srv)
		seen := make(chan amqp.Properties, 1)
		answer(t, conn, "q", func(d *amqp.Delivery, reply func(amqp.Message)) {
			p := d.Properties()
			p.Headers, _ = d.Headers()
			seen <- p
		})
		c := rpc.NewClient(conn, nil)
		ctx, stop := context.WithTimeout(t.Context(), 1500*time.Millisecond)
		defer stop()
		headers := amqp.Table{"mine": "kept"}
		start := time.Now()
		_, err := c.Call(ctx, rpc.Queue("q"), amqp.Message{Properties: amqp.Properties{Headers: headers}})
		if !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != 1500*time.Millisecond {
			t.Errorf("got %v after %v", err, time.Since(start))
		}
		p := <-seen
		if p.Expiration != "1500" || p.Headers[rpc.HeaderTimeout] != int64(1500) || p.Headers["mine"] != "kept" {
			t.Errorf("request said %+v", p)
		}
		if len(headers) != 1 {
			t.Errorf("the caller's headers were changed: %v", headers)
		}
		if s := c.Stats(); s.Pending != 0 {
			t.Errorf("stats: %+v", s)
		}
		c.Close(t.Context())
		conn.Close()
	})
}

func TestClient_LostConnectionIsUnknown(t *testing.T) {
	srv := amqptest.NewServer(t)
	served := make(chan struct{})
	answer(t, dial(t, srv), "q", func(*amqp.Delivery, func(amqp.Message)) { close(served) })
	conn := dial(t, srv)
	c := newClient(t, conn, nil)
	go func() {
		<-served
		conn.Close()
	}()
	_, err := c.Call(t.Context(), rpc.Queue("q"), amqp.Message{})
	if !errors.Is(err, amqp.ErrUnknownOutcome) || amqp.SafeToRetry(err) {
		t.Fatalf("got %v", err)
	}
}

func TestClient_Gather(t *testing.T) {
	srv := amqptest.NewServer(t)
	conn := dial(t, srv)
	for i := range 3 {
		q := fmt.Sprint("worker", i)
		answer(t, conn, q, func(d *amqp.Delivery, reply func(amqp.Message)) { reply(amqp.Message{Body: []byte(q)}) })
		ch, err := conn.Channel(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if err := ch.QueueBind(t.Context(), amqp.QueueBind{Queue: q, Exchange: "amq.fanout"}); err != nil {
			t.Fatal(err)
		}
	}
	c := newClient(t, dial(t, srv), nil)
	seen := map[string]bool{}
	for msg, err := range c.Gather(t.Context(), rpc.To{Exchange: "amq.fanout"}, amqp.Message{}, 3) {
		if err != nil {
			t.Fatal(err)
		}
		seen[string(msg.Body)] = true
	}
	if len(seen) != 3 {
		t.Errorf("got replies of %v", seen)
	}
}

func TestClient_CloseEndsCalls(t *testing.T) {
	srv := amqptest.NewServer(t)
	served := make(chan struct{})
	answer(t, dial(t, srv), "q", func(*amqp.Delivery, func(amqp.Message)) { close(served) })
	c := newClient(t, dial(t, srv), nil)
	go func() {
		<-served
		c.Close(context.Background())
	}()
	if _, err := c.Call(t.Context(), rpc.Queue("q"), amqp.Message{}); !errors.Is(err, rpc.ErrClosed) {
		t.Fatalf("got %v", err)
	}
	if _, err := c.Call(t.Context(), rpc.Queue("q"), amqp.Message{}); !errors.Is(err, rpc.ErrClosed) {
		t.Fatalf("after Close: got %v", err)
	}
}
