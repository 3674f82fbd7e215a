package amqp

import "fmt"

// accept holds an event against the state of the connection and its channels,
// and does what follows from it without anybody's decision. It reports whether
// the event is for the user. It is the one place that has both halves.
func (e *Engine) accept(ev *Event) (bool, error) {
	if ev.Channel == 0 {
		return e.acceptConnection(ev)
	}
	if e.s.phase != connOpen && e.s.phase != connClosing {
		return false, protocolError(UnexpectedFrame, ev.ID, ev.Channel, "a channel is used before the connection is open")
	}
	if ev.ID>>16 == MethodID(ClassConnection) {
		return false, protocolError(CommandInvalid, ev.ID, ev.Channel, "a method of the connection on a channel")
	}
	if e.s.phase == connClosing {
		return false, nil
	}
	if ev.ID == MethodChannelOpen {
		return e.acceptOpen(ev)
	}
	st := e.s.channel(ev.Channel)
	if st == nil {
		return false, notOpen(ev)
	}
	ev.st = st
	if st.leaving && ev.ID != MethodChannelCloseOk {
		return false, notOpen(ev)
	}
	switch ev.ID {
	case MethodChannelClose:
		return e.acceptChannelClose(ev, st)
	case MethodChannelCloseOk:
		if st.phase != chanClosing {
			return false, unsolicited(ev)
		}
		e.s.release(st)
		return true, nil
	}
	if st.phase == chanClosing || st.phase == chanClosed {
		// What was under way when the channel closed is ordinary traffic, but a
		// server forgets a channel with its close-ok, so that its client can't go on.
		return false, nil
	}
	if e.s.role == ClientRole {
		return e.acceptOnChannel(ev, st)
	}
	if infoOf(ev.ID).reply {
		if _, ok := st.fulfil(ev.ID); !ok {
			return false, unsolicited(ev)
		}
	}
	return true, nil
}

func unsolicited(ev *Event) *Error {
	return protocolError(CommandInvalid, ev.ID, ev.Channel, "a reply to nothing that was asked")
}

func notOpen(ev *Event) *Error {
	return protocolError(ChannelError, ev.ID, ev.Channel, "the channel is not open")
}

// acceptOpen takes channel.open in the server role. How many channels are too
// many is for the server's user to judge: RabbitMQ counts them, and takes any
// number.
func (e *Engine) acceptOpen(ev *Event) (bool, error) {
	st := e.s.channel(ev.Channel)
	if st != nil && st.phase != chanClosed {
		return false, protocolError(ChannelError, ev.ID, ev.Channel, "second channel.open")
	}
	st = &chanState{num: ev.Channel, phase: chanOpen}
	e.s.channels = setChannel(e.s.channels, ev.Channel, st)
	e.r.channels = e.s.channels // one table will do: nobody runs a server's halves apart
	ev.st = st
	return true, nil
}

// acceptChannelClose answers the peer's channel.close. A channel.close of ours
// that crossed it still gets its close-ok.
func (e *Engine) acceptChannelClose(ev *Event, st *chanState) (bool, error) {
	if st.phase == chanClosed {
		return false, notOpen(ev)
	}
	if e.s.role == ServerRole {
		st.leaving = true
		return true, nil // its close-ok comes after the answers to what went before
	}
	if err := e.s.method(ev.Channel, &ChannelCloseOk{}); err != nil {
		return false, err
	}
	if st.phase == chanClosing {
		return false, nil
	}
	e.s.release(st)
	return true, nil
}

// acceptOnChannel takes what a broker says on an open channel.
func (e *Engine) acceptOnChannel(ev *Event, st *chanState) (bool, error) {
	if infoOf(ev.ID).reply {
		x, ok := st.fulfil(ev.ID)
		if !ok {
			return false, unsolicited(ev)
		}
		ev.ref = x.ref
		switch ev.ID {
		case MethodChannelOpenOk:
			st.phase = chanOpen
			e.r.setChannel(ev.Channel, st)
		case MethodBasicConsumeOk:
			st.replyTo = st.replyTo || x.replyTo
		case MethodBasicGetOk:
			var m BasicGetOk
			m.decode(e.decoder(ev))
			if err := e.decoded(ev, st, m.DeliveryTag); err != nil {
				return false, err
			}
		}
		if x.abandoned {
			return false, e.undo(ev, st, x)
		}
		if ev.ID == MethodBasicConsumeOk && st.orphans != nil {
			var m BasicConsumeOk
			m.decode(e.decoder(ev))
			delete(st.orphans, m.ConsumerTag) // the tag is somebody's again
		}
		return true, nil
	}
	if st.phase == chanOpening {
		return false, protocolError(ChannelError, ev.ID, ev.Channel, "the channel is not open yet")
	}
	switch ev.ID {
	case MethodBasicDeliver:
		return e.acceptDelivery(ev, st)
	case MethodBasicAck:
		var m BasicAck
		m.decode(e.decoder(ev))
		return true, e.confirmed(ev, st, m.DeliveryTag, m.Multiple)
	case MethodBasicNack:
		var m BasicNack
		m.decode(e.decoder(ev))
		return true, e.confirmed(ev, st, m.DeliveryTag, m.Multiple)
	case MethodChannelFlow:
		var m ChannelFlow
		m.decode(e.decoder(ev))
		return true, e.s.method(ev.Channel, &ChannelFlowOk{Active: m.Active})
	case MethodBasicCancel:
		var m BasicCancel
		if m.decode(e.decoder(ev)); !m.NoWait {
			return true, e.s.method(ev.Channel, &BasicCancelOk{ConsumerTag: m.ConsumerTag})
		}
	}
	return true, nil
}

// acceptDelivery takes basic.deliver. What comes for a consumer that was undone
// goes back to its queue.
func (e *Engine) acceptDelivery(ev *Event, st *chanState) (bool, error) {
	var m BasicDeliver
	m.decode(e.decoder(ev))
	if err := e.decoded(ev, st, m.DeliveryTag); err != nil {
		return false, err
	}
	noAck, orphaned := st.orphans[m.ConsumerTag]
	if !orphaned {
		return true, nil
	}
	if noAck {
		return false, nil
	}
	_, err := e.s.send(ev.Channel, &BasicNack{DeliveryTag: m.DeliveryTag, Requeue: true}, false, nil)
	return false, err
}

// decoder makes the engine's decoder ready for an event's arguments. Strings
// come out as views of them.
func (e *Engine) decoder(ev *Event) *decoder {
	e.d = decoder{p: ev.Args, alias: true}
	return &e.d
}

// decoded checks that all went well, and that the delivery tag grows.
func (e *Engine) decoded(ev *Event, st *chanState, tag uint64) error {
	if err := e.d.finish(); err != nil {
		return inMethod(err, ev.ID)
	}
	return st.delivered(ev.ID, tag)
}

// delivered refuses a delivery tag that does not grow.
func (st *chanState) delivered(id MethodID, tag uint64) error {
	if tag <= st.lastTag {
		if tag == 1 && st.replyTo {
			return nil
		}
		return protocolError(SyntaxError, id, st.num, fmt.Sprintf("delivery tag %d after %d", tag, st.lastTag))
	}
	st.lastTag = tag
	return nil
}

// confirmed checks that all went well, and that there is what is confirmed.
func (e *Engine) confirmed(ev *Event, st *chanState, tag uint64, multiple bool) error {
	if err := e.d.finish(); err != nil {
		return inMethod(err, ev.ID)
	}
	return st.confirmable(ev.ID, tag, multiple)
}

// confirmable refuses a confirm of what was never published.
func (st *chanState) confirmable(id MethodID, tag uint64, multiple bool) error {
	switch {
	case !st.confirming:
		return protocolError(CommandInvalid, id, st.num, "a confirm on a channel without confirms")
	case tag > st.published, tag == 0 && !multiple:
		return protocolError(SyntaxError, id, st.num, fmt.Sprintf("confirm of message %d of %d", tag, st.published))
	}
	return nil
}

// undo takes back the effect of a reply that nobody waits for any more.
func (e *Engine) undo(ev *Event, st *chanState, x expectation) error {
	var err error
	switch ev.ID {
	case MethodChannelOpenOk:
		_, err = e.s.send(ev.Channel, &ChannelClose{ReplyCode: ReplySuccess}, false, nil)
	case MethodBasicConsumeOk:
		var m BasicConsumeOk
		if err := m.DecodeFrom(ev.Args); err != nil {
			return err
		}
		if st.orphans == nil {
			st.orphans = map[string]bool{}
		}
		st.orphans[m.ConsumerTag] = x.noAck
		if _, err = e.s.send(ev.Channel, &BasicCancel{ConsumerTag: m.ConsumerTag}, false, nil); err == nil {
			st.expect[len(st.expect)-1].abandoned = true // its answer ends the orphan, below
		}
	case MethodBasicCancelOk:
		var m BasicCancelOk
		if err := m.DecodeFrom(ev.Args); err != nil {
			return err
		}
		delete(st.orphans, m.ConsumerTag)
	case MethodBasicGetOk:
		if !x.noAck {
			_, err = e.s.send(ev.Channel, &BasicNack{DeliveryTag: st.lastTag, Requeue: true}, false, nil)
		}
	}
	return err
}
