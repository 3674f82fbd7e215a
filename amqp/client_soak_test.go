package amqp_test

import (
	"context"
	"math"
	"net"
	"os"
	"runtime"
	"sync"
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

// TestClient_Soak has two clients, one with Resend, live through faults over
// TCP for SOAK, and prints how the heap grows: not at all, if it is as it should
// be. Each round of faults (some 20 s) ends when everything has its outcome and
// was consumed; then the heap is measured, after garbage collection and with
// the clients alive. `make soak` sets SOAK.
func TestClient_Soak(t *testing.T) {
	d, err := time.ParseDuration(os.Getenv("SOAK"))
	if err != nil {
		t.Skip("SOAK is not set to a duration")
	}
	var dialer net.Dialer
	var runs []*faultRun
	for _, seed := range []uint64{1, 12} { // 12: Resend, quorum queues
		runs = append(runs, newFaultRun(t, seed, amqptest.Config{Record: -1}, dialer.DialContext))
	}
	var total figures
	var heap, goroutines []point
	for began := time.Now(); time.Since(began) < d && !t.Failed(); {
		var wg sync.WaitGroup
		for _, f := range runs {
			wg.Go(f.round)
		}
		wg.Wait()
		for _, f := range runs {
			f.judge(&total)
			f.log.Forget()
		}
		runtime.GC()
		runtime.GC() // what pools held goes with the second
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		hours := time.Since(began).Hours()
		heap = append(heap, point{hours, float64(m.HeapAlloc) / 1024})
		goroutines = append(goroutines, point{hours, float64(runtime.NumGoroutine())})
		t.Logf("%v: heap %d KiB, %d goroutines, %d faults, %d sent, %d confirmed, %d lost", time.Since(began).Round(time.Second),
			m.HeapAlloc>>10, runtime.NumGoroutine(), total.faults, total.Sent, total.outcomes[history.Confirmed], total.Lost)
	}
	for _, f := range runs {
		f.shutdown()
	}
	perHour, off := slope(heap)
	more, moreOff := slope(goroutines)
	t.Logf("heap slope: %+.1f KiB an hour (standard error %.1f), goroutines: %+.1f an hour (%.1f), over %d rounds in %v: %d faults, %d sent, %d confirmed, %d unknown, %d lost, %d duplicated",
		perHour, off, more, moreOff, len(heap), d, total.faults, total.Sent, total.outcomes[history.Confirmed], total.outcomes[history.Unknown], total.Lost, total.Duplicated)
	if grown := (perHour - 3*off) * d.Hours(); grown > 1024 {
		t.Errorf("the heap grew by %.0f KiB at least", grown)
	}
	if grown := (more - 3*moreOff) * d.Hours(); grown > 3 {
		t.Errorf("%.0f goroutines more at least", grown)
	}
}

type point struct{ hours, value float64 }

// slope is how much the points rise in an hour, by least squares, and the
// standard error of that. What comes first is warming up, and left out.
func slope(points []point) (perHour, off float64) {
	points = points[len(points)/10:]
	var n, mx, my, sxx, sxy, rest float64
	for _, p := range points {
		n, mx, my = n+1, mx+p.hours, my+p.value
	}
	if n < 3 {
		return math.NaN(), math.NaN() // nothing can be said
	}
	mx, my = mx/n, my/n
	for _, p := range points {
		sxx, sxy = sxx+(p.hours-mx)*(p.hours-mx), sxy+(p.hours-mx)*(p.value-my)
	}
	perHour = sxy / sxx
	for _, p := range points {
		miss := p.value - my - perHour*(p.hours-mx)
		rest += miss * miss
	}
	return perHour, math.Sqrt(rest / (n - 2) / sxx)
}
