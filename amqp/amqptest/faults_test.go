package amqptest_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/warrenmq/warren/amqp"
	"github.com/warrenmq/warren/amqp/amqptest"
)

// inBubble runs a test with a server in fake time.
func inBubble(t *testing.T, f func(t *testing.T, srv *amqptest.Server)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { f(t, amqptest.NewServer(t)) })
}

func publishAsync(t testing.TB, ch *amqp.Channel, key string) *amqp.Confirm {
	t.Helper()
	c, err := ch.PublishAsync(context.Background(), amqp.BasicPublish{RoutingKey: key}, amqp.Message{Body: []byte("x")})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestFaults_Block(t *testing.T) {
	inBubble(t, func(t *testing.T, srv *amqptest.Server) {
		ch := open(t, srv)
		declare(t, ch, "q", nil)
		srv.Block("low on disk")
		c := publishAsync(t, ch, "q")
		synctest.Wait()
		select {
		case <-c.Done():
			t.Fatalf("confirmed under an alarm: %v", c.Wait(t.Context()))
		default:
		}
		if !ch.Conn().Stats().Blocked {
			t.Error("the client was not told")
		}
		if info := srv.Connections(); !info[0].Blocked {
			t.Errorf("%v is not blocked", info[0])
		}
		srv.WaitQueue(t, "q", 0, 0)
		time.Sleep(10 * time.Minute) // longer than any heartbeat
		srv.Unblock()
		if err := c.Wait(t.Context()); err != nil {
			t.Fatal(err)
		}
		srv.WaitQueue(t, "q", 1, 0)
	})
}

func TestFaults_Stall(t *testing.T) {
	inBubble(t, func(t *testing.T, srv *amqptest.Server) {
		ch := open(t, srv)
		resume := srv.Stall()
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		_, err := ch.QueueDeclare(ctx, amqp.QueueDeclare{Queue: "q"})
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("declare on a stalled server: %v", err)
		}
		resume()
		srv.WaitQueue(t, "q", 0, 0)
		declare(t, ch, "q2", nil)
	})
}

func TestFaults_StallOutlastsHeartbeats(t *testing.T) {
	inBubble(t, func(t *testing.T, srv *amqptest.Server) {
		conn := dial(t, srv, &amqp.Config{Heartbeat: 5 * time.Second})
		defer srv.Stall()()
		start := time.Now()
		<-conn.Done()
		if d := time.Since(start); d > 11*time.Second {
			t.Errorf("the client noticed after %s", d)
		}
	})
}

func TestFaults_Kill(t *testing.T) {
	srv := amqptest.NewServer(t)
	a := dial(t, srv, &amqp.Config{Name: "a"})
	b := dial(t, srv, &amqp.Config{Name: "b"})
	if n := srv.KillConnection("a"); n != 1 {
		t.Errorf("KillConnection: %d", n)
	}
	<-a.Done()
	if err := a.Err(); !errors.Is(err, amqp.ErrClosed) || errors.Is(err, amqp.ConnectionForced) {
		t.Errorf("killed: %v", err)
	}
	if n := srv.CloseConnection("b", 0, ""); n != 1 {
		t.Errorf("CloseConnection: %d", n)
	}
	<-b.Done()
	if err := b.Err(); !errors.Is(err, amqp.ConnectionForced) {
		t.Errorf("closed: %v", err)
	}
	dial(t, srv, nil)
	if n := srv.KillAll(); n == 0 {
		t.Errorf("KillAll: %d", n)
	}
}

func TestFaults_RefuseDeclare(t *testing.T) {
	srv := amqptest.NewServer(t)
	srv.RefuseQueueDeclare("q", amqp.ResourceLocked, "locked for the test")
	srv.RefuseExchangeDeclare("x", amqp.InternalError, "boom")
	conn := dial(t, srv, nil)
	ch, err := conn.Channel(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	_, err = ch.QueueDeclare(t.Context(), amqp.QueueDeclare{Queue: "q"})
	var ex *amqp.Error
	if !errors.As(err, &ex) || ex.Code != amqp.ResourceLocked || ex.Text != "RESOURCE_LOCKED - locked for the test" {
		t.Errorf("queue: %v", err)
	}
	if ch, err = conn.Channel(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := ch.ExchangeDeclare(t.Context(), amqp.ExchangeDeclare{Exchange: "x", Type: "direct"}); !errors.Is(err, amqp.InternalError) {
		t.Errorf("exchange: %v", err)
	}
	<-conn.Done()
	srv.RefuseQueueDeclare("q", 0, "")
	declare(t, open(t, srv), "q", nil)
}

func TestFaults_Confirms(t *testing.T) {
	inBubble(t, func(t *testing.T, srv *amqptest.Server) {
		ch := open(t, srv)
		declare(t, ch, "q", nil)
		srv.NackNext(2)
		for i, want := range []error{amqp.ErrNacked, amqp.ErrNacked, nil} {
			err := ch.Publish(t.Context(), amqp.BasicPublish{RoutingKey: "q"}, amqp.Message{})
			if !errors.Is(err, want) {
				t.Errorf("publish %d: %v; want %v", i, err, want)
			}
		}
		srv.DelayConfirms(time.Minute)
		start := time.Now()
		publish(t, ch, "q", "late")
		if d := time.Since(start); d != time.Minute {
			t.Errorf("confirmed after %s; want a minute", d)
		}
		srv.DelayConfirms(0)
		srv.DropConfirms(1)
		lost := publishAsync(t, ch, "q")
		publish(t, ch, "q", "next")
		select {
		case <-lost.Done():
			t.Error("a dropped confirm came")
		default:
		}
		ch.Close(t.Context())
		if err := lost.Wait(t.Context()); !errors.Is(err, amqp.ErrUnknownOutcome) {
			t.Errorf("lost confirm: %v", err)
		}
	})
}

func TestFaults_ReorderIsSeeded(t *testing.T) {
	const n = 20
	run := func(seed uint64) (tags []uint64) {
		synctest.Test(t, func(t *testing.T) {
			srv := amqptest.NewServer(t, amqptest.Config{Seed: seed})
			srv.ReorderConfirms(8)
			srv.SplitWrites(5)
			c := &rawClient{t: t}
			c.connect(srv)
			c.method(1, &amqp.ChannelOpen{})
			c.method(1, &amqp.ConfirmSelect{})
			for range n {
				if err := c.e.SendContent(1, &amqp.BasicPublish{}, &amqp.Message{}); err != nil {
					t.Fatal(err)
				}
			}
			for len(tags) < n {
				ev := c.until(func(ev amqp.Event) bool { return ev.ID == amqp.MethodBasicAck })
				var ack amqp.BasicAck
				if err := ack.DecodeFrom(ev.Args); err != nil || ack.Multiple {
					t.Fatalf("%+v, %v", ack, err)
				}
				tags = append(tags, ack.DeliveryTag)
			}
		})
		return tags
	}
	a, b, c := run(1), run(1), run(2)
	if !slices.Equal(a, b) || slices.Equal(a, c) {
		t.Errorf("seed 1: %v and %v, seed 2: %v; want the first two the same, the last not", a, b, c)
	}
	if slices.IsSorted(a) {
		t.Errorf("confirms came in order: %v", a)
	}
	slices.Sort(a)
	for i, tag := range a {
		if tag != uint64(i+1) {
			t.Fatalf("not every publish was confirmed once: %v", a)
		}
	}
}

func TestFaults_CancelAndDelete(t *testing.T) {
	srv := amqptest.NewServer(t)
	ch := open(t, srv)
	for _, tag := range []string{"cancelled", "deleted"} {
		declare(t, ch, tag, nil)
		cons, err := ch.Subscribe(t.Context(), amqp.BasicConsume{Queue: tag, ConsumerTag: tag}, nil)
		if err != nil {
			t.Fatal(err)
		}
		if tag == "cancelled" {
			if n := srv.CancelConsumer(tag); n != 1 {
				t.Errorf("CancelConsumer: %d", n)
			}
		} else if !srv.DeleteQueue("", tag) {
			t.Error("DeleteQueue found nothing")
		}
		for _, err := range cons.All() {
			if err == nil {
				t.Error("a delivery came")
			}
		}
		srv.WaitConnections(t, 1)
	}
}

func TestFaults_CutAfter(t *testing.T) {
	for _, dir := range []amqptest.Direction{amqptest.ToServer, amqptest.ToClient} {
		for _, n := range []int64{0, 1, 7, 8, 30, 100} {
			t.Run(fmt.Sprint(dir, " ", n), func(t *testing.T) {
				srv := amqptest.NewServer(t)
				ch := open(t, srv)
				declare(t, ch, "q", nil)
				srv.CutAfter(n, dir)
				for {
					if err := ch.Publish(t.Context(), amqp.BasicPublish{RoutingKey: "q"}, amqp.Message{Body: []byte("x")}); err != nil {
						if !errors.Is(err, amqp.ErrClosed) {
							t.Errorf("publish: %v", err)
						}
						break
					}
				}
				<-ch.Conn().Done()
				declare(t, open(t, srv), "q", nil) // it happens once
			})
		}
	}
}

func TestFaults_SplitWrites(t *testing.T) {
	srv := amqptest.NewServer(t)
	srv.SplitWrites(3)
	nc, err := srv.Dial(t.Context(), "", "")
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	if _, err := io.WriteString(nc, "AMQP\x00\x00\x09\x01"); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 100)
	for range 50 {
		if n, err := nc.Read(buf); err != nil || n > 3 {
			t.Fatalf("read %d octets, %v; want 3 at most", n, err)
		}
	}
	if err := roundTrip(t.Context(), dial(t, srv, nil)); err != nil {
		t.Fatal(err)
	}
}

func TestFaults_Slow(t *testing.T) {
	inBubble(t, func(t *testing.T, srv *amqptest.Server) {
		ch := open(t, srv)
		srv.Slow(time.Second)
		start := time.Now()
		declare(t, ch, "q", nil)
		if d := time.Since(start); d < time.Second {
			t.Errorf("answered after %s", d)
		}
	})
}

func TestFaults_Restart(t *testing.T) {
	for _, keep := range []bool{true, false} {
		t.Run(fmt.Sprint("keep=", keep), func(t *testing.T) {
			srv := amqptest.NewServer(t)
			uri := srv.URI()
			conn, err := amqp.Dial(t.Context(), uri, nil)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			ch, err := conn.Channel(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			declare(t, ch, "durable", nil)
			if _, err := ch.QueueDeclare(t.Context(), amqp.QueueDeclare{Queue: "transient"}); err != nil {
				t.Fatal(err)
			}
			for _, mode := range []uint8{1, 2} {
				msg := amqp.Message{Properties: amqp.Properties{DeliveryMode: mode}, Body: []byte{'0' + mode}}
				if err := ch.Publish(t.Context(), amqp.BasicPublish{RoutingKey: "durable"}, msg); err != nil {
					t.Fatal(err)
				}
			}
			srv.Restart(keep)
			<-conn.Done()
			if srv.URI() != uri {
				t.Errorf("the address changed from %s to %s", uri, srv.URI())
			}
			if _, ok := srv.Queue("transient"); ok {
				t.Error("a transient queue survived")
			}
			if _, ok := srv.Queue("durable"); ok != keep {
				t.Errorf("durable queue there: %v", ok)
			}
			if m := srv.Messages("durable"); keep && (len(m) != 1 || string(m[0].Body) != "2") {
				t.Errorf("messages: %v", m)
			}
			again, err := amqp.Dial(t.Context(), uri, nil)
			if err != nil {
				t.Fatal(err)
			}
			again.Close()
		})
	}
}

func TestFaults_RefuseConnections(t *testing.T) {
	srv := amqptest.NewServer(t)
	srv.RefuseConnections(true)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	if conn, err := amqp.Dial(ctx, srv.URI(), nil); err == nil {
		conn.Close()
		t.Error("a connection was accepted")
	}
	srv.Heal()
	conn, err := amqp.Dial(t.Context(), srv.URI(), nil)
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
}
