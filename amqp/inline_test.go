package amqp_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/warrenmq/warren/amqp"
	"github.com/warrenmq/warren/amqp/amqptest"
)

// connect dials a server in memory; both end with the test.
func connect(t *testing.T, srv *amqptest.Server) *amqp.Conn {
	t.Helper()
	conn, err := amqp.Dial(t.Context(), srv.URI(), &amqp.Config{Dial: srv.Dial})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

func openQueue(t *testing.T, conn *amqp.Conn, name string) *amqp.Channel {
	t.Helper()
	ch, err := conn.Channel(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ch.QueueDeclare(t.Context(), amqp.QueueDeclare{Queue: name}); err != nil {
		t.Fatal(err)
	}
	return ch
}

func TestHandle_CallsTheBrokerFromTheReader(t *testing.T) {
	conn := connect(t, amqptest.NewServer(t))
	ch := openQueue(t, conn, "q")
	const n = 500
	done := make(chan error, n)
	_, err := ch.Handle(t.Context(), amqp.BasicConsume{Queue: "q"}, func(d *amqp.Delivery) {
		// Every one of these waits for something that only a reader can bring.
		_, err := ch.QueueDeclare(t.Context(), amqp.QueueDeclare{Queue: "q", Passive: true})
		if err == nil {
			err = ch.Publish(t.Context(), amqp.BasicPublish{RoutingKey: "nowhere"}, amqp.Message{})
		}
		if err == nil {
			err = d.Ack()
		}
		done <- err
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := range n {
		if err := ch.BasicPublish(t.Context(), amqp.BasicPublish{RoutingKey: "q"}, amqp.Message{Body: fmt.Append(nil, i)}); err != nil {
			t.Fatal(err)
		}
	}
	for range n {
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	}
}

func TestHandle_KeepsOrderThroughTakeOvers(t *testing.T) {
	conn := connect(t, amqptest.NewServer(t))
	ch := openQueue(t, conn, "q")
	const n = 3000
	var next int
	var running atomic.Int32
	done := make(chan string, 1)
	_, err := ch.Handle(t.Context(), amqp.BasicConsume{Queue: "q", NoAck: true}, func(d *amqp.Delivery) {
		if running.Add(1) != 1 {
			done <- "two handlers at once"
		}
		if got := string(d.Body); got != fmt.Sprint(next) {
			done <- fmt.Sprintf("got %s, want %d", got, next)
		}
		if next++; next%97 == 0 {
			conn.Channel(t.Context()) // provokes a take-over
		}
		running.Add(-1)
		if next == n {
			done <- ""
		}
	}, &amqp.ConsumeOptions{Borrow: true})
	if err != nil {
		t.Fatal(err)
	}
	for i := range n {
		if err := ch.BasicPublish(t.Context(), amqp.BasicPublish{RoutingKey: "q"}, amqp.Message{Body: fmt.Append(nil, i)}); err != nil {
			t.Fatal(err)
		}
	}
	if s := <-done; s != "" {
		t.Fatal(s)
	}
}

func TestHandle_SlowHandlerDoesNotStopTheReading(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := amqptest.NewServer(t)
		conn := connect(t, srv)
		ch := openQueue(t, conn, "q")
		release := make(chan struct{})
		handled := make(chan struct{}, 1)
		if _, err := ch.Handle(t.Context(), amqp.BasicConsume{Queue: "q", NoAck: true}, func(*amqp.Delivery) {
			<-release // waits for nothing of the connection's: only time tells
			handled <- struct{}{}
		}, nil); err != nil {
			t.Fatal(err)
		}
		if err := ch.Publish(t.Context(), amqp.BasicPublish{RoutingKey: "q"}, amqp.Message{}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour) // heartbeats go on being read
		if err := conn.Err(); err != nil {
			t.Fatalf("the connection died under a slow handler: %v", err)
		}
		if _, err := ch.QueueDeclare(t.Context(), amqp.QueueDeclare{Queue: "q", Passive: true}); err != nil {
			t.Fatal(err)
		}
		close(release)
		<-handled
		conn.Close()
	})
}

func TestHandle_CloseInsideTheHandler(t *testing.T) {
	conn := connect(t, amqptest.NewServer(t))
	ch := openQueue(t, conn, "q")
	done := make(chan error, 1)
	if _, err := ch.Handle(t.Context(), amqp.BasicConsume{Queue: "q", NoAck: true}, func(*amqp.Delivery) {
		done <- conn.Close()
	}, nil); err != nil {
		t.Fatal(err)
	}
	if err := ch.BasicPublish(t.Context(), amqp.BasicPublish{RoutingKey: "q"}, amqp.Message{}); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	<-conn.Done()
	if _, err := conn.Channel(context.Background()); err == nil {
		t.Fatal("a channel of a closed connection")
	}
}

// Handlers that outlast one another: whoever took the reading over is in a
// handler itself when the first one returns.
func TestHandle_TakeOversOfTakeOvers(t *testing.T) {
	conn := connect(t, amqptest.NewServer(t))
	const consumers, n = 4, 300
	done := make(chan struct{}, consumers)
	for i := range consumers {
		q := fmt.Sprint("q", i)
		ch := openQueue(t, conn, q)
		var got int
		if _, err := ch.Handle(t.Context(), amqp.BasicConsume{Queue: q}, func(d *amqp.Delivery) {
			if string(d.Body) != fmt.Sprint(got) {
				t.Errorf("%s: got %s, want %d", q, d.Body, got)
			}
			ch.QueueDeclare(t.Context(), amqp.QueueDeclare{Queue: q, Passive: true})
			if err := d.Ack(); err != nil {
				t.Error(err)
			}
			if got++; got == n {
				done <- struct{}{}
			}
		}, &amqp.ConsumeOptions{Borrow: i%2 == 0}); err != nil {
			t.Fatal(err)
		}
	}
	ch := openQueue(t, conn, "q0")
	for i := range n {
		for k := range consumers {
			if err := ch.BasicPublish(t.Context(), amqp.BasicPublish{RoutingKey: fmt.Sprint("q", k)}, amqp.Message{Body: fmt.Append(nil, i)}); err != nil {
				t.Fatal(err)
			}
		}
	}
	for range consumers {
		<-done
	}
}

// The first handler returns while the reader that took over from it is in a
// handler too: only one of them may go on reading.
func TestHandle_ReturnsIntoAnotherReadersTurn(t *testing.T) {
	conn := connect(t, amqptest.NewServer(t))
	ch := openQueue(t, conn, "a")
	openQueue(t, conn, "b")
	gates := map[string]chan struct{}{"a": make(chan struct{}), "b": make(chan struct{})}
	entered, left := make(chan string), make(chan string)
	for q, gate := range gates {
		if _, err := ch.Handle(t.Context(), amqp.BasicConsume{Queue: q, NoAck: true}, func(*amqp.Delivery) {
			entered <- q
			<-gate
			left <- q
		}, nil); err != nil {
			t.Fatal(err)
		}
	}
	publish := func(q string) {
		if err := ch.Publish(t.Context(), amqp.BasicPublish{RoutingKey: q}, amqp.Message{}); err != nil {
			t.Fatal(err)
		}
	}
	for range 50 {
		publish("a")
		<-entered
		publish("b") // its confirm comes by a second reader
		<-entered
		gates["a"] <- struct{}{}
		<-left
		gates["b"] <- struct{}{}
		<-left
		for range 20 {
			publish("nowhere")
		}
	}
}
