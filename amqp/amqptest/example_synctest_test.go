package amqptest_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/warrenmq/warren/amqp"
	"github.com/warrenmq/warren/amqp/amqptest"
)

// testRetryLater tests a retry after half an hour, which takes no time: a
// message that a consumer rejects waits in a second queue until its TTL sends
// it back. Server, connection and test share one bubble.
func testRetryLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := amqptest.NewServer(t)
		conn, err := amqp.Dial(t.Context(), srv.URI(), &amqp.Config{Dial: srv.Dial})
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		ch, err := conn.Channel(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		dead := func(to string, more amqp.Table) amqp.Table {
			args := amqp.Table{"x-dead-letter-exchange": "", "x-dead-letter-routing-key": to}
			for k, v := range more {
				args[k] = v
			}
			return args
		}
		for name, args := range map[string]amqp.Table{
			"work": dead("wait", nil), "wait": dead("work", amqp.Table{"x-message-ttl": 30 * 60 * 1000}),
		} {
			if _, err := ch.QueueDeclare(t.Context(), amqp.QueueDeclare{Queue: name, Durable: true, Arguments: args}); err != nil {
				t.Fatal(err)
			}
		}
		if err := ch.Publish(t.Context(), amqp.BasicPublish{RoutingKey: "work"}, amqp.Message{Body: []byte("x")}); err != nil {
			t.Fatal(err)
		}

		cons, err := ch.Subscribe(t.Context(), amqp.BasicConsume{Queue: "work"}, nil)
		if err != nil {
			t.Fatal(err)
		}
		start, tries := time.Now(), 0
		for d, err := range cons.All() {
			if err != nil {
				t.Fatal(err)
			}
			if tries++; tries == 3 {
				d.Ack()
				break
			}
			d.Reject()
		}
		if took := time.Since(start); took != time.Hour {
			t.Errorf("two retries took %s; want an hour", took)
		}
		srv.WaitQueue(t, "work", 0, 0)
	})
}

// A test in fake time. In a program's own tests testRetryLater is TestRetryLater.
func Example_synctest() {
	_ = testRetryLater
}
