//go:build integration

package amqp_test

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"testing"
	"time"

	"github.com/warrenmq/warren/amqp"
	"github.com/warrenmq/warren/internal/rabbittest"
)

// The tests in *_integration_test.go run on the broker of RABBITMQ_IMAGE. Where
// versions of RabbitMQ differ, each is held to what it was seen to do.

// patience bounds what has to happen at last. It is long since nothing is
// proved by a slow machine.
const patience = time.Minute

// patiently is a context for one wait that has to end well.
func patiently(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

// briefly is a context for one wait that has to be given up.
func briefly(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
	t.Cleanup(cancel)
	return ctx
}

// mustDial connects to the shared broker and closes the connection with the test.
func mustDial(t testing.TB, cfg *amqp.Config) *amqp.Conn {
	t.Helper()
	return mustDialURL(t, rabbittest.Shared(t).URL(), cfg)
}

func mustDialURL(t testing.TB, url string, cfg *amqp.Config) *amqp.Conn {
	t.Helper()
	c, err := amqp.Dial(patiently(t), url, cfg)
	if err != nil {
		t.Fatal(err)
	}
	closeWithTest(t, c)
	return c
}

// closeWithTest closes a connection or a client when the test ends. Where the
// test does not end, it is closed all the same, and the test fails: a loop over
// deliveries that do not come ends then, where it would hold up all other tests
// until the time of the whole package is over.
func closeWithTest(t testing.TB, c io.Closer) {
	t.Helper()
	const most = 5 * patience
	stuck := time.AfterFunc(most, func() { c.Close() })
	t.Cleanup(func() {
		if !stuck.Stop() {
			t.Errorf("not done within %v", most)
		}
		c.Close()
	})
}

func mustOpen(t testing.TB, c *amqp.Conn) *amqp.Channel {
	t.Helper()
	ch, err := c.Channel(patiently(t))
	if err != nil {
		t.Fatal(err)
	}
	return ch
}

// newSession is a connection and a channel of the test's own.
func newSession(t testing.TB) (*amqp.Conn, *amqp.Channel) {
	t.Helper()
	c := mustDial(t, nil)
	return c, mustOpen(t, c)
}

// unique is a name that nobody else has.
func unique(prefix string) string { return prefix + "-" + rand.Text()[:10] }

// exclusiveQueue declares a queue that goes with the channel's connection.
func exclusiveQueue(t testing.TB, ch *amqp.Channel, args amqp.Table) string {
	t.Helper()
	ok, err := ch.QueueDeclare(patiently(t), amqp.QueueDeclare{Exclusive: true, Arguments: args})
	if err != nil {
		t.Fatal(err)
	}
	return ok.Queue
}

// durableQueue declares a queue that several connections may use and that outlives
// them; it is deleted when the test ends, over a connection of its own.
func durableQueue(t testing.TB, ch *amqp.Channel, args amqp.Table) string {
	t.Helper()
	name := unique("q")
	if _, err := ch.QueueDeclare(patiently(t), amqp.QueueDeclare{Queue: name, Durable: true, Arguments: args}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c, err := amqp.Dial(patiently(t), rabbittest.Shared(t).URL(), nil)
		if err != nil {
			t.Error(err)
			return
		}
		defer c.Close()
		_, err = mustOpen(t, c).QueueDelete(patiently(t), amqp.QueueDelete{Queue: name})
		noError(t, err)
	})
	return name
}

func noError(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Error(err)
	}
}

// mustPut publishes messages to a queue and waits for their confirms.
func mustPut(t testing.TB, ch *amqp.Channel, queue string, bodies ...string) {
	t.Helper()
	var last []*amqp.Confirm
	for _, body := range bodies {
		cf, err := ch.PublishAsync(patiently(t), toQueue(queue), amqp.Message{Body: []byte(body)})
		if err != nil {
			t.Fatal(err)
		}
		last = append(last, cf)
	}
	for _, cf := range last {
		if err := cf.Wait(patiently(t)); err != nil {
			t.Fatal(err)
		}
	}
}

// toQueue addresses a queue by the default exchange. Mandatory, so that a queue that
// is not there is an error.
func toQueue(queue string) amqp.BasicPublish {
	return amqp.BasicPublish{RoutingKey: queue, Mandatory: true}
}

// numbered are bodies "0", "1" and so on.
func numbered(n int) []string {
	var s []string
	for i := range n {
		s = append(s, fmt.Sprint(i))
	}
	return s
}

// mustGet takes a message that is in the queue, without acks.
func mustGet(t testing.TB, ch *amqp.Channel, queue string) *amqp.Delivery {
	t.Helper()
	d, err := ch.Get(patiently(t), amqp.BasicGet{Queue: queue, NoAck: true})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func mustSubscribe(t testing.TB, ch *amqp.Channel, queue string, opts *amqp.ConsumeOptions) *amqp.Consumer {
	t.Helper()
	cons, err := ch.Subscribe(patiently(t), amqp.BasicConsume{Queue: queue}, opts)
	if err != nil {
		t.Fatal(err)
	}
	return cons
}

// mustTake gives the next n deliveries of a consumer, which have to come.
func mustTake(t testing.TB, cons *amqp.Consumer, n int) []*amqp.Delivery {
	t.Helper()
	stop := time.AfterFunc(patience, func() { cons.Close(context.Background()) })
	defer stop.Stop()
	var ds []*amqp.Delivery
	if n == 0 {
		return nil
	}
	for d, err := range cons.All() {
		if err != nil {
			t.Fatalf("after %d of %d deliveries: %v", len(ds), n, err)
		}
		if ds = append(ds, d); len(ds) == n {
			return ds
		}
	}
	t.Fatalf("%d deliveries came, not %d", len(ds), n)
	return nil
}

func bodiesOf(ds []*amqp.Delivery) []string {
	var s []string
	for _, d := range ds {
		s = append(s, string(d.Body))
	}
	return s
}

// queueDepth is how many messages a queue has ready, and how many consumers.
func queueDepth(t testing.TB, ch *amqp.Channel, queue string) (messages, consumers int) {
	t.Helper()
	ok, err := ch.QueueDeclare(patiently(t), amqp.QueueDeclare{Queue: queue, Passive: true})
	if err != nil {
		t.Fatal(err)
	}
	return int(ok.MessageCount), int(ok.ConsumerCount)
}

// eventually waits for a condition that the broker brings about in its time.
func eventually(t testing.TB, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !f(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("never happened: %s", what)
		}
	}
}

// mustSettle waits until a queue has n messages ready: what a consumer gave back
// comes a moment later.
func mustSettle(t testing.TB, ch *amqp.Channel, queue string, n int) {
	t.Helper()
	eventually(t, fmt.Sprintf("%d messages in %s", n, queue), func() bool {
		got, _ := queueDepth(t, ch, queue)
		return got == n
	})
}

// mustEnd waits for a channel to be closed.
func mustEnd(t testing.TB, what string, done <-chan struct{}) {
	t.Helper()
	select {
	case <-done:
	case <-time.After(patience):
		t.Fatalf("never happened: %s", what)
	}
}

// wantCode holds an error to a broker's exception: its code, and that it was
// the broker who said it.
func wantCode(t testing.TB, err error, code amqp.ReplyCode) *amqp.Error {
	t.Helper()
	var ex *amqp.Error
	if !errors.As(err, &ex) || !errors.Is(err, code) || !ex.Remote {
		t.Fatalf("got %v, want the broker's %v", err, code)
	}
	return ex
}

func wantErr(t testing.TB, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("got %v, want %v", err, want)
	}
}

// mustLive holds a connection to being usable.
func mustLive(t testing.TB, c *amqp.Conn) {
	t.Helper()
	if err := c.Err(); err != nil {
		t.Fatalf("the connection is gone: %v", err)
	}
	ch := mustOpen(t, c)
	exclusiveQueue(t, ch, nil)
	if err := ch.Close(patiently(t)); err != nil {
		t.Fatal(err)
	}
}

// mustWork holds a channel to being usable.
func mustWork(t testing.TB, ch *amqp.Channel) {
	t.Helper()
	q := exclusiveQueue(t, ch, nil)
	if _, err := ch.QueueDelete(patiently(t), amqp.QueueDelete{Queue: q}); err != nil {
		t.Fatal(err)
	}
}
