//go:build integration

package amqp_test

import (
	"net"
	"testing"
	"time"

	"github.com/warrenmq/warren/amqp"
	"github.com/warrenmq/warren/internal/rabbittest"
)

// handEngine is an engine driven by hand, without goroutines, on a real broker.
type handEngine struct {
	t     *testing.T
	e     *amqp.Engine
	nc    net.Conn
	chunk int // octets fed at a time
}

func newHandEngine(t *testing.T, chunk int) *handEngine {
	t.Helper()
	h := &handEngine{t: t, chunk: chunk, nc: dialRaw(t, "tcp", rabbittest.Shared(t).Addr())}
	t.Cleanup(func() { h.nc.Close() })
	h.e = amqp.NewEngine(amqp.EngineConfig{
		VHost: "/", SASLInfo: amqp.SASLInfo{Credentials: &amqp.Credentials{Username: "guest", Password: "guest"}},
	})
	h.expect(amqp.EventOpen, 0)
	h.ask(amqp.ChannelOpen{}, amqp.MethodChannelOpenOk)
	return h
}

// expect waits for an event, which has to be this one. id is that of EventMethod
// and EventContent.
func (h *handEngine) expect(kind amqp.EventKind, id amqp.MethodID) amqp.Event {
	h.t.Helper()
	ev := h.next()
	if ev.Kind != kind || id != 0 && ev.ID != id {
		h.t.Fatalf("got event %d %v %v, want %d %v", ev.Kind, ev.ID, ev.Err, kind, id)
	}
	return ev
}

// next writes and reads until an event comes.
func (h *handEngine) next() amqp.Event {
	h.t.Helper()
	buf := make([]byte, h.chunk)
	for {
		ev, ok := h.e.Next()
		for _, seg := range h.e.Output() {
			n, err := h.nc.Write(seg)
			h.e.Wrote(n)
			if err != nil {
				h.t.Fatal(err)
			}
		}
		if ok {
			return ev
		}
		noError(h.t, h.nc.SetReadDeadline(time.Now().Add(patience)))
		n, err := h.nc.Read(buf)
		if err != nil {
			h.t.Fatal(err)
		}
		if err := h.e.Feed(time.Now(), buf[:n]); err != nil {
			h.t.Fatal(err)
		}
	}
}

func (h *handEngine) send(m amqp.Method) {
	h.t.Helper()
	if err := h.e.Send(1, m); err != nil {
		h.t.Fatal(err)
	}
}

// ask sends a method on channel 1 and waits for its reply.
func (h *handEngine) ask(m amqp.Method, reply amqp.MethodID) amqp.Method {
	h.t.Helper()
	h.send(m)
	ev := h.expect(amqp.EventMethod, reply)
	got, err := ev.Method()
	noError(h.t, err)
	return got
}

// fetch gets a message, which has to be there, and gives its delivery tag.
func (h *handEngine) fetch(queue, body string, redelivered bool) uint64 {
	h.t.Helper()
	h.send(amqp.BasicGet{Queue: queue})
	ev := h.expect(amqp.EventContent, amqp.MethodBasicGetOk)
	got, err := ev.Method()
	noError(h.t, err)
	m := got.(*amqp.BasicGetOk)
	if string(ev.Body) != body || m.Redelivered != redelivered {
		h.t.Fatalf("got %q, redelivered %t; want %q, %t", ev.Body, m.Redelivered, body, redelivered)
	}
	return m.DeliveryTag
}

// TestEngine_OnRabbitMQ has a conversation with methods that the channel has no
// call for, fed an octet at a time and in large pieces.
func TestEngine_OnRabbitMQ(t *testing.T) {
	for _, chunk := range []int{1, 64 << 10} {
		h := newHandEngine(t, chunk)
		q := h.ask(amqp.QueueDeclare{Exclusive: true}, amqp.MethodQueueDeclareOk).(*amqp.QueueDeclareOk).Queue
		h.ask(amqp.ConfirmSelect{}, amqp.MethodConfirmSelectOk)
		for _, body := range []string{"a", "b", "c"} {
			noError(t, h.e.SendContent(1, amqp.BasicPublish{RoutingKey: q}, &amqp.Message{Body: []byte(body)}))
			h.expect(amqp.EventMethod, amqp.MethodBasicAck)
		}
		h.fetch(q, "a", false)
		h.send(amqp.BasicRecoverAsync{Requeue: true})
		h.ask(amqp.BasicRecover{Requeue: true}, amqp.MethodBasicRecoverOk)

		h.fetch(q, "a", true)
		last := h.fetch(q, "b", false)
		h.send(amqp.BasicNack{DeliveryTag: last, Multiple: true, Requeue: true})
		h.fetch(q, "a", true)
		last = h.fetch(q, "b", true)
		h.send(amqp.BasicAck{DeliveryTag: last, Multiple: true})
		last = h.fetch(q, "c", false)
		h.send(amqp.BasicReject{DeliveryTag: last})
		h.send(amqp.BasicGet{Queue: q})
		h.expect(amqp.EventMethod, amqp.MethodBasicGetEmpty)

		h.ask(amqp.BasicConsume{Queue: q, ConsumerTag: "me"}, amqp.MethodBasicConsumeOk)
		h.ask(amqp.BasicCancel{ConsumerTag: "me"}, amqp.MethodBasicCancelOk)
		h.ask(amqp.BasicConsume{Queue: q, ConsumerTag: "me"}, amqp.MethodBasicConsumeOk)
		h.send(amqp.QueueDelete{Queue: q})
		replies := map[amqp.MethodID]bool{amqp.MethodBasicCancel: true, amqp.MethodQueueDeleteOk: true}
		for range 2 { // in either order
			ev := h.next()
			if !replies[ev.ID] {
				t.Fatalf("got %v", ev.ID)
			}
			delete(replies, ev.ID)
		}
		h.ask(amqp.ChannelClose{ReplyCode: amqp.ReplySuccess}, amqp.MethodChannelCloseOk)
		noError(t, h.e.Send(0, amqp.ConnectionClose{ReplyCode: amqp.ReplySuccess}))
		h.expect(amqp.EventClosed, 0)
	}
}
