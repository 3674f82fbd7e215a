package amqp_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/warrenmq/warren/amqp"
	"github.com/warrenmq/warren/amqp/amqptest"
)

// connectTo dials a server in memory with a Config.
func connectTo(t *testing.T, srv *amqptest.Server, cfg amqp.Config) *amqp.Conn {
	t.Helper()
	cfg.Dial = srv.Dial
	conn, err := amqp.Dial(t.Context(), srv.URI(), &cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// Of 1,000 messages that are outstanding at once, all with the same exchange
// and key, those that reach no queue come back, and each is told so by its own
// Confirm. Some even have the same body.
func TestPublish_ReturnsAreTiedToTheirMessages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := amqptest.NewServer(t)
		conn := connect(t, srv)
		ch := openQueue(t, conn, "q")
		for _, err := range []error{
			ch.ExchangeDeclare(t.Context(), amqp.ExchangeDeclare{Exchange: "h", Type: "headers"}),
			ch.QueueBind(t.Context(), amqp.QueueBind{Queue: "q", Exchange: "h", Arguments: amqp.Table{"route": true}}),
		} {
			if err != nil {
				t.Fatal(err)
			}
		}
		srv.DelayConfirms(time.Second)
		var all []*amqp.Confirm
		lost := func(i int) bool { return i%3 == 1 }
		for i := range 1000 {
			msg := amqp.Message{Body: []byte("the same")}
			if i%2 == 0 {
				msg.Body = fmt.Append(nil, i)
			} else {
				msg.MessageID = fmt.Sprint(i)
			}
			if !lost(i) {
				msg.Headers = amqp.Table{"route": true}
			}
			cf, err := ch.PublishAsync(t.Context(), amqp.BasicPublish{Exchange: "h", RoutingKey: "k", Mandatory: true}, msg)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, cf)
		}
		if n := conn.Stats().Unconfirmed; n != 1000 {
			t.Errorf("%d are outstanding", n)
		}
		for i, cf := range all {
			err := cf.Wait(t.Context())
			if !lost(i) {
				if err != nil {
					t.Errorf("message %d: %v", i, err)
				}
				continue
			}
			var ret *amqp.ReturnError
			switch {
			case !errors.As(err, &ret) || !errors.Is(err, amqp.NoRoute):
				t.Errorf("message %d: %v, want it returned", i, err)
			case i%2 == 0 && string(ret.Message.Body) != fmt.Sprint(i), i%2 == 1 && ret.Message.MessageID != fmt.Sprint(i):
				t.Errorf("message %d: got the return of %q %q", i, ret.Message.Body, ret.Message.MessageID)
			}
		}
		if s := conn.Stats(); s.Returned != 333 || s.Unconfirmed != 0 {
			t.Errorf("%d returned, %d outstanding", s.Returned, s.Unconfirmed)
		}
	})
}

// Nacked and unknown are told apart, whatever order the answers come in.
func TestPublish_FourOutcomes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := amqptest.NewServer(t)
		conn := connect(t, srv)
		ch := openQueue(t, conn, "q")
		publish := func() *amqp.Confirm {
			cf, err := ch.PublishAsync(t.Context(), amqp.BasicPublish{RoutingKey: "q", Mandatory: true}, amqp.Message{})
			if err != nil {
				t.Fatal(err)
			}
			return cf
		}
		good := publish()
		<-good.Done()
		srv.NackNext(1)
		nacked := publish()
		<-nacked.Done()
		srv.DropConfirms(2)
		unknown, unanswered := publish(), publish()
		after := publish()
		<-after.Done()
		if unknown.Err() != nil {
			t.Errorf("told before it was known: %v", unknown.Err())
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := unanswered.Wait(ctx); !errors.Is(err, amqp.ErrUnknownOutcome) || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("after its context: %v", err)
		}
		srv.KillAll()
		for _, cf := range []*amqp.Confirm{unknown, unanswered} {
			var ex *amqp.Error
			err := cf.Wait(t.Context())
			if !errors.Is(err, amqp.ErrUnknownOutcome) || errors.Is(err, amqp.ErrNacked) || !errors.As(err, &ex) || amqp.SafeToRetry(err) {
				t.Errorf("after the connection was lost: %v", err)
			}
		}
		if good.Err() != nil || after.Err() != nil || nacked.Err() != amqp.ErrNacked {
			t.Errorf("confirmed: %v, %v; nacked: %v", good.Err(), after.Err(), nacked.Err())
		}
		if err := ch.Publish(t.Context(), amqp.BasicPublish{RoutingKey: "q"}, amqp.Message{}); !amqp.SafeToRetry(err) || !errors.Is(err, amqp.ErrClosed) {
			t.Errorf("a publish when all is over: %v", err)
		}
	})
}

// Tags and outcomes fit, whatever way the broker says them.
func TestPublish_OutcomesFitTheirTags(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, conn := newScript(t, nil, nil)
		ch, err := conn.Channel(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		var all []*amqp.Confirm
		for range 10 {
			cf, err := ch.PublishAsync(t.Context(), amqp.BasicPublish{RoutingKey: "q"}, amqp.Message{})
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, cf)
		}
		s.say(1, &amqp.BasicAck{DeliveryTag: 7}, &amqp.BasicNack{DeliveryTag: 2}, &amqp.BasicAck{DeliveryTag: 4, Multiple: true},
			&amqp.BasicAck{DeliveryTag: 3}, &amqp.BasicNack{DeliveryTag: 6, Multiple: true}, &amqp.BasicAck{DeliveryTag: 10})
		synctest.Wait()
		s.say(1, &amqp.ChannelClose{ReplyCode: amqp.InternalError})
		synctest.Wait()
		var got string
		for _, cf := range all {
			switch err := cf.Err(); {
			case err == nil:
				got += "+"
			case err == amqp.ErrNacked:
				got += "-"
			case errors.Is(err, amqp.ErrUnknownOutcome) && errors.Is(err, amqp.InternalError):
				got += "?"
			}
		}
		if want := "+-++--+??+"; got != want {
			t.Errorf("outcomes %s, want %s", got, want)
		}
	})
}

func TestPublish_OutstandingIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := amqptest.NewServer(t)
		conn := connectTo(t, srv, amqp.Config{Unconfirmed: 10})
		ch := openQueue(t, conn, "q")
		srv.DelayConfirms(time.Second)
		start := time.Now()
		var wg sync.WaitGroup
		for range 5 {
			wg.Go(func() {
				for range 10 {
					if _, err := ch.PublishAsync(t.Context(), amqp.BasicPublish{RoutingKey: "q"}, amqp.Message{}); err != nil {
						t.Error(err)
					}
					if n := conn.Stats().Unconfirmed; n > 10 {
						t.Errorf("%d are outstanding", n)
					}
				}
			})
		}
		synctest.Wait()
		if s := conn.Stats(); s.Unconfirmed != 10 {
			t.Errorf("%d are outstanding, want 10", s.Unconfirmed)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		if err := ch.Publish(ctx, amqp.BasicPublish{RoutingKey: "q"}, amqp.Message{}); !errors.Is(err, context.DeadlineExceeded) || !amqp.SafeToRetry(err) {
			t.Errorf("with no room until its context ended: %v", err)
		}
		wg.Wait()
		if took := time.Since(start); took != 4*time.Second {
			t.Errorf("50 messages, 10 at a time and each of 1 s, took %v to send", took)
		}
	})
}

// Of each publisher the messages arrive in the order of its calls, and their
// outcomes are theirs.
func TestPublish_OrderPerPublisher(t *testing.T) {
	srv := amqptest.NewServer(t, amqptest.Config{Record: 20000})
	for _, uri := range []string{"", srv.URI()} { // in memory, and over TCP
		conn, err := amqp.Dial(t.Context(), srv.URI(), &amqp.Config{MaxOutbox: 4 << 10, Unconfirmed: 50})
		if uri == "" {
			conn, err = amqp.Dial(t.Context(), srv.URI(), &amqp.Config{Dial: srv.Dial, MaxOutbox: 4 << 10, Unconfirmed: 50})
		}
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		ch := openQueue(t, conn, "q"+fmt.Sprint(uri != ""))
		const publishers, each = 16, 200
		var wg sync.WaitGroup
		for p := range publishers {
			wg.Go(func() {
				for i := range each {
					msg := amqp.Message{Body: fmt.Appendf(nil, "%d %d", p, i)}
					m := amqp.BasicPublish{RoutingKey: "q" + fmt.Sprint(uri != "")}
					var err error
					switch i % 3 {
					case 0:
						err = ch.Publish(t.Context(), m, msg)
					case 1:
						_, err = ch.PublishAsync(t.Context(), m, msg)
					default:
						err = ch.BasicPublish(t.Context(), m, msg)
					}
					if err != nil {
						t.Error(err)
						return
					}
				}
			})
		}
		wg.Wait()
		next := make([]int, publishers)
		cons, err := ch.Subscribe(t.Context(), amqp.BasicConsume{Queue: "q" + fmt.Sprint(uri != ""), NoAck: true}, nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range takeN(t, cons, publishers*each) {
			var p, i int
			fmt.Sscan(string(d.Body), &p, &i)
			if next[p] != i {
				t.Fatalf("publisher %d: message %d where %d was to come", p, i, next[p])
			}
			next[p]++
		}
	}
}
