package amqp

import (
	"context"
	"fmt"
	"runtime/debug"
	"testing"
)

// allocations are those of one op, on average over many. What is allocated
// for 16 at once is let through.
func allocations(t *testing.T, want float64, op func(i int)) {
	t.Helper()
	if raceEnabled {
		t.Skip("the race detector drops what pools keep")
	}
	// Pools lose what they hold to the garbage collector: how often it runs on a
	// busy machine must not count.
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	const batch = 2000
	i := 0
	got := testing.AllocsPerRun(10, func() {
		for range batch {
			op(i)
			i++
		}
	}) / batch
	// A Delivery is a sixteenth of an allocation, and what is read ahead counts too.
	if got > want+0.2 {
		t.Errorf("%.2f allocations, want %v", got, want)
	}
}

// differing are messages whose keys and ids differ.
func differing() (ms []BasicPublish, msgs []Message) {
	for i := range 100 {
		ms = append(ms, BasicPublish{Exchange: "e", RoutingKey: fmt.Sprint("key.", i)})
		msgs = append(msgs, Message{Properties: Properties{MessageID: fmt.Sprint("id-", i), DeliveryMode: 2}, Body: make([]byte, 100)})
	}
	return ms, msgs
}

func TestAllocs_Publish(t *testing.T) {
	ch := dialNull(t, 0, false)
	ms, msgs := differing()
	ctx := t.Context()
	allocations(t, 0, func(i int) {
		if err := ch.BasicPublish(ctx, ms[i%100], msgs[i%100]); err != nil {
			t.Fatal(err)
		}
	})
}

func TestAllocs_PublishThatWaits(t *testing.T) {
	ch := dialNull(t, 0, true)
	ms, msgs := differing()
	ctx := t.Context()
	allocations(t, 0, func(i int) {
		if err := ch.Publish(ctx, ms[i%100], msgs[i%100]); err != nil {
			t.Fatal(err)
		}
	})
}

func TestAllocs_PublishAsync(t *testing.T) {
	ch := dialNull(t, 0, true)
	ms, msgs := differing()
	ctx := t.Context()
	var window [100]*Confirm
	allocations(t, 1, func(i int) {
		if cf := window[i%100]; cf != nil {
			if err := cf.Wait(ctx); err != nil {
				t.Fatal(err)
			}
		}
		cf, err := ch.PublishAsync(ctx, ms[i%100], msgs[i%100])
		if err != nil {
			t.Fatal(err)
		}
		window[i%100] = cf
	})
}

func TestAllocs_Deliveries(t *testing.T) {
	tests := []struct {
		name          string
		noAck, borrow bool
		ack           bool
		want          float64
	}{
		{"copied", true, false, false, 1},
		{"copied, acked", false, false, true, 1},
		{"borrowed", true, true, false, 0},
		{"borrowed, acked", false, true, true, 0},
	}
	for _, body := range []int{16, 1000} {
		for _, tt := range tests {
			t.Run(fmt.Sprintf("%s, %d octets", tt.name, body), func(t *testing.T) {
				ch := dialNull(t, body, false)
				cons := subscribeNull(t, ch, tt.noAck, tt.borrow)
				tk := cons.taker(true)
				defer tk.leave()
				allocations(t, tt.want, func(int) {
					d, err := tk.take(nil)
					if err != nil {
						t.Fatal(err)
					}
					p := d.Properties()
					if len(d.RoutingKey) < 4 || len(p.MessageID) < 8 || len(d.Body) != body {
						t.Fatalf("got %q %q %d", d.RoutingKey, p.MessageID, len(d.Body))
					}
					if tt.ack {
						if err := d.Ack(); err != nil {
							t.Fatal(err)
						}
					}
				})
			})
		}
	}
}

// Serve adds nothing to what a delivery costs.
func TestAllocs_Serve(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector drops what pools keep")
	}
	for _, opts := range []ServeOptions{{}, {Workers: 3}, {Workers: 3, Key: func(d *Delivery) string { return d.RoutingKey }}} {
		t.Run(fmt.Sprintf("workers=%d,keyed=%t", opts.Workers, opts.Key != nil), func(t *testing.T) {
			opts.ConsumeOptions = ConsumeOptions{Prefetch: -1, HoldBack: true, Borrow: true}
			ch := dialNull(t, 16, false)
			ctx, cancel := context.WithCancel(t.Context())
			handled := make(chan struct{})
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
			allocations(t, 0, func(int) { <-handled })
			ch.c.nc.Close()
			cancel()
			<-done
		})
	}
}
