package amqp_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/warrenmq/warren/amqp"
	"github.com/warrenmq/warren/amqp/amqptest"
)

// alarmed gives a connection that the broker has told of an alarm. The broker
// goes on reading: that is what sets this apart from RabbitMQ, which stops.
func alarmed(t *testing.T, cfg amqp.Config) (*script, *amqp.Channel) {
	t.Helper()
	s, conn := newScript(t, &cfg, nil)
	ch, err := conn.Channel(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	s.say(0, &amqp.ConnectionBlocked{Reason: "low on memory"})
	synctest.Wait()
	if !conn.Stats().Blocked {
		t.Fatal("not blocked")
	}
	return s, ch
}

func TestBlocked_PublishesWaitWithinTheirContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, ch := alarmed(t, amqp.Config{})
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		start := time.Now()
		if err := ch.BasicPublish(ctx, amqp.BasicPublish{}, amqp.Message{}); !errors.Is(err, context.DeadlineExceeded) || !amqp.SafeToRetry(err) {
			t.Errorf("BasicPublish: %v", err)
		}
		if took := time.Since(start); took != 2*time.Second {
			t.Errorf("it took %v", took)
		}
		done := make(chan error)
		for range 3 {
			go func() { done <- ch.BasicPublish(t.Context(), amqp.BasicPublish{}, amqp.Message{}) }()
		}
		time.Sleep(15 * time.Second)
		if n := ch.Conn().Stats().Waiting; n != 3 {
			t.Errorf("%d wait, want 3", n)
		}
		s.say(0, &amqp.ConnectionUnblocked{})
		for range 3 {
			if err := <-done; err != nil {
				t.Errorf("BasicPublish after the alarm: %v", err)
			}
		}
	})
}

func TestBlocked_FailsAtOnceWhereAsked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, ch := alarmed(t, amqp.Config{FailWhenBlocked: true})
		if err := ch.Publish(t.Context(), amqp.BasicPublish{}, amqp.Message{}); err != amqp.ErrBlocked || !amqp.SafeToRetry(err) {
			t.Errorf("Publish: %v", err)
		}
		s.say(0, &amqp.ConnectionUnblocked{})
		synctest.Wait()
		if err := ch.BasicPublish(t.Context(), amqp.BasicPublish{}, amqp.Message{}); err != nil {
			t.Errorf("BasicPublish after the alarm: %v", err)
		}
	})
}

// Acks, calls and closes pass publishers that wait.
func TestBlocked_EverythingElsePasses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, ch := alarmed(t, amqp.Config{})
		failed := make(chan error, 1)
		go func() { failed <- ch.Publish(context.Background(), amqp.BasicPublish{}, amqp.Message{}) }()
		synctest.Wait()
		cons := subscribe(t, ch, &amqp.ConsumeOptions{Prefetch: 1})
		if _, err := ch.QueueDeclare(t.Context(), amqp.QueueDeclare{Queue: "q"}); err != nil {
			t.Error(err)
		}
		s.deliver(1, 1, &amqp.Message{})
		s.since()
		if err := takeN(t, cons, 1)[0].Ack(); err != nil {
			t.Error(err)
		}
		s.wantSaid("during the alarm", ack(1, false))
		start := time.Now()
		if err := ch.Conn().Close(); err != nil || time.Since(start) != 0 {
			t.Errorf("Close: %v after %v", err, time.Since(start))
		}
		if err := <-failed; !amqp.SafeToRetry(err) || !errors.Is(err, amqp.ErrClosed) {
			t.Errorf("the publish that waited: %v", err)
		}
	})
}

// RabbitMQ stops reading a connection that published during an alarm: what is
// on its way is stuck, but nobody is beyond their own limit.
func TestBlocked_BrokerStopsReading(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := amqptest.NewServer(t)
		conn := connectTo(t, srv, amqp.Config{CloseTimeout: 3 * time.Second})
		ch := openQueue(t, conn, "q")
		srv.Block("")
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		start := time.Now()
		if err := ch.Publish(ctx, amqp.BasicPublish{RoutingKey: "q"}, amqp.Message{}); !errors.Is(err, amqp.ErrUnknownOutcome) {
			t.Errorf("the publish that met the alarm: %v", err)
		}
		if err := ch.Publish(ctx, amqp.BasicPublish{RoutingKey: "q"}, amqp.Message{}); !amqp.SafeToRetry(err) {
			t.Errorf("one after it: %v", err)
		}
		if took := time.Since(start); took != 2*time.Second {
			t.Errorf("they took %v", took)
		}
		time.Sleep(5 * time.Minute) // through many heartbeats
		if err := conn.Err(); err != nil {
			t.Errorf("the connection ended: %v", err)
		}
		start = time.Now()
		conn.Close()
		if took := time.Since(start); took > 3*time.Second {
			t.Errorf("Close took %v", took)
		}
	})
}

// A peer that reads nothing fills the outbox.
func TestOutbox_FullWithAStalledPeer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := amqptest.NewServer(t)
		conn := connectTo(t, srv, amqp.Config{MaxOutbox: 64 << 10, CloseTimeout: 5 * time.Second, Heartbeat: -1})
		ch := openQueue(t, conn, "q")
		resume := srv.Stall()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		msg := amqp.Message{Body: make([]byte, 32<<10)}
		start := time.Now()
		sent := 0
		var err error
		for err == nil {
			if err = ch.BasicPublish(ctx, amqp.BasicPublish{RoutingKey: "q"}, msg); err == nil {
				sent++
			}
		}
		if took := time.Since(start); !errors.Is(err, context.DeadlineExceeded) || !amqp.SafeToRetry(err) || took != time.Second {
			t.Errorf("BasicPublish: %v after %v", err, took)
		}
		if n := conn.Stats().Outbox; n > (64+33)<<10*2 {
			t.Errorf("the outbox has %d octets", n)
		}
		// A call enters the outbox ahead of publishers that wait for room.
		done := make(chan string, 2)
		go func() {
			ch.BasicPublish(context.Background(), amqp.BasicPublish{RoutingKey: "q"}, msg)
			done <- "publish"
		}()
		synctest.Wait()
		go func() {
			ch.QueueDeclare(context.Background(), amqp.QueueDeclare{Queue: "other"})
			done <- "declare"
		}()
		synctest.Wait()
		if n := conn.Stats().Waiting; n != 1 {
			t.Errorf("%d publishers wait, want 1", n)
		}
		resume()
		<-done
		<-done
		if err := ch.ConfirmSelect(t.Context(), amqp.ConfirmSelect{}); err != nil {
			t.Fatal(err)
		}
		if q, _ := srv.Queue("q"); q.Ready != sent+1 {
			t.Errorf("%d messages arrived, %d were sent", q.Ready, sent+1)
		}
	})
}

func TestOutbox_CloseWithinItsTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := amqptest.NewServer(t)
		conn := connectTo(t, srv, amqp.Config{MaxOutbox: 64 << 10, CloseTimeout: 5 * time.Second, Heartbeat: -1})
		ch := openQueue(t, conn, "q")
		srv.Stall()
		errs := make(chan error, 4)
		for range 4 {
			go func() {
				var err error
				for err == nil {
					err = ch.BasicPublish(context.Background(), amqp.BasicPublish{RoutingKey: "q"}, amqp.Message{Body: make([]byte, 32<<10)})
				}
				errs <- err
			}()
		}
		synctest.Wait()
		start := time.Now()
		err := conn.Close()
		if took := time.Since(start); err == nil || took != 5*time.Second {
			t.Errorf("Close: %v after %v", err, took)
		}
		for range 4 {
			if err := <-errs; !amqp.SafeToRetry(err) || !errors.Is(err, amqp.ErrClosed) {
				t.Errorf("BasicPublish: %v", err)
			}
		}
	})
}
