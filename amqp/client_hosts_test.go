package amqp_test

import (
	"context"
	"errors"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/warrenmq/warren/amqp"
	"github.com/warrenmq/warren/amqp/amqptest"
)

// dials notes what is dialled, and leaves all but the last to fail.
type dials struct {
	srv *amqptest.Server

	mu    sync.Mutex // guards what follows
	addrs []string
	fail  int
}

func (d *dials) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.addrs = append(d.addrs, addr)
	if d.fail--; d.fail >= 0 {
		return nil, errors.New("away")
	}
	return d.srv.Dial(ctx, network, addr)
}

func (d *dials) taken() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.addrs)
}

// The hosts of a URI, and those of Config.Hosts, are tried from a random one on,
// each before any is tried again, and by name: whoever dials looks it up anew.
func TestClient_StartsWithAnyHostAndDialsNames(t *testing.T) {
	for name, hosts := range map[string][]string{"amqp://guest:guest@a,b:5673,c/%2F": nil, "amqp://guest:guest@elsewhere/%2F": {"a", "b:5673", "c"}} {
		first := map[string]int{}
		for range 60 {
			synctest.Test(t, func(t *testing.T) {
				d := &dials{srv: amqptest.NewServer(t), fail: 2}
				c, err := amqp.NewClient(name, &amqp.ClientConfig{OneConnection: true, Config: amqp.Config{Hosts: hosts, Dial: d.dial}})
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				ctx := within(t, time.Minute)
				if err := c.Ping(ctx); err != nil {
					t.Fatal(err)
				}
				d.srv.KillAll()
				synctest.Wait()
				if err := c.Ping(ctx); err != nil {
					t.Fatal(err)
				}
				got := d.taken()
				first[got[0]]++
				round := slices.Clone(got[:3])
				slices.Sort(round)
				if strings.Join(round, " ") != "a:5672 b:5673 c:5672" || len(got) != 4 || got[3] != got[0] {
					t.Errorf("dialled %v", got)
				}
			})
		}
		if len(first) != 3 { // by chance once in ten billion runs
			t.Errorf("%s: began with %v", name, first)
		}
	}
}

// Credentials are asked for at each dial, so that what was wrong once is not
// wrong for ever.
func TestClient_AsksForCredentialsAtEveryDial(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := amqptest.NewServer(t)
		asked := 0
		c := newClient(t, srv, &amqp.ClientConfig{OneConnection: true, Config: amqp.Config{
			Credentials: func(context.Context) (amqp.Credentials, error) {
				switch asked++; asked {
				case 1:
					return amqp.Credentials{}, errors.New("the vault is sealed")
				case 2:
					return amqp.Credentials{Username: "guest", Password: "yesterday's"}, nil
				}
				return amqp.Credentials{Username: "guest", Password: "guest"}, nil
			},
		}})
		ctx := within(t, time.Minute)
		for i := range 3 {
			if err := c.Ping(ctx); err != nil {
				t.Fatal(err)
			}
			if s := c.Stats(); asked != 3+i || s.Dials != uint64(asked) {
				t.Errorf("asked %d times, %d dials", asked, s.Dials)
			}
			srv.KillAll()
			synctest.Wait()
		}
	})
}

// Each of the two connections is there once it is needed, and they are apart.
func TestClient_OpensConnectionsOnFirstUse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := amqptest.NewServer(t)
		c := newClient(t, srv, &amqp.ClientConfig{Config: amqp.Config{Name: "svc"}})
		ctx := within(t, time.Hour)
		open := func(want ...string) {
			t.Helper()
			var names []string
			for _, conn := range srv.Connections() {
				names = append(names, conn.ClientName)
			}
			slices.Sort(names)
			if !slices.Equal(names, want) {
				t.Errorf("connections %q, want %q", names, want)
			}
		}
		time.Sleep(time.Minute)
		open()
		if err := c.Publish(ctx, amqp.BasicPublish{RoutingKey: "nowhere"}, text("x")); err != nil {
			t.Error(err)
		}
		open("svc (publish)")
		// A channel for administration: declare, depth, purge.
		ch, err := c.Channel(ctx)
		if err != nil {
			t.Fatal(err)
		}
		open("svc (consume)", "svc (publish)")
		if _, err := ch.QueueDeclare(ctx, amqp.QueueDeclare{Queue: "q", Durable: true}); err != nil {
			t.Error(err)
		}
		for range 3 {
			if err := c.Publish(ctx, amqp.BasicPublish{RoutingKey: "q"}, text("x")); err != nil {
				t.Error(err)
			}
		}
		if ok, err := ch.QueueDeclare(ctx, amqp.QueueDeclare{Queue: "q", Passive: true}); err != nil || ok.MessageCount != 3 {
			t.Errorf("depth: %+v, %v", ok, err)
		}
		if ok, err := ch.QueuePurge(ctx, amqp.QueuePurge{Queue: "q"}); err != nil || ok.MessageCount != 3 {
			t.Errorf("purge: %+v, %v", ok, err)
		}
	})
}

// Ping says within its context that nothing answers, and why.
func TestClient_PingIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := amqptest.NewServer(t)
		c := newClient(t, srv, nil)
		if err := c.Ping(within(t, time.Minute)); err != nil {
			t.Fatal(err)
		}
		resume := srv.Stall()
		began := time.Now()
		if err := c.Ping(within(t, time.Second)); !errors.Is(err, context.DeadlineExceeded) || time.Since(began) != time.Second {
			t.Errorf("a broker that is stuck: %v after %v", err, time.Since(began))
		}
		resume()
		if err := c.Ping(within(t, time.Minute)); err != nil {
			t.Errorf("afterwards: %v", err)
		}
		srv.RefuseConnections(true)
		srv.KillAll()
		synctest.Wait()
		err := c.Ping(within(t, time.Second))
		if !errors.Is(err, context.DeadlineExceeded) || !contains(err, "last failure") {
			t.Errorf("a broker that is away: %v", err)
		}
	})
}
