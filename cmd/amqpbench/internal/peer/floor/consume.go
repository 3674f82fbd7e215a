package floor

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/warrenmq/warren/cmd/amqpbench/internal/frames"
	"github.com/warrenmq/warren/cmd/amqpbench/internal/peer"
)

// consume takes the first delivery apart to learn how long one is, and counts octets from there. Heartbeats
// that fall in between make it stop a few octets early.
func (ch *channel) consume(job *peer.ConsumeJob) error {
	c := ch.c
	if job.Prefetch > 0 {
		err := ch.call(func(b *frames.Buf) {
			b.Method(ch.id, 60, 10).Long(0).Short(uint16(job.Prefetch)).Octet(0).Close()
		}, 60, 11)
		if err != nil {
			return err
		}
	}
	noAck := byte(0)
	if job.NoAck {
		noAck = 2
	}
	err := ch.call(func(b *frames.Buf) {
		b.Method(ch.id, 60, 20).Short(0).ShortStr(job.Queue).ShortStr("c").Octet(noAck).Table(nil).Close()
	}, 60, 21)
	if err != nil {
		return err
	}
	if job.Ready != nil {
		job.Ready()
	}
	size, tag, err := c.firstDelivery()
	if err != nil {
		return err
	}
	acks := newAcks(ch.id, job, tag)
	total := uint64(job.N) * uint64(size)
	have := uint64(len(c.buf))
	c.buf = nil
	for {
		if err := acks.write(c, min(have, total)/uint64(size)); err != nil {
			return err
		}
		if have >= total {
			break
		}
		n, err := c.nc.Read(c.in)
		if err != nil {
			return fmt.Errorf("after %d of %d octets: %w", have, total, err)
		}
		have += uint64(n)
	}
	// On a whole number of deliveries the frames are in step; else the connection is of no more use.
	c.raw = have != total
	return nil
}

// acks writes acks for what has arrived, encoded before.
type acks struct {
	off   bool
	every uint64
	p     []byte
	size  int
	first uint64 // delivery tag of the first delivery
	done  uint64
	n     uint64
}

func newAcks(id uint16, job *peer.ConsumeJob, first uint64) *acks {
	a := &acks{off: job.NoAck, every: uint64(max(1, job.AckEvery)), first: first, n: uint64(job.N)}
	var b frames.Buf
	multiple := byte(0)
	if a.every > 1 {
		multiple = 1
	}
	b.Method(id, 60, 80).LongLong(0).Octet(multiple).Close()
	a.size = len(b.B)
	for range max(1, job.Prefetch) {
		a.p = append(a.p, b.B...)
	}
	return a
}

// write acks all whole groups among the first got deliveries, and the rest at the end.
func (a *acks) write(c *conn, got uint64) error {
	if a.off {
		return nil
	}
	at := 0
	for got-a.done >= a.every || (got == a.n && a.done < got) {
		a.done = min(a.done+a.every, got)
		binary.BigEndian.PutUint64(a.p[at+11:], a.first+a.done-1)
		if at += a.size; at == len(a.p) {
			if _, err := c.nc.Write(a.p); err != nil {
				return err
			}
			at = 0
		}
	}
	if at == 0 {
		return nil
	}
	_, err := c.nc.Write(a.p[:at])
	return err
}

// firstDelivery waits until one delivery is in the buffer, and gives its length and tag.
func (c *conn) firstDelivery() (size int, tag uint64, err error) {
	var grown []byte // of a body larger than the buffer
	at, body := 0, -1
	for {
		p := c.buf
		for body != 0 && len(p) >= at+7 && len(p) >= at+8+int(binary.BigEndian.Uint32(p[at+3:])) {
			n := int(binary.BigEndian.Uint32(p[at+3:]))
			payload := p[at+7 : at+7+n]
			switch p[at] {
			case frames.TypeMethod:
				r := frames.Reader{P: payload}
				if class, method := r.Short(), r.Short(); class != 60 || method != 60 {
					return 0, 0, errors.New("floor: something else than a delivery came")
				}
				r.ShortStr()
				tag = r.LongLong()
			case frames.TypeHeader:
				body = int(binary.BigEndian.Uint64(payload[4:]))
			case frames.TypeBody:
				body -= n
			}
			at += n + 8
		}
		if body == 0 {
			return at, tag, nil
		}
		grown = append(grown[:0:0], c.buf...)
		n, err := c.nc.Read(c.in)
		if err != nil {
			return 0, 0, err
		}
		c.buf = append(grown, c.in[:n]...)
	}
}

// RPC is one call at a time: a request encoded before, and a reply counted by its length.
func (c *conn) RPC(ctx context.Context) (peer.RPC, error) {
	pc, err := c.Channel(ctx)
	if err != nil {
		return nil, err
	}
	ch := pc.(*channel)
	err = ch.call(func(b *frames.Buf) {
		b.Method(ch.id, 60, 20).Short(0).ShortStr("amq.rabbitmq.reply-to").ShortStr("r").Octet(2).Table(nil).Close()
	}, 60, 21)
	return &rpc{ch: ch}, err
}

type rpc struct {
	ch   *channel
	req  []byte
	size int
}

func (r *rpc) Call(_ context.Context, queue string, body []byte) (int, error) {
	const hasCorrelationID, hasReplyTo = 1 << 10, 1 << 9
	c := r.ch.c
	if r.req == nil {
		var b frames.Buf
		b.Method(r.ch.id, 60, 40).Short(0).ShortStr("").ShortStr(queue).Octet(0).Close()
		b.Open(frames.TypeHeader, r.ch.id).Short(60).Short(0).LongLong(uint64(len(body))).Short(hasCorrelationID | hasReplyTo)
		b.ShortStr("1").ShortStr("amq.rabbitmq.reply-to").Close()
		b.Open(frames.TypeBody, r.ch.id).Raw(body).Close()
		r.req = b.B
	}
	if _, err := c.nc.Write(r.req); err != nil {
		return 0, err
	}
	if r.size == 0 {
		size, _, err := c.firstDelivery()
		r.size, c.buf = size, nil
		return len(body), err
	}
	for have := 0; have < r.size; {
		n, err := c.nc.Read(c.in)
		if err != nil {
			return 0, err
		}
		have += n
	}
	return len(body), nil
}

func (r *rpc) Close() error { return r.ch.Close() }
