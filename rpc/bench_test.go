package rpc_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/warrenmq/warren/amqp"
	"github.com/warrenmq/warren/amqp/amqptest"
	"github.com/warrenmq/warren/rpc"
)

// over runs b.N calls with so many outstanding, and reports latencies.
func over(b *testing.B, outstanding int, call func() error) {
	b.Helper()
	b.ReportAllocs()
	took := make([]time.Duration, b.N)
	var next atomic.Int64
	var wg sync.WaitGroup
	b.ResetTimer()
	for range outstanding {
		wg.Go(func() {
			for {
				i := int(next.Add(1)) - 1
				if i >= b.N {
					return
				}
				start := time.Now()
				if err := call(); err != nil {
					b.Error(err)
					return
				}
				took[i] = time.Since(start)
			}
		})
	}
	wg.Wait()
	b.StopTimer()
	slices.Sort(took)
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "calls/s")
	b.ReportMetric(float64(took[len(took)/2].Microseconds()), "p50-µs")
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "p99-µs")
}

func dialTCP(b *testing.B, srv *amqptest.Server) *amqp.Conn {
	b.Helper()
	conn, err := amqp.Dial(b.Context(), srv.URI(), nil)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { conn.Close() })
	return conn
}

var outstanding = []int{1, 64, 1000}

func BenchmarkCall(b *testing.B) {
	for _, n := range outstanding {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			srv := amqptest.NewServer(b)
			answer(b, dialTCP(b, srv), "echo", echo)
			c := rpc.NewClient(dialTCP(b, srv), nil)
			defer c.Close(context.Background())
			msg := amqp.Message{Body: make([]byte, 16)}
			over(b, n, func() error {
				_, err := c.Call(context.Background(), rpc.Queue("echo"), msg)
				return err
			})
		})
	}
}

// BenchmarkPingPong is what a call costs at the least on package amqp: a
// publish, and a delivery that says which caller it is for.
func BenchmarkPingPong(b *testing.B) {
	for _, n := range outstanding {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			srv := amqptest.NewServer(b)
			answer(b, dialTCP(b, srv), "echo", echo)
			conn := dialTCP(b, srv)
			ch, err := conn.Channel(b.Context())
			if err != nil {
				b.Fatal(err)
			}
			var mu sync.Mutex
			free := make([]int, n)
			back := make([]chan []byte, n)
			for i := range back {
				free[i], back[i] = i, make(chan []byte, 1)
			}
			if _, err := ch.Handle(b.Context(), amqp.BasicConsume{Queue: "amq.rabbitmq.reply-to", NoAck: true}, func(d *amqp.Delivery) {
				back[int(d.Body[0])|int(d.Body[1])<<8] <- d.Body
			}, nil); err != nil {
				b.Fatal(err)
			}
			over(b, n, func() error {
				mu.Lock()
				i := free[len(free)-1]
				free = free[:len(free)-1]
				mu.Unlock()
				msg := amqp.Message{Body: make([]byte, 16), Properties: amqp.Properties{ReplyTo: "amq.rabbitmq.reply-to"}}
				msg.Body[0], msg.Body[1] = byte(i), byte(i>>8)
				if err := ch.BasicPublish(context.Background(), amqp.BasicPublish{RoutingKey: "echo"}, msg); err != nil {
					return err
				}
				ch.Flush()
				<-back[i]
				mu.Lock()
				free = append(free, i)
				mu.Unlock()
				return nil
			})
		})
	}
}
