package amqp_test

import (
	"context"
	"errors"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/warrenmq/warren/amqp"
	"github.com/warrenmq/warren/amqp/amqptest"
)

func TestServe_EndsWhereUserCodeEndsItsGoroutine(t *testing.T) {
	for _, workers := range []int{1, 3} {
		synctest.Test(t, func(t *testing.T) {
			s := startServe(t, func(context.Context, *amqp.Delivery) error {
				runtime.Goexit()
				return nil
			}, &amqp.ServeOptions{Workers: workers, Key: func(d *amqp.Delivery) string { return "" }})
			s.put("m", "n")
			var p *amqp.PanicError
			if err := <-s.done; !errors.As(err, &p) {
				t.Errorf("Serve: %v, want a *PanicError", err)
			}
			synctest.Wait()
			s.wantLeft(2, 0)
		})
	}
}

func TestServe_PanicsElsewhereEndIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := startServe(t, func(context.Context, *amqp.Delivery) error { return nil }, &amqp.ServeOptions{
			Workers: 2,
			Key:     func(*amqp.Delivery) string { panic("key") },
			OnError: func(*amqp.Delivery, error) amqp.Action { panic("policy") },
		})
		s.put("m")
		var p *amqp.PanicError
		if err := <-s.done; !errors.As(err, &p) || p.Value != "policy" {
			t.Errorf("Serve: %v, want the policy's panic", err)
		}
	})
}

func TestServe_DrainIsBounded(t *testing.T) {
	for _, obeys := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			release := make(chan struct{})
			s := startServe(t, func(ctx context.Context, _ *amqp.Delivery) error {
				if !obeys {
					<-release
					return nil
				}
				<-ctx.Done()
				return context.Cause(ctx)
			}, &amqp.ServeOptions{DrainTimeout: 7 * time.Second})
			s.put("m", "n")
			synctest.Wait()
			s.stop()
			start := time.Now()
			err := <-s.done
			took := time.Since(start)
			if obeys {
				if err != nil || took != 7*time.Second {
					t.Errorf("Serve: %v after %v", err, took)
				}
				synctest.Wait()
				s.wantLeft(2, 0)
				return
			}
			if !errors.Is(err, amqp.ErrDrainTimeout) || took != 8*time.Second {
				t.Errorf("Serve: %v after %v", err, took)
			}
			s.wantLeft(1, 1)
			close(release)
			time.Sleep(time.Second)
			s.wantLeft(1, 0) // what it did counts all the same
		})
	}
}

func TestServe_ChannelsEndEndsHandlersContext(t *testing.T) {
	ends := map[string]func(*serving){
		"connection lost": func(s *serving) { s.srv.KillAll() },
		"channel.close by the broker": func(s *serving) {
			s.ch.QueueDeclare(context.Background(), amqp.QueueDeclare{Queue: "nope", Passive: true})
		},
		"Channel.Close": func(s *serving) { s.ch.Close(context.Background()) },
		"Conn.Close":    func(s *serving) { s.conn.Close() },
	}
	for name, end := range ends {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				causes := make(chan error, 10)
				s := startServe(t, func(ctx context.Context, d *amqp.Delivery) error {
					<-ctx.Done()
					causes <- context.Cause(ctx)
					return d.Ack()
				}, &amqp.ServeOptions{Workers: 2})
				s.put("m", "n", "o")
				synctest.Wait()
				end(s)
				err := <-s.done
				var ex *amqp.Error
				if !errors.As(err, &ex) || !errors.Is(err, amqp.ErrClosed) {
					t.Errorf("Serve: %v, want an *Error", err)
				}
				for range 2 {
					if cause := <-causes; !errors.Is(cause, amqp.ErrClosed) {
						t.Errorf("a handler's context ended by %v", cause)
					}
				}
			})
		})
	}
}

func TestServe_CloseFromInsideAHandler(t *testing.T) {
	closes := map[string]func(context.Context, *amqp.Delivery) error{
		"channel":    func(ctx context.Context, d *amqp.Delivery) error { return d.Channel().Close(ctx) },
		"connection": func(_ context.Context, d *amqp.Delivery) error { return d.Channel().Conn().Close() },
	}
	for name, closeIt := range closes {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var closed error
				s := startServe(t, func(ctx context.Context, d *amqp.Delivery) error {
					closed = closeIt(ctx, d)
					return nil
				}, nil)
				s.put("m")
				if err := <-s.done; !errors.Is(err, amqp.ErrClosed) || closed != nil {
					t.Errorf("Serve: %v; Close: %v", err, closed)
				}
			})
		})
	}
}

func TestServe_WithinAHandler(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inner := make(chan error, 1)
		s := startServe(t, func(ctx context.Context, d *amqp.Delivery) error {
			ctx, cancel := context.WithTimeout(ctx, time.Second)
			defer cancel()
			inner <- d.Channel().Serve(ctx, amqp.BasicConsume{Queue: "q"}, func(context.Context, *amqp.Delivery) error { return nil }, nil)
			return nil
		}, nil)
		s.put("m")
		if err := <-inner; err != nil {
			t.Errorf("Serve within a handler: %v", err)
		}
		s.stop()
		if err := <-s.done; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
}

func TestServe_BrokerCancels(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := startServe(t, func(context.Context, *amqp.Delivery) error { return nil }, nil)
		s.put("m")
		synctest.Wait()
		s.srv.DeleteQueue("/", "q")
		if err := <-s.done; !errors.Is(err, amqp.ErrCancelled) {
			t.Errorf("Serve: %v, want ErrCancelled", err)
		}
		if err := s.ch.Err(); err != nil {
			t.Errorf("the channel ended: %v", err)
		}
	})
}

func TestServe_WithoutAcks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := amqptest.NewServer(t)
		ch := openQueue(t, connect(t, srv), "q")
		release := make(chan struct{})
		defer close(release)
		done := make(chan error)
		go func() {
			done <- ch.Serve(t.Context(), amqp.BasicConsume{Queue: "q", NoAck: true}, func(context.Context, *amqp.Delivery) error {
				<-release
				return errHandler
			}, &amqp.ServeOptions{
				Workers: 2, Key: func(*amqp.Delivery) string { return "the same" }, DrainTimeout: time.Second,
				ConsumeOptions: amqp.ConsumeOptions{Buffer: 10},
			})
		}()
		for range 40 {
			if err := ch.Publish(t.Context(), amqp.BasicPublish{RoutingKey: "q"}, amqp.Message{}); err != nil {
				t.Fatal(err)
			}
		}
		if err := <-done; !errors.Is(err, amqp.ErrSlowConsumer) {
			t.Errorf("Serve: %v, want ErrSlowConsumer", err)
		}
	})
}

func TestServe_TraceGivesTheHandlersContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		type key struct{}
		srv := amqptest.NewServer(t)
		var told []string
		conn, err := amqp.Dial(t.Context(), srv.URI(), &amqp.Config{Dial: srv.Dial, Trace: &amqp.Trace{
			Deliver: func(ctx context.Context, d *amqp.Delivery) context.Context {
				told = append(told, string(d.Body))
				return context.WithValue(ctx, key{}, string(d.Body))
			},
		}})
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		ch := openQueue(t, conn, "q")
		for i := range 3 {
			if err := ch.Publish(t.Context(), amqp.BasicPublish{RoutingKey: "q"}, amqp.Message{Body: []byte{'a' + byte(i)}}); err != nil {
				t.Fatal(err)
			}
		}
		type outer struct{}
		ctx, cancel := context.WithCancel(context.WithValue(t.Context(), outer{}, "kept"))
		err = ch.Serve(ctx, amqp.BasicConsume{Queue: "q"}, func(ctx context.Context, d *amqp.Delivery) error {
			if ctx.Value(key{}) != string(d.Body) || ctx.Value(outer{}) != "kept" {
				t.Errorf("the handler of %s has a context of %v and %v", d.Body, ctx.Value(key{}), ctx.Value(outer{}))
			}
			if string(d.Body) == "b" {
				cancel()
			}
			return nil
		}, &amqp.ServeOptions{ConsumeOptions: amqp.ConsumeOptions{Prefetch: 1}})
		if err != nil {
			t.Errorf("Serve: %v", err)
		}
		cons, err := ch.Subscribe(t.Context(), amqp.BasicConsume{Queue: "q"}, nil)
		if err != nil {
			t.Fatal(err)
		}
		for d := range cons.All() {
			d.Ack()
			break
		}
		_, err = ch.Handle(t.Context(), amqp.BasicConsume{Queue: "q"}, func(d *amqp.Delivery) { d.Ack() }, nil)
		if err == nil {
			err = cons.Close(t.Context())
		}
		if err == nil {
			err = ch.Publish(t.Context(), amqp.BasicPublish{RoutingKey: "q"}, amqp.Message{Body: []byte("d")})
		}
		if err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if diff := cmp.Diff([]string{"a", "b", "c", "d"}, told); diff != "" {
			t.Errorf("Deliver was told of (-want +got):\n%s", diff)
		}
	})
}

func TestServe_RefusesWhatMakesNoSense(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ch := openQueue(t, connect(t, amqptest.NewServer(t)), "q")
		var bad *amqp.ConfigError
		if err := ch.Serve(t.Context(), amqp.BasicConsume{Queue: "q"}, nil, nil); !errors.As(err, &bad) {
			t.Errorf("no handler: %v", err)
		}
		h := func(context.Context, *amqp.Delivery) error { return nil }
		if err := ch.Serve(t.Context(), amqp.BasicConsume{Queue: "q"}, h, &amqp.ServeOptions{Workers: -1}); !errors.As(err, &bad) {
			t.Errorf("-1 workers: %v", err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := ch.Serve(ctx, amqp.BasicConsume{Queue: "q"}, h, nil); !errors.Is(err, context.Canceled) || !amqp.SafeToRetry(err) {
			t.Errorf("a context that has ended: %v", err)
		}
	})
}
