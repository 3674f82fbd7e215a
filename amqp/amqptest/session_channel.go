package amqptest

import "github.com/warrenmq/warren/amqp"

// openChannel is channel.open.
func (s *session) openChannel(ev *amqp.Event) error {
	limit, _, _ := s.eng.Tuned()
	if limit != 0 && s.open >= int(limit) {
		return &refusal{code: amqp.NotAllowed, noMethod: true, text: sprintf(
			"number of channels opened (%d) has reached the negotiated channel_max (%d)", s.open, limit)}
	}
	ch := newChannel(s, ev.Channel)
	s.channels[ev.Channel] = ch
	s.open++
	s.reply(ch, &amqp.ChannelOpenOk{})
	return nil
}

// closeChannel is channel.close. One that crosses ours is answered too.
func (s *session) closeChannel(ch *channel, id uint16) error {
	if ch == nil {
		ch = newChannel(s, id)
		ch.dead.Store(true)
	}
	if !ch.dead.Load() {
		s.open--
		ch.close()
		delete(s.channels, id)
	}
	s.reply(ch, &amqp.ChannelCloseOk{})
	return nil
}

// handleMode is what switches a channel's mode: confirm, tx, flow.
func (s *session) handleMode(ch *channel, ev *amqp.Event) error {
	m, err := ev.Method()
	if err != nil {
		return err
	}
	switch m := m.(type) {
	case *amqp.ConfirmSelect:
		if ch.tx != nil {
			return refusef(amqp.PreconditionFailed, "cannot switch from tx to confirm mode")
		}
		ch.confirming = true
		if !m.NoWait {
			s.reply(ch, &amqp.ConfirmSelectOk{})
		}
	case *amqp.TxSelect:
		if ch.confirming {
			return refusef(amqp.PreconditionFailed, "cannot switch from confirm to tx mode")
		}
		if ch.tx == nil {
			ch.tx = &txState{}
		}
		s.reply(ch, &amqp.TxSelectOk{})
	case *amqp.TxCommit:
		if ch.tx == nil {
			return refusef(amqp.PreconditionFailed, "channel is not transactional")
		}
		if err := ch.tx.commit(ch); err != nil {
			return err
		}
		s.reply(ch, &amqp.TxCommitOk{})
	case *amqp.TxRollback:
		if ch.tx == nil {
			return refusef(amqp.PreconditionFailed, "channel is not transactional")
		}
		ch.unacked.restore(ch.tx.rollback(nil))
		s.reply(ch, &amqp.TxRollbackOk{})
	case *amqp.ChannelFlow:
		if !m.Active {
			return refusef(amqp.NotImplemented, "active=false")
		}
		s.reply(ch, &amqp.ChannelFlowOk{Active: true})
	case *amqp.AccessRequest:
		s.reply(ch, &amqp.AccessRequestOk{})
	default:
		return unimplemented()
	}
	return nil
}
