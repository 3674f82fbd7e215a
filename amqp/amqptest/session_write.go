package amqptest

import (
	"time"

	"github.com/warrenmq/warren/amqp"
)

// scratch holds the methods that are sent often, so that none is made for
// each message.
type scratch struct {
	deliver amqp.BasicDeliver
	getOk   amqp.BasicGetOk
	ret     amqp.BasicReturn
	ack     amqp.BasicAck
	nack    amqp.BasicNack
	items   []outItem
	spare   []byte
}

// write is the writing goroutine.
func (s *session) write() {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	var armed time.Time
	for {
		segs, hangUp, deadline := s.gather()
		if len(segs) > 0 {
			for _, seg := range segs {
				if _, err := s.nc.Write(seg); err != nil {
					s.nc.Close()
					s.drop()
					return
				}
			}
			s.recycle(segs[len(segs)-1])
			if !hangUp {
				continue
			}
		}
		if hangUp {
			s.nc.Close()
			s.drop()
			return
		}
		if !deadline.Equal(armed) && !deadline.IsZero() {
			armed = deadline
			timer.Reset(time.Until(deadline))
		}
		select {
		case <-s.wake:
		case <-s.done:
			s.lastWords()
			return
		case <-timer.C:
			armed = time.Time{}
			s.tick()
		}
	}
}

// drop empties the output of a session that can't be written to any more, so
// that its reader does not wait for room.
func (s *session) drop() {
	srv := s.srv
	srv.mu.Lock()
	defer srv.mu.Unlock()
	s.over = true
	s.out, s.outBytes, s.waiting = nil, 0, nil
	s.resume()
}

// lastWords writes what the engine had still to say when the reader ended.
func (s *session) lastWords() {
	segs, _, _ := s.gather()
	for _, seg := range segs {
		if _, err := s.nc.Write(seg); err != nil {
			return
		}
	}
}

// tick lets the engine send a heartbeat, or give up on a silent peer. While
// an alarm keeps us from reading, silence is our own doing.
func (s *session) tick() {
	s.srv.mu.Lock()
	waiting := s.mustWait()
	s.srv.mu.Unlock()
	s.emu.Lock()
	now := time.Now()
	if waiting {
		s.eng.Heard(now)
	}
	err := s.eng.Tick(now)
	s.emu.Unlock()
	if err != nil {
		s.nc.Close()
	}
}

func (s *session) recycle(buf []byte) {
	if cap(buf) > 1<<20 {
		return
	}
	s.emu.Lock()
	s.spare = buf[:0]
	s.emu.Unlock()
}

// gather encodes the output and takes the bytes.
func (s *session) gather() (segs [][]byte, hangUp bool, deadline time.Time) {
	s.emu.Lock()
	defer s.emu.Unlock()
	srv := s.srv
	srv.mu.Lock()
	if srv.faults.stalled {
		srv.mu.Unlock()
		return nil, false, time.Time{}
	}
	items := s.out
	s.out, s.outBytes = s.items[:0], 0
	if waiting := s.waiting; len(waiting) > 0 {
		s.waiting = nil
		for _, c := range waiting {
			c.waiting = false
			c.list()
			srv.touch(c.q)
		}
		srv.settle()
	}
	s.resume()
	srv.mu.Unlock()
	for i := range items {
		if items[i].kind == outClose {
			hangUp = true
			break
		}
		s.encode(&items[i])
	}
	clear(items)
	if cap(items) > 4*fullItems {
		items = nil
	}
	s.items = items[:0]
	spare := s.spare
	s.spare = nil
	segs = s.eng.Detach(spare)
	if len(segs) == 0 {
		s.spare = spare
	}
	return segs, hangUp, s.eng.Deadline()
}

// encode hands one item to the engine. What it refuses is for a channel that
// closed meanwhile, and is dropped.
func (s *session) encode(it *outItem) {
	var num uint16
	if it.ch != nil {
		num = it.ch.id
		if it.ch.dead.Load() && it.kind != outMethod && it.kind != outReturn {
			return // as RabbitMQ, which keeps returns alone
		}
	}
	switch it.kind {
	case outMethod:
		s.eng.Send(num, it.method)
	case outConfirm:
		if it.nack {
			s.nack = amqp.BasicNack{DeliveryTag: it.tag, Multiple: it.multiple}
			s.eng.Send(num, &s.nack)
			return
		}
		s.ack = amqp.BasicAck{DeliveryTag: it.tag, Multiple: it.multiple}
		s.eng.Send(num, &s.ack)
	case outReturn:
		s.ret = amqp.BasicReturn{ReplyCode: amqp.NoRoute, ReplyText: "NO_ROUTE", Exchange: it.msg.exchange, RoutingKey: it.msg.key}
		s.eng.Forward(num, &s.ret, it.msg.props, it.msg.body)
	case outGet:
		s.getOk = amqp.BasicGetOk{
			DeliveryTag: it.tag, Redelivered: it.redelivered, Exchange: it.msg.exchange, RoutingKey: it.msg.key, MessageCount: it.count,
		}
		s.eng.Forward(num, &s.getOk, it.props(), it.msg.body)
	case outDeliver:
		s.deliver = amqp.BasicDeliver{
			ConsumerTag: it.c.tag, DeliveryTag: it.tag, Redelivered: it.redelivered, Exchange: it.msg.exchange, RoutingKey: it.msg.key,
		}
		s.eng.Forward(num, &s.deliver, it.props(), it.msg.body)
	}
}

// props is the message's properties with what its queue adds to the headers.
func (it *outItem) props() []byte {
	switch {
	case it.hasOffset:
		return withHeaders(it.msg.props, header{"x-stream-offset", it.offset})
	case it.failed > 0:
		return withHeaders(it.msg.props, header{"x-acquired-count", int64(it.acquired)}, header{"x-delivery-count", int64(it.failed)})
	case it.acquired > 0:
		return withHeaders(it.msg.props, header{"x-acquired-count", int64(it.acquired)})
	}
	return it.msg.props
}
