//go:build integration

package amqp_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/warrenmq/warren/amqp"
	"github.com/warrenmq/warren/internal/rabbittest"
)

// TestPublish_Confirmed: nil means that the message is in its queue.
func TestPublish_Confirmed(t *testing.T) {
	_, ch := newSession(t)
	for _, kind := range []string{"classic", "quorum", "stream"} {
		q := durableQueue(t, ch, amqp.Table{"x-queue-type": kind})
		noError(t, ch.Publish(patiently(t), toQueue(q), amqp.Message{Properties: amqp.Properties{DeliveryMode: 2}, Body: []byte(kind)}))
		mustSettle(t, ch, q, 1)
	}
}

// TestFieldNote08_OutcomeNacked: full queues that refuse are the one way to a
// nack, and there it is told from the other outcomes.
func TestFieldNote08_OutcomeNacked(t *testing.T) {
	_, ch := newSession(t)
	q := exclusiveQueue(t, ch, amqp.Table{"x-max-length": 1, "x-overflow": "reject-publish"})
	mustPut(t, ch, q, "fits")
	err := ch.Publish(patiently(t), toQueue(q), amqp.Message{Body: []byte("does not")})
	wantErr(t, err, amqp.ErrNacked)
	if errors.Is(err, amqp.ErrUnknownOutcome) || amqp.SafeToRetry(err) {
		t.Errorf("%v is more than nacked", err)
	}
	cf, err := ch.PublishAsync(patiently(t), toQueue(q), amqp.Message{})
	noError(t, err)
	mustEnd(t, "the outcome", cf.Done())
	wantErr(t, cf.Err(), amqp.ErrNacked)
	wantErr(t, cf.Wait(patiently(t)), amqp.ErrNacked)
	mustGet(t, ch, q)
	noError(t, ch.Publish(patiently(t), toQueue(q), amqp.Message{Body: []byte("fits again")}))
}

// TestFieldNote08_OutcomeUnknown has the broker end the connection in the middle
// of a stream of publishes. What it had not answered is unknown, and neither
// nacked nor confirmed; the queue then holds what was confirmed, and of the
// unknown any number.
func TestFieldNote08_OutcomeUnknown(t *testing.T) {
	b := rabbittest.Shared(t)
	c, ch := newSession(t)
	q := durableQueue(t, ch, nil)
	// Config.Unconfirmed keeps some thousands on their way, more than the broker
	// takes at a time.
	var cfs []*amqp.Confirm
	var refused error
	started := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := 0; ; i++ {
			cf, err := ch.PublishAsync(context.Background(), toQueue(q), amqp.Message{Body: make([]byte, 100)})
			if err != nil {
				refused = err
				return
			}
			cfs = append(cfs, cf)
			if i == 10_000 {
				close(started)
			}
		}
	})
	<-started
	b.CloseAllConnections(t, "because the test says so")
	wg.Wait()
	mustEnd(t, "the connection's end", c.Done())
	ex := wantCode(t, c.Err(), amqp.ConnectionForced)
	if !strings.Contains(ex.Text, "because the test says so") {
		t.Errorf("the reason is lost: %q", ex.Text)
	}
	wantCode(t, refused, amqp.ConnectionForced)
	if !amqp.SafeToRetry(refused) {
		t.Errorf("nothing was sent, and it does not say so: %v", refused)
	}
	confirmed, unknown := 0, 0
	for _, cf := range cfs {
		switch err := cf.Wait(patiently(t)); {
		case err == nil:
			confirmed++
		case errors.Is(err, amqp.ErrUnknownOutcome) && errors.Is(err, amqp.ConnectionForced) && !amqp.SafeToRetry(err):
			unknown++
		default:
			t.Fatalf("outcome %v", err)
		}
	}
	t.Logf("%d confirmed, %d unknown", confirmed, unknown)
	if confirmed == 0 || unknown == 0 {
		t.Errorf("%d confirmed, %d unknown: the test shows nothing", confirmed, unknown)
	}
	_, again := newSession(t)
	var n int
	eventually(t, "the broker takes in what it had read", func() bool {
		before := n
		n, _ = queueDepth(t, again, q)
		return n >= confirmed && n == before
	})
	if n > confirmed+unknown {
		t.Errorf("%d messages of %d confirmed and %d unknown", n, confirmed, unknown)
	}
}

// TestFieldNote08_OutcomeUnknownByContext: the caller's end of patience is no
// answer of the broker's.
func TestFieldNote08_OutcomeUnknownByContext(t *testing.T) {
	b := rabbittest.Shared(t)
	_, ch := newSession(t)
	q := exclusiveQueue(t, ch, nil)
	mustPut(t, ch, q, "0")
	b.Pause(t)
	err := ch.Publish(briefly(t), toQueue(q), amqp.Message{Body: []byte("1")})
	wantErr(t, err, amqp.ErrUnknownOutcome)
	wantErr(t, err, context.DeadlineExceeded)
	cf, err := ch.PublishAsync(patiently(t), toQueue(q), amqp.Message{Body: []byte("2")})
	noError(t, err)
	wantErr(t, cf.Wait(briefly(t)), amqp.ErrUnknownOutcome)
	b.Unpause(t)
	noError(t, cf.Wait(patiently(t))) // it can be asked again
	mustPut(t, ch, q, "3")
	if n, _ := queueDepth(t, ch, q); n != 4 {
		t.Errorf("%d messages", n)
	}
}

// TestFieldNote08_CutWithoutAWord: the stream ends without a close method.
func TestFieldNote08_CutWithoutAWord(t *testing.T) {
	b := rabbittest.Shared(t)
	p := rabbittest.NewProxy(t, "tcp", "127.0.0.1:0", b.Addr())
	c := mustDialURL(t, "amqp://"+p.Addr(), nil)
	ch := mustOpen(t, c)
	q := exclusiveQueue(t, ch, nil)
	mustPut(t, ch, q, "x")
	b.Pause(t)
	cf, err := ch.PublishAsync(patiently(t), toQueue(q), amqp.Message{})
	noError(t, err)
	p.Cut()
	wantErr(t, cf.Wait(patiently(t)), amqp.ErrUnknownOutcome)
	mustEnd(t, "the connection's end", c.Done())
	var ex *amqp.Error
	if err := c.Err(); !errors.As(err, &ex) || ex.Code != 0 || ex.Remote {
		t.Errorf("got %#v", err)
	}
	err = ch.Publish(patiently(t), toQueue(q), amqp.Message{})
	wantErr(t, err, amqp.ErrClosed)
	if !amqp.SafeToRetry(err) {
		t.Errorf("nothing was sent: %v", err)
	}
	b.Unpause(t)
}

// TestFieldNote10_ReturnsFindTheirMessage publishes messages that reach a queue
// and messages that do not, side by side, alike but for the routing key, or
// not even that.
func TestFieldNote10_ReturnsFindTheirMessage(t *testing.T) {
	c, ch := newSession(t)
	q := exclusiveQueue(t, ch, nil)
	const n = 500
	var cfs []*amqp.Confirm
	for i := range n {
		key, mandatory := q, true
		switch i % 4 {
		case 1:
			key = "no-such-queue"
		case 2:
			key = fmt.Sprint("no-such-queue-", i)
		case 3:
			key, mandatory = "no-such-queue", false
		}
		props := amqp.Properties{MessageID: fmt.Sprint(i)}
		cf, err := ch.PublishAsync(patiently(t), amqp.BasicPublish{RoutingKey: key, Mandatory: mandatory}, amqp.Message{Properties: props, Body: []byte("same")})
		if err != nil {
			t.Fatal(err)
		}
		cfs = append(cfs, cf)
	}
	for i, cf := range cfs {
		err := cf.Wait(patiently(t))
		if i%4 == 0 || i%4 == 3 {
			noError(t, err)
			continue
		}
		var ret *amqp.ReturnError
		if !errors.As(err, &ret) || !errors.Is(err, amqp.NoRoute) {
			t.Fatalf("message %d: %v", i, err)
		}
		if ret.Message.MessageID != fmt.Sprint(i) || string(ret.Message.Body) != "same" {
			t.Errorf("message %d got the return of %s", i, ret.Message.MessageID)
		}
	}
	if got := c.Stats().Returned; got != n/2 {
		t.Errorf("%d returned, not %d", got, n/2)
	}
	if n, _ := queueDepth(t, ch, q); n != 125 {
		t.Errorf("%d messages", n)
	}

	// Without confirms there is nobody to tell but Trace.
	var seen atomic.Int32
	other := mustOpen(t, mustDial(t, &amqp.Config{Trace: &amqp.Trace{Return: func(context.Context, uint16, *amqp.ReturnError) { seen.Add(1) }}}))
	noError(t, other.BasicPublish(patiently(t), amqp.BasicPublish{RoutingKey: "no-such-queue", Mandatory: true}, amqp.Message{}))
	eventually(t, "the return", func() bool { return seen.Load() == 1 })
}

// TestFieldNote12_ErrorsElsewhere: a hundred publishes of which one names an
// exchange that is not there. The broker confirms none; those before may be in
// the queue, those after are not; and only their channel is gone.
func TestFieldNote12_ErrorsElsewhere(t *testing.T) {
	c, ch := newSession(t)
	bystander := mustOpen(t, c)
	q := exclusiveQueue(t, bystander, nil)
	var cfs []*amqp.Confirm
	for i := range 100 {
		m := toQueue(q)
		if i == 50 {
			m.Exchange = "no-such-exchange"
		}
		cf, err := ch.PublishAsync(patiently(t), m, amqp.Message{})
		if err != nil { // the close has come already
			wantCode(t, err, amqp.NotFound)
			break
		}
		cfs = append(cfs, cf)
	}
	for i, cf := range cfs {
		err := cf.Wait(patiently(t))
		if err == nil && i < 50 {
			continue
		}
		wantErr(t, err, amqp.ErrUnknownOutcome)
		wantErr(t, err, amqp.NotFound)
	}
	ex := wantCode(t, ch.Publish(patiently(t), toQueue(q), amqp.Message{}), amqp.NotFound)
	if !strings.Contains(ex.Text, "no-such-exchange") || ex.Method != amqp.MethodBasicPublish {
		t.Errorf("%+v", ex)
	}
	mustSettle(t, bystander, q, 50)
	mustPut(t, bystander, q, "the other channel goes on")
	mustLive(t, c)
}

// TestPublish_UnconfirmedBound: no more are outstanding than was configured,
// and who waits for room gives up with its context.
func TestPublish_UnconfirmedBound(t *testing.T) {
	b := rabbittest.Shared(t)
	c := mustDial(t, &amqp.Config{Unconfirmed: 10})
	ch := mustOpen(t, c)
	q := exclusiveQueue(t, ch, nil)
	mustPut(t, ch, q, "0")
	b.Pause(t)
	var cfs []*amqp.Confirm
	for range 10 {
		cf, err := ch.PublishAsync(patiently(t), toQueue(q), amqp.Message{})
		noError(t, err)
		cfs = append(cfs, cf)
	}
	_, err := ch.PublishAsync(briefly(t), toQueue(q), amqp.Message{})
	wantErr(t, err, context.DeadlineExceeded)
	if !amqp.SafeToRetry(err) {
		t.Errorf("nothing was sent: %v", err)
	}
	if n := c.Stats().Unconfirmed; n != 10 {
		t.Errorf("%d unconfirmed", n)
	}
	var wg sync.WaitGroup
	for range 30 {
		wg.Go(func() { noError(t, ch.Publish(patiently(t), toQueue(q), amqp.Message{})) })
	}
	b.Unpause(t)
	wg.Wait()
	for _, cf := range cfs {
		noError(t, cf.Wait(patiently(t)))
	}
	if n, _ := queueDepth(t, ch, q); n != 41 {
		t.Errorf("%d messages", n)
	}
}

// TestPublish_BytesAreTheCallersAgain overwrites what was published as soon as
// the call returns.
func TestPublish_BytesAreTheCallersAgain(t *testing.T) {
	_, ch := newSession(t)
	q := exclusiveQueue(t, ch, nil)
	for _, size := range []int{10, 1000, 200_000, 2_000_000} {
		body := make([]byte, size)
		headers := amqp.Table{"n": int32(0)}
		for i := range 20 {
			fillWith(body, byte(i))
			headers["n"] = int32(i)
			_, err := ch.PublishAsync(patiently(t), toQueue(q), amqp.Message{Body: body, Properties: amqp.Properties{Headers: headers}})
			noError(t, err)
		}
		fillWith(body, 0xFF)
		mustPut(t, ch, q, "last")
		for i := range 20 {
			d := mustGet(t, ch, q)
			h, err := d.Headers()
			if err != nil || h["n"] != int32(i) || d.Body[0] != byte(i) || d.Body[size-1] != byte(i) {
				t.Errorf("message %d of %d octets: %v %v %d %d", i, size, h, err, d.Body[0], d.Body[size-1])
			}
		}
		mustGet(t, ch, q)
	}
}

// TestPublish_BytesAreTheCallersAgainHalfway does the same with a broker that
// stops reading in the middle of a message: what the context's end leaves
// unwritten still goes as it was.
func TestPublish_BytesAreTheCallersAgainHalfway(t *testing.T) {
	b := rabbittest.Shared(t)
	_, ch := newSession(t)
	q := exclusiveQueue(t, ch, nil)
	mustPut(t, ch, q, "first")
	b.Pause(t)
	const size = 3 << 20
	body := make([]byte, size)
	var sent []byte
	for i := byte(0); i < 20; i++ {
		fillWith(body, i)
		_, err := ch.PublishAsync(briefly(t), toQueue(q), amqp.Message{Body: body})
		if err != nil && amqp.SafeToRetry(err) {
			wantErr(t, err, context.DeadlineExceeded)
			break
		}
		sent = append(sent, i)
	}
	fillWith(body, 0xFF)
	if len(sent) == 20 {
		t.Error("60 MB went to a broker that reads nothing")
	}
	b.Unpause(t)
	mustSettle(t, ch, q, 1+len(sent))
	mustGet(t, ch, q)
	for _, i := range sent {
		if d := mustGet(t, ch, q); len(d.Body) != size || bytes.Count(d.Body, []byte{i}) != size {
			t.Errorf("message %d came changed", i)
		}
	}
	mustWork(t, ch)
}

func fillWith(p []byte, v byte) {
	for i := range p {
		p[i] = v
	}
}
