package amqp_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/warrenmq/warren/amqp"
	"github.com/warrenmq/warren/amqp/amqptest"
)

// TestConn_CutAtEveryOctet drops the connection after each octet of a
// conversation, in both directions: nothing hangs, and every error says that the
// connection was lost.
func TestConn_CutAtEveryOctet(t *testing.T) {
	for _, dir := range []amqptest.Direction{amqptest.ToServer, amqptest.ToClient} {
		step := int64(1)
		if testing.Short() {
			step = 13
		}
		whole := false
		n := int64(0)
		for ; !whole; n += step {
			synctest.Test(t, func(t *testing.T) {
				srv := amqptest.NewServer(t)
				srv.CutAfter(n, dir)
				start := time.Now()
				err := talk(t.Context(), srv)
				if whole = err == nil; whole {
					return
				}
				var ex *amqp.Error
				if !errors.As(err, &ex) || !errors.Is(err, amqp.ErrClosed) {
					t.Errorf("direction %v, cut after %d: %v", dir, n, err)
				}
				if took := time.Since(start); took > 11*time.Second { // a server that lost half a frame hears of it by itself
					t.Errorf("direction %v, cut after %d: it took %v", dir, n, took)
				}
			})
		}
		if n < 500 {
			t.Errorf("direction %v: %d octets are no conversation", dir, n)
		}
	}
}

// talk does a bit of everything, and gives the first error.
func talk(ctx context.Context, srv *amqptest.Server) error {
	conn, err := amqp.Dial(ctx, srv.URI(), &amqp.Config{Dial: srv.Dial, Heartbeat: 4 * time.Second, CloseTimeout: 2 * time.Second})
	if err != nil {
		return err
	}
	defer conn.Close()
	ch, err := conn.Channel(ctx)
	if err != nil {
		return err
	}
	q, err := ch.QueueDeclare(ctx, amqp.QueueDeclare{Exclusive: true})
	if err != nil {
		return err
	}
	for i := range 3 {
		if err := ch.Publish(ctx, amqp.BasicPublish{RoutingKey: q.Queue, Mandatory: true}, amqp.Message{Body: fmt.Append(nil, i)}); err != nil {
			return err
		}
	}
	d, err := ch.Get(ctx, amqp.BasicGet{Queue: q.Queue})
	if err != nil {
		return err
	}
	if err := d.Requeue(); err != nil {
		return lost(conn, err)
	}
	ctx, cancel := context.WithCancel(ctx)
	n := 0
	err = ch.Serve(ctx, amqp.BasicConsume{Queue: q.Queue}, func(context.Context, *amqp.Delivery) error {
		if n++; n == 3 {
			cancel()
		}
		return nil
	}, nil)
	cancel()
	if err != nil {
		return err
	}
	if n != 3 {
		return fmt.Errorf("%d of 3 were handled", n)
	}
	if err := ch.Close(context.Background()); err != nil {
		return err
	}
	return conn.Close()
}

// lost gives the reason of an ErrStale.
func lost(conn *amqp.Conn, err error) error {
	if errors.Is(err, amqp.ErrStale) {
		<-conn.Done()
		return conn.Err()
	}
	return err
}
