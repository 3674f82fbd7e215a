package amqp_test

import (
	"encoding/binary"
	"testing"
	"time"

	"github.com/warrenmq/warren/amqp"
	"github.com/warrenmq/warren/amqp/amqptest"
)

// TestReadPause_LosesNothing consumes over TCP what another connection
// publishes one by one.
func TestReadPause_LosesNothing(t *testing.T) {
	srv := amqptest.NewServer(t)
	ctx := within(t, time.Minute)
	open := func(cfg *amqp.Config) *amqp.Channel {
		conn, err := amqp.Dial(ctx, srv.URI(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		return openQueue(t, conn, "q")
	}
	in, out := open(&amqp.Config{ReadPause: 200 * time.Microsecond}), open(nil)
	const n = 2000
	next, done := uint32(0), make(chan struct{})
	_, err := in.Handle(ctx, amqp.BasicConsume{Queue: "q", NoAck: true}, func(d *amqp.Delivery) {
		if got := binary.BigEndian.Uint32(d.Body); got != next {
			t.Errorf("message %d, want %d", got, next)
		}
		if next++; next == n {
			close(done)
		}
	}, &amqp.ConsumeOptions{Borrow: true})
	if err != nil {
		t.Fatal(err)
	}
	for i := range uint32(n) {
		if err := out.BasicPublish(ctx, amqp.BasicPublish{RoutingKey: "q"}, amqp.Message{Body: binary.BigEndian.AppendUint32(nil, i)}); err != nil {
			t.Fatal(err)
		}
		out.Flush()
	}
	select {
	case <-done:
	case <-ctx.Done():
		t.Fatalf("only %d came", next)
	}
}
