//go:build integration

package amqp_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/warrenmq/warren/amqp"
	"github.com/warrenmq/warren/internal/history"
	"github.com/warrenmq/warren/internal/rabbittest"
	"github.com/warrenmq/warren/internal/traffic"
)

// serviceTopology is a quorum queue behind an exchange.
func serviceTopology() *amqp.Topology {
	return &amqp.Topology{
		Exchanges: []amqp.Exchange{{Name: "events", Type: "topic"}},
		Queues:    []amqp.Queue{amqp.QuorumQueue("work")},
		Bindings:  []amqp.Binding{{Source: "events", Queue: "work", RoutingKey: "#"}},
	}
}

func newServiceClient(t *testing.T, uri string, cfg amqp.ClientConfig) *amqp.Client {
	t.Helper()
	c, err := amqp.NewClient(uri, &cfg)
	if err != nil {
		t.Fatal(err)
	}
	closeWithTest(t, c)
	return c
}

// TestClient_LivesThroughWhatABrokerDoes has traffic go on while the broker is
// restarted, killed, stopped, told to close connections, and short of memory.
func TestClient_LivesThroughWhatABrokerDoes(t *testing.T) {
	b := rabbittest.Start(t, rabbittest.Options{})
	c := newServiceClient(t, b.URL(), amqp.ClientConfig{Topology: serviceTopology(), Resend: true, ResendTries: 100})
	tr := traffic.Start(c, traffic.Options{Exchange: "events", Queue: "work"})
	ctx := loadContext(t)
	flows := func(what string) {
		t.Helper()
		d, err := tr.Flowing(ctx)
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		t.Logf("%s: messages flow after %v", what, d.Round(time.Millisecond))
	}
	flows("at the start")
	b.Restart(t)
	flows("restarted")
	b.Kill(t)
	b.Boot(t)
	flows("killed and booted")
	b.StopApp(t)
	b.StartApp(t)
	flows("stop_app and start_app")
	for range 5 {
		b.CloseAllConnections(t, "seeded")
		flows("connections closed")
	}
	for range 2 {
		clear := b.MemoryAlarm(t)
		if err := c.Await(ctx, amqp.Blocked); err != nil {
			t.Fatal(err)
		}
		_, before := tr.Counts()
		clear()
		flows("memory alarm over")
		if _, after := tr.Counts(); after == before {
			t.Error("nothing was received")
		}
	}
	s, err := tr.Finish(ctx)
	if err != nil {
		t.Error(err)
	}
	t.Logf("%d sent, %d confirmed, %d unknown, %d lost, %d duplicated; %+v", s.Sent, s.Outcomes[history.Confirmed], s.Outcomes[history.Unknown], s.Lost, s.Duplicated, c.Stats())
}

func TestClient_TopologyOnRabbitMQ(t *testing.T) {
	url := rabbittest.Shared(t).NewVHost(t)
	ctx := patiently(t)
	quorum := amqp.QuorumQueue("quorum")
	quorum.DeliveryLimit, quorum.TTL, quorum.SingleActiveConsumer = 5, time.Minute, true
	quorum.Overflow, quorum.DeadLetter = amqp.RejectPublish, &amqp.DeadLetter{Exchange: "dead", RoutingKey: "k", AtLeastOnce: true}
	quorum.MaxLength, quorum.MaxBytes = 10, 1000
	classic := amqp.ClassicQueue("classic")
	classic.MaxPriority, classic.Expires, classic.Overflow = 9, time.Hour, amqp.RejectPublishDLX
	stream := amqp.StreamQueue("stream", 24*time.Hour, 1<<30)
	topology := &amqp.Topology{
		Exchanges: []amqp.Exchange{{Name: "dead"}, {Name: "in", Type: "headers", Alternate: "dead"}},
		Queues:    append(amqp.QuorumWithParking("work", 3), quorum, classic, stream, amqp.Queue{Name: "mine", Exclusive: true}),
		Bindings:  []amqp.Binding{{Source: "in", Exchange: "dead", Arguments: amqp.Table{"x-match": "any", "a": "b"}}, {Source: "dead", Queue: "quorum", RoutingKey: "k"}},
	}
	c := newServiceClient(t, url, amqp.ClientConfig{Topology: topology})
	ch, err := c.Channel(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.TopologyErr(); err != nil {
		t.Error(err)
	}
	for _, q := range topology.Queues {
		if _, err := ch.QueueDeclare(ctx, amqp.QueueDeclare{Queue: q.Name, Passive: true}); err != nil {
			t.Fatal(err)
		}
	}
	// Another client wants other arguments, and the exclusive queue.
	classic.MaxPriority = 5
	other := newServiceClient(t, url, amqp.ClientConfig{Topology: &amqp.Topology{Queues: []amqp.Queue{classic, {Name: "mine", Exclusive: true}, amqp.QuorumQueue("fine")}}})
	if _, err := other.Channel(ctx); err != nil {
		t.Fatal(err)
	}
	err = other.TopologyErr()
	if !errors.Is(err, amqp.PreconditionFailed) || !errors.Is(err, amqp.ResourceLocked) {
		t.Errorf("got %v", err)
	}
	if err := other.Publish(ctx, amqp.BasicPublish{RoutingKey: "fine", Mandatory: true}, text("x")); err != nil {
		t.Error(err)
	}
	if err := c.Close(); err != nil { // the exclusive queue goes with it
		t.Error(err)
	}
	for errors.Is(other.TopologyErr(), amqp.ResourceLocked) && ctx.Err() == nil {
		time.Sleep(50 * time.Millisecond)
	}
	if err := other.TopologyErr(); errors.Is(err, amqp.ResourceLocked) {
		t.Errorf("still locked: %v", err)
	}
}

func TestClient_ConsumersResumeOnRabbitMQ(t *testing.T) {
	b := rabbittest.Shared(t)
	url := b.NewVHost(t)
	ctx := patiently(t)
	c := newServiceClient(t, url, amqp.ClientConfig{Topology: serviceTopology()})
	queue := amqp.TemporaryQueue()
	temporary, err := c.Subscribe(ctx, amqp.BasicConsume{}, &amqp.ConsumeOptions{Resume: &amqp.Resume{
		Declare: &queue, Bindings: []amqp.Binding{{Source: "events", RoutingKey: "t"}}}})
	if err != nil {
		t.Fatal(err)
	}
	work, err := c.Subscribe(ctx, amqp.BasicConsume{Queue: "work"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	// The publishing connection is there before the deletion, since it declares
	// the topology: on RabbitMQ 3.10 a quorum queue that is declared again while
	// it goes keeps the old one's consumer without a cancel, and delivers nothing.
	noError(t, c.Publish(ctx, amqp.BasicPublish{Exchange: "amq.fanout"}, text("x")))
	ch, err := c.Channel(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ch.QueueDelete(ctx, amqp.QueueDelete{Queue: "work"}); err != nil {
		t.Fatal(err)
	}
	name := temporary.Queue()
	if _, err := ch.QueueDelete(ctx, amqp.QueueDelete{Queue: name}); err != nil {
		t.Fatal(err)
	}
	go func() { // until both have found their new queues
		for ctx.Err() == nil && c.Publish(ctx, amqp.BasicPublish{Exchange: "events", RoutingKey: "t"}, text("x")) == nil {
			time.Sleep(50 * time.Millisecond)
		}
	}()
	for _, sub := range []*amqp.Subscription{temporary, work} {
		for d, err := range sub.All() {
			if err != nil {
				t.Fatal(err)
			}
			noError(t, d.Ack())
			break
		}
	}
	if temporary.Queue() == name {
		t.Error("the temporary queue kept its name")
	}
	if err := c.Shutdown(ctx); err != nil {
		t.Error(err)
	}
}

func TestClient_FollowsAPasswordChange(t *testing.T) {
	b := rabbittest.Shared(t)
	b.AddVHost(t, "pw")
	b.AddUser(t, "rotating", "first")
	b.SetPermissions(t, "rotating", "pw", ".*", ".*", ".*")
	var password atomic.Value
	password.Store("first")
	ctx := patiently(t)
	c := newServiceClient(t, b.URLFor("ignored", "ignored", "pw"), amqp.ClientConfig{Config: amqp.Config{
		Credentials: func(context.Context) (amqp.Credentials, error) {
			return amqp.Credentials{Username: "rotating", Password: password.Load().(string)}, nil
		},
	}})
	noError(t, c.Publish(ctx, amqp.BasicPublish{RoutingKey: "q"}, text("x")))
	b.ChangePassword(t, "rotating", "second")
	b.Ctl(t, "close_all_connections", "--vhost", "pw", "seeded")
	for !errors.Is(c.Err(), amqp.AccessRefused) {
		if ctx.Err() != nil {
			t.Fatalf("not refused: %v, %v", c.State(), c.Err())
		}
		time.Sleep(10 * time.Millisecond)
	}
	password.Store("second")
	noError(t, c.Publish(ctx, amqp.BasicPublish{RoutingKey: "q"}, text("x")))
}

func TestRetry_OnRabbitMQ(t *testing.T) {
	for _, kind := range []amqp.QueueType{amqp.Classic, amqp.Quorum} {
		url := rabbittest.Shared(t).NewVHost(t)
		ctx := patiently(t)
		c := newServiceClient(t, url, amqp.ClientConfig{Topology: &amqp.Topology{Queues: []amqp.Queue{{Name: "work", Type: kind}, amqp.QuorumQueue("counted")}}})
		var delayed, counted atomic.Int32
		fail := func(n *atomic.Int32) amqp.Handler {
			return func(context.Context, *amqp.Delivery) error {
				n.Add(1)
				return errors.New("never")
			}
		}
		go c.Serve(ctx, amqp.BasicConsume{Queue: "work"}, fail(&delayed), &amqp.ServeOptions{
			Retry: &amqp.Retry{Delays: []time.Duration{100 * time.Millisecond, time.Second}, Parking: "parked"}})
		go c.Serve(ctx, amqp.BasicConsume{Queue: "counted"}, fail(&counted), &amqp.ServeOptions{
			Delay: 10 * time.Millisecond,
			Retry: &amqp.Retry{Limit: 4, Parking: "parked2"}})
		parked := func(queue string, n *atomic.Int32, want int32) {
			t.Helper()
			sub, err := c.Subscribe(ctx, amqp.BasicConsume{Queue: queue}, &amqp.ConsumeOptions{Resume: &amqp.Resume{Declare: &amqp.Queue{Name: queue, Type: map[bool]amqp.QueueType{true: kind, false: amqp.Quorum}[queue == "parked"]}}})
			if err != nil {
				t.Fatal(err)
			}
			for d, err := range sub.All() {
				noError(t, err)
				noError(t, d.Ack())
				break
			}
			if got := n.Load(); got != want {
				t.Errorf("%s, %s: handled %d times, want %d", kind, queue, got, want)
			}
		}
		noError(t, c.Publish(ctx, amqp.BasicPublish{RoutingKey: "work", Mandatory: true}, text("x")))
		noError(t, c.Publish(ctx, amqp.BasicPublish{RoutingKey: "counted", Mandatory: true}, text("x")))
		parked("parked", &delayed, 3)
		parked("parked2", &counted, 4)
		noError(t, c.Close())
	}
}

func TestSubscription_StreamResumesOnRabbitMQ(t *testing.T) {
	b := rabbittest.Shared(t)
	vhost := unique("streams")
	url := b.AddVHost(t, vhost)
	ctx := patiently(t)
	c := newServiceClient(t, url, amqp.ClientConfig{Topology: &amqp.Topology{Queues: []amqp.Queue{amqp.StreamQueue("log", 0, 0)}}})
	for _, s := range numbered(50) {
		noError(t, c.Publish(ctx, amqp.BasicPublish{RoutingKey: "log"}, text(s)))
	}
	sub, err := c.Subscribe(ctx, amqp.BasicConsume{Queue: "log", Arguments: amqp.Table{"x-stream-offset": "first"}},
		&amqp.ConsumeOptions{Prefetch: 10})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for d, err := range sub.All() {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, string(d.Body))
		noError(t, d.Ack())
		if len(got) == 20 {
			b.Ctl(t, "close_all_connections", "--vhost", vhost, "seeded")
		}
		if len(got) == 50 {
			break
		}
	}
	want := numbered(50)
	for i := range want {
		if got[i] != want[i] {
			t.Fatalf("got %q", got)
		}
	}
}

// TestClient_PoisonBySizeOnRabbitMQ publishes over the broker's max_message_size,
// which is 16 MiB from 4.0 on, and 128 MiB before.
func TestClient_PoisonBySizeOnRabbitMQ(t *testing.T) {
	b := rabbittest.Shared(t)
	top := &amqp.Topology{Exchanges: []amqp.Exchange{{Name: "by size", Type: "fanout"}}}
	for _, resend := range []bool{false, true} {
		c := newServiceClient(t, b.URL(), amqp.ClientConfig{Config: amqp.Config{MaxBody: -1}, Topology: top, Resend: resend})
		ctx := loadContext(t)
		m := amqp.BasicPublish{Exchange: "by size"}
		var good []*amqp.Confirm
		var poison error
		for i := range 400 {
			if i == 200 {
				poison = c.Publish(ctx, m, amqp.Message{Body: make([]byte, 16<<20+1)})
			}
			cf, err := c.PublishAsync(ctx, m, amqp.Message{Body: make([]byte, 1000)})
			if err != nil {
				t.Fatal(err)
			}
			good = append(good, cf)
		}
		if refused := errors.Is(poison, amqp.PreconditionFailed) && !errors.Is(poison, amqp.ErrUnknownOutcome); refused != b.AtLeast(4, 0) || !refused && poison != nil {
			t.Errorf("resend %v: over 16 MiB: %v", resend, poison)
		}
		for i, cf := range good {
			if err := cf.Wait(ctx); err != nil {
				t.Errorf("resend %v: %d: %v", resend, i, err)
			}
		}
	}
}

// TestClient_MaxBytesOnRabbitMQ holds the broker back for longer than it takes
// to give a silent peer up: neither side does, and everything comes.
func TestClient_MaxBytesOnRabbitMQ(t *testing.T) {
	const n, size, budget = 300, 64 << 10, 2 << 20
	url := rabbittest.URL(t)
	ctx := loadContext(t)
	top := &amqp.Topology{Queues: []amqp.Queue{amqp.ClassicQueue("bulk")}}
	pub := newServiceClient(t, url, amqp.ClientConfig{Topology: top})
	for range n {
		noError(t, pub.Publish(ctx, amqp.BasicPublish{RoutingKey: "bulk"}, amqp.Message{Body: make([]byte, size)}))
	}
	c := newServiceClient(t, url, amqp.ClientConfig{Config: amqp.Config{Heartbeat: 2 * time.Second}, MaxBytes: budget})
	sub, err := c.Subscribe(ctx, amqp.BasicConsume{Queue: "bulk"}, &amqp.ConsumeOptions{Prefetch: n})
	if err != nil {
		t.Fatal(err)
	}
	got, most := 0, int64(0)
	for d, err := range sub.All() {
		if err != nil {
			t.Fatal(err)
		}
		if got == 0 {
			time.Sleep(12 * time.Second)
			most = c.Stats().Buffered
		}
		noError(t, d.Ack())
		if got++; got == n {
			break
		}
	}
	// Half of the budget, and what the reads at the start, after 5 s and after 10 s take it over that.
	if s := c.Stats(); s.Opened != 1 || most < budget/4 || most > budget/2+4*(256<<10+size) {
		t.Errorf("%d bytes were buffered; %+v", most, s)
	}
}
