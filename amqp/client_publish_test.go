package amqp_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/url"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/warrenmq/warren/amqp"
	"github.com/warrenmq/warren/amqp/amqptest"
)

func TestClient_MessagesArePersistentUnlessSaidOtherwise(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, resend := range []bool{false, true} {
			srv := amqptest.NewServer(t)
			c := newClient(t, srv, &amqp.ClientConfig{Resend: resend})
			ctx := within(t, time.Minute)
			for _, p := range []amqp.Properties{{}, {DeliveryMode: 1}, {Present: amqp.HasDeliveryMode}} {
				if err := c.Publish(ctx, amqp.BasicPublish{Exchange: "amq.fanout"}, amqp.Message{Properties: p}); err != nil {
					t.Fatal(err)
				}
			}
			var got []uint8
			for _, p := range srv.Published("amq.fanout") {
				got = append(got, p.Message.DeliveryMode)
			}
			if !bytes.Equal(got, []byte{2, 1, 0}) {
				t.Errorf("delivery modes %v", got)
			}
		}
	})
}

func TestClient_PoisonByContentStandsAlone(t *testing.T) {
	for _, resend := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			srv := amqptest.NewServer(t)
			c := newClient(t, srv, &amqp.ClientConfig{Topology: orders, Resend: resend})
			ctx := within(t, time.Minute)
			m := amqp.BasicPublish{Exchange: "orders", RoutingKey: "k"}
			var good []*amqp.Confirm
			for i := range 60 {
				cf, err := c.PublishAsync(ctx, m, text(fmt.Sprint(i)))
				if err != nil {
					t.Fatal(err)
				}
				good = append(good, cf)
				if i%20 != 10 {
					continue
				}
				poison := []amqp.Properties{{UserID: "somebody"}, {Expiration: "soon"}, {Headers: amqp.Table{"CC": "no array"}}}[i/20]
				if err := c.Publish(ctx, m, amqp.Message{Properties: poison}); !errors.Is(err, amqp.PreconditionFailed) || errors.Is(err, amqp.ErrUnknownOutcome) {
					t.Errorf("resend %v: poison %d: %v", resend, i, err)
				}
			}
			for i, cf := range good {
				if err := cf.Wait(ctx); err != nil {
					t.Errorf("resend %v: %d: %v", resend, i, err)
				}
			}
			var order []string
			for _, m := range srv.Messages("orders.all") {
				order = append(order, string(m.Body))
			}
			for i, s := range order {
				if s != fmt.Sprint(i) {
					t.Fatalf("resend %v: order %v", resend, order)
				}
			}
			if err := c.Publish(ctx, m, amqp.Message{Properties: amqp.Properties{UserID: "guest", Expiration: "10000"}}); err != nil {
				t.Errorf("a harmless suspect: %v", err)
			}
		})
	}
}

// The broker's own limit of a message's size, where it is below MaxBody, is met
// by one message at a time, and by none of a size that was taken before.
func TestClient_PoisonBySizeStandsAlone(t *testing.T) {
	const limit = 300_000
	for _, resend := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			srv := amqptest.NewServer(t, amqptest.Config{MaxBody: limit})
			var closed atomic.Int64
			trace := &amqp.Trace{ChannelClosed: func(_ context.Context, _ amqp.ConnInfo, _ uint16, err error) {
				if errors.Is(err, amqp.PreconditionFailed) {
					closed.Add(1)
				}
			}}
			c := newClient(t, srv, &amqp.ClientConfig{Config: amqp.Config{Trace: trace}, Topology: orders, Resend: resend})
			ctx := within(t, time.Minute)
			m := amqp.BasicPublish{Exchange: "orders", RoutingKey: "k"}
			sizes := []int{1, 100, limit + 1, 70_000, 100, 2 * limit, limit, 70_000, limit, 1}
			var outcomes []*amqp.Confirm
			for i := range 10 * len(sizes) {
				size := sizes[i%len(sizes)]
				body := append(make([]byte, 0, size+10), fmt.Sprint(i, " ")...)
				cf, err := c.PublishAsync(ctx, m, amqp.Message{Body: body[:max(size, len(body))]})
				if err != nil {
					if size <= limit || !errors.Is(err, amqp.PreconditionFailed) || errors.Is(err, amqp.ErrUnknownOutcome) {
						t.Errorf("resend %v: %d of %d bytes: %v", resend, i, size, err)
					}
					cf = nil
				}
				outcomes = append(outcomes, cf)
			}
			next := 0
			for i, cf := range outcomes {
				if cf == nil {
					continue
				}
				err := cf.Wait(ctx)
				if size := sizes[i%len(sizes)]; size > limit {
					if !errors.Is(err, amqp.PreconditionFailed) || errors.Is(err, amqp.ErrUnknownOutcome) {
						t.Errorf("resend %v: %d of %d bytes: %v", resend, i, size, err)
					}
				} else if err != nil {
					t.Errorf("resend %v: %d of %d bytes: %v", resend, i, size, err)
				}
			}
			for i := range outcomes {
				if sizes[i%len(sizes)] > limit {
					continue
				}
				if got := srv.Messages("orders.all"); next >= len(got) || !strings.HasPrefix(string(got[next].Body), fmt.Sprint(i, " ")) {
					t.Fatalf("resend %v: %d is not the %dth that arrived", resend, i, next)
				}
				next++
			}
			if n := closed.Load(); n != 20 {
				t.Errorf("resend %v: %d channels were closed, want one for each that was too large", resend, n)
			}
		})
	}
}

func TestClient_WithoutResendALossIsUnknownAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := amqptest.NewServer(t)
		c := newClient(t, srv, nil)
		ctx := within(t, time.Minute)
		if err := c.Publish(ctx, amqp.BasicPublish{RoutingKey: "q"}, text("x")); err != nil {
			t.Fatal(err)
		}
		srv.DropConfirms(1)
		time.AfterFunc(time.Second, func() { srv.KillAll() })
		began := time.Now()
		err := c.Publish(ctx, amqp.BasicPublish{RoutingKey: "q"}, text("x"))
		if !errors.Is(err, amqp.ErrUnknownOutcome) || !errors.Is(err, amqp.ErrClosed) || amqp.SafeToRetry(err) || time.Since(began) != time.Second {
			t.Errorf("%v after %v", err, time.Since(began))
		}
	})
}

func TestClient_ResendKeepsTheIDTheOrderAndTheBounds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := amqptest.NewServer(t)
		c := newClient(t, srv, &amqp.ClientConfig{Topology: orders, Resend: true, ResendTries: 3, ResendMessages: 5, MaxBytes: 100_000})
		ctx := within(t, time.Hour)
		m := amqp.BasicPublish{Exchange: "orders", RoutingKey: "k"}
		if err := c.Publish(ctx, m, text("first")); err != nil {
			t.Fatal(err)
		}
		srv.DropConfirms(5)
		var sent []*amqp.Confirm
		for i := range 5 {
			props := amqp.Properties{}
			if i == 2 {
				props.MessageID = "mine"
			}
			cf, err := c.PublishAsync(ctx, m, amqp.Message{Properties: props, Body: []byte{byte('a' + i)}})
			if err != nil {
				t.Fatal(err)
			}
			sent = append(sent, cf)
		}
		short, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		if _, err := c.PublishAsync(short, m, text("one too many")); !errors.Is(err, context.DeadlineExceeded) || !amqp.SafeToRetry(err) {
			t.Errorf("beyond ResendMessages: %v", err)
		}
		srv.KillAll()
		for _, cf := range sent {
			if err := cf.Wait(ctx); err != nil {
				t.Error(err)
			}
		}
		var bodies, ids []string
		for _, p := range srv.Published("orders")[1:] {
			bodies, ids = append(bodies, string(p.Message.Body)), append(ids, p.Message.MessageID)
		}
		if got := strings.Join(bodies, ""); got != "abcdeabcde" {
			t.Errorf("arrived %s", got)
		}
		for i := range 5 {
			if ids[i] == "" || ids[i] != ids[i+5] || i == 2 && ids[i] != "mine" {
				t.Errorf("message ids %q", ids)
			}
		}
		if s := c.Stats(); s.Resent != 5 || s.ResentOK != 5 || s.Held != 0 {
			t.Errorf("%+v", s)
		}
		// The third attempt is the last.
		last, err := c.PublishAsync(ctx, m, text("last"))
		for range 3 {
			srv.DropConfirms(1)
			time.Sleep(10 * time.Second)
			srv.KillAll()
		}
		_ = last
		if err != nil {
			t.Fatal(err)
		}
		big := make([]byte, 60_000)
		srv.DropConfirms(1)
		if _, err := c.PublishAsync(ctx, m, amqp.Message{Body: big}); err != nil {
			t.Fatal(err)
		}
		short, cancel2 := context.WithTimeout(ctx, time.Second)
		defer cancel2()
		if _, err := c.PublishAsync(short, m, amqp.Message{Body: big}); !errors.Is(err, context.DeadlineExceeded) || !amqp.SafeToRetry(err) {
			t.Errorf("beyond MaxBytes: %v", err)
		}
	})
}

func TestClient_ResendGivesUpAfterItsTries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := amqptest.NewServer(t)
		c := newClient(t, srv, &amqp.ClientConfig{Topology: orders, Resend: true, ResendTries: 3})
		ctx := within(t, time.Hour)
		srv.DropConfirms(100)
		stop := make(chan struct{})
		go func() {
			for {
				select {
				case <-stop:
					return
				case <-time.After(10 * time.Second):
					srv.KillAll()
				}
			}
		}()
		err := c.Publish(ctx, amqp.BasicPublish{Exchange: "orders"}, text("x"))
		close(stop)
		if !errors.Is(err, amqp.ErrUnknownOutcome) || ctx.Err() != nil {
			t.Errorf("got %v", err)
		}
		if n := len(srv.Published("orders")); n != 3 {
			t.Errorf("sent %d times", n)
		}
	})
}

func TestClient_NothingIsReplayedAgainstAWall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := amqptest.NewServer(t)
		var closed atomic.Int64
		c := newClient(t, srv, &amqp.ClientConfig{Resend: true, Config: amqp.Config{Trace: &amqp.Trace{
			ChannelClosed: func(context.Context, amqp.ConnInfo, uint16, error) { closed.Add(1) },
		}}})
		ctx := within(t, time.Hour)
		for range 1000 {
			cf, err := c.PublishAsync(ctx, amqp.BasicPublish{Exchange: "nowhere"}, text("x"))
			if err != nil {
				t.Fatal(err)
			}
			if err := cf.Wait(ctx); !errors.Is(err, amqp.NotFound) || errors.Is(err, amqp.ErrUnknownOutcome) {
				t.Fatal(err)
			}
		}
		var confirms []*amqp.Confirm
		before := closed.Load()
		for range 1000 {
			cf, err := c.PublishAsync(ctx, amqp.BasicPublish{Exchange: "nowhere"}, text("x"))
			if err != nil {
				t.Fatal(err)
			}
			confirms = append(confirms, cf)
		}
		for _, cf := range confirms {
			if err := cf.Wait(ctx); !errors.Is(err, amqp.NotFound) {
				t.Fatal(err)
			}
		}
		time.Sleep(time.Minute)
		if closed.Load()-before > 100 || closed.Load() > 1100 || c.State() != amqp.Connected {
			t.Errorf("%d channels for 1,000 publishes at once, %d in all", closed.Load()-before, closed.Load())
		}
	})
}

// secretForms are what a password may be given away as.
func secretForms(user, password string) []string {
	plain := "\x00" + user + "\x00" + password
	return []string{
		password, url.QueryEscape(password), url.PathEscape(password), url.UserPassword(user, password).String(),
		base64.StdEncoding.EncodeToString([]byte(password)), base64.RawURLEncoding.EncodeToString([]byte(password)),
		base64.StdEncoding.EncodeToString([]byte(plain)), hex.EncodeToString([]byte(password)), fmt.Sprintf("%q", password),
	}
}

func TestClient_NeverGivesThePasswordAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
		password := ""
		for range 12 {
			password += string(letters[rand.IntN(len(letters))])
		}
		password += "%@/:" + password[:4]
		srv := amqptest.NewServer(t)
		var mu sync.Mutex
		var said bytes.Buffer
		say := func(args ...any) {
			mu.Lock()
			defer mu.Unlock()
			for _, a := range args {
				fmt.Fprintf(&said, "%v %+v %#v %s\n", a, a, a, a)
			}
		}
		logger := slog.New(slog.NewTextHandler(writer(func(p []byte) { say(string(p)) }), &slog.HandlerOptions{Level: slog.LevelDebug}))
		trace := &amqp.Trace{
			DialDone:  func(_ context.Context, d amqp.DialInfo, err error) { say(d, err) },
			Handshake: func(_ context.Context, h amqp.HandshakeInfo) { say(h) },
			Reconnect: func(_ context.Context, r amqp.ReconnectInfo) { say(r, r.Err) },
		}
		userinfo := url.UserPassword("user", password).String()
		for name, dial := range map[string]func(context.Context, string, string) (net.Conn, error){
			"auth": srv.Dial,
			"dns": func(context.Context, string, string) (net.Conn, error) {
				return nil, &net.DNSError{Err: "no such host", Name: "broker.invalid"}
			},
			"tls": srv.Dial,
		} {
			scheme := "amqp"
			if name == "tls" {
				scheme = "amqps"
			}
			uri := scheme + "://" + userinfo + "@broker.invalid/%2F"
			cfg := &amqp.ClientConfig{Config: amqp.Config{Dial: dial, Logger: logger, Trace: trace}}
			c, err := amqp.NewClient(uri, cfg)
			if err != nil {
				t.Fatal(err)
			}
			ctx := within(t, 5*time.Second)
			say(c.Await(ctx, amqp.Connected), c.Publish(ctx, amqp.BasicPublish{}, text("x")), c.Err(), c, *cfg, c.Stats())
			func() {
				defer func() { say(recover(), string(debug.Stack())) }()
				panic(fmt.Errorf("with %+v: %w", c, c.Err()))
			}()
			say(c.Close())
		}
		for _, uri := range []string{"amqp://" + userinfo + "@host:port/", "amq://" + userinfo + "@host", "amqp://user:" + password + "@host", "amqp://" + userinfo + "@host?verify=verify_none", "amqp://" + userinfo + "@ho st"} {
			_, err := amqp.NewClient(uri, nil)
			say(err)
			var bad *amqp.URIError
			if err != nil && !errors.As(err, &bad) {
				t.Errorf("%T", err)
			}
		}
		mu.Lock()
		defer mu.Unlock()
		if said.Len() < 1000 {
			t.Error("next to nothing was said")
		}
		for _, form := range secretForms("user", password) {
			if i := strings.Index(said.String(), form); i >= 0 {
				t.Errorf("%q is in ...%q", form, said.String()[max(0, i-100):min(said.Len(), i+100)])
			}
		}
	})
}

type writer func(p []byte)

func (w writer) Write(p []byte) (int, error) {
	w(p)
	return len(p), nil
}
