package amqp_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/warrenmq/warren/amqp"
	"github.com/warrenmq/warren/amqp/amqptest"
)

// latency is what a reply takes in the tests of cancelled calls.
const latency = 10 * time.Millisecond

// cancelledCalls are calls that wait, to be cut short: they make the context that
// ends when they come to it. Each undoes what it did where it succeeded.
var cancelledCalls = map[string]func(func() context.Context, *amqp.Channel) error{
	"queue.declare": func(cut func() context.Context, ch *amqp.Channel) error {
		ok, err := ch.QueueDeclare(cut(), amqp.QueueDeclare{Queue: "other"})
		if err == nil && ok.Queue != "other" {
			err = fmt.Errorf("got the answer of %q", ok.Queue)
		}
		return err
	},
	"queue.bind": func(cut func() context.Context, ch *amqp.Channel) error {
		return ch.QueueBind(cut(), amqp.QueueBind{Queue: "q", Exchange: "amq.topic", RoutingKey: "k"})
	},
	"basic.qos": func(cut func() context.Context, ch *amqp.Channel) error {
		return ch.BasicQos(cut(), amqp.BasicQos{PrefetchCount: 7})
	},
	"channel.open": func(cut func() context.Context, ch *amqp.Channel) error {
		other, err := ch.Conn().Channel(cut())
		if err == nil {
			err = other.Close(context.Background())
		}
		return err
	},
	"channel.close": func(cut func() context.Context, ch *amqp.Channel) error {
		other, err := ch.Conn().Channel(context.Background())
		if err == nil {
			err = other.Close(cut())
		}
		return err
	},
	"basic.consume": func(cut func() context.Context, ch *amqp.Channel) error {
		cons, err := ch.Subscribe(cut(), amqp.BasicConsume{Queue: "q"}, nil)
		if err == nil {
			err = cons.Close(context.Background())
		}
		return err
	},
	"basic.cancel": func(cut func() context.Context, ch *amqp.Channel) error {
		cons, err := ch.Subscribe(context.Background(), amqp.BasicConsume{Queue: "q"}, nil)
		if err == nil {
			err = cons.Close(cut())
		}
		return err
	},
	"basic.get": func(cut func() context.Context, ch *amqp.Channel) error {
		d, err := ch.Get(cut(), amqp.BasicGet{Queue: "q"})
		if err == nil {
			err = d.Requeue()
		}
		return err
	},
	"Publish": func(cut func() context.Context, ch *amqp.Channel) error {
		return ch.Publish(cut(), amqp.BasicPublish{RoutingKey: "nowhere"}, amqp.Message{})
	},
	"connection.update-secret": func(cut func() context.Context, ch *amqp.Channel) error {
		return ch.Conn().UpdateSecret(cut(), "guest", "")
	},
}

// Whenever the context of a call ends, the channel goes on: no reply reaches
// another caller, and nothing of what came too late stays behind.
func TestCancelledCall_LeavesTheChannelUsable(t *testing.T) {
	for name, call := range cancelledCalls {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { cutShort(t, call) })
		})
	}
}

func cutShort(t *testing.T, call func(func() context.Context, *amqp.Channel) error) {
	srv := amqptest.NewServer(t)
	conn := connect(t, srv)
	ch := openQueue(t, conn, "q")
	for i := range 5 {
		if err := ch.Publish(t.Context(), amqp.BasicPublish{RoutingKey: "q"}, amqp.Message{Body: fmt.Append(nil, i)}); err != nil {
			t.Fatal(err)
		}
	}
	srv.Slow(latency)
	var cut, done int
	for i := range 120 {
		// Mostly about the moment in which the reply comes.
		limit := latency
		if i%3 == 0 {
			limit = rand.N(2 * latency)
		}
		var cancel context.CancelFunc
		err := call(func() (ctx context.Context) {
			ctx, cancel = context.WithTimeout(t.Context(), limit)
			return ctx
		}, ch)
		cancel()
		switch {
		case err == nil:
			done++
		case !errors.Is(err, context.DeadlineExceeded):
			t.Fatalf("cut short after %v: %v", limit, err)
		case amqp.SafeToRetry(err) == errors.Is(err, amqp.ErrUnknownOutcome):
			t.Fatalf("is it known that nothing was sent? %v", err)
		default:
			cut++
		}
		queue := fmt.Sprint("check", i%3)
		ok, err := ch.QueueDeclare(t.Context(), amqp.QueueDeclare{Queue: queue})
		if err != nil || ok.Queue != queue {
			t.Fatalf("the next call got %q, %v, want %q", ok.Queue, err, queue)
		}
	}
	if cut == 0 || done == 0 {
		t.Errorf("%d calls were cut short and %d were not: nothing was shown", cut, done)
	}
	srv.Slow(0)
	time.Sleep(time.Second)
	if c := srv.Consumers(); len(c) != 0 {
		t.Errorf("%d consumers stay behind", len(c))
	}
	if q, _ := srv.Queue("q"); q.Unacked != 0 || q.Ready != 5 {
		t.Errorf("the queue has %d ready and %d unsettled, want 5 and 0", q.Ready, q.Unacked)
	}
	if s := conn.Stats(); s.Channels != 1 || s.Consumers != 0 || s.Unacked != 0 || s.Unconfirmed != 0 {
		t.Errorf("left behind: %+v", s)
	}
	if c := srv.Connections(); len(c) != 1 || c[0].Channels != 1 {
		t.Errorf("the server has %+v", c)
	}
}

// Without acks a message is gone with its late get-ok, and that is all.
func TestCancelledCall_ConsumeWithoutAcks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := amqptest.NewServer(t)
		ch := openQueue(t, connect(t, srv), "q")
		for range 20 {
			if err := ch.Publish(t.Context(), amqp.BasicPublish{RoutingKey: "q"}, amqp.Message{}); err != nil {
				t.Fatal(err)
			}
		}
		srv.Slow(latency)
		for _, call := range []func(context.Context) error{
			func(ctx context.Context) error {
				_, err := ch.Get(ctx, amqp.BasicGet{Queue: "q", NoAck: true})
				return err
			},
			func(ctx context.Context) error {
				_, err := ch.Subscribe(ctx, amqp.BasicConsume{Queue: "q", NoAck: true}, nil)
				return err
			},
		} {
			ctx, cancel := context.WithTimeout(t.Context(), latency/2)
			if err := call(ctx); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("call: %v", err)
			}
			cancel()
			time.Sleep(10 * latency)
		}
		if _, err := ch.QueueDeclare(t.Context(), amqp.QueueDeclare{Queue: "q"}); err != nil {
			t.Error(err)
		}
	})
}

// A context that has ended sends nothing, and its cause is in the error.
func TestCancelledCall_BeforeItWasSent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		conn := connect(t, amqptest.NewServer(t))
		ch := openQueue(t, conn, "q")
		mine := errors.New("mine")
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(mine)
		before := conn.Stats().FramesOut
		calls := map[string]error{}
		calls["Publish"] = ch.Publish(ctx, amqp.BasicPublish{}, amqp.Message{})
		calls["BasicPublish"] = ch.BasicPublish(ctx, amqp.BasicPublish{}, amqp.Message{})
		_, calls["PublishAsync"] = ch.PublishAsync(ctx, amqp.BasicPublish{}, amqp.Message{})
		_, calls["Subscribe"] = ch.Subscribe(ctx, amqp.BasicConsume{Queue: "q"}, nil)
		_, calls["Get"] = ch.Get(ctx, amqp.BasicGet{Queue: "q"})
		_, calls["QueueDeclare"] = ch.QueueDeclare(ctx, amqp.QueueDeclare{Queue: "q"})
		_, calls["Channel"] = conn.Channel(ctx)
		calls["UpdateSecret"] = conn.UpdateSecret(ctx, "", "")
		for name, err := range calls {
			if !errors.Is(err, context.Canceled) || !errors.Is(err, mine) || !amqp.SafeToRetry(err) {
				t.Errorf("%s: %v", name, err)
			}
		}
		if after := conn.Stats().FramesOut; after != before {
			t.Errorf("%d frames were sent", after-before)
		}
	})
}
