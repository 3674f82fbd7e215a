package amqp_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/warrenmq/warren/amqp"
	"github.com/warrenmq/warren/amqp/amqptest"
)

// ioFault is what is done to one read or write.
type ioFault uint8

const (
	faultEOF ioFault = iota
	faultReset
	faultShort // one octet goes, and of a write no more
	faultTimeout
	faultCancel // the conversation's context ends
	ioFaults
)

func (f ioFault) String() string {
	return [...]string{"EOF", "reset", "short", "time-out", "cancelled context"}[f]
}

// ioPlan counts the reads and writes of a client's connections, and fails one.
type ioPlan struct {
	mu     sync.Mutex // guards what follows
	n      int
	at     int // the operation to fail, from 1; 0: none
	fault  ioFault
	cancel context.CancelFunc
	fired  bool
}

func (p *ioPlan) due() (ioFault, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.n++; p.n != p.at {
		return 0, false
	}
	p.fired = true
	return p.fault, true
}

type plannedConn struct {
	net.Conn
	p *ioPlan
}

func (c *plannedConn) Read(b []byte) (int, error) {
	fault, due := c.p.due()
	if !due {
		return c.Conn.Read(b)
	}
	switch fault {
	case faultEOF:
		c.Conn.Close()
		return 0, io.EOF
	case faultReset: // what came is lost with it
		c.Conn.Read(b)
		c.Conn.Close()
		return 0, &net.OpError{Op: "read", Net: "tcp", Err: syscall.ECONNRESET}
	case faultShort:
		return c.Conn.Read(b[:1])
	case faultTimeout:
		return 0, &net.OpError{Op: "read", Net: "tcp", Err: os.ErrDeadlineExceeded}
	}
	c.p.cancel()
	return c.Conn.Read(b)
}

func (c *plannedConn) Write(b []byte) (int, error) {
	fault, due := c.p.due()
	if !due {
		return c.Conn.Write(b)
	}
	switch fault {
	case faultEOF:
		c.Conn.Close()
		return 0, io.ErrClosedPipe
	case faultReset:
		c.Conn.Close()
		return 0, &net.OpError{Op: "write", Net: "tcp", Err: syscall.EPIPE}
	case faultShort:
		n, _ := c.Conn.Write(b[:1])
		c.Conn.Close()
		return n, io.ErrShortWrite
	case faultTimeout:
		n, _ := c.Conn.Write(b[:len(b)/2])
		return n, &net.OpError{Op: "write", Net: "tcp", Err: os.ErrDeadlineExceeded}
	}
	c.p.cancel()
	return c.Conn.Write(b)
}

// conversation is something that clients do. It returns the first error.
type conversation struct {
	resend bool
	talk   func(ctx context.Context, c *amqp.Client) error
}

var conversationTopology = &amqp.Topology{
	Exchanges: []amqp.Exchange{{Name: "orders", Type: "topic"}},
	Queues:    []amqp.Queue{amqp.ClassicQueue("orders.all"), amqp.QuorumQueue("work"), amqp.StreamQueue("log", 0, 0)},
	Bindings:  []amqp.Binding{{Source: "orders", Queue: "orders.all", RoutingKey: "#"}},
}

var toOrders = amqp.BasicPublish{Exchange: "orders", RoutingKey: "k", Mandatory: true}

var conversations = map[string]conversation{
	"publish": {talk: publishTalk}, "publish with resend": {talk: publishTalk, resend: true},
	"publish many": {talk: manyTalk}, "publish many with resend": {talk: manyTalk, resend: true},
	"publish a large body": {talk: func(ctx context.Context, c *amqp.Client) error {
		return c.Publish(ctx, toOrders, amqp.Message{Body: bytes.Repeat([]byte("x"), 300_000)})
	}},
	"publish to nobody": {talk: func(ctx context.Context, c *amqp.Client) error {
		return except(c.Publish(ctx, amqp.BasicPublish{RoutingKey: "nobody", Mandatory: true}, text("x")), amqp.NoRoute)
	}},
	"publish to nowhere": {talk: func(ctx context.Context, c *amqp.Client) error {
		return except(c.Publish(ctx, amqp.BasicPublish{Exchange: "nowhere"}, text("x")), amqp.NotFound)
	}},
	"publish poison": {talk: func(ctx context.Context, c *amqp.Client) error {
		return except(c.Publish(ctx, toOrders, amqp.Message{Properties: amqp.Properties{UserID: "x"}}), amqp.PreconditionFailed)
	}},
	"ping":  {talk: func(ctx context.Context, c *amqp.Client) error { return c.Ping(ctx) }},
	"await": {talk: func(ctx context.Context, c *amqp.Client) error { return c.Await(ctx, amqp.Connected) }},
	"shutdown": {talk: func(ctx context.Context, c *amqp.Client) error {
		return errors.Join(publishTalk(ctx, c), c.Shutdown(ctx))
	}},
	"declare": {talk: adminTalk(func(ctx context.Context, ch *amqp.Channel) error {
		_, err := ch.QueueDeclare(ctx, amqp.QueueDeclare{Queue: "tmp"})
		return err
	})},
	"bind, purge and delete": {talk: adminTalk(func(ctx context.Context, ch *amqp.Channel) error {
		if _, err := ch.QueueDeclare(ctx, amqp.QueueDeclare{Queue: "tmp"}); err != nil {
			return err
		}
		if err := ch.QueueBind(ctx, amqp.QueueBind{Queue: "tmp", Exchange: "orders", RoutingKey: "t"}); err != nil {
			return err
		}
		if _, err := ch.QueuePurge(ctx, amqp.QueuePurge{Queue: "tmp"}); err != nil {
			return err
		}
		_, err := ch.QueueDelete(ctx, amqp.QueueDelete{Queue: "tmp"})
		return err
	})},
	"get": {talk: adminTalk(func(ctx context.Context, ch *amqp.Channel) error {
		_, err := ch.Get(ctx, amqp.BasicGet{Queue: "orders.all"})
		return except(err, amqp.ErrEmpty)
	})},
	"transact": {talk: adminTalk(func(ctx context.Context, ch *amqp.Channel) error {
		if err := ch.TxSelect(ctx); err != nil {
			return err
		}
		if err := ch.BasicPublish(ctx, toOrders, text("x")); err != nil {
			return err
		}
		return ch.TxCommit(ctx)
	})},
	"declare otherwise": {talk: adminTalk(func(ctx context.Context, ch *amqp.Channel) error {
		_, err := ch.QueueDeclare(ctx, amqp.QueueDeclare{Queue: "orders.all"})
		return except(err, amqp.PreconditionFailed)
	})},
	"subscribe and ack":     {talk: subscribeTalk("orders.all", (*amqp.Delivery).Ack, nil), resend: true},
	"subscribe and reject":  {talk: subscribeTalk("work", (*amqp.Delivery).Reject, nil), resend: true},
	"subscribe to a stream": {talk: subscribeTalk("log", (*amqp.Delivery).Ack, nil), resend: true},
	"subscribe to a temporary queue": {talk: subscribeTalk("", (*amqp.Delivery).Ack, &amqp.ConsumeOptions{Resume: &amqp.Resume{
		Declare: &amqp.Queue{Exclusive: true, Transient: true}}}), resend: true},
	"serve":           {talk: serveTalk(nil), resend: true},
	"serve and retry": {talk: serveTalk(&amqp.Retry{Delays: []time.Duration{time.Second}, Parking: "parked"}), resend: true},
}

func publishTalk(ctx context.Context, c *amqp.Client) error {
	return c.Publish(ctx, toOrders, text("x"))
}

func manyTalk(ctx context.Context, c *amqp.Client) error {
	var errs []error
	var confirms []*amqp.Confirm
	for range 10 {
		cf, err := c.PublishAsync(ctx, toOrders, text("x"))
		if err != nil {
			errs = append(errs, err)
			continue
		}
		confirms = append(confirms, cf)
	}
	for _, cf := range confirms {
		errs = append(errs, cf.Wait(ctx))
	}
	return errors.Join(errs...)
}

func adminTalk(f func(ctx context.Context, ch *amqp.Channel) error) func(context.Context, *amqp.Client) error {
	return func(ctx context.Context, c *amqp.Client) error {
		ch, err := c.Channel(ctx)
		if err != nil {
			return err
		}
		if err := f(ctx, ch); err != nil {
			return err
		}
		return ch.Close(ctx)
	}
}

func subscribeTalk(queue string, settle func(*amqp.Delivery) error, opts *amqp.ConsumeOptions) func(context.Context, *amqp.Client) error {
	return func(ctx context.Context, c *amqp.Client) error {
		sub, err := c.Subscribe(ctx, amqp.BasicConsume{Queue: queue, Arguments: firstOffset(queue)}, opts)
		if err != nil {
			return err
		}
		stop := context.AfterFunc(ctx, func() { sub.Close(context.Background()) })
		defer stop()
		var published sync.WaitGroup
		published.Go(func() { // again and again, since a temporary queue may be lost with what it held
			for range 50 {
				if c.Publish(ctx, amqp.BasicPublish{RoutingKey: sub.Queue(), Mandatory: true}, text("x")) != nil && ctx.Err() != nil || sub.Err() != nil {
					return
				}
				select {
				case <-time.After(time.Second):
				case <-ctx.Done():
					return
				}
			}
		})
		defer published.Wait()
		n := 0
		for d, err := range sub.All() {
			if err != nil {
				return err
			}
			if err := settle(d); err != nil && !errors.Is(err, amqp.ErrStale) {
				return err
			}
			if n++; n == 3 {
				return sub.Close(ctx)
			}
		}
		return ctx.Err()
	}
}

func firstOffset(queue string) amqp.Table {
	if queue == "log" {
		return amqp.Table{"x-stream-offset": "first"}
	}
	return nil
}

func serveTalk(retry *amqp.Retry) func(context.Context, *amqp.Client) error {
	return func(ctx context.Context, c *amqp.Client) error {
		if err := c.Publish(ctx, amqp.BasicPublish{RoutingKey: "work"}, text("x")); err != nil {
			return err
		}
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		handled := 0
		return c.Serve(ctx, amqp.BasicConsume{Queue: "work"}, func(context.Context, *amqp.Delivery) error {
			if handled++; retry != nil && handled == 1 {
				return errors.New("once more")
			}
			cancel()
			return nil
		}, &amqp.ServeOptions{Retry: retry})
	}
}

// except takes away the error that is expected.
func except(err, want error) error {
	if errors.Is(err, want) && !errors.Is(err, amqp.ErrUnknownOutcome) {
		return nil
	}
	if err == nil {
		return fmt.Errorf("no %v", want)
	}
	return err
}

// TestClient_EveryReadAndWriteFailsInTurn plays each conversation as often as
// it has reads and writes, times the ways in which one can fail. Whatever
// happens it ends, with success or an error that tells the truth; the client
// works afterwards; and nothing is left running.
func TestClient_EveryReadAndWriteFailsInTurn(t *testing.T) {
	if len(conversations) < 20 {
		t.Errorf("%d conversations", len(conversations))
	}
	faults, failed := 0, 0
	for name, talk := range conversations {
		ops := 0
		synctest.Test(t, func(t *testing.T) { ops, _ = converse(t, name, talk, 0, 0) })
		if ops < 10 {
			t.Errorf("%s: %d reads and writes", name, ops)
		}
		step := 1
		if amqp.RaceEnabled || testing.Short() {
			step = 9 // each takes ten times as long
		}
		for at := 1; at <= ops; at += step {
			for fault := range ioFaults {
				synctest.Test(t, func(t *testing.T) {
					if _, err := converse(t, name, talk, at, fault); err != nil {
						failed++
					}
				})
				faults++
			}
		}
	}
	t.Logf("%d conversations, %d failed reads and writes; %d ended in an error", len(conversations), faults, failed)
}

// converse plays a conversation once, with the fault of one operation, and
// reports how many operations there were.
func converse(t *testing.T, name string, talk conversation, at int, fault ioFault) (ops int, err error) {
	srv := amqptest.NewServer(t)
	plan := &ioPlan{at: at, fault: fault}
	c := newClient(t, srv, &amqp.ClientConfig{
		Topology: conversationTopology, Resend: talk.resend,
		Config: amqp.Config{Heartbeat: 5 * time.Second, Dial: func(ctx context.Context, network, addr string) (net.Conn, error) {
			nc, err := srv.Dial(ctx, network, addr)
			if err != nil {
				return nil, err
			}
			return &plannedConn{nc, plan}, nil
		}},
	})
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	plan.cancel = cancel
	err = talk.talk(ctx, c)
	plan.mu.Lock()
	ops, fired := plan.n, plan.fired
	plan.mu.Unlock()
	where := fmt.Sprintf("%s, operation %d, %v", name, at, fault)
	switch {
	case err == nil:
	case at == 0:
		t.Errorf("%s: %v", name, err)
	case !fired:
		t.Errorf("%s: %v, and nothing was failed", where, err)
	case fault == faultCancel && errors.Is(err, context.Canceled):
	case errors.Is(err, context.DeadlineExceeded):
		t.Errorf("%s: not done in five minutes: %v", where, err)
	case fault != faultCancel && (errors.Is(err, amqp.ErrUnknownOutcome) || errors.Is(err, amqp.ErrClosed)):
		if talk.resend && !strings.Contains(name, "subscribe") && !strings.Contains(name, "serve") {
			t.Errorf("%s: with resend: %v", where, err)
		}
	default:
		t.Errorf("%s: %v", where, err)
	}
	if name != "shutdown" {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := c.Publish(ctx, toOrders, text("after")); err != nil && !errors.Is(err, amqp.ErrUnknownOutcome) {
			t.Errorf("%s: the client is of no use afterwards: %v", where, err)
		}
	}
	c.Close()
	if most, ok := map[string]int{"publish": 2, "publish many": 11}[name]; ok {
		if n := len(srv.Published("orders")); n > most { // without resend nothing goes twice
			t.Errorf("%s: %d messages arrived of %d", where, n, most)
		}
	}
	return ops, err
}
