package amqptest

import "github.com/warrenmq/warren/amqp"

func (s *session) handleExchange(ch *channel, ev *amqp.Event) error {
	m, err := ev.Method()
	if err != nil {
		return err
	}
	var answer amqp.Method
	noWait := false
	switch m := m.(type) {
	case *amqp.ExchangeDeclare:
		answer, noWait = &amqp.ExchangeDeclareOk{}, m.NoWait
		m.Exchange = stripLineEnds(m.Exchange)
		if err = s.srv.faults.refuses(exchangeDeclare, m.Exchange); err == nil {
			err = s.vh.declareExchange(s, *m)
		}
	case *amqp.ExchangeDelete:
		answer, noWait = &amqp.ExchangeDeleteOk{}, m.NoWait
		m.Exchange = stripLineEnds(m.Exchange)
		err = s.vh.removeExchange(s, *m)
	case *amqp.ExchangeBind:
		answer, noWait = &amqp.ExchangeBindOk{}, m.NoWait
		err = s.vh.bind(s, bindTarget{dest: m.Destination, source: m.Source, key: m.RoutingKey, args: m.Arguments})
	case *amqp.ExchangeUnbind:
		answer, noWait = &amqp.ExchangeUnbindOk{}, m.NoWait
		err = s.vh.unbind(s, bindTarget{dest: m.Destination, source: m.Source, key: m.RoutingKey, args: m.Arguments})
	}
	if err == nil && answer != nil && !noWait {
		s.reply(ch, answer)
	}
	return err
}
