package amqptest

import (
	"strings"

	"github.com/warrenmq/warren/amqp"
)

func (s *session) handleQueue(ch *channel, ev *amqp.Event) error {
	m, err := ev.Method()
	if err != nil {
		return err
	}
	var answer amqp.Method
	noWait := false
	switch m := m.(type) {
	case *amqp.QueueDeclare:
		noWait = m.NoWait
		m.Queue = stripLineEnds(m.Queue)
		answer, err = s.declareQueue(ch, m)
	case *amqp.QueueBind:
		noWait = m.NoWait
		answer, err = s.bindQueue(ch, m)
	case *amqp.QueueUnbind:
		answer, err = s.unbindQueue(ch, m)
	case *amqp.QueuePurge:
		noWait = m.NoWait
		answer, err = s.purgeQueue(ch, m)
	case *amqp.QueueDelete:
		noWait = m.NoWait
		m.Queue = stripLineEnds(m.Queue)
		answer, err = s.deleteQueue(ch, m)
	}
	if err == nil && answer != nil && !noWait {
		s.reply(ch, answer)
	}
	return err
}

// stripLineEnds takes the line ends out of a name that is declared or deleted,
// as RabbitMQ does, and does not elsewhere.
func stripLineEnds(name string) string {
	if !strings.ContainsAny(name, "\r\n") {
		return name
	}
	return strings.NewReplacer("\r", "", "\n", "").Replace(name)
}

// queueName resolves an empty name: the queue that the channel declared last.
func (ch *channel) queueName(name string) (string, error) {
	if name != "" {
		return name, nil
	}
	if ch.lastQueue == "" {
		return "", refusef(amqp.NotFound, "no previously declared queue")
	}
	return ch.lastQueue, nil
}

func (s *session) declareQueue(ch *channel, m *amqp.QueueDeclare) (amqp.Method, error) {
	if m.Queue == replyTo || isReplyName(m.Queue) {
		if err := s.vh.declareReply(m.Queue); err != nil {
			return nil, err
		}
		return &amqp.QueueDeclareOk{Queue: m.Queue, ConsumerCount: 1}, nil
	}
	if err := s.srv.faults.refuses(queueDeclare, m.Queue); err != nil {
		return nil, err
	}
	name := m.Queue
	if name == "" && !m.Passive {
		name = s.srv.randomName("amq.gen-")
	}
	q, err := s.vh.declareQueue(s, *m, name)
	if err != nil {
		return nil, err
	}
	ch.lastQueue = name
	return &amqp.QueueDeclareOk{Queue: name, MessageCount: uint32(q.depth()), ConsumerCount: q.consumerCount()}, nil
}

func (s *session) bindQueue(ch *channel, m *amqp.QueueBind) (amqp.Method, error) {
	name, err := ch.queueName(m.Queue)
	if err != nil {
		return nil, err
	}
	key := m.RoutingKey
	if m.Queue == "" && key == "" {
		key = name
	}
	if isReplyName(name) {
		return nil, refuseVolatileBind()
	}
	return &amqp.QueueBindOk{}, s.vh.bind(s, bindTarget{queue: true, dest: name, source: m.Exchange, key: key, args: m.Arguments})
}

func (s *session) unbindQueue(ch *channel, m *amqp.QueueUnbind) (amqp.Method, error) {
	name, err := ch.queueName(m.Queue)
	if err != nil {
		return nil, err
	}
	key := m.RoutingKey
	if m.Queue == "" && key == "" {
		key = name
	}
	if isReplyName(name) {
		return nil, refuseVolatileBind()
	}
	return &amqp.QueueUnbindOk{}, s.vh.unbind(s, bindTarget{queue: true, dest: name, source: m.Exchange, key: key, args: m.Arguments})
}

// findQueue looks up a queue that a method is about to read from.
func (s *session) findQueue(ch *channel, name string) (*queue, error) {
	name, err := ch.queueName(name)
	if err != nil {
		return nil, err
	}
	if err := s.may(read, "queue", name); err != nil {
		return nil, err
	}
	q := s.vh.queues[name]
	if q == nil {
		return nil, s.vh.noQueue(name)
	}
	if q.lockedFor(s) {
		return nil, q.locked()
	}
	return q, nil
}

func (s *session) purgeQueue(ch *channel, m *amqp.QueuePurge) (amqp.Method, error) {
	if s.srv.replies[m.Queue] != nil {
		return &amqp.QueuePurgeOk{}, nil
	}
	q, err := s.findQueue(ch, m.Queue)
	if err != nil {
		return nil, err
	}
	if q.log != nil {
		return nil, refusef(amqp.NotImplemented, "queue.purge not supported by stream queues queue '%s' in vhost '%s'", q.name, s.vh.name)
	}
	return &amqp.QueuePurgeOk{MessageCount: uint32(q.purge())}, nil
}

func (s *session) deleteQueue(ch *channel, m *amqp.QueueDelete) (amqp.Method, error) {
	name, err := ch.queueName(m.Queue)
	if err != nil {
		return nil, err
	}
	del := *m
	del.Queue = name
	n, err := s.vh.removeQueue(s, del)
	return &amqp.QueueDeleteOk{MessageCount: uint32(n)}, err
}
