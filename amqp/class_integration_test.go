//go:build integration

package amqp_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/warrenmq/warren/amqp"
)

func TestChannel_Exchange(t *testing.T) {
	c, ch := newSession(t)
	ctx := patiently(t)
	source, dest := unique("source"), unique("dest")
	for _, x := range []string{source, dest} {
		noError(t, ch.ExchangeDeclare(ctx, amqp.ExchangeDeclare{Exchange: x, Type: "topic", AutoDelete: x == dest}))
		noError(t, ch.ExchangeDeclare(ctx, amqp.ExchangeDeclare{Exchange: x, Passive: true}))
	}
	defer ch.ExchangeDelete(ctx, amqp.ExchangeDelete{Exchange: source})
	q := exclusiveQueue(t, ch, nil)
	noError(t, ch.QueueBind(ctx, amqp.QueueBind{Queue: q, Exchange: dest, RoutingKey: "a.#"}))
	noError(t, ch.ExchangeBind(ctx, amqp.ExchangeBind{Source: source, Destination: dest, RoutingKey: "*.b"}))

	send := amqp.BasicPublish{Exchange: source, RoutingKey: "a.b", Mandatory: true}
	noError(t, ch.Publish(ctx, send, amqp.Message{Body: []byte("through both")}))
	if d := mustGet(t, ch, q); string(d.Body) != "through both" || d.Exchange != source || d.RoutingKey != "a.b" {
		t.Errorf("got %q of %q by %q", d.Body, d.Exchange, d.RoutingKey)
	}
	noError(t, ch.ExchangeUnbind(ctx, amqp.ExchangeUnbind{Source: source, Destination: dest, RoutingKey: "*.b"}))
	wantErr(t, ch.Publish(ctx, send, amqp.Message{}), amqp.NoRoute)

	// IfUnused refuses while something is bound; auto-delete goes with the last binding.
	err := mustOpen(t, c).ExchangeDelete(ctx, amqp.ExchangeDelete{Exchange: dest, IfUnused: true})
	wantCode(t, err, amqp.PreconditionFailed)
	noError(t, ch.QueueUnbind(ctx, amqp.QueueUnbind{Queue: q, Exchange: dest, RoutingKey: "a.#"}))
	err = mustOpen(t, c).ExchangeDeclare(ctx, amqp.ExchangeDeclare{Exchange: dest, Passive: true})
	wantCode(t, err, amqp.NotFound)

	err = mustOpen(t, c).ExchangeDeclare(ctx, amqp.ExchangeDeclare{Exchange: source, Type: "fanout"})
	wantCode(t, err, amqp.PreconditionFailed)
	noError(t, ch.ExchangeDelete(ctx, amqp.ExchangeDelete{Exchange: source, IfUnused: true}))
	mustWork(t, ch)
}

func TestChannel_ExchangeTypes(t *testing.T) {
	_, ch := newSession(t)
	ctx := patiently(t)
	x := unique("headers")
	noError(t, ch.ExchangeDeclare(ctx, amqp.ExchangeDeclare{Exchange: x, Type: "headers", AutoDelete: true}))
	q := exclusiveQueue(t, ch, nil)
	noError(t, ch.QueueBind(ctx, amqp.QueueBind{Queue: q, Exchange: x, Arguments: amqp.Table{"x-match": "all", "n": int32(7), "s": "x"}}))
	for _, tt := range []struct {
		headers amqp.Table
		want    error
	}{
		{amqp.Table{"n": int32(7), "s": "x", "more": true}, nil},
		{amqp.Table{"n": int64(7), "s": "x"}, nil}, // numbers are compared by value
		{amqp.Table{"n": int32(8), "s": "x"}, amqp.NoRoute},
		{amqp.Table{"s": "x"}, amqp.NoRoute},
		{nil, amqp.NoRoute},
	} {
		err := ch.Publish(ctx, amqp.BasicPublish{Exchange: x, Mandatory: true}, amqp.Message{Properties: amqp.Properties{Headers: tt.headers}})
		if !errors.Is(err, tt.want) {
			t.Errorf("headers %v: got %v, want %v", tt.headers, err, tt.want)
		}
	}

	internal := unique("internal")
	noError(t, ch.ExchangeDeclare(ctx, amqp.ExchangeDeclare{Exchange: internal, Type: "fanout", Internal: true, AutoDelete: true}))
	err := mustOpen(t, ch.Conn()).Publish(ctx, amqp.BasicPublish{Exchange: internal}, amqp.Message{})
	wantCode(t, err, amqp.AccessRefused)
	noError(t, ch.ExchangeDelete(ctx, amqp.ExchangeDelete{Exchange: internal, NoWait: true}))
	mustWork(t, ch)
}

func TestChannel_Queue(t *testing.T) {
	c, ch := newSession(t)
	ctx := patiently(t)
	named := unique("q")
	ok, err := ch.QueueDeclare(ctx, amqp.QueueDeclare{Queue: named, Exclusive: true, Arguments: amqp.Table{"x-max-priority": 3, "x-unheard-of": "stored"}})
	noError(t, err)
	if ok.Queue != named || ok.MessageCount != 0 || ok.ConsumerCount != 0 {
		t.Errorf("declared %+v", ok)
	}
	server, err := ch.QueueDeclare(ctx, amqp.QueueDeclare{Exclusive: true})
	noError(t, err)
	if !strings.HasPrefix(server.Queue, "amq.gen-") {
		t.Errorf("the broker called it %q", server.Queue)
	}
	// The empty name is the last queue that the channel declared.
	noError(t, ch.QueueBind(ctx, amqp.QueueBind{Exchange: "amq.direct", RoutingKey: named}))
	noError(t, ch.Publish(ctx, amqp.BasicPublish{Exchange: "amq.direct", RoutingKey: named, Mandatory: true}, amqp.Message{}))
	if n, _ := queueDepth(t, ch, server.Queue); n != 1 {
		t.Errorf("%d messages", n)
	}
	noError(t, ch.QueueUnbind(ctx, amqp.QueueUnbind{Queue: server.Queue, Exchange: "amq.direct", RoutingKey: named}))

	mustPut(t, ch, named, "1", "2", "3")
	_, err = mustOpen(t, c).QueueDelete(ctx, amqp.QueueDelete{Queue: named, IfEmpty: true})
	wantCode(t, err, amqp.PreconditionFailed)
	purged, err := ch.QueuePurge(ctx, amqp.QueuePurge{Queue: named})
	if err != nil || purged.MessageCount != 3 {
		t.Errorf("purged %d, %v", purged.MessageCount, err)
	}
	mustPut(t, ch, named, "4")
	deleted, err := ch.QueueDelete(ctx, amqp.QueueDelete{Queue: named})
	if err != nil || deleted.MessageCount != 1 {
		t.Errorf("deleted %d, %v", deleted.MessageCount, err)
	}
	deleted, err = ch.QueueDelete(ctx, amqp.QueueDelete{Queue: named}) // RabbitMQ: no error
	if err != nil || deleted.MessageCount != 0 {
		t.Errorf("deleted again: %d, %v", deleted.MessageCount, err)
	}

	_, err = mustOpen(t, c).QueueDeclare(ctx, amqp.QueueDeclare{Queue: named, Passive: true})
	if ex := wantCode(t, err, amqp.NotFound); ex.Method != amqp.MethodQueueDeclare || !strings.Contains(ex.Text, named) {
		t.Errorf("%+v", ex)
	}
	_, err = mustOpen(t, mustDial(t, nil)).QueueDeclare(ctx, amqp.QueueDeclare{Queue: server.Queue, Passive: true})
	wantCode(t, err, amqp.ResourceLocked)
	_, err = mustOpen(t, c).QueueDeclare(ctx, amqp.QueueDeclare{Queue: "amq.mine", Exclusive: true})
	wantCode(t, err, amqp.AccessRefused)
	_, err = ch.QueueDeclare(ctx, amqp.QueueDeclare{Queue: strings.Repeat("x", 256)})
	wantErr(t, err, amqp.ErrEncode)
	mustWork(t, ch)
}

// TestChannel_QueueTransient: transient queues that are not exclusive are
// deprecated, and still there on every version that is tested.
func TestChannel_QueueTransient(t *testing.T) {
	_, ch := newSession(t)
	q := unique("transient")
	_, err := ch.QueueDeclare(patiently(t), amqp.QueueDeclare{Queue: q, AutoDelete: true})
	noError(t, err)
	mustPut(t, ch, q, "x")
	_, err = ch.QueueDelete(patiently(t), amqp.QueueDelete{Queue: q})
	noError(t, err)
}

func TestChannel_NoWait(t *testing.T) {
	c, ch := newSession(t)
	ctx := patiently(t)
	x, q := unique("nowait"), unique("nowait")
	ok, err := ch.QueueDeclare(ctx, amqp.QueueDeclare{Queue: q, Exclusive: true, NoWait: true})
	if diff := cmp.Diff(amqp.QueueDeclareOk{}, ok); diff != "" || err != nil {
		t.Errorf("%v, -ok (-want +got):\n%s", err, diff)
	}
	noError(t, ch.ExchangeDeclare(ctx, amqp.ExchangeDeclare{Exchange: x, Type: "fanout", AutoDelete: true, NoWait: true}))
	noError(t, ch.QueueBind(ctx, amqp.QueueBind{Queue: q, Exchange: x, NoWait: true}))
	noError(t, ch.ConfirmSelect(ctx, amqp.ConfirmSelect{NoWait: true}))
	noError(t, ch.Publish(ctx, amqp.BasicPublish{Exchange: x, Mandatory: true}, amqp.Message{}))
	_, err = ch.QueuePurge(ctx, amqp.QueuePurge{Queue: q, NoWait: true})
	noError(t, err)
	if n, _ := queueDepth(t, ch, q); n != 0 {
		t.Errorf("%d messages", n)
	}

	// A call that nobody waits for closes its channel all the same.
	bad := mustOpen(t, c)
	noError(t, bad.QueueBind(ctx, amqp.QueueBind{Queue: q, Exchange: "no-such", NoWait: true}))
	mustEnd(t, "the channel's end", bad.Done())
	wantCode(t, bad.Err(), amqp.NotFound)
	mustLive(t, c)
}

func TestChannel_Tx(t *testing.T) {
	_, ch := newSession(t)
	ctx := patiently(t)
	q := exclusiveQueue(t, ch, nil)
	noError(t, ch.TxSelect(ctx))
	send := func(body string) {
		t.Helper()
		noError(t, ch.BasicPublish(ctx, amqp.BasicPublish{RoutingKey: q}, amqp.Message{Body: []byte(body)}))
	}
	send("rolled back")
	noError(t, ch.TxRollback(ctx))
	send("committed")
	noError(t, ch.TxCommit(ctx))
	if n, _ := queueDepth(t, ch, q); n != 1 {
		t.Errorf("%d messages", n)
	}

	// Acks belong to the transaction as well.
	d, err := ch.Get(ctx, amqp.BasicGet{Queue: q})
	if err != nil {
		t.Fatal(err)
	}
	noError(t, d.Ack())
	noError(t, ch.TxRollback(ctx))
	noError(t, ch.BasicRecover(ctx, amqp.BasicRecover{Requeue: true}))
	mustSettle(t, ch, q, 1)

	if d, err = ch.Get(ctx, amqp.BasicGet{Queue: q}); err != nil {
		t.Fatal(err)
	}
	if string(d.Body) != "committed" || !d.Redelivered {
		t.Errorf("got %q, redelivered %t", d.Body, d.Redelivered)
	}
	noError(t, d.Ack())
	noError(t, ch.TxCommit(ctx))
	noError(t, ch.BasicRecover(ctx, amqp.BasicRecover{Requeue: true}))
	if n, _ := queueDepth(t, ch, q); n != 0 {
		t.Errorf("%d messages", n)
	}
}

func TestChannel_TxAndConfirmExclude(t *testing.T) {
	_, ch := newSession(t)
	ctx := patiently(t)
	noError(t, ch.TxSelect(ctx))
	wantErr(t, ch.ConfirmSelect(ctx, amqp.ConfirmSelect{}), amqp.ErrTxMode)
	wantErr(t, ch.Publish(ctx, amqp.BasicPublish{}, amqp.Message{}), amqp.ErrTxMode)
	_, err := ch.PublishAsync(ctx, amqp.BasicPublish{}, amqp.Message{})
	wantErr(t, err, amqp.ErrTxMode)
	mustWork(t, ch)

	other := mustOpen(t, ch.Conn())
	noError(t, other.ConfirmSelect(ctx, amqp.ConfirmSelect{}))
	wantErr(t, other.TxSelect(ctx), amqp.ErrTxMode)
	wantErr(t, other.TxCommit(ctx), amqp.ErrRefused)
	mustWork(t, other)
}

func TestChannel_FlowAndQos(t *testing.T) {
	_, ch := newSession(t)
	ctx := patiently(t)
	ok, err := ch.ChannelFlow(ctx, amqp.ChannelFlow{Active: true})
	if err != nil || !ok.Active {
		t.Errorf("flow-ok %+v, %v", ok, err)
	}
	noError(t, ch.BasicQos(ctx, amqp.BasicQos{PrefetchCount: 10}))
	noError(t, ch.BasicQos(ctx, amqp.BasicQos{PrefetchCount: 10, Global: true}))
	mustWork(t, ch)
}

// TestChannel_RefusedLocally: each of these would cost the whole connection if
// it were sent, so it is not.
func TestChannel_RefusedLocally(t *testing.T) {
	c, ch := newSession(t)
	ctx := patiently(t)
	q := exclusiveQueue(t, ch, nil)
	sent := c.Stats().FramesOut
	_, flow := ch.ChannelFlow(ctx, amqp.ChannelFlow{})
	_, consume := ch.Subscribe(ctx, amqp.BasicConsume{Queue: q, NoWait: true}, nil)
	_, async := ch.PublishAsync(ctx, amqp.BasicPublish{Immediate: true}, amqp.Message{})
	body := make([]byte, amqp.DefaultMaxBody+1)
	for what, err := range map[string]error{
		"flow(false)":             flow,
		"recover without requeue": ch.BasicRecover(ctx, amqp.BasicRecover{}),
		"prefetch-size":           ch.BasicQos(ctx, amqp.BasicQos{PrefetchSize: 1}),
		"consume without wait":    consume,
		"immediate":               ch.BasicPublish(ctx, amqp.BasicPublish{Immediate: true}, amqp.Message{}),
		"immediate, async":        async,
		"body over the limit":     ch.BasicPublish(ctx, toQueue(q), amqp.Message{Body: body}),
	} {
		if !errors.Is(err, amqp.ErrRefused) || !amqp.SafeToRetry(err) || errors.Is(err, amqp.ErrClosed) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if n := c.Stats().FramesOut - sent; n != 0 {
		t.Errorf("%d frames were sent", n)
	}
	mustWork(t, ch)
}

// TestChannel_ConsumerTagTwice: RabbitMQ answers a tag that is in use with 530,
// which would end the connection.
func TestChannel_ConsumerTagTwice(t *testing.T) {
	c, ch := newSession(t)
	q := exclusiveQueue(t, ch, nil)
	first, err := ch.Subscribe(patiently(t), amqp.BasicConsume{Queue: q, ConsumerTag: "me"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	_, err = ch.Subscribe(patiently(t), amqp.BasicConsume{Queue: q, ConsumerTag: "me"}, nil)
	wantErr(t, err, amqp.ErrRefused)
	_, err = mustOpen(t, c).Subscribe(patiently(t), amqp.BasicConsume{Queue: q, ConsumerTag: "me"}, nil)
	noError(t, err) // tags belong to channels
	noError(t, first.Close(patiently(t)))
	_, err = ch.Subscribe(patiently(t), amqp.BasicConsume{Queue: q, ConsumerTag: "me"}, nil)
	noError(t, err)
	mustLive(t, c)
}

// TestChannel_ExceptionStaysOnItsChannel: its reason is what every later call
// says, and its number is used again.
func TestChannel_ExceptionStaysOnItsChannel(t *testing.T) {
	c, ch := newSession(t)
	ctx := patiently(t)
	bad := mustOpen(t, c)
	q := exclusiveQueue(t, ch, nil)
	cons := mustSubscribe(t, bad, q, nil)
	_, err := bad.QueuePurge(ctx, amqp.QueuePurge{Queue: "no-such"})
	first := wantCode(t, err, amqp.NotFound)
	_, declare := bad.QueueDeclare(ctx, amqp.QueueDeclare{})
	_, sub := bad.Subscribe(ctx, amqp.BasicConsume{Queue: q}, nil)
	_, got := bad.Get(ctx, amqp.BasicGet{Queue: q})
	for _, err := range []error{declare, sub, got, bad.Publish(ctx, toQueue(q), amqp.Message{}), cons.Err(), bad.Err()} {
		if ex := wantCode(t, err, amqp.NotFound); ex.Text != first.Text || ex.Channel != bad.Number() {
			t.Errorf("got %v", err)
		}
		wantErr(t, err, amqp.ErrClosed)
	}
	noError(t, bad.Close(context.Background()))
	if next := mustOpen(t, c); next.Number() != bad.Number() {
		t.Errorf("channel %d, where %d is free", next.Number(), bad.Number())
	}
	mustWork(t, ch)
}
