package amqp_test

import (
	"testing"
	"time"

	"github.com/warrenmq/warren/amqp"
	"github.com/warrenmq/warren/amqp/amqptest"
)

// The reader handles by itself what it would have to wait for: holding back must
// not make it wait for itself, nor a reader that took over wait for ever.
func TestHandle_HoldBackBeyondTheBuffer(t *testing.T) {
	for name, pause := range map[string]time.Duration{"quick": 0, "slow": 3 * time.Millisecond} {
		for _, opts := range []amqp.ConsumeOptions{{Buffer: 4, HoldBack: true}, {Buffer: 4, HoldBack: true, Borrow: true}} {
			t.Run(name, func(t *testing.T) {
				conn := connect(t, amqptest.NewServer(t))
				ch := openQueue(t, conn, "q")
				const n = 400
				for range n {
					if err := ch.Publish(t.Context(), amqp.BasicPublish{RoutingKey: "q"}, amqp.Message{Body: []byte("x")}); err != nil {
						t.Fatal(err)
					}
				}
				other, err := conn.Channel(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				done, got := make(chan struct{}), 0
				_, err = other.Handle(t.Context(), amqp.BasicConsume{Queue: "q", NoAck: true}, func(*amqp.Delivery) {
					if got++; got%100 == 1 {
						time.Sleep(pause) // long enough for another to take the reading over
					}
					if got == n {
						close(done)
					}
				}, &opts)
				if err != nil {
					t.Fatal(err)
				}
				select {
				case <-done:
				case <-time.After(20 * time.Second):
					t.Fatal("deliveries stopped coming")
				}
			})
		}
	}
}
