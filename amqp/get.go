package amqp

import (
	"context"
	"fmt"
)

// Get takes one message off a queue and waits for it, or for the broker's word
// that there is none, within ctx. It costs a round trip a message: a consumer
// is the better way but for looking at a queue.
//
// Errors: ErrEmpty; one that wraps ContentTooLarge where the message's body is
// over Config.MaxBody: it was rejected, and the channel goes on; *Error where the broker refuses, which closes the channel;
// errors that wrap ctx's own: a message that comes too late is requeued, unless
// NoAck was set, and then it is lost.
//
// Source: https://www.rabbitmq.com/amqp-0-9-1-reference#basic.get.
func (ch *Channel) Get(ctx context.Context, m BasicGet) (*Delivery, error) {
	if ctx.Err() != nil {
		return nil, &unsentError{contextError(ctx)}
	}
	cl := newCall(&BasicGetOk{})
	cl.noAck = m.NoAck
	c := ch.c
	c.mu.Lock()
	err := ch.usable()
	if err == nil {
		err = ch.send(&m, false, cl)
	}
	if err != nil {
		c.mu.Unlock()
		return nil, err
	}
	c.unlockFlush(flushNow)
	if err := c.await(ctx, ch.st, cl); err != nil {
		return nil, err
	}
	if cl.delivery == nil {
		return nil, ErrEmpty
	}
	return cl.delivery, nil
}

// tooLarge rejects a message that is over MaxBody, and says so to its receiver.
func (r *reader) tooLarge(cl *call) error {
	c := r.c
	c.mu.Lock()
	c.dropped++
	if !cl.noAck {
		r.ev.st.ref.(*Channel).send(&BasicNack{DeliveryTag: cl.reply.(*BasicGetOk).DeliveryTag}, true, nil)
	}
	c.unlockFlush(flushSoon)
	return fmt.Errorf("amqp: the message was rejected: %w: %w", errOversized(r.ev.BodySize, c.cfg.MaxBody), ContentTooLarge)
}

func errOversized(size uint64, limit int64) error {
	return fmt.Errorf("body of %d octets, over Config.MaxBody of %d", size, limit)
}

// got makes a Delivery of basic.get-ok. It runs on the reader.
func (r *reader) got(cl *call) (*Delivery, error) {
	ev := &r.ev
	if err := r.checkProperties(); err != nil {
		return nil, err
	}
	m := cl.reply.(*BasicGetOk)
	ch := ev.st.ref.(*Channel)
	if ch.getter == nil {
		ch.getter = &Consumer{ch: ch, gets: true}
	}
	d := &Delivery{
		Exchange: m.Exchange, RoutingKey: m.RoutingKey, MessageCount: m.MessageCount,
		DeliveryTag: m.DeliveryTag, Redelivered: m.Redelivered, cons: ch.getter,
		Body: append([]byte(nil), ev.Body...),
	}
	d.setProps(append([]byte(nil), ev.Properties...))
	if cl.noAck {
		d.state.Store(needsNone)
		return d, nil
	}
	ch.seq++
	d.seq = ch.seq
	ch.acks.delivered(ch.seq)
	return d, nil
}
