package amqp_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/warrenmq/warren/amqp"
	"github.com/warrenmq/warren/amqp/amqptest"
)

func TestTopology_RefusesWhatNoBrokerAccepts(t *testing.T) {
	long := strings.Repeat("n", 256)
	queue := func(q amqp.Queue, f func(*amqp.Queue)) amqp.Topology {
		f(&q)
		return amqp.Topology{Queues: []amqp.Queue{q}}
	}
	classic, quorum, stream := amqp.ClassicQueue("q"), amqp.QuorumQueue("q"), amqp.StreamQueue("q", 0, 0)
	for want, topology := range map[string]amqp.Topology{
		"default exchange":             {Exchanges: []amqp.Exchange{{Type: "fanout"}}},
		`exchange "amq.x"`:             {Exchanges: []amqp.Exchange{{Name: "amq.x"}}},
		"over 255 bytes":               {Exchanges: []amqp.Exchange{{Name: long}}},
		`exchange "x": amqp: call ref`: {Exchanges: []amqp.Exchange{{Name: "x"}, {Name: "x"}}},
		`queue "q": amqp: call refuse`: {Queues: []amqp.Queue{classic, classic}},
		"belongs to its consumer":      {Queues: []amqp.Queue{amqp.TemporaryQueue()}},
		`queue "amq.q"`:                {Queues: []amqp.Queue{{Name: "amq.q"}}},
		"none of classic, quorum":      queue(classic, func(q *amqp.Queue) { q.Type = "mirrored" }),
		"always durable":               queue(quorum, func(q *amqp.Queue) { q.Transient = true }),
		"can't be exclusive":           queue(stream, func(q *amqp.Queue) { q.Exclusive = true }),
		"deleted automatically":        queue(quorum, func(q *amqp.Queue) { q.AutoDelete = true }),
		"MaxPriority is for":           queue(quorum, func(q *amqp.Queue) { q.MaxPriority = 5 }),
		"RejectPublishDLX is for":      queue(quorum, func(q *amqp.Queue) { q.Overflow = amqp.RejectPublishDLX }),
		"Overflow x is none":           queue(classic, func(q *amqp.Queue) { q.Overflow = "x" }),
		"DeliveryLimit and":            queue(classic, func(q *amqp.Queue) { q.DeliveryLimit = 3 }),
		"dead-lettered":                queue(stream, func(q *amqp.Queue) { q.DeadLetter = &amqp.DeadLetter{} }),
		"not TTL or Expires":           queue(stream, func(q *amqp.Queue) { q.TTL = time.Second }),
		"not by MaxLength":             queue(stream, func(q *amqp.Queue) { q.MaxLength = 3 }),
		"no Overflow":                  queue(stream, func(q *amqp.Queue) { q.Overflow = amqp.DropHead }),
		"no SingleActiveConsumer":      queue(stream, func(q *amqp.Queue) { q.SingleActiveConsumer = true }),
		"are for streams":              queue(classic, func(q *amqp.Queue) { q.MaxAge = time.Hour }),
		"MaxAge is below a second":     queue(stream, func(q *amqp.Queue) { q.MaxAge = time.Millisecond }),
		"SegmentBytes is negative":     queue(stream, func(q *amqp.Queue) { q.SegmentBytes = 4e9 }),
		"TTL is negative":              queue(classic, func(q *amqp.Queue) { q.TTL = -1 }),
		"TTL is below":                 queue(classic, func(q *amqp.Queue) { q.TTL = time.Microsecond }),
		"longest time-out":             queue(classic, func(q *amqp.Queue) { q.Expires = 50 * 24 * time.Hour }),
		"MaxLength is negative":        queue(classic, func(q *amqp.Queue) { q.MaxLength = -1 }),
		"MaxBytes is negative":         queue(classic, func(q *amqp.Queue) { q.MaxBytes = -1 }),
		"AtLeastOnce is for":           queue(classic, func(q *amqp.Queue) { q.DeadLetter = &amqp.DeadLetter{AtLeastOnce: true} }),
		"asks for Overflow":            queue(quorum, func(q *amqp.Queue) { q.DeadLetter = &amqp.DeadLetter{AtLeastOnce: true} }),
		"cannot encode":                queue(classic, func(q *amqp.Queue) { q.Arguments = amqp.Table{"x": make(chan int)} }),
		"Source is empty":              {Bindings: []amqp.Binding{{Queue: "q"}}},
		"one of Queue and Exchange":    {Bindings: []amqp.Binding{{Source: "x", Queue: "q", Exchange: "y"}}},
		"x-match is some":              {Bindings: []amqp.Binding{{Source: "x", Queue: "q", Arguments: amqp.Table{"x-match": "some"}}}},
	} {
		err := topology.Validate()
		var typed *amqp.TopologyError
		if !errors.As(err, &typed) || !errors.Is(err, amqp.ErrRefused) || !strings.Contains(err.Error(), want) {
			t.Errorf("want %q, got %v", want, err)
		}
		if _, err := amqp.NewClient("amqp://localhost", &amqp.ClientConfig{Topology: &topology}); !errors.As(err, &typed) {
			t.Errorf("NewClient: %q: got %v", want, err)
		}
	}
}

// What the constructors and fields make is taken by the broker.
func TestTopology_DeclaresEverything(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := amqptest.NewServer(t)
		quorum := amqp.QuorumQueue("quorum")
		quorum.DeliveryLimit, quorum.TTL, quorum.SingleActiveConsumer = 5, time.Minute, true
		quorum.Overflow, quorum.DeadLetter = amqp.RejectPublish, &amqp.DeadLetter{Exchange: "dead", RoutingKey: "k", AtLeastOnce: true}
		quorum.ConsumerTimeout, quorum.MaxLength, quorum.MaxBytes = time.Hour, 10, 1000
		classic := amqp.ClassicQueue("classic")
		classic.MaxPriority, classic.Expires, classic.Overflow = 9, time.Hour, amqp.RejectPublishDLX
		classic.Arguments = amqp.Table{"x-custom": "kept"}
		stream := amqp.StreamQueue("stream", 24*time.Hour, 1<<30)
		stream.SegmentBytes = 1 << 20
		exclusive := amqp.Queue{Name: "mine", Exclusive: true, Transient: true}
		topology := &amqp.Topology{
			Exchanges: []amqp.Exchange{{Name: "dead"}, {Name: "in", Type: "headers", Alternate: "dead"}, {Name: "out", Type: "fanout", Transient: true, AutoDelete: true, Internal: true}},
			Queues:    append(amqp.QuorumWithParking("work", 3), quorum, classic, stream, exclusive),
			Bindings: []amqp.Binding{
				{Source: "in", Exchange: "out", Arguments: amqp.Table{"x-match": "any", "a": "b"}},
				{Source: "out", Queue: "quorum"}, {Source: "dead", Queue: "mine", RoutingKey: "k"},
			},
		}
		c := newClient(t, srv, &amqp.ClientConfig{Topology: topology})
		ctx := within(t, time.Minute)
		if err := c.Await(ctx, amqp.Connected); err != nil { // the publishing connection
			t.Fatal(err)
		}
		if _, ok := srv.Queue("mine"); ok {
			t.Error("an exclusive queue was declared on the publishing connection")
		}
		ch, err := c.Channel(ctx) // the consuming one
		if err != nil {
			t.Fatal(err)
		}
		if err := c.TopologyErr(); err != nil {
			t.Error(err)
		}
		if n := len(srv.Queues()); n != 6 {
			t.Errorf("%d queues: %+v", n, srv.Queues())
		}
		if n := len(srv.Bindings()); n != 3 {
			t.Errorf("%d bindings: %+v", n, srv.Bindings())
		}
		q, _ := srv.Queue("quorum")
		for key, want := range map[string]any{"x-delivery-limit": int64(5), "x-message-ttl": int64(60000), "x-dead-letter-strategy": "at-least-once"} {
			if got := q.Arguments[key]; got != want {
				t.Errorf("%s is %v, want %v", key, got, want)
			}
		}
		if err := topology.Apply(ctx, ch.Conn()); err != nil {
			t.Errorf("declared again: %v", err)
		}
	})
}

func TestClient_AnEntityThatIsRefusedDoesNotStopTheRest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := amqptest.NewServer(t)
		srv.RefuseQueueDeclare("bad", amqp.PreconditionFailed, "inequivalent arg")
		srv.RefuseQueueDeclare("forbidden", amqp.AccessRefused, "no permission")
		srv.RefuseQueueDeclare("locked", amqp.ResourceLocked, "half-open")
		told := map[string]int{}
		c := newClient(t, srv, &amqp.ClientConfig{
			Config: amqp.Config{Trace: &amqp.Trace{Topology: func(_ context.Context, err *amqp.TopologyError) { told[err.Kind+" "+err.Name]++ }}},
			Topology: &amqp.Topology{
				Exchanges: []amqp.Exchange{{Name: "x", Type: "fanout"}},
				Queues:    []amqp.Queue{amqp.ClassicQueue("bad"), amqp.ClassicQueue("forbidden"), amqp.ClassicQueue("locked"), amqp.ClassicQueue("good")},
				Bindings:  []amqp.Binding{{Source: "x", Queue: "locked"}, {Source: "x", Queue: "good"}},
			},
		})
		ctx := within(t, 10*time.Minute)
		if err := c.Publish(ctx, amqp.BasicPublish{Exchange: "x", Mandatory: true}, text("one")); err != nil {
			t.Fatal(err)
		}
		err := c.TopologyErr()
		var typed *amqp.TopologyError
		if !errors.As(err, &typed) || typed.Name != "bad" || !errors.Is(err, amqp.PreconditionFailed) || !errors.Is(err, amqp.AccessRefused) || !errors.Is(err, amqp.ResourceLocked) {
			t.Errorf("got %v", err)
		}
		if told["queue bad"] != 1 || told["queue forbidden"] != 1 || told["queue locked"] != 1 {
			t.Errorf("told %v", told)
		}
		before := c.Stats().Publishing.FramesOut
		time.Sleep(time.Minute)
		if n := c.Stats().Publishing.FramesOut - before; n > 100 {
			t.Errorf("%d frames in a minute of refusals", n)
		}
		srv.Heal()
		time.Sleep(time.Minute)
		if q, ok := srv.Queue("locked"); !ok || c.Publish(ctx, amqp.BasicPublish{Exchange: "x"}, text("two")) != nil {
			t.Errorf("what was locked was not declared later: %v", q)
		}
		if err := c.TopologyErr(); !errors.Is(err, amqp.PreconditionFailed) || !errors.Is(err, amqp.AccessRefused) || errors.Is(err, amqp.ResourceLocked) {
			t.Errorf("got %v", err)
		}
	})
}
