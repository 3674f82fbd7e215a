package amqp_test

import (
	"context"
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/warrenmq/warren/amqp"
	"github.com/warrenmq/warren/amqp/amqptest"
	"github.com/warrenmq/warren/internal/history"
)

// TestClient_CyclesLeaveNothingBehind opens, kills and closes a client a
// thousand times over TCP: goroutines, descriptors and heap are then where they
// were.
func TestClient_CyclesLeaveNothingBehind(t *testing.T) {
	cycles := 1000
	if testing.Short() || amqp.RaceEnabled {
		cycles = 100
	}
	srv := amqptest.NewServer(t, amqptest.Config{Record: -1})
	uri := srv.URI()
	cycle := func(i int) {
		c, err := amqp.NewClient(uri, &amqp.ClientConfig{Topology: orders, Resend: i%2 == 0, Config: amqp.Config{VHost: "/"}})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		if err := c.Publish(ctx, amqp.BasicPublish{Exchange: "orders"}, text("x")); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Subscribe(ctx, amqp.BasicConsume{Queue: "orders.all"}, nil); err != nil {
			t.Fatal(err)
		}
		if i%3 > 0 {
			srv.KillAll()
		}
		c.Close()
	}
	measure := func() (goroutines, fds int, heap uint64) {
		for range 50 { // the server's side ends a little later
			runtime.GC()
			time.Sleep(10 * time.Millisecond)
		}
		list, _ := os.ReadDir("/proc/self/fd")
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return runtime.NumGoroutine(), len(list), m.HeapAlloc
	}
	for i := range 20 {
		cycle(i)
	}
	srv.DeleteQueue("", "orders.all")
	g0, f0, h0 := measure()
	for i := range cycles {
		cycle(i)
	}
	srv.DeleteQueue("", "orders.all")
	g1, f1, h1 := measure()
	t.Logf("%d cycles: goroutines %d -> %d, descriptors %d -> %d, heap %d -> %d KiB", cycles, g0, g1, f0, f1, h0>>10, h1>>10)
	if g1 > g0+2 || f1 > f0+2 || h1 > h0+1<<20 {
		t.Error("something was left behind")
	}
}

// TestClient_Soak runs seeded faults again and again for SOAK, and prints how
// the heap grows: not at all, if it is as it should be. `make soak` sets it.
func TestClient_Soak(t *testing.T) {
	d, err := time.ParseDuration(os.Getenv("SOAK"))
	if err != nil {
		t.Skip("SOAK is not set to a duration")
	}
	type point struct{ hours, kib float64 }
	var points []point
	var total figures
	began, last := time.Now(), time.Time{}
	for seed := uint64(1); time.Since(began) < d; seed++ {
		runFaultSeed(t, seed, &total)
		if time.Since(last) < d/60 {
			continue
		}
		last = time.Now()
		runtime.GC()
		runtime.GC() // what pools held goes with the second
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		points = append(points, point{time.Since(began).Hours(), float64(m.HeapAlloc) / 1024})
		t.Logf("%v: heap %.0f KiB, %d goroutines, %d faults, %d sent, %d lost", time.Since(began).Round(time.Second), points[len(points)-1].kib, runtime.NumGoroutine(), total.faults, total.Sent, total.Lost)
	}
	points = points[min(len(points)/10, len(points)-1):] // what comes first is warming up
	var sx, sy, sxx, sxy, n float64
	for _, p := range points {
		sx, sy, sxx, sxy, n = sx+p.hours, sy+p.kib, sxx+p.hours*p.hours, sxy+p.hours*p.kib, n+1
	}
	if det := n*sxx - sx*sx; det > 0 {
		t.Logf("heap slope: %+.1f KiB an hour over %v; %d faults, %d sent, %d confirmed, %d lost", (n*sxy-sx*sy)/det, d, total.faults, total.Sent, total.outcomes[history.Confirmed], total.Lost)
	}
}
