package amqptest_test

import (
	"errors"
	"testing"

	"github.com/warrenmq/warren/amqp"
	"github.com/warrenmq/warren/amqp/amqptest"
)

// publishTwice is the program that is tested: it tries again what the broker
// did not take.
func publishTwice(t *testing.T, ch *amqp.Channel, queue string) error {
	m, msg := amqp.BasicPublish{RoutingKey: queue}, amqp.Message{Body: []byte("hello")}
	err := ch.Publish(t.Context(), m, msg)
	if errors.Is(err, amqp.ErrNacked) {
		err = ch.Publish(t.Context(), m, msg)
	}
	return err
}

// testFaults makes the broker refuse messages, and then fall over.
func testFaults(t *testing.T) {
	srv := amqptest.NewServer(t)
	conn, err := amqp.Dial(t.Context(), srv.URI(), &amqp.Config{Name: "publisher"})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ch, err := conn.Channel(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ch.QueueDeclare(t.Context(), amqp.QueueDeclare{Queue: "q"}); err != nil {
		t.Fatal(err)
	}

	srv.NackNext(1)
	if err := publishTwice(t, ch, "q"); err != nil {
		t.Errorf("one nack was too much: %v", err)
	}
	srv.NackNext(2)
	if err := publishTwice(t, ch, "q"); !errors.Is(err, amqp.ErrNacked) {
		t.Errorf("after two nacks: %v", err)
	}

	srv.CutAfter(40, amqptest.ToServer) // in the midst of the next publish
	if err := publishTwice(t, ch, "q"); !errors.Is(err, amqp.ErrUnknownOutcome) {
		t.Errorf("after a lost connection: %v", err)
	}
	srv.WaitConnections(t, 0)
}

// A test of what a program does when the broker fails it. In a program's own
// tests testFaults is TestFaults.
func Example_faults() {
	_ = testFaults
}
