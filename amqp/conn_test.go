package amqp_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/warrenmq/warren/amqp"
	"github.com/warrenmq/warren/amqp/amqptest"
)

// 64 goroutines share one channel, and each gets its own answers.
func TestChannel_SharedBy64Goroutines(t *testing.T) {
	srv := amqptest.NewServer(t)
	for _, network := range []string{"memory", "tcp"} {
		t.Run(network, func(t *testing.T) {
			conn, err := amqp.Dial(t.Context(), srv.URI(), &amqp.Config{Unconfirmed: 100})
			if network == "memory" {
				conn, err = amqp.Dial(t.Context(), srv.URI(), &amqp.Config{Dial: srv.Dial, Unconfirmed: 100})
			}
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			ch := openQueue(t, conn, "shared")
			var wg sync.WaitGroup
			for g := range 64 {
				wg.Go(func() {
					for i := range 10 {
						if err := mixed(t.Context(), ch, fmt.Sprintf("%s-%d", network, g), g+i); err != nil {
							t.Error(err)
							return
						}
					}
				})
			}
			wg.Wait()
			if s := conn.Stats(); s.Channels != 1 || s.Consumers != 0 || s.Unconfirmed != 0 || s.Unacked != 0 {
				t.Errorf("left behind: %+v", s)
			}
		})
	}
}

// mixed is one thing of all that a goroutine may do on a shared channel.
func mixed(ctx context.Context, ch *amqp.Channel, name string, what int) error {
	switch what % 5 {
	case 0:
		ok, err := ch.QueueDeclare(ctx, amqp.QueueDeclare{Queue: name})
		if err == nil && ok.Queue != name {
			err = fmt.Errorf("declared %q and got the answer of %q", name, ok.Queue)
		}
		return err
	case 1:
		return ch.Publish(ctx, amqp.BasicPublish{RoutingKey: "nowhere"}, amqp.Message{Body: []byte(name)})
	case 2:
		other, err := ch.Conn().Channel(ctx)
		if err != nil {
			return err
		}
		return other.Close(ctx)
	case 3:
		if _, err := ch.QueueDeclare(ctx, amqp.QueueDeclare{Queue: name}); err != nil {
			return err
		}
		if _, err := ch.Get(ctx, amqp.BasicGet{Queue: name}); !errors.Is(err, amqp.ErrEmpty) {
			return fmt.Errorf("get of the empty %s: %v", name, err)
		}
		return nil
	}
	if _, err := ch.QueueDeclare(ctx, amqp.QueueDeclare{Queue: name}); err != nil {
		return err
	}
	cons, err := ch.Subscribe(ctx, amqp.BasicConsume{Queue: name, ConsumerTag: "tag-" + name}, nil)
	if err != nil {
		return err
	}
	if cons.Tag() != "tag-"+name {
		return fmt.Errorf("consumer %q got the answer of %q", name, cons.Tag())
	}
	if err := ch.BasicPublish(ctx, amqp.BasicPublish{RoutingKey: name}, amqp.Message{Body: []byte(name)}); err != nil {
		return err
	}
	for d, err := range cons.All() {
		if err != nil {
			return err
		}
		if string(d.Body) != name {
			return fmt.Errorf("consumer of %s got %s", name, d.Body)
		}
		if err := d.Ack(); err != nil {
			return err
		}
		break
	}
	return cons.Close(ctx)
}

// The broker closes a channel while calls wait: the one it names was refused,
// of the others nobody knows; other channels go on.
func TestChannel_ClosedByTheBrokerWithCallsPending(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, conn := newScript(t, nil, func(_ *script, ev amqp.Event, _ amqp.Method) bool {
			return ev.Channel == 1 && ev.ID != amqp.MethodChannelOpen // no answers
		})
		ch, err := conn.Channel(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		other, err := conn.Channel(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		errs := make([]error, 4)
		calls := []func() error{
			func() error { return ch.QueueBind(t.Context(), amqp.QueueBind{}) },
			func() error { _, err := ch.QueueDeclare(t.Context(), amqp.QueueDeclare{}); return err },
			func() error { _, err := ch.Get(t.Context(), amqp.BasicGet{}); return err },
			func() error { return ch.Publish(t.Context(), amqp.BasicPublish{}, amqp.Message{}) },
		}
		var wg sync.WaitGroup
		for i, call := range calls {
			wg.Go(func() { errs[i] = call() })
			synctest.Wait()
		}
		s.say(1, &amqp.ChannelClose{
			ReplyCode: amqp.NotFound, ReplyText: "no queue",
			FailedClass: uint16(amqp.MethodQueueDeclare >> 16), FailedMethod: uint16(amqp.MethodQueueDeclare & 0xffff),
		})
		wg.Wait()
		for i, unknown := range []bool{true, false, true, true} {
			if !errors.Is(errs[i], amqp.NotFound) || errors.Is(errs[i], amqp.ErrUnknownOutcome) != unknown || amqp.SafeToRetry(errs[i]) {
				t.Errorf("call %d: %v", i, errs[i])
			}
		}
		<-ch.Done()
		if err := ch.Err(); !errors.Is(err, amqp.NotFound) {
			t.Errorf("Err: %v", err)
		}
		if _, err := ch.QueueDeclare(t.Context(), amqp.QueueDeclare{}); !errors.Is(err, amqp.NotFound) || !errors.Is(err, amqp.ErrClosed) || !amqp.SafeToRetry(err) {
			t.Errorf("a call afterwards: %v", err)
		}
		if err := ch.Close(t.Context()); err != nil {
			t.Errorf("Close afterwards: %v", err)
		}
		if _, err := other.QueueDeclare(t.Context(), amqp.QueueDeclare{Queue: "q"}); err != nil {
			t.Errorf("another channel: %v", err)
		}
	})
}

// The connection is lost with one of each kind of wait pending: all end, with
// the reason.
func TestConn_LostWithEverythingPending(t *testing.T) {
	for _, how := range []string{"killed", "closed by the broker"} {
		synctest.Test(t, func(t *testing.T) {
			s, conn := newScript(t, &amqp.Config{Unconfirmed: 1}, func(_ *script, ev amqp.Event, _ amqp.Method) bool {
				return ev.ID == amqp.MethodQueueDeclare || ev.ID == amqp.MethodBasicGet || ev.ID == amqp.MethodChannelClose
			})
			open := func() *amqp.Channel {
				ch, err := conn.Channel(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				return ch
			}
			ch, closing := open(), open()
			cons := subscribe(t, ch, nil)
			waits := map[string]func() error{
				"declare": func() error {
					_, err := ch.QueueDeclare(t.Context(), amqp.QueueDeclare{})
					return err
				},
				"get":     func() error { _, err := ch.Get(t.Context(), amqp.BasicGet{}); return err },
				"publish": func() error { return ch.Publish(t.Context(), amqp.BasicPublish{}, amqp.Message{}) },
				"publish without room": func() error {
					time.Sleep(time.Millisecond)
					return ch.Publish(t.Context(), amqp.BasicPublish{}, amqp.Message{})
				},
				"close": func() error { return closing.Close(t.Context()) },
				"all": func() error {
					for _, err := range cons.All() {
						return err
					}
					return nil
				},
				"serve": func() error {
					return ch.Serve(t.Context(), amqp.BasicConsume{Queue: "other"}, func(context.Context, *amqp.Delivery) error { return nil }, nil)
				},
				"done": func() error { <-conn.Done(); return conn.Err() },
			}
			errs := map[string]error{}
			var mu sync.Mutex
			var wg sync.WaitGroup
			for name, wait := range waits {
				wg.Go(func() {
					err := wait()
					mu.Lock()
					errs[name] = err
					mu.Unlock()
				})
			}
			time.Sleep(time.Second)
			if how == "killed" {
				s.hangUp()
			} else {
				s.say(0, &amqp.ConnectionClose{ReplyCode: amqp.ConnectionForced, ReplyText: "maintenance"})
			}
			wg.Wait()
			for name, err := range errs {
				var ex *amqp.Error
				if !errors.As(err, &ex) || !errors.Is(err, amqp.ErrClosed) || errors.Is(err, amqp.ConnectionForced) != (how != "killed") {
					t.Errorf("%s, %s: %v", how, name, err)
				}
				if sent := name == "publish without room"; amqp.SafeToRetry(err) != sent {
					t.Errorf("%s, %s: is it safe to send it again? %v", how, name, err)
				}
			}
			if how == "killed" && !errors.Is(conn.Err(), io.EOF) && conn.Err().Error() == "" {
				t.Errorf("the reason is %v", conn.Err())
			}
		})
	}
}

// A close inside a function that the reader calls would wait for itself.
func TestConn_CloseInATraceFunctionIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var conn *amqp.Conn
		var ch *amqp.Channel
		var cons *amqp.Consumer
		got := map[string]error{}
		trace := &amqp.Trace{Blocked: func(ctx context.Context, _ amqp.ConnInfo, _ string) {
			got["Conn.Close"] = conn.Close()
			got["Channel.Close"] = ch.Close(ctx)
			got["Consumer.Close"] = cons.Close(ctx)
			_, got["QueueDeclare"] = ch.QueueDeclare(ctx, amqp.QueueDeclare{})
			_, got["Conn.Channel"] = conn.Channel(ctx)
			_, got["Subscribe"] = ch.Subscribe(ctx, amqp.BasicConsume{}, nil)
			got["Publish"] = ch.Publish(ctx, amqp.BasicPublish{}, amqp.Message{})
		}}
		var s *script
		s, conn = newScript(t, &amqp.Config{Trace: trace}, nil)
		var err error
		if ch, err = conn.Channel(t.Context()); err != nil {
			t.Fatal(err)
		}
		cons = subscribe(t, ch, nil)
		s.say(0, &amqp.ConnectionBlocked{})
		synctest.Wait()
		if len(got) != 7 {
			t.Errorf("%d of 7 calls returned", len(got))
		}
		for name, err := range got {
			if !errors.Is(err, amqp.ErrInHandler) {
				t.Errorf("%s: %v", name, err)
			}
		}
		if _, err := ch.QueueDeclare(t.Context(), amqp.QueueDeclare{Queue: "q"}); err != nil {
			t.Errorf("outside: %v", err)
		}
	})
}

func TestConn_Stats(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := amqptest.NewServer(t)
		conn := connect(t, srv)
		ch := openQueue(t, conn, "q")
		fill(t, ch, 10)
		cons := subscribe(t, ch, &amqp.ConsumeOptions{Prefetch: 5})
		synctest.Wait()
		takeN(t, cons, 1)[0].Ack()
		time.Sleep(time.Second)
		srv.DelayConfirms(time.Minute)
		for range 3 {
			if _, err := ch.PublishAsync(t.Context(), amqp.BasicPublish{RoutingKey: "q"}, amqp.Message{}); err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		s := conn.Stats()
		if s.Channels != 1 || s.Consumers != 1 || s.Unacked != 5 || s.Unconfirmed != 3 || s.Outbox != 0 || s.Waiting != 0 || s.Blocked {
			t.Errorf("%+v", s)
		}
		if s.FramesIn == 0 || s.FramesOut == 0 || s.OctetsIn == 0 || s.OctetsOut == 0 {
			t.Errorf("nothing was counted: %+v", s)
		}
	})
}

// heartbeats gives when heartbeats came, and all that came.
func heartbeats(s *script) (beats []time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append(beats, s.beats...)
}

func TestHeartbeat_SentInSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _ := newScript(t, &amqp.Config{Heartbeat: 4 * time.Second}, nil)
		stop := time.AfterFunc(time.Minute, s.hangUp)
		defer stop.Stop()
		last := time.Now()
		for range 20 {
			time.Sleep(time.Second)
			s.beat()
		}
		synctest.Wait()
		beats := heartbeats(s)
		if len(beats) < 9 {
			t.Errorf("%d heartbeats in 20 s, with an interval of 4 s", len(beats))
		}
		for _, at := range beats {
			if at.Sub(last) > 3*time.Second {
				t.Errorf("silent for %v", at.Sub(last))
			}
			last = at
		}
	})
}

func TestHeartbeat_DeadPeerIsFound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, conn := newScript(t, &amqp.Config{Heartbeat: 4 * time.Second}, nil)
		time.Sleep(7 * time.Second)
		s.beat() // just in time
		start := time.Now()
		<-conn.Done()
		if took := time.Since(start); took != 8*time.Second {
			t.Errorf("found after %v, want 8 s", took)
		}
	})
}

func TestHeartbeat_NoneWhereSwitchedOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, conn := newScript(t, &amqp.Config{Heartbeat: -1}, func(s *script, ev amqp.Event, _ amqp.Method) bool {
			if ev.ID == amqp.MethodConnectionStartOk {
				s.reply(0, &amqp.ConnectionTune{ChannelMax: 100, FrameMax: 128 << 10})
				return true
			}
			return false
		})
		time.Sleep(time.Hour)
		if len(heartbeats(s)) != 0 || conn.Err() != nil {
			t.Errorf("%d heartbeats; %v", len(heartbeats(s)), conn.Err())
		}
	})
}
