package amqp

import (
	"context"
	"fmt"
	"testing"
)

// The benchmarks of the connection are over loopback TCP, against a server that
// discards, confirms or blasts on the same machine: its share is in the numbers.

func BenchmarkPublish(b *testing.B) {
	for _, size := range []int{16, 1 << 10, 64 << 10} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			ch := dialNull(b, 0, false)
			msg := Message{Body: make([]byte, size)}
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				if err := ch.BasicPublish(b.Context(), BasicPublish{Exchange: "e", RoutingKey: "k"}, msg); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkPublish_Shared(b *testing.B) {
	ch := dialNull(b, 0, false)
	msg := Message{Body: make([]byte, 16)}
	b.SetParallelism(8)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if err := ch.BasicPublish(context.Background(), BasicPublish{Exchange: "e", RoutingKey: "k"}, msg); err != nil {
				b.Error(err)
				return
			}
		}
	})
}

func BenchmarkPublish_Confirmed(b *testing.B) {
	msg := Message{Body: make([]byte, 16)}
	b.Run("alone", func(b *testing.B) {
		ch := dialNull(b, 0, true)
		b.ReportAllocs()
		for b.Loop() {
			if err := ch.Publish(b.Context(), BasicPublish{Exchange: "e", RoutingKey: "k"}, msg); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("window=1000", func(b *testing.B) {
		ch := dialNull(b, 0, true)
		var window [1000]*Confirm
		i := 0
		b.ReportAllocs()
		for b.Loop() {
			if cf := window[i%1000]; cf != nil {
				if err := cf.Wait(b.Context()); err != nil {
					b.Fatal(err)
				}
			}
			cf, err := ch.PublishAsync(b.Context(), BasicPublish{Exchange: "e", RoutingKey: "k"}, msg)
			if err != nil {
				b.Fatal(err)
			}
			window[i%1000] = cf
			i++
		}
	})
}

func BenchmarkConsume(b *testing.B) {
	for _, size := range []int{16, 1 << 10} {
		for _, how := range []string{"copied", "borrowed", "borrowed,acked"} {
			b.Run(fmt.Sprintf("%d/%s", size, how), func(b *testing.B) {
				ch := dialNull(b, size, false)
				acks := how == "borrowed,acked"
				tk := subscribeNull(b, ch, !acks, how != "copied").taker(true)
				defer tk.leave()
				b.SetBytes(int64(size))
				b.ReportAllocs()
				for b.Loop() {
					d, err := tk.take(nil)
					if err == nil && acks {
						err = d.Ack()
					}
					if err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

func BenchmarkHandle(b *testing.B) {
	ch := dialNull(b, 1<<10, false)
	done := make(chan struct{})
	n := 0
	b.ReportAllocs()
	_, err := ch.Handle(b.Context(), BasicConsume{NoAck: true}, func(*Delivery) {
		if n++; n == b.N {
			close(done)
		}
	}, &ConsumeOptions{Borrow: true, HoldBack: true})
	if err != nil {
		b.Fatal(err)
	}
	<-done
}

func BenchmarkServe(b *testing.B) {
	for _, opts := range []ServeOptions{{}, {Workers: 4}, {Workers: 4, Key: func(d *Delivery) string { return d.RoutingKey }}} {
		b.Run(fmt.Sprintf("workers=%d,keyed=%t", max(1, opts.Workers), opts.Key != nil), func(b *testing.B) {
			opts.ConsumeOptions = ConsumeOptions{Prefetch: -1, HoldBack: true, Borrow: true}
			ch := dialNull(b, 16, false)
			handled := make(chan struct{}, 64)
			ctx, cancel := context.WithCancel(b.Context())
			done := make(chan error, 1)
			go func() {
				done <- ch.Serve(ctx, BasicConsume{}, func(ctx context.Context, _ *Delivery) error {
					select {
					case handled <- struct{}{}:
					case <-ctx.Done():
					}
					return nil
				}, &opts)
			}()
			b.ReportAllocs()
			for b.Loop() {
				<-handled
			}
			ch.c.nc.Close()
			cancel()
			<-done
		})
	}
}
