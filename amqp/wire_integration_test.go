//go:build integration

package amqp

import (
	"bufio"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/warrenmq/warren/internal/rabbittest"
)

// wireConn talks to a broker with nothing but the wire layer, so that what
// the broker makes of certain bytes is seen as it is.
type wireConn struct {
	t  *testing.T
	nc net.Conn
	r  *bufio.Reader
}

// openWire opens a connection and channel 1 and declares the queue "wire".
func openWire(t *testing.T, addr string) *wireConn {
	t.Helper()
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = nc.Close() })
	if err := nc.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	c := &wireConn{t, nc, bufio.NewReader(nc)}
	if _, err := nc.Write(appendProtocolHeader(nil)); err != nil {
		t.Fatal(err)
	}
	c.expect(MethodConnectionStart)
	c.send(0, ConnectionStartOk{Mechanism: "PLAIN", Response: "\x00guest\x00guest", Locale: "en_US"})
	tune := c.expect(MethodConnectionTune).(*ConnectionTune)
	c.send(0, ConnectionTuneOk{ChannelMax: tune.ChannelMax, FrameMax: tune.FrameMax})
	c.send(0, ConnectionOpen{VirtualHost: "/"})
	c.expect(MethodConnectionOpenOk)
	c.send(1, ChannelOpen{})
	c.expect(MethodChannelOpenOk)
	c.send(1, QueueDeclare{Queue: "wire", Durable: true})
	c.expect(MethodQueueDeclareOk)
	return c
}

func (c *wireConn) frame(typ uint8, ch uint16, payload []byte) {
	c.t.Helper()
	if _, err := c.nc.Write(endFrame(append(beginFrame(nil, typ, ch), payload...), 0)); err != nil {
		c.t.Fatal(err)
	}
}

func (c *wireConn) send(ch uint16, m Method) {
	c.t.Helper()
	p, err := AppendMethod(nil, m)
	if err != nil {
		c.t.Fatal(err)
	}
	c.frame(FrameMethod, ch, p)
}

// read gives the next frame's type and payload, heartbeats aside.
func (c *wireConn) read() (uint8, []byte, error) {
	for {
		p := make([]byte, frameHeaderSize)
		if _, err := io.ReadFull(c.r, p); err != nil {
			return 0, nil, err
		}
		h := parseFrameHeader(p)
		p = make([]byte, h.size+1)
		if _, err := io.ReadFull(c.r, p); err != nil {
			return 0, nil, err
		}
		if h.typ != FrameHeartbeat {
			return h.typ, p[:h.size], nil
		}
	}
}

func (c *wireConn) expect(id MethodID) Method {
	c.t.Helper()
	typ, p, err := c.read()
	if err != nil {
		c.t.Fatalf("waiting for %s: %v", id, err)
	}
	m, err := DecodeMethod(p)
	if typ != FrameMethod || err != nil || m.MethodID() != id {
		c.t.Fatalf("waiting for %s: got frame %d %+v, %v", id, typ, m, err)
	}
	return m
}

// publish sends an empty message with these headers, length included.
func (c *wireConn) publish(headers string) {
	c.t.Helper()
	c.send(1, BasicPublish{RoutingKey: "wire"})
	c.frame(FrameHeader, 1, []byte("\x00\x3c\x00\x00"+"\x00\x00\x00\x00\x00\x00\x00\x00"+"\x20\x00"+headers))
}

// get takes a message that will be there soon, and gives its headers as sent.
func (c *wireConn) get() string {
	c.t.Helper()
	for {
		c.send(1, BasicGet{Queue: "wire", NoAck: true})
		typ, p, err := c.read()
		if err != nil || typ != FrameMethod {
			c.t.Fatalf("got frame %d %q, %v", typ, p, err)
		}
		m, err := DecodeMethod(p)
		if err != nil {
			c.t.Fatal(err)
		}
		switch m.(type) {
		case *BasicGetEmpty:
			time.Sleep(5 * time.Millisecond)
			continue
		case *BasicGetOk:
		default:
			c.t.Fatalf("got %+v", m)
		}
		typ, p, err = c.read()
		if err != nil || typ != FrameHeader {
			c.t.Fatalf("got frame %d %q, %v", typ, p, err)
		}
		d := decoder{p: p[12:], lazyTables: true}
		var props Properties
		if props.decode(&d); d.finish() != nil {
			c.t.Fatal(d.err)
		}
		return string(d.table)
	}
}

// Every field type comes back from a broker as it was sent.
func TestWire_FieldTypesOnRabbitMQ(t *testing.T) {
	c := openWire(t, rabbittest.Shared(t).Addr())
	for _, field := range fieldCases {
		want := long("\x01k" + field.wire)
		c.publish(want)
		if diff := cmp.Diff(want, c.get()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", field.name, diff)
		}
	}
	want, err := AppendTable(nil, deaths(2))
	if err != nil {
		t.Fatal(err)
	}
	c.publish(string(want))
	got, err := DecodeTable([]byte(c.get()))
	if err != nil || got["x-delivery-count"] != int64(5) {
		t.Errorf("headers of a dead-lettered message: %v, %v", got, err)
	}
}

// Where Table says what RabbitMQ does, this is RabbitMQ doing it.
func TestWire_QuirksOnRabbitMQ(t *testing.T) {
	b := rabbittest.Shared(t)
	c := openWire(t, b.Addr())

	c.publish(long("\x01kL\xff\xff\xff\xff\xff\xff\xff\xfe"))
	if got := decoded(t, c.get()); got["k"] != int64(-2) {
		t.Errorf("'L' came back as %T %v", got["k"], got["k"])
	}
	c.publish(long("\x01kt\x05"))
	if got := decoded(t, c.get()); got["k"] != true {
		t.Errorf("a bool of 5 came back as %v", got["k"])
	}
	c.publish(long("\x01kt\x01\x01kt\x00"))
	if got := decoded(t, c.get()); got["k"] != true {
		t.Errorf("of two equal keys, %v came back", got["k"])
	}
}

func decoded(t *testing.T, headers string) Table {
	t.Helper()
	table, err := DecodeTable([]byte(headers))
	if err != nil {
		t.Fatal(err)
	}
	return table
}

// What costs the connection on a broker is what Warren refuses to send, or
// answers with the same reply code.
func TestWire_RefusalsOnRabbitMQ(t *testing.T) {
	b := rabbittest.Shared(t)
	for _, v := range []struct {
		name string
		do   func(c *wireConn)
		code ReplyCode
	}{
		{"NaN", func(c *wireConn) { c.publish(long("\x01kd\x7f\xf8\x00\x00\x00\x00\x00\x01")) }, InternalError},
		{"infinity", func(c *wireConn) { c.publish(long("\x01kf\x7f\x80\x00\x00")) }, InternalError},
		{"unknown field type", func(c *wireConn) { c.publish(long("\x01kZ")) }, InternalError},
		{"arguments cut short", func(c *wireConn) { c.frame(FrameMethod, 1, []byte("\x00\x3c\x00\x0a\x00")) }, FrameError},
		{"arguments with more after them", func(c *wireConn) {
			c.frame(FrameMethod, 1, []byte("\x00\x3c\x00\x0a\x00\x00\x00\x00\x00\x00\x00zzz"))
		}, FrameError},
	} {
		t.Run(v.name, func(t *testing.T) {
			c := openWire(t, b.Addr())
			v.do(c)
			if m := c.expect(MethodConnectionClose).(*ConnectionClose); m.ReplyCode != v.code {
				t.Errorf("got %v, want %v", m.ReplyCode, v.code)
			}
		})
	}
	c := openWire(t, b.Addr())
	c.frame(FrameMethod, 1, []byte("\x00\x32\x00\x63"))
	if typ, p, err := c.read(); !errors.Is(err, io.EOF) {
		t.Errorf("an unknown method: got frame %d %q, %v; it used to drop the socket", typ, p, err)
	}
}
