package amqptest

import "github.com/warrenmq/warren/amqp"

func (s *session) handleBasic(ch *channel, ev *amqp.Event) error {
	switch ev.ID {
	case amqp.MethodBasicPublish:
		return s.publish(ch, ev)
	case amqp.MethodBasicAck, amqp.MethodBasicNack, amqp.MethodBasicReject:
		return settleDelivery(ch, ev)
	}
	m, err := ev.Method()
	if err != nil {
		return err
	}
	switch m := m.(type) {
	case *amqp.BasicConsume:
		return s.consume(ch, m)
	case *amqp.BasicCancel:
		if c := ch.consumers[m.ConsumerTag]; c != nil {
			c.remove()
		}
		if !m.NoWait {
			s.reply(ch, &amqp.BasicCancelOk{ConsumerTag: m.ConsumerTag})
		}
	case *amqp.BasicGet:
		return s.get(ch, m)
	case *amqp.BasicQos:
		if m.PrefetchSize != 0 {
			return refusef(amqp.NotImplemented, "prefetch_size!=0 (%d)", m.PrefetchSize)
		}
		// With global 4.3 does the same: the limit is each new consumer's own.
		ch.prefetch = int(m.PrefetchCount)
		s.reply(ch, &amqp.BasicQosOk{})
	case *amqp.BasicRecover:
		if m.Requeue {
			s.reply(ch, &amqp.BasicRecoverOk{}) // ahead of what it sets off
		}
		return ch.recover(m.Requeue)
	case *amqp.BasicRecoverAsync:
		return ch.recover(m.Requeue)
	default:
		return unimplemented()
	}
	return nil
}

// settleDelivery is basic.ack, nack and reject.
func settleDelivery(ch *channel, ev *amqp.Event) error {
	switch ev.ID {
	case amqp.MethodBasicAck:
		var m amqp.BasicAck
		if err := m.DecodeFrom(ev.Args); err != nil {
			return err
		}
		return ch.settle(m.DeliveryTag, m.Multiple, opAck)
	case amqp.MethodBasicNack:
		var m amqp.BasicNack
		if err := m.DecodeFrom(ev.Args); err != nil {
			return err
		}
		if m.Requeue {
			return ch.settle(m.DeliveryTag, m.Multiple, opNackRequeue)
		}
		return ch.settle(m.DeliveryTag, m.Multiple, opNackDrop)
	default:
		var m amqp.BasicReject
		if err := m.DecodeFrom(ev.Args); err != nil {
			return err
		}
		if m.Requeue {
			return ch.settle(m.DeliveryTag, false, opRejectRequeue)
		}
		return ch.settle(m.DeliveryTag, false, opRejectDrop)
	}
}

func (ch *channel) recover(requeue bool) error {
	if !requeue {
		return refusef(amqp.NotImplemented, "requeue=false")
	}
	ch.finish(ch.unacked.all(), opNackRequeue)
	return nil
}

// publish is basic.publish, whose arguments are read in place.
func (s *session) publish(ch *channel, ev *amqp.Event) error {
	exchange, key, bits, ok := publishArgs(ev.Args)
	if !ok {
		return fault(amqp.FrameError, "cannot decode ", erlangBinary(ev.Args))
	}
	if bits&2 != 0 {
		return refusef(amqp.NotImplemented, "immediate=true")
	}
	if ev.Oversized {
		return refusef(amqp.PreconditionFailed, "message size %d is larger than configured max size %d", ev.BodySize, s.srv.cfg.MaxBody)
	}
	return ch.publish(exchange, key, bits&1 != 0, ev)
}

// publishArgs reads ticket, exchange, routing key and the two bits.
func publishArgs(p []byte) (exchange, key []byte, bits byte, ok bool) {
	if len(p) < 3 {
		return
	}
	n := int(p[2])
	if p = p[3:]; len(p) <= n {
		return
	}
	exchange, p = p[:n], p[n:]
	n = int(p[0])
	if p = p[1:]; len(p) != n+1 {
		return
	}
	return exchange, p[:n], p[n], true
}

// consume is basic.consume.
func (s *session) consume(ch *channel, m *amqp.BasicConsume) error {
	if m.Queue == replyTo {
		if m.ConsumerTag == "" {
			m.ConsumerTag = s.srv.randomName("amq.ctag-")
		}
		if err := ch.consumeReplies(*m); err != nil {
			return err
		}
		if !m.NoWait {
			s.reply(ch, &amqp.BasicConsumeOk{ConsumerTag: m.ConsumerTag})
		}
		return nil
	}
	if isReplyName(m.Queue) {
		return s.vh.refuseVolatile("basic.consume", m.Queue)
	}
	q, err := s.findQueue(ch, m.Queue)
	if err != nil {
		return err
	}
	if m.ConsumerTag == "" {
		m.ConsumerTag = s.srv.randomName("amq.ctag-")
	} else if ch.consumers[m.ConsumerTag] != nil {
		return refusef(amqp.NotAllowed, "attempt to reuse consumer tag '%s'", m.ConsumerTag)
	}
	if err := ch.consume(q, *m); err != nil {
		return err
	}
	if !m.NoWait {
		s.reply(ch, &amqp.BasicConsumeOk{ConsumerTag: m.ConsumerTag})
	}
	ch.consumers[m.ConsumerTag].start()
	return nil
}

// get is basic.get.
func (s *session) get(ch *channel, m *amqp.BasicGet) error {
	if isReplyName(m.Queue) {
		return s.vh.refuseVolatile("basic.get", m.Queue)
	}
	q, err := s.findQueue(ch, m.Queue)
	if err != nil {
		return err
	}
	if q.log != nil {
		return refusef(amqp.NotImplemented, "basic.get not supported by stream queues queue '%s' in vhost '%s'", q.name, s.vh.name)
	}
	if q.opts.kind == quorum && q.opts.single {
		return refusef(amqp.ResourceLocked, "cannot obtain access to locked queue '%s' in vhost '%s'. "+
			`basic.get operations are not supported by <<"quorum">> queues with single active consumer`, q.name, s.vh.name)
	}
	e := q.get()
	if e == nil {
		s.reply(ch, &amqp.BasicGetEmpty{})
		return nil
	}
	ch.nextTag++
	it := outItem{kind: outGet, ch: ch, msg: e.msg, tag: ch.nextTag, redelivered: e.redelivered, count: uint32(q.ready.n)}
	if q.opts.kind == quorum {
		it.acquired, it.failed = e.counts()
	}
	if !m.NoAck {
		s.srv.order++
		ch.unacked.add(unack{tag: ch.nextTag, q: q, entry: *e, got: s.srv.order})
		q.unacked++
		q.armTimeout(ch)
	}
	s.push(it)
	return nil
}
