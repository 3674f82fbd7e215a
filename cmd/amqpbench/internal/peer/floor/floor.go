// Package floor is the least that a client could cost: frames that were encoded before the clock started, through
// a bare socket, and answers counted by their length. It is also how queues are filled before a run.
package floor

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/url"

	"github.com/warrenmq/warren/cmd/amqpbench/internal/frames"
	"github.com/warrenmq/warren/cmd/amqpbench/internal/peer"
)

// Peer is the floor.
type Peer struct{}

func (Peer) Name() string    { return "floor" }
func (Peer) Version() string { return "pre-encoded frames, bare socket" }

// chunkBytes is how much is written, and at most read, in one system call.
const (
	chunkBytes = 64 << 10
	readBytes  = 256 << 10
)

type conn struct {
	nc       net.Conn
	buf      []byte // read and not used up
	in       []byte
	frameMax int
	channels uint16
	raw      bool // deliveries were read by length: frames can't be told apart any more
}

// Dial opens a connection by the shortest handshake there is.
func (Peer) Dial(ctx context.Context, uri string) (peer.Conn, error) {
	u, err := url.Parse(uri)
	if err != nil {
		return nil, err
	}
	host := u.Host
	if u.Port() == "" {
		host = net.JoinHostPort(u.Hostname(), "5672")
	}
	user, pass := "guest", "guest"
	if u.User != nil {
		user = u.User.Username()
		pass, _ = u.User.Password()
	}
	vhost := "/"
	if len(u.EscapedPath()) > 1 {
		if vhost, err = url.PathUnescape(u.EscapedPath()[1:]); err != nil {
			return nil, err
		}
	}
	nc, err := new(net.Dialer).DialContext(ctx, "tcp", host)
	if err != nil {
		return nil, err
	}
	c := &conn{nc: nc, in: make([]byte, readBytes)}
	if err := c.handshake(user, pass, vhost); err != nil {
		nc.Close()
		return nil, fmt.Errorf("floor: %w", err)
	}
	return c, nil
}

func (c *conn) handshake(user, pass, vhost string) error {
	if _, err := c.nc.Write(frames.Header); err != nil {
		return err
	}
	if _, err := c.expect(10, 10); err != nil {
		return err
	}
	caps := frames.Entry(frames.Entry(nil, "publisher_confirms", true), "basic.nack", true)
	props := frames.Entry(frames.Entry(nil, "product", "amqpbench floor"), "capabilities", caps)
	var b frames.Buf
	b.Method(0, 10, 11).Table(props).ShortStr("PLAIN").LongStr("\x00" + user + "\x00" + pass).ShortStr("en_US").Close()
	if _, err := c.nc.Write(b.B); err != nil {
		return err
	}
	tune, err := c.expect(10, 30)
	if err != nil {
		return err
	}
	channels, frameMax := tune.Short(), tune.Long()
	c.frameMax = int(frameMax)
	b.B = b.B[:0]
	b.Method(0, 10, 31).Short(channels).Long(frameMax).Short(0).Close()
	b.Method(0, 10, 40).ShortStr(vhost).ShortStr("").Octet(0).Close()
	if _, err := c.nc.Write(b.B); err != nil {
		return err
	}
	_, err = c.expect(10, 41)
	return err
}

// expect reads frames until the method asked for, and fails at a close.
func (c *conn) expect(class, method uint16) (*frames.Reader, error) {
	for {
		payload, err := c.method()
		if err != nil {
			return nil, err
		}
		r := &frames.Reader{P: payload}
		switch cl, m := r.Short(), r.Short(); {
		case cl == class && m == method:
			return r, nil
		case (cl == 10 && m == 50) || (cl == 20 && m == 40):
			code, text := r.Short(), r.ShortStr()
			return nil, fmt.Errorf("closed with %d %s", code, text)
		}
	}
}

// method reads up to the next method frame and returns its payload, good until the next read.
func (c *conn) method() ([]byte, error) {
	for {
		for len(c.buf) < 7 || len(c.buf) < 8+int(binary.BigEndian.Uint32(c.buf[3:])) {
			n := copy(c.in, c.buf)
			m, err := c.nc.Read(c.in[n:])
			if err != nil {
				return nil, err
			}
			c.buf = c.in[:n+m]
		}
		typ, size := c.buf[0], int(binary.BigEndian.Uint32(c.buf[3:]))
		payload := c.buf[7 : 7+size]
		c.buf = c.buf[8+size:]
		if typ == frames.TypeMethod {
			return payload, nil
		}
	}
}

func (c *conn) Close() error {
	if c.raw {
		return c.nc.Close()
	}
	var b frames.Buf
	b.Method(0, 10, 50).Short(200).ShortStr("").Short(0).Short(0).Close()
	if _, err := c.nc.Write(b.B); err != nil {
		return err
	}
	_, err := c.expect(10, 51)
	return errors.Join(err, c.nc.Close())
}

// Channel opens a channel. All of a connection's channels are one goroutine's.
func (c *conn) Channel(context.Context) (peer.Channel, error) {
	if c.raw { // the workload asks for a new channel after a warm-up: see Consume
		return nil, errors.New("floor: the connection is used up")
	}
	c.channels++
	ch := &channel{c: c, id: c.channels}
	return ch, ch.call(func(b *frames.Buf) { b.Method(ch.id, 20, 10).ShortStr("").Close() }, 20, 11)
}

type channel struct {
	c     *conn
	id    uint16
	sent  uint64 // publishes since Confirm
	acked uint64 // of those, confirmed
}

func (ch *channel) call(write func(*frames.Buf), class, method uint16) error {
	if ch.c.raw {
		return nil
	}
	var b frames.Buf
	write(&b)
	if _, err := ch.c.nc.Write(b.B); err != nil {
		return err
	}
	_, err := ch.c.expect(class, method)
	return err
}

func (ch *channel) declare(q peer.Queue, bits byte) error {
	var args []byte
	if q.Type != "" {
		args = frames.Entry(args, "x-queue-type", q.Type)
	}
	if q.MaxLength > 0 {
		args = frames.Entry(args, "x-max-length", int64(q.MaxLength))
	}
	return ch.call(func(b *frames.Buf) {
		b.Method(ch.id, 50, 10).Short(0).ShortStr(q.Name).Octet(bits).Table(args).Close()
	}, 50, 11)
}

func (ch *channel) Declare(_ context.Context, q peer.Queue) error {
	bits := byte(0)
	for i, set := range []bool{false, q.Durable, q.Exclusive, q.AutoDelete} {
		if set {
			bits |= 1 << i
		}
	}
	return ch.declare(q, bits)
}

func (ch *channel) Sync(_ context.Context, queue string) error {
	return ch.declare(peer.Queue{Name: queue}, 1)
}

func (ch *channel) Purge(_ context.Context, queue string) error {
	return ch.call(func(b *frames.Buf) { b.Method(ch.id, 50, 30).Short(0).ShortStr(queue).Octet(0).Close() }, 50, 31)
}

func (ch *channel) Delete(_ context.Context, queue string) error {
	return ch.call(func(b *frames.Buf) { b.Method(ch.id, 50, 40).Short(0).ShortStr(queue).Octet(0).Close() }, 50, 41)
}

func (ch *channel) Confirm(context.Context) error {
	ch.sent, ch.acked = 0, 0
	return ch.call(func(b *frames.Buf) { b.Method(ch.id, 85, 10).Octet(0).Close() }, 85, 11)
}

func (ch *channel) Close() error {
	return ch.call(func(b *frames.Buf) { b.Method(ch.id, 20, 40).Short(200).ShortStr("").Short(0).Short(0).Close() }, 20, 41)
}

// Publish writes chunks of messages encoded before.
func (ch *channel) Publish(_ context.Context, job *peer.PublishJob) error {
	if job.Watched() || job.Exchange != "" {
		return peer.ErrUnsupported
	}
	one := frames.Buf{}
	one.Publish(ch.id, job.Queue, job.Headers, job.Body, ch.c.frameMax)
	size := len(one.B)
	per := int64(max(1, chunkBytes/size))
	if job.Window > 0 {
		per = min(per, int64(max(1, job.Window/2)))
	}
	chunk := bytes.Repeat(one.B, int(min(per, max(job.N, 1))))
	for left := job.N; left > 0; {
		n := min(per, left)
		if job.Window > 0 {
			if err := ch.awaitAcks(ch.sent + uint64(n) - min(ch.sent+uint64(n), uint64(job.Window))); err != nil {
				return err
			}
		}
		if _, err := ch.c.nc.Write(chunk[:int(n)*size]); err != nil {
			return err
		}
		ch.sent += uint64(n)
		left -= n
	}
	if job.Window > 0 {
		return ch.awaitAcks(ch.sent)
	}
	return nil
}

// awaitAcks reads confirms until the tags up to the given one are covered. It takes the highest tag seen for all
// before it, which is the null server's way and nearly RabbitMQ's.
func (ch *channel) awaitAcks(tag uint64) error {
	for ch.acked < tag {
		r, err := ch.c.expect(60, 80)
		if err != nil {
			return err
		}
		ch.acked = max(ch.acked, r.LongLong())
	}
	return nil
}

func (ch *channel) Consume(_ context.Context, job *peer.ConsumeJob) error {
	if job.Watched() || job.Stream {
		return peer.ErrUnsupported
	}
	return ch.consume(job)
}
