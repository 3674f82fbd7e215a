package amqptest_test

import (
	"testing"

	"github.com/warrenmq/warren/amqp"
	"github.com/warrenmq/warren/amqp/amqptest"
)

// route is the program that is tested: it publishes an order under its region.
func route(t *testing.T, ch *amqp.Channel, region string) error {
	m := amqp.BasicPublish{Exchange: "orders", RoutingKey: "order." + region, Mandatory: true}
	return ch.Publish(t.Context(), m, amqp.Message{Body: []byte("an order")})
}

// testRouting is a table-driven test: a server for each case costs microseconds.
func testRouting(t *testing.T) {
	tests := []struct {
		region string
		queue  string
		want   int
	}{
		{"eu", "europe", 1},
		{"us", "europe", 0},
		{"us", "all", 1},
	}
	for _, tt := range tests {
		t.Run(tt.region+" to "+tt.queue, func(t *testing.T) {
			srv := amqptest.NewServer(t)
			conn, err := amqp.Dial(t.Context(), srv.URI(), nil)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			ch, err := conn.Channel(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if err := ch.ExchangeDeclare(t.Context(), amqp.ExchangeDeclare{Exchange: "orders", Type: "topic"}); err != nil {
				t.Fatal(err)
			}
			for queue, key := range map[string]string{"europe": "order.eu", "all": "order.*"} {
				if _, err := ch.QueueDeclare(t.Context(), amqp.QueueDeclare{Queue: queue}); err != nil {
					t.Fatal(err)
				}
				if err := ch.QueueBind(t.Context(), amqp.QueueBind{Queue: queue, Exchange: "orders", RoutingKey: key}); err != nil {
					t.Fatal(err)
				}
			}
			if err := route(t, ch, tt.region); err != nil {
				t.Fatal(err)
			}
			srv.WaitQueue(t, tt.queue, tt.want, 0)
		})
	}
}

// A table-driven test. In a program's own tests testRouting is TestRouting.
func Example_tableDriven() {
	_ = testRouting
}
