package amqp

import (
	"context"
)

// handle takes an event that is no delivery: the engine judges it first.
func (r *reader) handle() error {
	if r.ev.ID == MethodBasicAck || r.ev.ID == MethodBasicNack {
		if st := r.ev.st; st != nil {
			return r.confirm(st)
		}
	}
	r.handUp() // what came before, and a cancel or a close in particular, comes first
	c := r.c
	c.mu.Lock()
	if c.over {
		c.mu.Unlock()
		return errOver
	}
	keep, err := c.e.accept(&r.ev)
	if err == nil && r.ev.Kind == EventClosed {
		if r.ev.Err != nil { // whoever comes before fail does is to hear the reason
			c.err = asError(r.ev.Err)
		}
		c.unlockFlush(flushNow)
		if r.ev.Err == nil {
			c.fail(nil)
			return errOver
		}
		return r.ev.Err
	}
	if err == nil && keep && r.ev.ID == MethodChannelClose {
		r.ev.st.ref.(*Channel).reason, err = closeReason(&r.ev)
	}
	c.unlockFlush(flushNow)
	if err != nil {
		if cl, ok := r.ev.ref.(*call); ok { // no longer among those that fail with the connection
			cl.finish(&outcomeError{err})
		}
		return err
	}
	if !keep {
		return r.swallowed()
	}
	return r.act()
}

// swallowed notes what the engine undid: the tag of a consumer whose Subscribe
// gave up is free again.
func (r *reader) swallowed() error {
	if r.ev.ID != MethodBasicConsumeOk || r.ev.st == nil {
		return nil
	}
	var m BasicConsumeOk
	if err := m.DecodeFrom(r.ev.Args); err != nil {
		return err
	}
	if ch, ok := r.ev.st.ref.(*Channel); ok {
		ch.forget(m.ConsumerTag)
	}
	return nil
}

// act does what an accepted event asks for.
func (r *reader) act() error {
	ev, c := &r.ev, r.c
	if cl, ok := ev.ref.(*call); ok {
		return r.reply(cl)
	}
	switch ev.ID {
	case MethodBasicReturn:
		return r.bounced()
	case MethodBasicCancel:
		var m BasicCancel
		if err := m.DecodeFrom(ev.Args); err != nil {
			return err
		}
		if ch, ok := ev.st.ref.(*Channel); ok {
			ch.cancelled(m.ConsumerTag)
		}
	case MethodBasicCancelOk: // of a consumer that was too slow
		var m BasicCancelOk
		if err := m.DecodeFrom(ev.Args); err != nil {
			return err
		}
		ev.st.ref.(*Channel).forget(m.ConsumerTag)
	case MethodChannelClose:
		ch := ev.st.ref.(*Channel)
		r.channelClosed(ch, ch.reason)
	case MethodChannelCloseOk:
		if ch, ok := ev.st.ref.(*Channel); ok {
			r.channelClosed(ch, nil)
		}
	case MethodChannelFlow:
		var m ChannelFlow
		if err := m.DecodeFrom(ev.Args); err != nil {
			return err
		}
		c.mu.Lock()
		ev.st.ref.(*Channel).stopped = !m.Active
		c.waiting.wakeAll()
		c.mu.Unlock()
	case MethodConnectionBlocked, MethodConnectionUnblocked:
		return r.block(ev)
	}
	return nil
}

// closeReason is what the broker says of a channel that it closes.
func closeReason(ev *Event) (*Error, error) {
	var m ChannelClose
	if err := m.DecodeFrom(ev.Args); err != nil {
		return nil, err
	}
	return &Error{
		Code: m.ReplyCode, Text: m.ReplyText, Channel: ev.Channel, Remote: true,
		Method: MethodID(m.FailedClass)<<16 | MethodID(m.FailedMethod),
	}, nil
}

func (r *reader) block(ev *Event) error {
	var m ConnectionBlocked
	on := ev.ID == MethodConnectionBlocked
	if on {
		if err := m.DecodeFrom(ev.Args); err != nil {
			return err
		}
	}
	c := r.c
	c.mu.Lock()
	c.blocked, c.reason = on, m.Reason
	c.waiting.wakeAll()
	c.mu.Unlock()
	if c.cfg.onBlocked != nil {
		c.cfg.onBlocked(on, m.Reason)
	}
	c.hook(func() {
		if on {
			c.trace.blocked(context.Background(), c.info, m.Reason)
		} else {
			c.trace.unblocked(context.Background(), c.info)
		}
	})
	return nil
}

// channelClosed ends a channel; ex is nil where it was this side that closed it.
func (r *reader) channelClosed(ch *Channel, ex *Error) {
	c := r.c
	cause := ex
	if cause == nil {
		cause = closedHere(ch.id)
	}
	c.mu.Lock()
	ended := ch.end(cause)
	ch.orderly = ex == nil
	c.waiting.wakeAll()
	c.mu.Unlock()
	for _, cons := range ended {
		cons.end(cause, true)
	}
	c.runHooks()
	if ex != nil {
		c.log("channel closed by the broker", ex)
	}
	c.hook(func() {
		var err error
		if ex != nil {
			err = ex
		}
		c.trace.channelClosed(context.Background(), c.info, ch.id, err)
	})
}
