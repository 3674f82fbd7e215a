package amqptest_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/warrenmq/warren/amqp"
	"github.com/warrenmq/warren/amqp/amqptest"
)

// dial opens a connection in memory that ends with the test.
func dial(t testing.TB, srv *amqptest.Server, cfg *amqp.Config) *amqp.Conn {
	t.Helper()
	if cfg == nil {
		cfg = &amqp.Config{}
	}
	cfg.Dial = srv.Dial
	conn, err := amqp.Dial(context.Background(), "amqp://guest:guest@broker", cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// open opens a connection in memory and a channel on it.
func open(t testing.TB, srv *amqptest.Server) *amqp.Channel {
	t.Helper()
	ch, err := dial(t, srv, nil).Channel(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	return ch
}

func declare(t testing.TB, ch *amqp.Channel, name string, args amqp.Table) {
	t.Helper()
	_, err := ch.QueueDeclare(context.Background(), amqp.QueueDeclare{Queue: name, Durable: true, Arguments: args})
	if err != nil {
		t.Fatal(err)
	}
}

func publish(t testing.TB, ch *amqp.Channel, key, body string) {
	t.Helper()
	if err := ch.Publish(context.Background(), amqp.BasicPublish{RoutingKey: key}, amqp.Message{Body: []byte(body)}); err != nil {
		t.Fatal(err)
	}
}

// roundTrip publishes a message over a connection and gets it back.
func roundTrip(ctx context.Context, conn *amqp.Conn) error {
	ch, err := conn.Channel(ctx)
	if err != nil {
		return err
	}
	q, err := ch.QueueDeclare(ctx, amqp.QueueDeclare{Exclusive: true})
	if err != nil {
		return err
	}
	if err := ch.Publish(ctx, amqp.BasicPublish{RoutingKey: q.Queue}, amqp.Message{Body: []byte("hello")}); err != nil {
		return err
	}
	d, err := ch.Get(ctx, amqp.BasicGet{Queue: q.Queue})
	if err != nil {
		return err
	}
	if string(d.Body) != "hello" {
		return fmt.Errorf("got %q back", d.Body)
	}
	return d.Ack()
}

func TestServer_Transports(t *testing.T) {
	cert, pool := certificate(t, "guest")
	serverTLS := &tls.Config{
		Certificates: []tls.Certificate{cert}, ClientCAs: pool, ClientAuth: tls.VerifyClientCertIfGiven,
	}
	clientTLS := &tls.Config{RootCAs: pool, Certificates: []tls.Certificate{cert}}
	socket := filepath.Join(t.TempDir(), "amqp.sock")
	tests := []struct {
		name string
		srv  amqptest.Config
		cfg  func(*amqptest.Server) (string, *amqp.Config)
	}{
		{"memory", amqptest.Config{}, func(srv *amqptest.Server) (string, *amqp.Config) {
			return "amqp://guest:guest@anything", &amqp.Config{Dial: srv.Dial}
		}},
		{"memory with the server's URI", amqptest.Config{InMemory: true}, func(srv *amqptest.Server) (string, *amqp.Config) {
			return srv.URI(), &amqp.Config{Dial: srv.Dial}
		}},
		{"tcp", amqptest.Config{}, func(srv *amqptest.Server) (string, *amqp.Config) { return srv.URI(), nil }},
		{"tcp, AMQPLAIN", amqptest.Config{}, func(srv *amqptest.Server) (string, *amqp.Config) {
			return srv.URI(), &amqp.Config{SASL: []amqp.SASL{amqp.SASLAMQPlain()}}
		}},
		{"unix", amqptest.Config{Socket: socket}, func(srv *amqptest.Server) (string, *amqp.Config) {
			return "amqp+unix://guest:guest@/" + socket, nil
		}},
		{"tls", amqptest.Config{TLS: serverTLS}, func(srv *amqptest.Server) (string, *amqp.Config) {
			return srv.URI(), &amqp.Config{TLS: clientTLS}
		}},
		{"tls, EXTERNAL", amqptest.Config{TLS: serverTLS}, func(srv *amqptest.Server) (string, *amqp.Config) {
			return srv.URI(), &amqp.Config{TLS: clientTLS, SASL: []amqp.SASL{amqp.SASLExternal()}}
		}},
		{"tls in memory", amqptest.Config{TLS: serverTLS}, func(srv *amqptest.Server) (string, *amqp.Config) {
			return "amqps://guest:guest@127.0.0.1", &amqp.Config{TLS: clientTLS, Dial: srv.Dial}
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			srv := amqptest.NewServer(t, tt.srv)
			uri, cfg := tt.cfg(srv)
			if tt.name == "unix" {
				cfg = &amqp.Config{Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
					return new(net.Dialer).DialContext(ctx, "unix", socket)
				}}
				uri = "amqp://guest:guest@localhost"
			}
			conn, err := amqp.Dial(t.Context(), uri, cfg)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if err := roundTrip(t.Context(), conn); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// certificate makes a self-signed certificate for 127.0.0.1 and a common name.
func certificate(t *testing.T, name string) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(leaf)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pool
}

func TestServer_Synctest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := amqptest.NewServer(t)
		if !strings.Contains(srv.URI(), "invalid") {
			t.Errorf("URI() = %q in a bubble; want one without a port", srv.URI())
		}
		ch := open(t, srv)
		declare(t, ch, "q", amqp.Table{"x-message-ttl": 3_600_000, "x-dead-letter-exchange": "", "x-dead-letter-routing-key": "dead"})
		declare(t, ch, "dead", nil)
		publish(t, ch, "q", "x")
		srv.WaitQueue(t, "q", 1, 0)
		time.Sleep(time.Hour) // takes no time
		synctest.Wait()
		srv.WaitQueue(t, "q", 0, 0)
		srv.WaitQueue(t, "dead", 1, 0)
	})
}

func TestServer_ManyConnections(t *testing.T) {
	srv := amqptest.NewServer(t)
	var wg sync.WaitGroup
	for i := range 50 {
		wg.Go(func() {
			conn, err := amqp.Dial(t.Context(), srv.URI(), &amqp.Config{Name: fmt.Sprint("c", i)})
			if err != nil {
				t.Error(err)
				return
			}
			defer conn.Close()
			if err := roundTrip(t.Context(), conn); err != nil {
				t.Error(i, err)
			}
		})
	}
	wg.Wait()
	srv.WaitConnections(t, 0)
	if q := srv.Queues(); len(q) != 0 {
		t.Errorf("exclusive queues are left: %v", q)
	}
}

func TestServer_CloseJoinsEverything(t *testing.T) {
	srv, err := amqptest.Start(nil)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := amqp.Dial(t.Context(), srv.URI(), nil)
	if err != nil {
		t.Fatal(err)
	}
	silent, err := srv.Dial(t.Context(), "", "")
	if err != nil {
		t.Fatal(err)
	}
	srv.Block("")
	ch, err := conn.Channel(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := ch.BasicPublish(t.Context(), amqp.BasicPublish{RoutingKey: "q"}, amqp.Message{}); err != nil {
		t.Fatal(err)
	}
	srv.Close()
	srv.Close()
	<-conn.Done()
	silent.Close()
	conn.Close()
	if _, err := srv.Dial(t.Context(), "", ""); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Dial after Close: %v", err)
	}
	if uri := srv.URI(); uri == "" {
		return
	}
}

func TestServer_Inspection(t *testing.T) {
	srv := amqptest.NewServer(t)
	conn := dial(t, srv, &amqp.Config{Name: "inspector"})
	ch, err := conn.Channel(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	declare(t, ch, "orders", nil)
	if err := ch.QueueBind(t.Context(), amqp.QueueBind{Queue: "orders", Exchange: "amq.topic", RoutingKey: "order.*"}); err != nil {
		t.Fatal(err)
	}
	msg := amqp.Message{Properties: amqp.Properties{MessageID: "m1"}, Body: []byte("x")}
	for _, key := range []string{"order.new", "other"} {
		if err := ch.Publish(t.Context(), amqp.BasicPublish{Exchange: "amq.topic", RoutingKey: key}, msg); err != nil {
			t.Fatal(err)
		}
	}
	srv.WaitQueue(t, "orders", 1, 0)
	srv.WantBinding(t, "amq.topic", "orders", "order.*")
	got := srv.WaitPublished(t, "amq.topic", 2)
	if got[0].RoutingKey != "order.new" || got[0].Queues != 1 || got[0].Message.MessageID != "m1" || got[1].Queues != 0 {
		t.Errorf("Published: %+v", got)
	}
	if m := srv.Messages("orders"); len(m) != 1 || string(m[0].Body) != "x" {
		t.Errorf("Messages: %+v", m)
	}
	cons, err := ch.Subscribe(t.Context(), amqp.BasicConsume{Queue: "orders", ConsumerTag: "c"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	srv.WaitQueue(t, "orders", 0, 1)
	if c := srv.Consumers(); len(c) != 1 || c[0].Tag != "c" || c[0].Connection != "inspector" || c[0].Unacked != 1 {
		t.Errorf("Consumers: %+v", c)
	}
	if s := srv.String(); !strings.Contains(s, `queue "orders" (classic): 0 ready, 1 unacked, 1 consumers`) {
		t.Errorf("String:\n%s", s)
	}
	if err := cons.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	srv.WaitQueue(t, "orders", 1, 0)
}

// A consumer that does not read must not make the server hold more than what
// is queued: its deliveries wait in the queue, not in the connection.
func TestServer_SlowReaderIsBounded(t *testing.T) {
	srv := amqptest.NewServer(t)
	ch := open(t, srv)
	declare(t, ch, "q", nil)
	raw := &rawClient{t: t}
	raw.connect(srv)
	raw.method(1, &amqp.ChannelOpen{})
	raw.method(1, &amqp.BasicConsume{Queue: "q", NoAck: true})
	srv.WaitConsumers(t, "q", 1)
	const n = 20_000
	body := make([]byte, 100)
	for range n {
		if err := ch.BasicPublish(t.Context(), amqp.BasicPublish{RoutingKey: "q"}, amqp.Message{Body: body}); err != nil {
			t.Fatal(err)
		}
	}
	info, _ := srv.Queue("q")
	for ; info.Published < n; info, _ = srv.Queue("q") {
		time.Sleep(time.Millisecond)
	}
	if info.Ready < n/2 {
		t.Errorf("%d of %d messages are ready behind a reader that does not read; the rest is buffered", info.Ready, n)
	}
}

// The server sends heartbeats, and drops a client that sends nothing.
func TestServer_Heartbeats(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := amqptest.NewServer(t, amqptest.Config{Heartbeat: 10 * time.Second})
		conn := dial(t, srv, &amqp.Config{Heartbeat: 10 * time.Second})
		c := &rawClient{t: t}
		c.connect(srv)
		start, beats := time.Now(), 0
		buf := make([]byte, 100)
		for {
			n, err := c.nc.Read(buf)
			if err != nil {
				break
			}
			beats += n / 8
		}
		if took := time.Since(start); took < 20*time.Second || took > 31*time.Second {
			t.Errorf("a silent client was dropped after %s", took)
		}
		if beats < 1 {
			t.Errorf("%d heartbeats came", beats)
		}
		time.Sleep(10 * time.Minute)
		if err := conn.Err(); err != nil {
			t.Errorf("a client that sends heartbeats was dropped: %v", err)
		}
	})
}

func TestConfig_Users(t *testing.T) {
	srv := amqptest.NewServer(t, amqptest.Config{
		VHosts: []string{"v"},
		Users: []amqptest.User{
			{Name: "admin", Password: "secret"},
			{Name: "worker", Password: "w", Permissions: map[string]amqptest.Permissions{"/": {Read: "^jobs$"}}},
		},
	})
	for _, tt := range []struct {
		uri  string
		want error
	}{
		{"amqp://admin:secret@b", nil},
		{"amqp://admin:secret@b/v", nil},
		{"amqp://worker:w@b", nil},
		{"amqp://worker:w@b/v", amqp.NotAllowed},
		{"amqp://worker:wrong@b", amqp.AccessRefused},
		{"amqp://guest:guest@b", amqp.AccessRefused},
		{"amqp://admin:secret@b/none", amqp.NotAllowed},
	} {
		conn, err := amqp.Dial(t.Context(), tt.uri, &amqp.Config{Dial: srv.Dial})
		if !errors.Is(err, tt.want) {
			t.Errorf("%s: %v; want %v", tt.uri, err, tt.want)
		}
		if err == nil {
			conn.Close()
		}
	}
	conn, err := amqp.Dial(t.Context(), "amqp://worker:w@b", &amqp.Config{Dial: srv.Dial})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ch, err := conn.Channel(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ch.QueueDeclare(t.Context(), amqp.QueueDeclare{Queue: "jobs"}); !errors.Is(err, amqp.AccessRefused) {
		t.Errorf("declare without permission: %v", err)
	}
	if _, err := amqptest.Start(&amqptest.Config{Users: []amqptest.User{
		{Name: "bad", Permissions: map[string]amqptest.Permissions{"/": {Read: "("}}},
	}}); err == nil {
		t.Error("a broken expression was taken")
	}
}
