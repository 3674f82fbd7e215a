package amqptest_test

import (
	"io"
	"net"
	"runtime/metrics"
	"strings"
	"testing"
	"time"

	"github.com/warrenmq/warren/amqp"
	"github.com/warrenmq/warren/amqp/amqptest"
)

// methodFrame is a method in its frame.
func methodFrame(channel uint16, m amqp.Method) []byte {
	payload, err := amqp.AppendMethod(nil, m)
	if err != nil {
		panic(err)
	}
	out := frame(1, payload)
	out[1], out[2] = byte(channel>>8), byte(channel)
	return out
}

// greeting is all that a client says until its channel 1 is open.
func greeting() []byte {
	out := []byte("AMQP\x00\x00\x09\x01")
	for _, m := range []amqp.Method{
		&amqp.ConnectionStartOk{Mechanism: "PLAIN", Response: "\x00guest\x00guest", Locale: "en_US"},
		&amqp.ConnectionTuneOk{ChannelMax: 2047, FrameMax: 131072},
		&amqp.ConnectionOpen{VirtualHost: "/"},
	} {
		out = append(out, methodFrame(0, m)...)
	}
	return append(out, methodFrame(1, &amqp.ChannelOpen{})...)
}

// step-wise greeting: what comes before an answer of the server must wait for it.
func greet(nc net.Conn) error {
	g := greeting()
	buf := make([]byte, 4096)
	for len(g) > 0 {
		n := 8
		if g[0] != 'A' {
			n = 8 + int(g[5])<<8 + int(g[6])
		}
		if _, err := nc.Write(g[:n]); err != nil {
			return err
		}
		isTuneOk := g[0] == 1 && g[9] == 0 && g[10] == 31
		g = g[n:]
		if isTuneOk {
			continue // it has no answer
		}
		if _, err := nc.Read(buf); err != nil {
			return err
		}
	}
	return nil
}

// allocated is how much the process has ever allocated.
func allocated() uint64 {
	s := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	metrics.Read(s)
	return s[0].Value.Uint64()
}

// attack sends octets to a server, and fails the test where it does not close
// the connection when its peer is gone, or where they cost it too much memory.
func attack(t *testing.T, opened bool, input []byte) {
	srv, err := amqptest.Start(&amqptest.Config{Record: -1, HandshakeTimeout: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	nc, err := srv.Dial(t.Context(), "", "")
	if err != nil {
		t.Fatal(err)
	}
	if opened {
		if err := greet(nc); err != nil {
			t.Fatal(err)
		}
	}
	before := allocated()
	drained := make(chan struct{})
	go func() {
		defer close(drained)
		io.Copy(io.Discard, nc)
	}()
	nc.Write(input)
	nc.(interface{ CloseWrite() error }).CloseWrite()
	within(t, "answer", func() { <-drained })
	within(t, "Close", srv.Close)
	nc.Close()
	// Answers, the model and the queues' messages take a multiple of the input.
	if cost, limit := allocated()-before, uint64(200*len(input)+(1<<20)); cost > limit {
		t.Errorf("%d octets cost %d; want %d at most", len(input), cost, limit)
	}
}

func within(t *testing.T, what string, f func()) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		f()
	}()
	select {
	case <-done:
	case <-time.After(20 * time.Second):
		t.Fatalf("%s takes for ever", what)
	}
}

func fuzzSeeds() [][]byte {
	seeds := [][]byte{
		nil, greeting(), []byte("GET / HTTP/1.1\r\n\r\n"), []byte("AMQP\x00\x01\x00\x00"), publishFrames("q", 16), publishFrames("q", 200),
		{1, 0, 1, 0xff, 0xff, 0xff, 0xff}, {8, 0, 0, 0, 0, 0, 0, 0xce},
	}
	var all []byte
	for _, m := range []amqp.Method{
		&amqp.ExchangeDeclare{Exchange: "x", Type: "topic"}, &amqp.ExchangeDeclare{Exchange: "h", Type: "headers"},
		&amqp.QueueDeclare{Queue: "q", Arguments: amqp.Table{"x-max-length": int32(2), "x-dead-letter-exchange": "x", "x-message-ttl": int32(0)}},
		&amqp.QueueDeclare{Queue: "p", Durable: true, Arguments: amqp.Table{"x-queue-type": "quorum"}},
		&amqp.QueueDeclare{Queue: "s", Durable: true, Arguments: amqp.Table{"x-queue-type": "stream"}},
		&amqp.QueueBind{Queue: "q", Exchange: "x", RoutingKey: strings.Repeat("#.", 40) + "a"},
		&amqp.QueueBind{Queue: "p", Exchange: "x", RoutingKey: "#"},
		&amqp.QueueBind{Queue: "q", Exchange: "h", Arguments: amqp.Table{"x-match": "any", "a": amqp.Table{"b": int8(1)}}},
		&amqp.ExchangeBind{Destination: "x", Source: "x", RoutingKey: "#"},
		&amqp.ConfirmSelect{}, &amqp.BasicQos{PrefetchCount: 3}, &amqp.BasicConsume{Queue: "q"}, &amqp.BasicConsume{Queue: "s"},
		&amqp.BasicGet{Queue: "p"}, &amqp.BasicNack{Multiple: true, Requeue: true}, &amqp.BasicRecover{Requeue: true},
		&amqp.BasicAck{DeliveryTag: 1}, &amqp.BasicCancel{ConsumerTag: "t"}, &amqp.QueuePurge{Queue: "q"}, &amqp.QueueDelete{Queue: "p"},
		&amqp.ChannelClose{}, &amqp.ConnectionClose{},
	} {
		seeds = append(seeds, methodFrame(1, m))
		all = append(append(all, methodFrame(1, m)...), publishFrames("q", 3)...)
	}
	return append(seeds, all, all[:len(all)/2])
}

// FuzzServer_Handshake sends a server what no client sends, from the first octet.
func FuzzServer_Handshake(f *testing.F) {
	for _, s := range fuzzSeeds() {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, input []byte) { attack(t, false, input) })
}

// FuzzServer_Open does it on an open connection with a channel.
func FuzzServer_Open(f *testing.F) {
	for _, s := range fuzzSeeds() {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, input []byte) { attack(t, true, input) })
}

// TestServer_SilentConnections: 200 connections that say nothing, half of them
// in the middle of a frame, do not stop a good one.
func TestServer_SilentConnections(t *testing.T) {
	srv := amqptest.NewServer(t)
	before := allocated()
	for i := range 200 {
		nc, err := srv.Dial(t.Context(), "", "")
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
		if i%2 == 0 {
			nc.Write([]byte("AMQP\x00\x00\x09\x01\x01\x00\x00\x00\x00\x1f"))
		}
	}
	if err := roundTrip(t.Context(), dial(t, srv, nil)); err != nil {
		t.Fatal(err)
	}
	if cost := (allocated() - before) / 200; cost > 64<<10 {
		t.Errorf("a silent connection costs %d octets", cost)
	}
	srv.WaitConnections(t, 1)
}
