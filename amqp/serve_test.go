package amqp_test

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/warrenmq/warren/amqp"
	"github.com/warrenmq/warren/amqp/amqptest"
)

// serving runs Serve on a queue q of its own and gives its end.
type serving struct {
	t    *testing.T
	srv  *amqptest.Server
	conn *amqp.Conn
	ch   *amqp.Channel
	stop context.CancelFunc
	done chan error
}

func startServe(t *testing.T, h amqp.Handler, opts *amqp.ServeOptions) *serving {
	t.Helper()
	s := &serving{t: t, srv: amqptest.NewServer(t), done: make(chan error, 1)}
	s.conn = connect(t, s.srv)
	s.ch = openQueue(t, s.conn, "q")
	ctx, stop := context.WithCancel(context.Background())
	t.Cleanup(stop)
	s.stop = stop
	go func() { s.done <- s.ch.Serve(ctx, amqp.BasicConsume{Queue: "q"}, h, opts) }()
	return s
}

// put publishes messages to q, from a connection of its own.
func (s *serving) put(bodies ...string) {
	s.t.Helper()
	conn, err := amqp.Dial(context.Background(), s.srv.URI(), &amqp.Config{Dial: s.srv.Dial})
	if err != nil {
		s.t.Fatal(err)
	}
	defer conn.Close()
	ch, err := conn.Channel(s.t.Context())
	if err != nil {
		s.t.Fatal(err)
	}
	for _, b := range bodies {
		if err := ch.Publish(s.t.Context(), amqp.BasicPublish{RoutingKey: "q"}, amqp.Message{Body: []byte(b)}); err != nil {
			s.t.Fatal(err)
		}
	}
}

// left is how many messages q holds, ready and unsettled.
func (s *serving) left() (ready, unacked int) {
	info, _ := s.srv.Queue("q")
	return info.Ready, info.Unacked
}

func (s *serving) wantLeft(ready, unacked int) {
	s.t.Helper()
	if r, u := s.left(); r != ready || u != unacked {
		s.t.Errorf("the queue has %d ready and %d unsettled, want %d and %d", r, u, ready, unacked)
	}
}

func TestServe_AcksWhatIsHandledAndDrains(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var running, most, handled atomic.Int32
		s := startServe(t, func(ctx context.Context, d *amqp.Delivery) error {
			n := running.Add(1)
			for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
			}
			time.Sleep(time.Second)
			running.Add(-1)
			handled.Add(1)
			return ctx.Err()
		}, &amqp.ServeOptions{Workers: 4})
		s.put(strings.Split(strings.Repeat("m", 20), "")...)
		time.Sleep(2500 * time.Millisecond) // in the middle of the third round
		s.stop()
		if err := <-s.done; err != nil {
			t.Errorf("Serve: %v", err)
		}
		synctest.Wait()
		if handled.Load() != 12 || most.Load() != 4 {
			t.Errorf("%d were handled, %d at once", handled.Load(), most.Load())
		}
		s.wantLeft(8, 0)
	})
}

func TestServe_KeepsOrderPerKey(t *testing.T) {
	for _, borrow := range []bool{false, true} {
		t.Run(fmt.Sprintf("borrow=%t", borrow), func(t *testing.T) { synctest.Test(t, func(t *testing.T) { keepsOrder(t, borrow) }) })
	}
}

func keepsOrder(t *testing.T, borrow bool) {
	const keys, each = 7, 30
	var mu sync.Mutex
	got := map[string][]int{}
	busy := map[string]bool{}
	var parallel, most int
	s := startServe(t, func(_ context.Context, d *amqp.Delivery) error {
		key, num, _ := strings.Cut(string(d.Body), " ")
		n, _ := strconv.Atoi(num)
		mu.Lock()
		if busy[key] {
			t.Errorf("two of key %s at once", key)
		}
		busy[key] = true
		parallel++
		most = max(most, parallel)
		mu.Unlock()
		time.Sleep(time.Duration(1+n%5) * time.Millisecond)
		mu.Lock()
		defer mu.Unlock()
		if k, _, _ := strings.Cut(string(d.Body), " "); k != key {
			t.Errorf("the delivery of %s changed while it was handled: %q", key, k)
		}
		busy[key] = false
		parallel--
		got[key] = append(got[key], n)
		return nil
	}, &amqp.ServeOptions{Workers: 5, ConsumeOptions: amqp.ConsumeOptions{Borrow: borrow}, Key: func(d *amqp.Delivery) string {
		key, _, _ := strings.Cut(string(d.Body), " ")
		return key
	}})
	var bodies []string
	want := map[string][]int{}
	for i := range each {
		for k := range keys {
			key := string(rune('a' + k))
			bodies = append(bodies, fmt.Sprintf("%s %d", key, i))
			want[key] = append(want[key], i)
		}
	}
	s.put(bodies...)
	time.Sleep(time.Minute)
	s.stop()
	if err := <-s.done; err != nil {
		t.Errorf("Serve: %v", err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("order (-want +got):\n%s", diff)
	}
	if most != 5 {
		t.Errorf("%d ran at once, want 5", most)
	}
	s.wantLeft(0, 0)
}

// A key whose handler is slow holds up nobody else, and what waits behind it
// goes back to the queue when Serve ends.
func TestServe_SlowKeyHoldsUpNoOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		var others atomic.Int32
		s := startServe(t, func(_ context.Context, d *amqp.Delivery) error {
			if string(d.Body) == "slow" {
				<-release
			} else {
				others.Add(1)
			}
			return nil
		}, &amqp.ServeOptions{Workers: 2, Key: func(d *amqp.Delivery) string { return string(d.Body) }})
		s.put("slow", "slow", "a", "slow", "b", "slow", "c")
		synctest.Wait()
		if others.Load() != 3 {
			t.Errorf("%d of the other keys were handled, want 3", others.Load())
		}
		s.stop()
		synctest.Wait()
		s.wantLeft(3, 1)
		close(release)
		if err := <-s.done; err != nil {
			t.Errorf("Serve: %v", err)
		}
		synctest.Wait()
		s.wantLeft(3, 0)
	})
}

var errHandler = errors.New("no luck")

func TestServe_ErrorPolicies(t *testing.T) {
	tests := []struct {
		name    string
		action  amqp.Action
		handled int // times, within 10 s of a delay of 3 s
		ready   int
		unacked int
	}{
		{"delay", amqp.ActionDelay, 4, 0, 1},
		{"reject", amqp.ActionReject, 1, 0, 0},
		{"ack", amqp.ActionAck, 1, 0, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var handled atomic.Int32
				s := startServe(t, func(context.Context, *amqp.Delivery) error {
					handled.Add(1)
					return errHandler
				}, &amqp.ServeOptions{Delay: 3 * time.Second, OnError: func(_ *amqp.Delivery, err error) amqp.Action {
					if err != errHandler {
						t.Errorf("OnError got %v", err)
					}
					return tt.action
				}})
				s.put("m")
				time.Sleep(10 * time.Second)
				if n := int(handled.Load()); n != tt.handled {
					t.Errorf("handled %d times, want %d", n, tt.handled)
				}
				s.wantLeft(tt.ready, tt.unacked)
				s.stop()
				if err := <-s.done; err != nil {
					t.Errorf("Serve: %v", err)
				}
				synctest.Wait()
				s.wantLeft(tt.unacked, 0)
			})
		})
	}
}

func TestServe_RequeuesAtOnceAndEnds(t *testing.T) {
	for _, action := range []amqp.Action{amqp.ActionRequeue, amqp.ActionRetry} {
		synctest.Test(t, func(t *testing.T) {
			var handled int
			s := startServe(t, func(_ context.Context, d *amqp.Delivery) error {
				if handled++; d.Redelivered != (handled > 1) {
					t.Errorf("redelivered is %t the %d. time", d.Redelivered, handled)
				}
				return errHandler
			}, &amqp.ServeOptions{OnError: func(*amqp.Delivery, error) amqp.Action {
				if handled == 5 {
					return amqp.ActionEnd
				}
				return action
			}})
			s.put("m")
			if err := <-s.done; err != errHandler {
				t.Errorf("Serve: %v, want the handler's error", err)
			}
			synctest.Wait()
			s.wantLeft(1, 0)
		})
	}
}

// What is delayed holds no worker, and is bounded by the prefetch.
func TestServe_DelayIsBoundedAndBlocksNoWorker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var good, bad atomic.Int32
		s := startServe(t, func(_ context.Context, d *amqp.Delivery) error {
			if string(d.Body) == "bad" {
				bad.Add(1)
				return errHandler
			}
			good.Add(1)
			return nil
		}, &amqp.ServeOptions{Delay: time.Hour, ConsumeOptions: amqp.ConsumeOptions{Prefetch: 3, Borrow: true}})
		s.put("bad", "good", "bad", "good", "good", "bad", "good", "bad")
		time.Sleep(time.Minute)
		if good.Load() != 3 || bad.Load() != 3 {
			t.Errorf("%d good and %d bad were handled, want 3 and 3", good.Load(), bad.Load())
		}
		s.wantLeft(2, 3)
		time.Sleep(time.Hour)
		if bad.Load() != 6 { // they come before what never was delivered
			t.Errorf("%d bad were handled after the delay, want 6", bad.Load())
		}
		s.stop()
		if err := <-s.done; err != nil {
			t.Errorf("Serve: %v", err)
		}
		synctest.Wait()
		s.wantLeft(5, 0)
	})
}

func TestServe_PanicIsAnError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		boom := errors.New("boom")
		var errs []error
		s := startServe(t, func(_ context.Context, d *amqp.Delivery) error {
			if string(d.Body) == "bad" {
				panic(boom)
			}
			return nil
		}, &amqp.ServeOptions{OnError: func(_ *amqp.Delivery, err error) amqp.Action {
			errs = append(errs, err)
			return amqp.ActionReject
		}})
		s.put("bad", "good", "bad")
		synctest.Wait()
		if len(errs) != 2 {
			t.Fatalf("OnError was called %d times, want 2", len(errs))
		}
		var p *amqp.PanicError
		if !errors.As(errs[0], &p) || !errors.Is(errs[0], boom) || !strings.Contains(string(p.Stack), "TestServe_PanicIsAnError") {
			t.Errorf("the panic became %#v", errs[0])
		}
		s.wantLeft(0, 0)
		s.stop()
		<-s.done
	})
}

func TestServe_DeadlinePerMessage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		var took time.Duration
		s := startServe(t, func(ctx context.Context, _ *amqp.Delivery) error {
			<-ctx.Done()
			took = time.Since(start)
			return ctx.Err()
		}, &amqp.ServeOptions{Timeout: 5 * time.Second, OnError: func(_ *amqp.Delivery, err error) amqp.Action {
			if !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("handler: %v", err)
			}
			return amqp.ActionReject
		}})
		s.put("m")
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if took != 5*time.Second {
			t.Errorf("the handler's context ended after %v", took)
		}
		s.wantLeft(0, 0)
	})
}

func TestServe_HandlersOwnSettlementStays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := startServe(t, func(_ context.Context, d *amqp.Delivery) error {
			d.Reject()
			if string(d.Body) == "err" {
				return errHandler
			}
			return nil
		}, nil)
		s.put("m", "err", "n")
		synctest.Wait()
		s.wantLeft(0, 0)
		s.stop()
		if err := <-s.done; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
}
