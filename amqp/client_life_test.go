package amqp_test

import (
	"context"
	"errors"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/warrenmq/warren/amqp"
	"github.com/warrenmq/warren/amqp/amqptest"
)

func TestClient_States(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := amqptest.NewServer(t)
		c := newClient(t, srv, nil)
		ctx := within(t, time.Minute)
		is := func(want amqp.State) {
			t.Helper()
			synctest.Wait()
			if got := c.State(); got != want {
				t.Errorf("state %v (%v), want %v", got, c.Err(), want)
			}
		}
		is(amqp.Idle)
		srv.RefuseConnections(true)
		short, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		if err := c.Await(short, amqp.Connected); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Await: %v", err)
		}
		is(amqp.Connecting)
		if c.Err() == nil {
			t.Error("no cause while connecting")
		}
		srv.RefuseConnections(false)
		if err := c.Await(ctx, amqp.Connected); err != nil {
			t.Error(err)
		}
		is(amqp.Connected)
		if err := c.Ping(ctx); err != nil || c.Err() != nil {
			t.Error(err, c.Err())
		}
		if err := c.Publish(ctx, amqp.BasicPublish{RoutingKey: "q"}, text("x")); err != nil {
			t.Error(err)
		}
		srv.Block("low on disk")
		met, err := c.PublishAsync(ctx, amqp.BasicPublish{RoutingKey: "q"}, text("this one meets it"))
		if err != nil {
			t.Fatal(err)
		}
		is(amqp.Blocked)
		if err := c.Err(); !errors.Is(err, amqp.ErrBlocked) || !contains(err, "low on disk") {
			t.Errorf("cause %v", err)
		}
		if err := c.Ping(ctx); err != nil {
			t.Errorf("Ping while blocked: %v", err)
		}
		srv.Unblock()
		is(amqp.Connected)
		if err := met.Wait(ctx); err != nil {
			t.Error(err)
		}
		awaited := make(chan error, 2)
		go func() { awaited <- c.Await(ctx, amqp.Closed) }()
		go func() { awaited <- c.Await(ctx, amqp.Blocked) }()
		synctest.Wait()
		if err := c.Close(); err != nil {
			t.Error(err)
		}
		is(amqp.Closed)
		a, b := <-awaited, <-awaited
		if (a == nil) == (b == nil) || !errors.Is(errors.Join(a, b), amqp.ErrClosed) {
			t.Errorf("awaited %v, %v", a, b)
		}
		if err := c.Close(); err != nil {
			t.Errorf("second Close: %v", err)
		}
		for name, err := range map[string]error{
			"Publish": c.Publish(ctx, amqp.BasicPublish{}, text("x")), "Ping": c.Ping(ctx), "Err": c.Err(),
			"Serve":   c.Serve(ctx, amqp.BasicConsume{Queue: "q"}, func(context.Context, *amqp.Delivery) error { return nil }, nil),
			"Channel": func() error { _, err := c.Channel(ctx); return err }(),
			"Async":   func() error { _, err := c.PublishAsync(ctx, amqp.BasicPublish{}, text("x")); return err }(),
			"Sub":     func() error { _, err := c.Subscribe(ctx, amqp.BasicConsume{Queue: "q"}, nil); return err }(),
		} {
			if !errors.Is(err, amqp.ErrClosed) {
				t.Errorf("%s on a closed client: %v", name, err)
			}
		}
	})
}

func contains(err error, s string) bool { return err != nil && strings.Contains(err.Error(), s) }

func TestClient_TriesHostsInTurnAndBacksOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := amqptest.NewServer(t)
		var mu sync.Mutex
		var dialled []string
		var attempts []int
		var told []amqp.ReconnectInfo
		up := false
		c := newClient(t, srv, &amqp.ClientConfig{
			Config: amqp.Config{
				Hosts: []string{"a", "b", "c"},
				Dial: func(ctx context.Context, network, addr string) (net.Conn, error) {
					mu.Lock()
					defer mu.Unlock()
					dialled = append(dialled, addr)
					if !up {
						return nil, errors.New("down")
					}
					return srv.Dial(ctx, network, addr)
				},
				Trace: &amqp.Trace{Reconnect: func(_ context.Context, r amqp.ReconnectInfo) {
					mu.Lock()
					defer mu.Unlock()
					told = append(told, r)
				}},
			},
			Backoff: func(attempt int) time.Duration {
				attempts = append(attempts, attempt)
				return time.Duration(attempt+1) * time.Second
			},
		})
		ctx := within(t, time.Hour)
		go func() {
			time.Sleep(10 * time.Second)
			mu.Lock()
			up = true
			mu.Unlock()
		}()
		if err := c.Await(ctx, amqp.Connected); err != nil {
			t.Fatal(err)
		}
		mu.Lock()
		defer mu.Unlock()
		if len(dialled) < 6 || dialled[0] == dialled[1] || dialled[1] == dialled[2] || dialled[0] != dialled[3] {
			t.Errorf("dialled %v", dialled)
		}
		if want := []int{0, 0, 0, 1, 0, 0, 2}; len(attempts) < 7 || !slices.Equal(attempts[:7], want) {
			t.Errorf("attempts %v", attempts)
		}
		if len(told) != len(attempts) || told[3].Delay != 2*time.Second || told[3].Attempt != 3 || told[3].Err == nil {
			t.Errorf("told %+v", told)
		}
	})
}

// A host that is switched off answers nothing: others are tried besides it.
func TestClient_DoesNotWaitForASilentHost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := amqptest.NewServer(t)
		var mu sync.Mutex
		open := 0
		up := map[string]bool{}
		hosts := []string{"a", "b", "c"}
		c := newClient(t, srv, &amqp.ClientConfig{Config: amqp.Config{
			Hosts: hosts,
			Dial: func(ctx context.Context, network, addr string) (net.Conn, error) {
				mu.Lock()
				open++
				alive := up[addr]
				mu.Unlock()
				defer func() {
					mu.Lock()
					open--
					mu.Unlock()
				}()
				if alive {
					return srv.Dial(ctx, network, addr)
				}
				<-ctx.Done()
				return nil, ctx.Err()
			},
		}})
		up["a:5672"] = true
		began := time.Now()
		if err := c.Await(within(t, time.Minute), amqp.Connected); err != nil {
			t.Fatal(err)
		}
		if d := time.Since(began); d > time.Second {
			t.Errorf("connected after %v", d)
		}
		synctest.Wait()
		mu.Lock()
		defer mu.Unlock()
		if open != 0 || len(srv.Connections()) != 1 {
			t.Errorf("%d dials are left, %d connections", open, len(srv.Connections()))
		}
	})
}

// However many hosts are away, and for however long: one that is back is found
// before a second is over.
func TestClient_FindsTheOneHostThatIsBack(t *testing.T) {
	for i := range 60 {
		synctest.Test(t, func(t *testing.T) {
			srv := amqptest.NewServer(t)
			var back atomic.Bool
			hosts := []string{"a", "b", "c", "d"}
			c := newClient(t, srv, &amqp.ClientConfig{Config: amqp.Config{
				Hosts: hosts,
				Dial: func(ctx context.Context, network, addr string) (net.Conn, error) {
					if back.Load() && addr == hosts[i%4]+":5672" {
						return srv.Dial(ctx, network, addr)
					}
					return nil, errors.New("refused")
				},
			}})
			var since time.Time
			time.AfterFunc(time.Duration(10+i)*237*time.Millisecond, func() {
				since = time.Now()
				back.Store(true)
			})
			if err := c.Await(within(t, time.Minute), amqp.Connected); err != nil {
				t.Fatal(err)
			}
			if d := time.Since(since); d > 900*time.Millisecond {
				t.Errorf("connected %v after it was back", d)
			}
		})
	}
}

func TestClient_DefaultBackoffIsJitteredAndBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := amqptest.NewServer(t)
		var delays []time.Duration
		c := newClient(t, srv, &amqp.ClientConfig{Config: amqp.Config{Trace: &amqp.Trace{
			Reconnect: func(_ context.Context, r amqp.ReconnectInfo) { delays = append(delays, r.Delay) },
		}}})
		srv.RefuseConnections(true)
		c.Await(within(t, time.Minute), amqp.Connected)
		c.Close()
		if len(delays) < 80 || len(delays) > 180 {
			t.Errorf("%d attempts in a minute", len(delays))
		}
		seen := map[time.Duration]bool{}
		for i, d := range delays {
			if d > 750*time.Millisecond || i > 5 && d < 375*time.Millisecond {
				t.Errorf("delay %d is %v", i, d)
			}
			seen[d] = true
		}
		if len(seen) < len(delays)/2 {
			t.Error("delays are not jittered")
		}
	})
}

// A broker that refuses a password is asked ever more rarely, but not because it
// was away before: one that has just come up may not know its users yet.
func TestClient_RefusedCredentialsAreTriedEverMoreRarely(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := amqptest.NewServer(t)
		var delays []time.Duration
		c := newClient(t, srv, &amqp.ClientConfig{Config: amqp.Config{
			Credentials: func(context.Context) (amqp.Credentials, error) {
				return amqp.Credentials{Username: "guest", Password: "wrong"}, nil
			},
			Trace: &amqp.Trace{Reconnect: func(_ context.Context, r amqp.ReconnectInfo) {
				if errors.Is(r.Err, amqp.AccessRefused) {
					delays = append(delays, r.Delay)
				}
			}},
		}})
		srv.RefuseConnections(true)
		time.AfterFunc(time.Minute, func() { srv.RefuseConnections(false) })
		c.Await(within(t, 3*time.Minute), amqp.Connected)
		c.Close()
		if n := len(delays); n < 15 || n > 35 || delays[0] > 750*time.Millisecond || delays[n-1] < 5*time.Second || delays[n-1] > 10*time.Second {
			t.Errorf("%v", delays)
		}
	})
}

func TestClient_FatalEndsIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := amqptest.NewServer(t)
		c := newClient(t, srv, &amqp.ClientConfig{
			Config: amqp.Config{Credentials: amqp.StaticCredentials("guest", "wrong")}, Fatal: amqp.Terminal,
		})
		err := c.Publish(within(t, time.Minute), amqp.BasicPublish{RoutingKey: "q"}, text("x"))
		if !errors.Is(err, amqp.AccessRefused) || !errors.Is(err, amqp.ErrClosed) || !amqp.SafeToRetry(err) {
			t.Errorf("got %v", err)
		}
		if c.State() != amqp.Closed || c.Stats().Dials != 1 {
			t.Errorf("state %v after %d dials", c.State(), c.Stats().Dials)
		}
	})
}

func TestTerminal(t *testing.T) {
	for err, want := range map[error]bool{
		error(amqp.AccessRefused): true, error(amqp.NotAllowed): true, &amqp.SASLError{Wanted: []string{"X"}}: true,
		&amqp.DialError{Op: "certificates", Err: errors.New("x")}: true,
		&amqp.DialError{Op: "tls", Err: errors.New("reset")}:      false,
		&amqp.DialError{Op: "connect", Err: errors.New("x")}:      false,
		error(amqp.ConnectionForced):                              false, context.DeadlineExceeded: false,
	} {
		if got := amqp.Terminal(err); got != want {
			t.Errorf("%v: %v", err, got)
		}
	}
}

func TestClient_SetupRunsAtEveryConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := amqptest.NewServer(t)
		runs := 0
		c := newClient(t, srv, &amqp.ClientConfig{OneConnection: true, Setup: func(ctx context.Context, ch *amqp.Channel) error {
			if runs++; runs == 1 {
				return errors.New("not yet")
			}
			_, err := ch.QueueDeclare(ctx, amqp.QueueDeclare{Queue: "made"})
			return err
		}})
		ctx := within(t, time.Minute)
		if err := c.Publish(ctx, amqp.BasicPublish{RoutingKey: "made", Mandatory: true}, text("x")); err != nil {
			t.Fatal(err)
		}
		srv.Restart(false)
		synctest.Wait()
		if err := c.Publish(ctx, amqp.BasicPublish{RoutingKey: "made", Mandatory: true}, text("x")); err != nil {
			t.Fatal(err)
		}
		if runs != 3 {
			t.Errorf("%d runs", runs)
		}
	})
}

func TestClient_ClosingFromAHookIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := amqptest.NewServer(t)
		srv.RefuseConnections(true)
		var c *amqp.Client
		got := make(chan error, 100)
		c = newClient(t, srv, &amqp.ClientConfig{Config: amqp.Config{Trace: &amqp.Trace{
			Reconnect: func(ctx context.Context, _ amqp.ReconnectInfo) {
				got <- c.Close()
				got <- c.Shutdown(ctx)
			},
		}}})
		c.Await(within(t, 100*time.Millisecond), amqp.Connected)
		if a, b := <-got, <-got; !errors.Is(a, amqp.ErrInHandler) || !errors.Is(b, amqp.ErrInHandler) {
			t.Errorf("got %v, %v", a, b)
		}
	})
}

func TestClient_RenewsCredentialsAheadOfTheirExpiry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := amqptest.NewServer(t)
		var mu sync.Mutex
		asked, inside, most := 0, 0, 0
		c := newClient(t, srv, &amqp.ClientConfig{Config: amqp.Config{
			Credentials: func(ctx context.Context) (amqp.Credentials, error) {
				mu.Lock()
				asked++
				inside++
				most = max(most, inside)
				n := asked
				mu.Unlock()
				time.Sleep(time.Second)
				mu.Lock()
				inside--
				mu.Unlock()
				if n == 4 {
					return amqp.Credentials{}, errors.New("the token service is away")
				}
				return amqp.Credentials{Username: "guest", Password: "guest", Expires: time.Now().Add(100 * time.Second)}, nil
			},
		}})
		ctx := within(t, time.Hour)
		if err := c.Publish(ctx, amqp.BasicPublish{RoutingKey: "q"}, text("x")); err != nil {
			t.Fatal(err)
		}
		ch, err := c.Channel(ctx)
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Minute)
		s := c.Stats()
		if most != 1 {
			t.Errorf("%d refreshes at a time", most)
		}
		// Every 80 s, for both connections together.
		if asked < 8 || asked > 14 || s.Renewed < 12 || s.Opened != 2 || ch.Err() != nil {
			t.Errorf("asked %d times, renewed %d, opened %d, %v", asked, s.Renewed, s.Opened, ch.Err())
		}
	})
}

func TestClient_BlockedPublishesWaitAndConsumersDoNot(t *testing.T) {
	for _, fail := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			srv := amqptest.NewServer(t)
			c := newClient(t, srv, &amqp.ClientConfig{Topology: orders, Config: amqp.Config{FailWhenBlocked: fail}})
			ctx := within(t, time.Hour)
			m := amqp.BasicPublish{Exchange: "orders", RoutingKey: "k"}
			for range 10 {
				if err := c.Publish(ctx, m, text("x")); err != nil {
					t.Fatal(err)
				}
			}
			sub, err := c.Subscribe(ctx, amqp.BasicConsume{Queue: "orders.all"}, nil)
			if err != nil {
				t.Fatal(err)
			}
			srv.Block("low on memory")
			if _, err := c.PublishAsync(ctx, m, text("this one meets it")); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			short, cancel := context.WithTimeout(ctx, 30*time.Second)
			defer cancel()
			began := time.Now()
			err = c.Publish(short, m, text("late"))
			if fail && (!errors.Is(err, amqp.ErrBlocked) || time.Since(began) > 0) || !fail && !errors.Is(err, context.DeadlineExceeded) || !amqp.SafeToRetry(err) {
				t.Errorf("fail %v: %v after %v", fail, err, time.Since(began))
			}
			n := 0
			for d := range sub.All() {
				if err := d.Ack(); err != nil {
					t.Error(err)
				}
				if n++; n == 10 {
					break
				}
			}
			time.Sleep(time.Second)
			if q, _ := srv.Queue("orders.all"); q.Unacked != 0 || q.Ready != 0 {
				t.Errorf("%+v", q)
			}
			began = time.Now()
			if err := c.Close(); err == nil || time.Since(began) > 2*time.Second {
				t.Errorf("Close under an alarm: %v after %v", err, time.Since(began))
			}
		})
	}
}

func TestClient_OneConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := amqptest.NewServer(t)
		c := newClient(t, srv, &amqp.ClientConfig{Topology: orders, OneConnection: true, Config: amqp.Config{Name: "svc"}})
		ctx := within(t, time.Minute)
		if err := c.Publish(ctx, amqp.BasicPublish{Exchange: "orders"}, text("x")); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Subscribe(ctx, amqp.BasicConsume{Queue: "orders.all"}, nil); err != nil {
			t.Fatal(err)
		}
		if list := srv.Connections(); len(list) != 1 || list[0].ClientName != "svc" {
			t.Errorf("%+v", list)
		}
	})
}
