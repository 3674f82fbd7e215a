//go:build integration

package amqp_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/warrenmq/warren/amqp"
	"github.com/warrenmq/warren/internal/rabbittest"
)

// What RabbitMQ does differently from version to version, or from what its
// pages say, as seen on 4.3.6, 4.0.5 and 3.10.8.

// TestRabbitMQ_GlobalQos: one limit for the whole channel, which 4.3 takes for
// a default of the consumers to come. Before, a consumer's own prefetch lifts
// it, so that it has to be set when all have subscribed.
func TestRabbitMQ_GlobalQos(t *testing.T) {
	c, ch := newSession(t)
	q := exclusiveQueue(t, ch, nil)
	own := mustOpen(t, c)
	for range 2 {
		mustSubscribe(t, own, q, &amqp.ConsumeOptions{Prefetch: 5})
	}
	noError(t, own.BasicQos(patiently(t), amqp.BasicQos{PrefetchCount: 3, Global: true}))
	mustPut(t, ch, q, numbered(20)...)
	want := 3
	if rabbittest.Shared(t).AtLeast(4, 3) {
		want = 10
	}
	mustSettle(t, ch, q, 20-want)
	eventually(t, "as many have arrived", func() bool { return c.Stats().Unacked == want })
}

// TestFieldNote17_ConsumerTimeout: 4.3 cancels a quorum queue's consumer and
// leaves its channel open; 3.10 closes the channel.
func TestFieldNote17_ConsumerTimeout(t *testing.T) {
	b := rabbittest.Shared(t)
	b.SetConsumerTimeout(t, time.Second)
	if !b.AtLeast(4, 3) { // there the channel looks once a minute
		b.Ctl(t, "eval", "application:set_env(rabbit, channel_tick_interval, 1000).")
		t.Cleanup(func() { b.Ctl(t, "eval", "application:set_env(rabbit, channel_tick_interval, 60000).") })
	}
	_, ch := newSession(t)
	q := durableQueue(t, ch, amqp.Table{"x-queue-type": "quorum"})
	mustPut(t, ch, q, "slow")
	c, own := newSession(t)
	cons := mustSubscribe(t, own, q, nil)
	var d *amqp.Delivery
	var end error
	for got, err := range cons.All() { // and handles it for longer than it may
		if got == nil {
			end = err
			break
		}
		if d == nil {
			d = got
		}
	}
	if d == nil {
		t.Fatalf("nothing came: %v", end)
	}
	if b.AtLeast(4, 3) {
		wantErr(t, end, amqp.ErrCancelled)
		mustWork(t, own)
		noError(t, d.Ack()) // late, and still in time, unless the channel ends too soon behind it
		mustSettle(t, ch, q, 0)
		noError(t, own.Close(patiently(t)))
		return
	}
	ex := wantCode(t, end, amqp.PreconditionFailed)
	if !strings.Contains(ex.Text, "timed out") && !strings.Contains(ex.Text, "timeout") {
		t.Errorf("text %q", ex.Text)
	}
	wantErr(t, d.Ack(), amqp.ErrStale)
	mustSettle(t, ch, q, 1)
	mustLive(t, c)
}

// TestRabbitMQ_DeliveryLimit: what 4.3 counts towards a quorum queue's limit is
// Requeue alone, and before that Retry as well.
func TestRabbitMQ_DeliveryLimit(t *testing.T) {
	b := rabbittest.Shared(t)
	_, ch := newSession(t)
	dead := exclusiveQueue(t, ch, nil)
	args := amqp.Table{"x-queue-type": "quorum", "x-delivery-limit": 2, "x-dead-letter-exchange": "", "x-dead-letter-routing-key": dead}
	for name, tt := range map[string]struct {
		again   func(*amqp.Delivery) error
		counted bool
	}{
		"Requeue": {(*amqp.Delivery).Requeue, true},
		"Retry":   {(*amqp.Delivery).Retry, !b.AtLeast(4, 3)},
	} {
		t.Run(name, func(t *testing.T) {
			own := mustOpen(t, ch.Conn())
			q := durableQueue(t, ch, args)
			mustPut(t, ch, q, name)
			cons := mustSubscribe(t, own, q, nil)
			for i := range 3 {
				d := mustTake(t, cons, 1)[0]
				h, err := d.Headers()
				noError(t, err)
				if _, ok := h["x-acquired-count"]; b.AtLeast(4, 3) && i > 0 && !ok {
					t.Errorf("no x-acquired-count: %v", h)
				}
				noError(t, tt.again(d))
			}
			if tt.counted {
				mustSettle(t, ch, dead, 1)
				if h, err := mustGet(t, ch, dead).Headers(); err != nil || h["x-first-death-reason"] != "delivery_limit" {
					t.Errorf("%v, %v", h, err)
				}
				return
			}
			noError(t, mustTake(t, cons, 1)[0].Ack())
			mustSettle(t, ch, q, 0)
		})
	}
}

// TestRabbitMQ_QuorumPriority: an absent priority counts for 4, above an
// explicit 0: so they have to stay apart on the wire. Strict on 4.3; 4.0 tells
// above 4 from the rest alone; 3.10 knows no priorities in quorum queues.
func TestRabbitMQ_QuorumPriority(t *testing.T) {
	_, ch := newSession(t)
	q := durableQueue(t, ch, amqp.Table{"x-queue-type": "quorum"})
	for _, p := range []amqp.Properties{
		{Present: amqp.HasPriority, Type: "0"}, {Type: "absent"}, {Priority: 3, Type: "3"}, {Priority: 9, Type: "9"}, {Priority: 5, Type: "5"},
	} {
		noError(t, ch.Publish(patiently(t), toQueue(q), amqp.Message{Properties: p}))
	}
	var got []string
	for range 5 {
		got = append(got, mustGet(t, ch, q).Properties().Type)
	}
	want := []string{"0", "absent", "3", "9", "5"}
	switch b := rabbittest.Shared(t); {
	case b.AtLeast(4, 3):
		want = []string{"9", "5", "absent", "3", "0"}
	case b.AtLeast(4, 0):
		want = []string{"9", "5", "0", "absent", "3"}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("order (-want +got):\n%s", diff)
	}
}

func TestRabbitMQ_QuorumQueue(t *testing.T) {
	c, ch := newSession(t)
	q := durableQueue(t, ch, amqp.Table{"x-queue-type": "quorum"})
	const n = 2000
	mustPut(t, ch, q, numbered(n)...)
	cons := mustSubscribe(t, mustOpen(t, c), q, nil)
	i := 0
	for d, err := range cons.All() {
		if err != nil {
			t.Fatal(err)
		}
		if string(d.Body) != fmt.Sprint(i) {
			t.Fatalf("%q in place of %d", d.Body, i)
		}
		noError(t, d.Ack())
		if i++; i == n {
			break
		}
	}
	noError(t, cons.Channel().Close(patiently(t)))
	mustSettle(t, ch, q, 0)
}

// TestRabbitMQ_Stream: read from the start as often as one likes, with acks
// that are flow control. Without a prefetch it is 406, without acks 540, which
// ends the connection.
func TestRabbitMQ_Stream(t *testing.T) {
	c, ch := newSession(t)
	q := durableQueue(t, ch, amqp.Table{"x-queue-type": "stream"})
	const n = 3000
	mustPut(t, ch, q, numbered(n)...)
	for _, from := range []any{"first", int64(1000)} {
		own := mustOpen(t, c)
		cons, err := own.Subscribe(patiently(t), amqp.BasicConsume{Queue: q, Arguments: amqp.Table{"x-stream-offset": from}}, nil)
		if err != nil {
			t.Fatal(err)
		}
		i := 0
		if from != "first" {
			i = 1000
		}
		for d, err := range cons.All() {
			if err != nil {
				t.Fatal(err)
			}
			h, err := d.Headers()
			if err != nil || h["x-stream-offset"] != int64(i) || string(d.Body) != fmt.Sprint(i) {
				t.Fatalf("%q at %v in place of %d: %v", d.Body, h, i, err)
			}
			noError(t, d.Ack())
			if i++; i == n {
				break
			}
		}
		noError(t, own.Close(patiently(t)))
	}
	_, err := mustOpen(t, c).Subscribe(patiently(t), amqp.BasicConsume{Queue: q}, &amqp.ConsumeOptions{Prefetch: -1})
	wantCode(t, err, amqp.PreconditionFailed)
	mustLive(t, c)
	other := mustDial(t, nil)
	_, err = mustOpen(t, other).Subscribe(patiently(t), amqp.BasicConsume{Queue: q, NoAck: true}, nil)
	wantCode(t, err, amqp.NotImplemented)
	mustEnd(t, "the connection's end", other.Done())
}

// TestFieldNoteAlso_DirectReplyTo asks and answers over the pseudo-queue, and
// walks into its traps.
func TestFieldNoteAlso_DirectReplyTo(t *testing.T) {
	const replyTo = "amq.rabbitmq.reply-to"
	ctx := patiently(t)
	_, server := newSession(t)
	q := exclusiveQueue(t, server, nil)
	requests, err := server.Subscribe(ctx, amqp.BasicConsume{Queue: q}, nil)
	noError(t, err)
	c, client := newSession(t)
	replies, err := client.Subscribe(ctx, amqp.BasicConsume{Queue: replyTo, NoAck: true}, nil)
	if err != nil {
		t.Fatal(err)
	}
	_, err = mustOpen(t, c).Subscribe(ctx, amqp.BasicConsume{Queue: replyTo}, nil) // with acks
	wantCode(t, err, amqp.PreconditionFailed)

	ask := amqp.Message{Properties: amqp.Properties{ReplyTo: replyTo, CorrelationID: "42"}, Body: []byte("?")}
	noError(t, client.BasicPublish(ctx, amqp.BasicPublish{RoutingKey: q, Mandatory: true}, ask))
	d := mustTake(t, requests, 1)[0]
	p := d.Properties()
	if !strings.HasPrefix(p.ReplyTo, replyTo+".") {
		t.Errorf("reply to %q", p.ReplyTo)
	}
	answer := amqp.Message{Properties: amqp.Properties{CorrelationID: p.CorrelationID}, Body: []byte("!")}
	for range 3 { // before version 4 each of them has the delivery tag 1
		noError(t, server.Publish(ctx, amqp.BasicPublish{RoutingKey: p.ReplyTo}, answer))
		if r := mustTake(t, replies, 1)[0]; string(r.Body) != "!" || r.Properties().CorrelationID != "42" {
			t.Errorf("got %q", r.Body)
		}
	}
	// A mandatory reply is returned by 4.0 and 3.10 although it arrives.
	err = server.Publish(ctx, amqp.BasicPublish{RoutingKey: p.ReplyTo, Mandatory: true}, answer)
	if rabbittest.Shared(t).AtLeast(4, 3) {
		noError(t, err)
	} else {
		wantErr(t, err, amqp.NoRoute)
	}
	mustTake(t, replies, 1)
	noError(t, d.Ack())

	_, err = client.Subscribe(ctx, amqp.BasicConsume{Queue: replyTo, NoAck: true}, nil) // a second one
	wantCode(t, err, amqp.PreconditionFailed)

	// That closed the caller's channel. 4.3 confirms a reply to nobody.
	err = server.Publish(ctx, amqp.BasicPublish{RoutingKey: p.ReplyTo, Mandatory: true}, answer)
	if rabbittest.Shared(t).AtLeast(4, 3) {
		noError(t, err)
	} else {
		wantErr(t, err, amqp.NoRoute)
	}
	mustLive(t, c)
}

// TestRabbitMQ_XDeath: 4 discards a client's own x-death header.
func TestRabbitMQ_XDeath(t *testing.T) {
	_, ch := newSession(t)
	dead := exclusiveQueue(t, ch, nil)
	q := exclusiveQueue(t, ch, amqp.Table{"x-message-ttl": 0, "x-dead-letter-exchange": "", "x-dead-letter-routing-key": dead})
	own := amqp.Table{"x-death": []any{amqp.Table{"queue": "elsewhere", "reason": "rejected", "count": int64(41)}}}
	noError(t, ch.Publish(patiently(t), toQueue(q), amqp.Message{Properties: amqp.Properties{Headers: own}}))
	mustSettle(t, ch, dead, 1)
	h, err := mustGet(t, ch, dead).Headers()
	noError(t, err)
	deaths, _ := h["x-death"].([]any)
	want := 2
	if rabbittest.Shared(t).AtLeast(4, 0) {
		want = 1
	}
	if len(deaths) != want {
		t.Fatalf("%d deaths, not %d: %v", len(deaths), want, h)
	}
	if d, _ := deaths[0].(amqp.Table); d["queue"] != q || d["reason"] != "expired" {
		t.Errorf("%v", d)
	}
}

// TestRabbitMQ_SingleActiveConsumer: the next one takes over.
func TestRabbitMQ_SingleActiveConsumer(t *testing.T) {
	c, ch := newSession(t)
	q := exclusiveQueue(t, ch, amqp.Table{"x-single-active-consumer": true})
	first := mustSubscribe(t, mustOpen(t, c), q, nil)
	second := mustSubscribe(t, mustOpen(t, c), q, nil)
	mustPut(t, ch, q, "0")
	noError(t, mustTake(t, first, 1)[0].Ack())
	noError(t, first.Channel().Close(patiently(t)))
	mustPut(t, ch, q, "1")
	noError(t, mustTake(t, second, 1)[0].Ack())
}
