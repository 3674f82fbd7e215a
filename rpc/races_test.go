package rpc_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/warrenmq/warren/amqp"
	"github.com/warrenmq/warren/amqp/amqptest"
	"github.com/warrenmq/warren/rpc"
)

// redialer is an Opener that dials again when its connection is gone.
type redialer struct {
	srv  *amqptest.Server
	mu   sync.Mutex
	conn *amqp.Conn
}

func (r *redialer) Channel(ctx context.Context) (*amqp.Channel, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.conn != nil {
		// Done is no good here: who heard of the end from a consumer may be ahead of it.
		if ch, err := r.conn.Channel(ctx); err == nil {
			return ch, nil
		}
	}
	conn, err := amqp.Dial(ctx, r.srv.URI(), &amqp.Config{Dial: r.srv.Dial, Name: "redialer"})
	if err != nil {
		return nil, err
	}
	r.conn = conn
	return conn.Channel(ctx)
}

func (r *redialer) close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.conn != nil {
		r.conn.Close()
	}
}

// serveOn serves until stop is called, on one connection after another.
func serveOn(t *testing.T, open *redialer, queue string, h rpc.Handler) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ; ctx.Err() == nil; time.Sleep(time.Second) {
			ch, err := open.Channel(ctx)
			if err == nil {
				_, err = ch.QueueDeclare(ctx, amqp.QueueDeclare{Queue: queue})
			}
			if err == nil {
				rpc.Serve(ctx, ch, queue, h, &rpc.ServerOptions{Logger: slog.New(slog.DiscardHandler)})
			}
		}
	}()
	return func() {
		cancel()
		<-done
		open.close()
	}
}

// A connection, the caller's or the server's, is cut after every so many
// octets, in either direction: the call ends with a reply or an error that tells the truth, and
// the client goes on with the next one.
func TestRaces_ConnectionLostAtEachStep(t *testing.T) {
	for _, dir := range []amqptest.Direction{amqptest.ToServer, amqptest.ToClient} {
		for n := int64(1); n < 1400; n += 37 {
			synctest.Test(t, func(t *testing.T) {
				srv := amqptest.NewServer(t)
				var handled atomic.Int32
				stop := serveOn(t, &redialer{srv: srv}, "q", func(ctx context.Context, req *rpc.Request) (*amqp.Message, error) {
					handled.Add(1)
					return echoHandler(ctx, req)
				})
				time.Sleep(time.Second)
				open := &redialer{srv: srv}
				c := rpc.NewClient(open, nil)
				srv.CutAfter(n, dir)
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				got, err := c.Call(ctx, rpc.Queue("q"), amqp.Message{Body: []byte("x")})
				cancel()
				switch {
				case err == nil && string(got.Body) != "x":
					t.Errorf("cut after %d: got %q", n, got.Body)
				case err != nil && amqp.SafeToRetry(err) && handled.Load() > 0:
					t.Errorf("cut after %d: %v is said to be safe, and the request was handled", n, err)
				case errors.Is(err, context.DeadlineExceeded):
					t.Errorf("cut after %d: the caller was not told: %v", n, err)
				}
				srv.Heal()
				ctx, cancel = context.WithTimeout(t.Context(), time.Minute)
				if got, err := c.Call(ctx, rpc.Queue("q"), amqp.Message{Body: []byte("y")}); err == nil && string(got.Body) != "y" {
					t.Errorf("after a cut at %d: got %q", n, got.Body)
				} else if err != nil && !errors.Is(err, amqp.ErrClosed) {
					t.Errorf("after a cut at %d: %v", n, err)
				}
				cancel()
				c.Close(t.Context())
				open.close()
				stop()
			})
		}
	}
}

func TestRaces_IdempotentCallsAreMadeAgain(t *testing.T) {
	srv := amqptest.NewServer(t)
	begun := make(chan struct{}, 10)
	var count atomic.Int32
	serve(t, dial(t, srv), "q", func(ctx context.Context, req *rpc.Request) (*amqp.Message, error) {
		if count.Add(1) == 1 {
			begun <- struct{}{}
			<-ctx.Done() // the caller is gone, or its reply would be lost
			return nil, ctx.Err()
		}
		return echoHandler(ctx, req)
	}, &rpc.ServerOptions{Timeout: time.Second})
	open := &redialer{srv: srv}
	defer open.close()
	c := rpc.NewClient(open, nil)
	defer c.Close(context.Background())
	go func() {
		<-begun
		srv.KillConnection("redialer")
	}()
	got, err := c.Call(t.Context(), rpc.To{RoutingKey: "q", Idempotent: true}, amqp.Message{Body: []byte("x")})
	if err != nil || string(got.Body) != "x" {
		t.Fatalf("got %v, %v", got, err)
	}
}

func TestRaces_DurableReplyQueueSurvivesAReconnect(t *testing.T) {
	srv := amqptest.NewServer(t)
	begun, goOn := make(chan struct{}), make(chan struct{})
	serve(t, dial(t, srv), "q", func(ctx context.Context, req *rpc.Request) (*amqp.Message, error) {
		close(begun)
		<-goOn
		return echoHandler(ctx, req)
	}, nil)
	open := &redialer{srv: srv}
	defer open.close()
	c := rpc.NewClient(open, &rpc.ClientOptions{ReplyQueue: rpc.ReplyQueue{Name: "replies", Expires: time.Minute}})
	defer c.Close(context.Background())
	go func() {
		<-begun
		srv.KillConnection("redialer")
		close(goOn)
	}()
	got, err := c.Call(t.Context(), rpc.Queue("q"), amqp.Message{Body: []byte("x")})
	if err != nil || string(got.Body) != "x" {
		t.Fatalf("got %v, %v", got, err)
	}
}

// A server that dies under a request leaves it to another one; the caller
// notices nothing.
func TestRaces_ServerKilled(t *testing.T) {
	for _, when := range []string{"during", "after"} {
		t.Run(when, func(t *testing.T) {
			srv := amqptest.NewServer(t)
			first, err := amqp.Dial(t.Context(), srv.URI(), &amqp.Config{Dial: srv.Dial, Name: "first"})
			if err != nil {
				t.Fatal(err)
			}
			defer first.Close()
			ch, err := first.Channel(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if _, err := ch.QueueDeclare(t.Context(), amqp.QueueDeclare{Queue: "q"}); err != nil {
				t.Fatal(err)
			}
			died := make(chan error, 1)
			go func() {
				died <- rpc.Serve(context.WithoutCancel(t.Context()), ch, "q", func(ctx context.Context, req *rpc.Request) (*amqp.Message, error) {
					if when == "during" {
						srv.KillConnection("first")
						<-ctx.Done()
						return nil, ctx.Err()
					}
					srv.KillConnection("first") // the work is done, the reply can't go
					return echoHandler(ctx, req)
				}, &rpc.ServerOptions{Logger: slog.New(slog.DiscardHandler)})
			}()
			c := newClient(t, dial(t, srv), nil)
			got := make(chan error, 1)
			go func() {
				reply, err := c.Call(t.Context(), rpc.Queue("q"), amqp.Message{Body: []byte("x")})
				if err == nil && string(reply.Body) != "second" {
					err = fmt.Errorf("got %q", reply.Body)
				}
				got <- err
			}()
			if err := <-died; err == nil {
				t.Error("a killed server returned nil")
			}
			serve(t, dial(t, srv), "q", func(context.Context, *rpc.Request) (*amqp.Message, error) {
				return &amqp.Message{Body: []byte("second")}, nil
			}, nil)
			if err := <-got; err != nil {
				t.Error(err)
			}
		})
	}
}

func TestRaces_Bounds(t *testing.T) {
	srv := amqptest.NewServer(t)
	release := make(chan struct{})
	serve(t, dial(t, srv), "slow", func(ctx context.Context, req *rpc.Request) (*amqp.Message, error) {
		select {
		case <-release:
		case <-ctx.Done():
		}
		return echoHandler(ctx, req)
	}, nil)
	serve(t, dial(t, srv), "big", func(context.Context, *rpc.Request) (*amqp.Message, error) {
		return &amqp.Message{Body: make([]byte, 1<<20)}, nil // of many frames
	}, nil)
	c := newClient(t, dial(t, srv), &rpc.ClientOptions{MaxPending: 1, MaxReply: 1 << 20})
	if got, err := c.Call(t.Context(), rpc.Queue("big"), amqp.Message{}); err != nil || len(got.Body) != 1<<20 {
		t.Errorf("a reply of many frames: %v", err)
	}
	small := newClient(t, dial(t, srv), &rpc.ClientOptions{MaxReply: 1<<20 - 1})
	if _, err := small.Call(t.Context(), rpc.Queue("big"), amqp.Message{}); !errors.Is(err, rpc.ErrReplyTooLarge) {
		t.Errorf("a reply over the limit: got %v", err)
	}
	done := make(chan error, 1)
	go func() {
		_, err := c.Call(t.Context(), rpc.Queue("slow"), amqp.Message{})
		done <- err
	}()
	for c.Stats().Pending == 0 {
		time.Sleep(time.Millisecond)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := c.Call(ctx, rpc.Queue("slow"), amqp.Message{}); !errors.Is(err, rpc.ErrBusy) {
		t.Errorf("over MaxPending: got %v", err)
	}
	close(release)
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// The caller's context ends at the very moment of the reply, again and again:
// each call has its own reply or its context's error.
func TestRaces_ReplyAgainstDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := amqptest.NewServer(t)
		conn := dial(t, srv)
		stop := serve(t, conn, "q", func(ctx context.Context, req *rpc.Request) (*amqp.Message, error) {
			time.Sleep(time.Second)
			return echoHandler(ctx, req)
		}, &rpc.ServerOptions{Workers: 100})
		c := rpc.NewClient(conn, nil)
		var wg sync.WaitGroup
		for i := range 100 {
			wg.Go(func() {
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				want := fmt.Sprint(i)
				got, err := c.Call(ctx, rpc.Queue("q"), amqp.Message{Body: []byte(want)})
				if err == nil && string(got.Body) != want || err != nil && !errors.Is(err, context.DeadlineExceeded) && !errors.As(err, new(*rpc.RemoteError)) {
					t.Errorf("got %v, %v; want %s", got, err, want)
				}
			})
		}
		wg.Wait()
		if n := c.Stats().Pending; n != 0 {
			t.Errorf("%d calls are pending", n)
		}
		stop()
		c.Close(t.Context())
		conn.Close()
	})
}

func TestTyped_Codecs(t *testing.T) {
	srv := amqptest.NewServer(t)
	conn := dial(t, srv)
	upper := func(_ context.Context, s string) (string, error) { return s + "!", nil }
	serve(t, conn, "text", rpc.Typed(upper, rpc.Bytes), nil)
	c := newClient(t, conn, &rpc.ClientOptions{Codec: rpc.Bytes})
	if got, err := rpc.Call[string](t.Context(), c, rpc.Queue("text"), "hi"); err != nil || got != "hi!" {
		t.Errorf("got %q, %v", got, err)
	}
	j := newClient(t, conn, nil)
	var remote *rpc.RemoteError
	if _, err := rpc.Call[string](t.Context(), j, rpc.Queue("text"), "hi"); !errors.As(err, &remote) || remote.Code != rpc.CodeUnsupported {
		t.Errorf("JSON for a server of bytes: got %v", err)
	}

	// A protobuf message: a pointer that encodes itself.
	proto := rpc.Proto(func(m *note) ([]byte, error) { return []byte(m.text), nil }, func(b []byte, m *note) error {
		m.text = string(b)
		return nil
	})
	serve(t, conn, "proto", rpc.Typed(func(_ context.Context, m *note) (*note, error) { return &note{m.text + "?"}, nil }, proto), nil)
	p := newClient(t, conn, &rpc.ClientOptions{Codec: proto})
	if got, err := rpc.Call[*note](t.Context(), p, rpc.Queue("proto"), &note{"hi"}); err != nil || got.text != "hi?" {
		t.Errorf("got %v, %v", got, err)
	}

	serve(t, conn, "html", func(context.Context, *rpc.Request) (*amqp.Message, error) {
		return &amqp.Message{Properties: amqp.Properties{ContentType: "text/html"}}, nil
	}, nil)
	var unread *rpc.ContentTypeError
	if _, err := rpc.Call[int](t.Context(), j, rpc.Queue("html"), 1); !errors.As(err, &unread) || unread.Got != "text/html" {
		t.Errorf("got %v", err)
	}
}

type note struct{ text string }

func TestMiddleware_WrapsInOrder(t *testing.T) {
	var order []string
	mark := func(name string) rpc.Middleware {
		return rpc.Tracing(func(ctx context.Context, _ *rpc.Request) (context.Context, func(error)) {
			order = append(order, name)
			return ctx, func(err error) { order = append(order, fmt.Sprint(name, " ", err)) }
		})
	}
	quiet := slog.New(slog.DiscardHandler)
	h := rpc.Chain(func(ctx context.Context, _ *rpc.Request) (*amqp.Message, error) {
		if _, ok := ctx.Deadline(); !ok {
			t.Error("Deadline set none")
		}
		panic("x")
	}, mark("a"), rpc.Logging(quiet), mark("b"), rpc.Recovery(quiet), rpc.Deadline(time.Minute))
	if _, err := h(t.Context(), &rpc.Request{}); !errors.Is(err, &rpc.RemoteError{Code: rpc.CodeInternal}) {
		t.Errorf("got %v", err)
	}
	want := "[a b b rpc: remote error internal: the handler panicked a rpc: remote error internal: the handler panicked]"
	if got := fmt.Sprint(order); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// A request that takes its server down again and again is given up after
// ServerOptions.Poison times: it goes to the dead-letter exchange, and the
// caller is told.
func TestRaces_PoisonIsGivenUp(t *testing.T) {
	srv := amqptest.NewServer(t)
	conn := dial(t, srv)
	ch, err := conn.Channel(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	declare := func(m amqp.QueueDeclare) {
		if _, err := ch.QueueDeclare(t.Context(), m); err != nil {
			t.Fatal(err)
		}
	}
	declare(amqp.QueueDeclare{Queue: "dead"})
	declare(amqp.QueueDeclare{Queue: "q", Durable: true, Arguments: amqp.Table{
		"x-queue-type": "quorum", "x-dead-letter-exchange": "", "x-dead-letter-routing-key": "dead",
	}})
	var begun atomic.Int32
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		open := &redialer{srv: srv}
		defer open.close()
		for ctx.Err() == nil {
			sch, err := open.Channel(ctx)
			if err != nil {
				continue
			}
			rpc.Serve(ctx, sch, "q", func(hctx context.Context, req *rpc.Request) (*amqp.Message, error) {
				if string(req.Body) != "poison" {
					return echoHandler(hctx, req)
				}
				begun.Add(1)
				sch.Conn().Close() // as a crash would
				<-hctx.Done()
				return nil, hctx.Err()
			}, &rpc.ServerOptions{Poison: 3, Logger: slog.New(slog.DiscardHandler)})
		}
	})
	c := newClient(t, conn, nil)
	var remote *rpc.RemoteError
	if _, err := c.Call(t.Context(), rpc.Queue("q"), amqp.Message{Body: []byte("poison")}); !errors.As(err, &remote) {
		t.Errorf("got %v, want a remote error", err)
	}
	if n := begun.Load(); n != 3 {
		t.Errorf("begun %d times, want 3", n)
	}
	if got, err := c.Call(t.Context(), rpc.Queue("q"), amqp.Message{Body: []byte("x")}); err != nil || string(got.Body) != "x" {
		t.Errorf("the next request: got %v, %v", got, err)
	}
	srv.WaitQueue(t, "dead", 1, 0) // the caller hears of it first
	if d, err := ch.Get(t.Context(), amqp.BasicGet{Queue: "dead", NoAck: true}); err != nil || string(d.Body) != "poison" {
		t.Errorf("the dead-letter queue: got %v, %v", d, err)
	}
	stop()
	wg.Wait()
}

// A handler that ignores its context holds up neither its caller nor, beyond
// the drain's time, the server.
func TestRaces_HandlerIgnoresItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := amqptest.NewServer(t)
		conn := dial(t, srv)
		ch, err := conn.Channel(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := ch.QueueDeclare(t.Context(), amqp.QueueDeclare{Queue: "q"}); err != nil {
			t.Fatal(err)
		}
		release := make(chan struct{})
		ctx, stop := context.WithCancel(t.Context())
		served := make(chan error, 1)
		go func() {
			served <- rpc.Serve(ctx, ch, "q", func(ctx context.Context, req *rpc.Request) (*amqp.Message, error) {
				<-release
				return nil, nil
			}, &rpc.ServerOptions{Drain: 3 * time.Second, Logger: slog.New(slog.DiscardHandler)})
		}()
		c := rpc.NewClient(conn, nil)
		call, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		start := time.Now()
		if _, err := c.Call(call, rpc.Queue("q"), amqp.Message{}); !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != time.Second {
			t.Errorf("got %v after %v", err, time.Since(start))
		}
		stop()
		if err := <-served; !errors.Is(err, amqp.ErrDrainTimeout) {
			t.Errorf("Serve: got %v", err)
		}
		if took := time.Since(start); took > 6*time.Second {
			t.Errorf("it took %v to stop", took)
		}
		close(release)
		c.Close(t.Context())
		conn.Close()
	})
}

// A server that mixes up its callers' correlation ids gives each caller what
// bears its id, and what bears nobody's is dropped.
func TestRaces_SwappedAndForeignReplies(t *testing.T) {
	srv := amqptest.NewServer(t)
	conn := dial(t, srv)
	var mu sync.Mutex
	var held *amqp.Delivery
	answer(t, conn, "q", func(d *amqp.Delivery, reply func(amqp.Message)) {
		mu.Lock()
		defer mu.Unlock()
		if held == nil {
			held = d
			return
		}
		for _, pair := range [][2]*amqp.Delivery{{d, held}, {held, d}} {
			p := amqp.Properties{CorrelationID: pair[0].Properties().CorrelationID}
			reply(amqp.Message{Properties: p, Body: []byte("answer to " + p.CorrelationID)})
		}
		reply(amqp.Message{Properties: amqp.Properties{CorrelationID: "0123456789abcdef0123456789abcdef"}})
		held = nil
	})
	c := newClient(t, conn, nil)
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			got, err := c.Call(t.Context(), rpc.Queue("q"), amqp.Message{})
			if err != nil || string(got.Body) != "answer to "+got.CorrelationID {
				t.Errorf("got %v, %v", got, err)
			}
		})
	}
	wg.Wait()
	for c.Stats().Late == 0 {
		time.Sleep(time.Millisecond)
	}
}
