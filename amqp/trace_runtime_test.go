package amqp_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/warrenmq/warren/amqp"
	"github.com/warrenmq/warren/amqp/amqptest"
)

// told is what a Trace was told, in short.
type told struct {
	mu    sync.Mutex
	lines []string
}

func (l *told) add(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, fmt.Sprintf(format, args...))
}

func (l *told) take() (s []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	s, l.lines = l.lines, nil
	return s
}

// outcome is an error in a word.
func outcome(err error) string {
	for _, x := range []struct {
		word     string
		sentinel error
	}{
		{"nacked", amqp.ErrNacked}, {"unroutable", amqp.NoRoute}, {"unknown", amqp.ErrUnknownOutcome},
		{"settled", amqp.ErrSettled}, {"404", amqp.NotFound}, {"refused", amqp.ErrRefused},
	} {
		if errors.Is(err, x.sentinel) {
			return x.word
		}
	}
	return fmt.Sprint(err)
}

type spanKey struct{}

func (l *told) trace() *amqp.Trace {
	return &amqp.Trace{
		Handshake: func(_ context.Context, h amqp.HandshakeInfo) { l.add("handshake %s", h.Mechanism) },
		PublishStart: func(ctx context.Context, ch uint16, m *amqp.BasicPublish, msg *amqp.Message) context.Context {
			msg.Headers = amqp.Table{"traced": m.RoutingKey}
			return context.WithValue(ctx, spanKey{}, m.RoutingKey)
		},
		PublishDone: func(ctx context.Context, _ uint16, err error) {
			l.add("publish %v: %s", ctx.Value(spanKey{}), outcome(err))
		},
		Return: func(_ context.Context, _ uint16, r *amqp.ReturnError) { l.add("return %s", r.RoutingKey) },
		Settle: func(_ context.Context, s amqp.SettleInfo, err error) {
			l.add("%v %d: %s", s.Settlement, s.DeliveryTag, outcome(err))
		},
		Blocked:   func(_ context.Context, _ amqp.ConnInfo, reason string) { l.add("blocked: %s", reason) },
		Unblocked: func(context.Context, amqp.ConnInfo) { l.add("unblocked") },
		ChannelClosed: func(_ context.Context, _ amqp.ConnInfo, ch uint16, err error) {
			l.add("channel %d closed: %s", ch, outcome(err))
		},
		ConnClosed: func(_ context.Context, _ amqp.ConnInfo, err error) { l.add("connection closed: %s", outcome(err)) },
	}
}

func TestTrace_TellsOfTheConnectionsLife(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l told
		srv := amqptest.NewServer(t)
		conn := connectTo(t, srv, amqp.Config{Trace: l.trace()})
		ch := openQueue(t, conn, "q")
		want := func(what string, want ...string) {
			t.Helper()
			time.Sleep(time.Second)
			if diff := cmp.Diff(want, l.take()); diff != "" {
				t.Errorf("%s (-want +got):\n%s", what, diff)
			}
		}
		want("dial", "handshake PLAIN")
		publish := func(key string) {
			ch.Publish(t.Context(), amqp.BasicPublish{RoutingKey: key, Mandatory: true}, amqp.Message{})
		}
		publish("q")
		publish("nowhere")
		srv.NackNext(1)
		publish("q")
		want("publishes", "publish q: <nil>", "return nowhere", "publish nowhere: unroutable", "publish q: nacked")
		ch.BasicPublish(t.Context(), amqp.BasicPublish{RoutingKey: "q"}, amqp.Message{})
		ch.BasicPublish(t.Context(), amqp.BasicPublish{RoutingKey: "q", Immediate: true}, amqp.Message{})
		want("without waiting", "publish q: <nil>", "publish q: refused")
		list := takeN(t, subscribe(t, ch, nil), 2)
		if h, err := list[0].Headers(); err != nil || h["traced"] != "q" {
			t.Errorf("headers %v, %v", h, err)
		}
		list[0].Ack()
		list[0].Reject()
		list[1].Retry()
		want("settlements", "acked 1: <nil>", "rejected 1: settled", "requeued 2: <nil>")
		srv.Block("low on disk")
		publish2 := make(chan struct{})
		go func() { publish("q"); close(publish2) }()
		want("an alarm", "blocked: low on disk")
		srv.Unblock()
		<-publish2
		want("its end", "unblocked", "publish q: <nil>")
		srv.DropConfirms(1)
		go publish("q")
		time.Sleep(time.Second)
		ch.QueueDeclare(t.Context(), amqp.QueueDeclare{Queue: "none", Passive: true})
		synctest.Wait()
		list[0].Ack()
		want("an exception", "publish q: unknown", "channel 1 closed: 404", "acked 1: settled")
		other, err := conn.Channel(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		other.Close(t.Context())
		want("an orderly close", "channel 1 closed: <nil>")
		conn.Close()
		want("the end", "connection closed: <nil>")
	})
}

// A function of Trace may do anything that does not wait for the reader.
func TestTrace_FunctionsMayPublishAndSettle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := amqptest.NewServer(t)
		var ch *amqp.Channel
		var errs []string
		conn := connectTo(t, srv, amqp.Config{Trace: &amqp.Trace{
			Return: func(ctx context.Context, _ uint16, r *amqp.ReturnError) {
				if err := ch.BasicPublish(ctx, amqp.BasicPublish{RoutingKey: "q"}, *r.Message); err != nil {
					errs = append(errs, err.Error())
				}
			},
		}})
		ch = openQueue(t, conn, "q")
		for range 3 {
			ch.BasicPublish(t.Context(), amqp.BasicPublish{RoutingKey: "nowhere", Mandatory: true}, amqp.Message{Body: []byte("m")})
		}
		time.Sleep(time.Second)
		if q, _ := srv.Queue("q"); q.Ready != 3 || len(errs) != 0 {
			t.Errorf("%d were sent again; %s", q.Ready, strings.Join(errs, "; "))
		}
	})
}
