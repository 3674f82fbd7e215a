//go:build chaos

package chaos

import (
	"context"
	"errors"
	"os"
	"testing"
	"time"

	"github.com/warrenmq/warren/amqp"
	"github.com/warrenmq/warren/internal/rabbittest"
)

// What follows would do away with what the cluster's messages are counted by,
// or needs no cluster: it has a broker to itself.

func TestMain(m *testing.M) { os.Exit(rabbittest.Main(m)) }

func newClient(t *testing.T, uri string, cfg amqp.ClientConfig) *amqp.Client {
	t.Helper()
	c, err := amqp.NewClient(uri, &cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func within(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

func publish(t *testing.T, c *amqp.Client, ctx context.Context, queue, body string) {
	t.Helper()
	if err := c.Publish(ctx, amqp.BasicPublish{RoutingKey: queue, Mandatory: true}, amqp.Message{Body: []byte(body)}); err != nil {
		t.Fatalf("%s: %v", body, err)
	}
}

// subscribe passes deliveries on until the test ends.
func subscribe(t *testing.T, c *amqp.Client, queue string) <-chan *amqp.Delivery {
	t.Helper()
	sub, err := c.Subscribe(within(t, patience), amqp.BasicConsume{Queue: queue},
		&amqp.ConsumeOptions{Prefetch: 1})
	if err != nil {
		t.Fatal(err)
	}
	got := make(chan *amqp.Delivery)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for d, err := range sub.All() {
			if err != nil {
				if c.State() != amqp.Closed {
					t.Errorf("the subscription ended: %v", err)
				}
				return
			}
			select {
			case got <- d:
			case <-t.Context().Done():
				return
			}
		}
	}()
	t.Cleanup(func() { c.Close(); <-ended })
	return got
}

func receive(t *testing.T, got <-chan *amqp.Delivery, body string, redelivered bool) *amqp.Delivery {
	t.Helper()
	select {
	case d := <-got:
		if string(d.Body) != body || d.Redelivered != redelivered {
			t.Fatalf("got %q, redelivered %v; want %q, %v", d.Body, d.Redelivered, body, redelivered)
		}
		return d
	case <-time.After(patience):
		t.Fatalf("%q did not come", body)
		return nil
	}
}

// await polls what nobody can wait for.
func await(t *testing.T, what string, done func() bool) (took time.Duration) {
	t.Helper()
	began := time.Now()
	for !done() {
		if time.Since(began) > patience {
			t.Fatalf("not within %v: %s", patience, what)
		}
		time.Sleep(10 * time.Millisecond)
	}
	return time.Since(began)
}

// TestNeverGivenUpWhileBlocked: an alarm that outlasts several heartbeats ends
// no connection.
func TestNeverGivenUpWhileBlocked(t *testing.T) {
	b := rabbittest.Shared(t)
	r := newRig(t, 1, []*rabbittest.Broker{b})
	before := r.c.Stats().Opened
	clear := b.MemoryAlarm(t)
	if err := r.c.Await(r.ctx, amqp.Blocked); err != nil {
		t.Fatal(err)
	}
	time.Sleep(4 * heartbeat)
	clear()
	ctx := within(t, patience)
	if _, err := r.tr.Flowing(ctx); err != nil {
		t.Fatal(err)
	}
	if after := r.c.Stats().Opened; after != before {
		t.Errorf("%d connections were made", after-before)
	}
	if _, err := r.tr.Finish(ctx); err != nil {
		t.Error(err)
	}
}

// TestVHostDeleted: a client waits for its vhost to come back, and sends
// nothing of what its user gave up meanwhile.
func TestVHostDeleted(t *testing.T) {
	b := rabbittest.Shared(t)
	const vhost = "deleted"
	c := newClient(t, b.AddVHost(t, vhost), amqp.ClientConfig{Resend: true, Topology: &amqp.Topology{Queues: []amqp.Queue{amqp.QuorumQueue("q")}}})
	ctx := within(t, patience)
	got := subscribe(t, c, "q")
	publish(t, c, ctx, "q", "before")
	if err := receive(t, got, "before", false).Ack(); err != nil {
		t.Error(err)
	}
	b.Ctl(t, "delete_vhost", vhost)
	await(t, "NOT_ALLOWED", func() bool { return errors.Is(c.Err(), amqp.NotAllowed) })
	if err := c.Err(); !amqp.Terminal(err) {
		t.Errorf("not terminal: %v", err)
	}
	short, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
	defer cancel()
	err := c.Publish(short, amqp.BasicPublish{RoutingKey: "q"}, amqp.Message{Body: []byte("meanwhile")})
	if !amqp.SafeToRetry(err) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("while it was away: %v", err)
	}
	b.Ctl(t, "add_vhost", vhost)
	b.SetPermissions(t, "guest", vhost, ".*", ".*", ".*")
	began := time.Now()
	publish(t, c, ctx, "q", "after")
	if err := receive(t, got, "after", false).Ack(); err != nil {
		t.Error(err)
	}
	t.Logf("vhost deleted: messages flow %v after guest may use it again", ms(time.Since(began)))
}

// TestConsumerTimeout: a delivery that is kept for too long costs its consumer
// only, which is begun again; it comes again, and the old one is stale.
func TestConsumerTimeout(t *testing.T) {
	b := rabbittest.Shared(t)
	b.SetConsumerTimeout(t, time.Second)
	c := newClient(t, b.NewVHost(t), amqp.ClientConfig{Topology: &amqp.Topology{Queues: []amqp.Queue{amqp.QuorumQueue("q")}}})
	ctx := within(t, patience)
	got := subscribe(t, c, "q")
	publish(t, c, ctx, "q", "kept")
	kept := receive(t, got, "kept", false)
	publish(t, c, ctx, "q", "next")
	if err := receive(t, got, "kept", true).Ack(); err != nil {
		t.Error(err)
	}
	if err := receive(t, got, "next", false).Ack(); err != nil {
		t.Error(err)
	}
	if err := kept.Ack(); !errors.Is(err, amqp.ErrStale) {
		t.Errorf("the kept one: %v", err)
	}
	if s := c.Stats(); s.Cancelled == 0 || s.Resumed == 0 || s.Opened != 2 {
		t.Errorf("%d cancelled, %d resumed, %d connections", s.Cancelled, s.Resumed, s.Opened)
	}
}

// TestLockAfterHalfOpen: the exclusive queue of a machine that lost its power
// is had by its successor as soon as the broker finds out, and the rest works
// until then.
func TestLockAfterHalfOpen(t *testing.T) {
	b := rabbittest.Shared(t)
	const heartbeat = 2 * time.Second
	uri := b.NewVHost(t)
	proxies := newProxies(t, b.Addr())
	ctx := within(t, patience)
	dead, err := amqp.Dial(ctx, uri, &amqp.Config{Hosts: []string{proxies[0].Listen}, Heartbeat: heartbeat, CloseTimeout: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dead.Close() })
	ch, err := dead.Channel(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ch.QueueDeclare(ctx, amqp.QueueDeclare{Queue: "mine", Exclusive: true}); err != nil {
		t.Fatal(err)
	}
	undo := filter(t, proxies, true, true, drop)
	cut := time.Now()
	c := newClient(t, uri, amqp.ClientConfig{Topology: &amqp.Topology{Queues: []amqp.Queue{
		{Name: "mine", Exclusive: true}, amqp.QuorumQueue("ours"),
	}}})
	got := subscribe(t, c, "ours")
	if err := c.TopologyErr(); !errors.Is(err, amqp.ResourceLocked) {
		t.Fatalf("not locked: %v", err)
	}
	publish(t, c, ctx, "ours", "x")
	if err := receive(t, got, "x", false).Ack(); err != nil {
		t.Error(err)
	}
	<-dead.Done()
	if d := time.Since(cut); d > 2*heartbeat+slack {
		t.Errorf("half-open for %v", d)
	}
	undo()
	await(t, "the lock", func() bool { return c.TopologyErr() == nil })
	t.Logf("exclusive lock of a half-open connection: had %v after the cut, with a heartbeat of %v", ms(time.Since(cut)), heartbeat)
	mine := subscribe(t, c, "mine")
	publish(t, c, ctx, "mine", "y")
	if err := receive(t, mine, "y", false).Ack(); err != nil {
		t.Error(err)
	}
}
