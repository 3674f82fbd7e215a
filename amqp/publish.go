package amqp

import (
	"context"
	"strconv"
)

// BasicPublish sends a message and does not wait for an answer: it returns
// once the message is in the outbox, and what becomes of it is not told. It
// waits, within ctx, while the outbox is full, while the broker blocks the
// connection (see Config.FailWhenBlocked), and on a channel with confirms while
// too many are outstanding. The message's bytes and headers are the caller's
// again when it returns.
//
// On a channel with confirms (after Publish, PublishAsync or ConfirmSelect)
// it counts as any other publish.
//
// Errors: nothing was sent in any of them (SafeToRetry reports true). Those
// that wrap ctx's own; ErrBlocked; an *EncodeError; ErrRefused where Immediate
// is set, which RabbitMQ does not know, or where the body is over
// Config.MaxBody; an *Error that wraps ErrClosed.
//
// Source: https://www.rabbitmq.com/amqp-0-9-1-reference#basic.publish.
func (ch *Channel) BasicPublish(ctx context.Context, m BasicPublish, msg Message) error {
	if ch.c.trace.tracesPublish() {
		return ch.tracedPublish(ctx, m, msg)
	}
	return ch.publish(ctx, &m, &msg, nil, flushSoon)
}

// Publish sends a message and waits, within ctx, for what becomes of it. The
// channel is made to confirm where it is not yet.
//
// Nil means that the broker confirmed it: it is responsible for the message
// now. The other outcomes are errors: ErrNacked; a *ReturnError for a message
// with Mandatory set that reached no queue; and one that wraps
// ErrUnknownOutcome where the channel, the connection or ctx ended before the
// broker's answer came: it may have the message or not.
//
// Errors: besides, those of BasicPublish, and then nothing was sent; ErrTxMode.
//
// Source: https://www.rabbitmq.com/docs/confirms#publisher-confirms.
func (ch *Channel) Publish(ctx context.Context, m BasicPublish, msg Message) error {
	if ch.c.trace.tracesPublish() {
		cf, err := ch.tracedAsync(ctx, m, msg, flushNow)
		if err != nil {
			return err
		}
		return cf.Wait(ctx)
	}
	cf := confirms.Get().(*Confirm)
	cf.reset(ch)
	if err := ch.publish(ctx, &m, &msg, cf, flushNow); err != nil {
		confirms.Put(cf)
		return err
	}
	err := cf.Wait(ctx)
	if cf.state.Load() != confirmPending {
		confirms.Put(cf) // nobody else knows it any more
	}
	return err
}

// PublishAsync sends a message as Publish does and returns what will know its
// outcome, without waiting for it. At most Config.Unconfirmed messages of a
// channel can be outstanding: beyond that it waits, within ctx, for room.
//
// Errors: as BasicPublish, and ErrTxMode; nothing was sent in any of them.
//
// Source: https://www.rabbitmq.com/docs/confirms#publisher-confirms.
func (ch *Channel) PublishAsync(ctx context.Context, m BasicPublish, msg Message) (*Confirm, error) {
	if ch.c.trace.tracesPublish() {
		return ch.tracedAsync(ctx, m, msg, flushSoon)
	}
	cf := newConfirm(ch)
	if err := ch.publish(ctx, &m, &msg, cf, flushSoon); err != nil {
		return nil, err
	}
	return cf, nil
}

func (ch *Channel) tracedPublish(ctx context.Context, m BasicPublish, msg Message) error {
	ctx = ch.c.trace.publishStart(ctx, ch.id, &m, &msg)
	err := ch.publish(ctx, &m, &msg, nil, flushSoon)
	ch.c.trace.publishDone(ctx, ch.id, err)
	return err
}

func (ch *Channel) tracedAsync(ctx context.Context, m BasicPublish, msg Message, f flush) (*Confirm, error) {
	trace := ch.c.trace
	ctx = trace.publishStart(ctx, ch.id, &m, &msg)
	cf := &Confirm{ch: ch}
	cf.more().onDone = func(err error) { trace.publishDone(ctx, ch.id, err) }
	if err := ch.publish(ctx, &m, &msg, cf, f); err != nil {
		trace.publishDone(ctx, ch.id, err)
		return nil, err
	}
	return cf, nil
}

// publish appends a message to the outbox, all of it or nothing. m and msg
// don't escape: that is what keeps a publish free of allocations.
func (ch *Channel) publish(ctx context.Context, m *BasicPublish, msg *Message, cf *Confirm, f flush) error {
	if ctx.Err() != nil {
		return &unsentError{contextError(ctx)}
	}
	c := ch.c
	if m.Immediate || c.cfg.MaxBody > 0 && int64(len(msg.Body)) > c.cfg.MaxBody {
		return refusePublish(m.Immediate, len(msg.Body), c.cfg.MaxBody)
	}
	direct := c.direct(msg.Body)
	c.mu.Lock()
	if !ch.clear(direct) {
		if err := ch.waitClear(ctx, direct); err != nil {
			return err
		}
	}
	if cf != nil && !ch.st.confirming {
		// The answer is of no interest: where the broker refuses, it closes the channel.
		if err := ch.send(&ConfirmSelect{NoWait: true}, true, nil); err != nil {
			c.mu.Unlock()
			return unsent(err)
		}
	}
	if err := c.e.s.publish(ch.st, m, msg, direct); err != nil {
		c.room() // as in waitClear
		c.unlockFlush(f)
		return &unsentError{err}
	}
	if ch.st.confirming {
		if cf != nil && m.Mandatory {
			cf.more().hash = hashMessage(m.Exchange, m.RoutingKey, &msg.Properties, msg.Body)
		}
		ch.unconfirmed++
		ch.confirms.push(ch.st.published, cf)
	}
	if direct {
		c.writeDirect(ctx)
	}
	c.unlockFlush(f)
	return nil
}

func refusePublish(immediate bool, n int, limit int64) error {
	if immediate {
		return refused(MethodBasicPublish, "RabbitMQ does not know immediate")
	}
	return refused(MethodBasicPublish, "body of "+strconv.Itoa(n)+" octets, over Config.MaxBody of "+strconv.FormatInt(limit, 10))
}

// clear reports whether a message may enter the outbox now, and, for one that
// is written directly, the socket is its own. c.mu is held.
func (ch *Channel) clear(direct bool) bool {
	c := ch.c
	if direct && !c.w.idle() || !direct && c.w.claims > 0 {
		return false
	}
	return !c.blocked && !c.closing && c.err == nil && ch.st.phase == chanOpen && !ch.stopped &&
		c.e.s.pending()+c.w.inFlight+len(c.w.rest) < c.cfg.MaxOutbox &&
		(!ch.st.confirming || ch.unconfirmed < c.cfg.Unconfirmed)
}

// waitClear waits until a message may enter the outbox. c.mu is held when it is
// called and when it returns nil.
func (ch *Channel) waitClear(ctx context.Context, direct bool) error {
	c := ch.c
	for {
		err := ch.usable()
		if err == nil {
			err = unsent(ch.ready(MethodBasicPublish))
		}
		if err == nil && c.blocked && c.cfg.FailWhenBlocked {
			err = ErrBlocked
		}
		if err != nil {
			c.mu.Unlock()
			return err
		}
		if ch.clear(direct) {
			return nil
		}
		list := &c.waiting
		if ch.st.confirming && ch.unconfirmed >= c.cfg.Unconfirmed {
			list = &ch.confirms.room
		}
		claim := direct && list == &c.waiting
		w := list.add(&c.waiters)
		if claim {
			c.w.claims++
		}
		c.unlockFlush(flushWait)
		c.aboutToWait()
		woken := w.wait(ctx, &c.mu)
		c.mu.Lock()
		if claim {
			c.w.claims--
		}
		if !woken {
			c.room() // for those whom the claim kept waiting
			c.mu.Unlock()
			return &unsentError{contextError(ctx)}
		}
	}
}
