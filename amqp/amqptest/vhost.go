package amqptest

import (
	"maps"
	"slices"
	"strings"

	"github.com/warrenmq/warren/amqp"
)

// vhost is a name space of exchanges and queues. All of the model below a
// Server is guarded by Server.mu.
type vhost struct {
	srv       *Server
	name      string
	exchanges map[string]*exchange
	queues    map[string]*queue
}

func newVHost(srv *Server, name string) *vhost {
	vh := &vhost{srv: srv, name: name, exchanges: map[string]*exchange{}, queues: map[string]*queue{}}
	for _, x := range [][2]string{
		{"", "direct"}, {"amq.direct", "direct"}, {"amq.fanout", "fanout"}, {"amq.headers", "headers"},
		{"amq.match", "headers"}, {"amq.rabbitmq.log", "topic"}, {"amq.rabbitmq.trace", "topic"}, {"amq.topic", "topic"},
	} {
		vh.addExchange(amqp.ExchangeDeclare{
			Exchange: x[0], Type: x[1], Durable: true, Internal: strings.HasPrefix(x[0], "amq.rabbitmq."),
		})
	}
	return vh
}

func (vh *vhost) addExchange(m amqp.ExchangeDeclare) *exchange {
	x := &exchange{
		vh: vh, name: m.Exchange, kind: m.Type, durable: m.Durable, autoDelete: m.AutoDelete, internal: m.Internal,
		args: m.Arguments, bindings: map[string]*binding{}, inbound: map[*binding]struct{}{},
	}
	x.alternate, _ = m.Arguments["alternate-exchange"].(string)
	x.router = newRouter(x)
	vh.exchanges[x.name] = x
	return x
}

// declareExchange is exchange.declare.
func (vh *vhost) declareExchange(s *session, m amqp.ExchangeDeclare) error {
	if m.Passive {
		if m.Exchange == "" {
			return refuseDefaultExchange()
		}
		if err := s.mayLook("exchange", m.Exchange); err != nil {
			return err
		}
		if vh.exchanges[m.Exchange] == nil {
			return vh.noExchange(m.Exchange)
		}
		return nil
	}
	switch m.Type {
	case "direct", "fanout", "topic", "headers", "x-local-random", "x-modulus-hash":
	case "", "foo", "x-random":
		// RabbitMQ calls a type invalid when it knows the word from elsewhere.
		return refusef(amqp.PreconditionFailed, "invalid exchange type '%s'", m.Type)
	default:
		return refusef(amqp.PreconditionFailed, "unknown exchange type '%s'", m.Type)
	}
	if m.Exchange == "" {
		return refuseDefaultExchange()
	}
	if err := s.may(configure, "exchange", m.Exchange); err != nil {
		return err
	}
	if x := vh.exchanges[m.Exchange]; x != nil {
		return x.same(m)
	}
	if reserved(m.Exchange) {
		return refusef(amqp.AccessRefused, "exchange name '%s' contains reserved prefix 'amq.*'", m.Exchange)
	}
	if v, ok := m.Arguments["alternate-exchange"]; ok {
		alt, ok := v.(string)
		if !ok {
			return refusef(amqp.PreconditionFailed, "invalid type '%s' for arg 'alternate-exchange' in exchange '%s' in vhost '%s'",
				typeName(v), m.Exchange, vh.name)
		}
		if err := s.may(read, "exchange", m.Exchange); err != nil {
			return err
		}
		if err := s.may(write, "exchange", alt); err != nil {
			return err
		}
	}
	vh.addExchange(m)
	return nil
}

// same compares a second declare with the exchange that is there.
func (x *exchange) same(m amqp.ExchangeDeclare) error {
	if m.Type != x.kind {
		return inequivalent("type", "exchange", x.name, x.vh.name, "'"+m.Type+"'", "'"+x.kind+"'")
	}
	for _, f := range []struct {
		name     string
		now, was bool
	}{{"durable", m.Durable, x.durable}, {"auto_delete", m.AutoDelete, x.autoDelete}, {"internal", m.Internal, x.internal}} {
		if err := sameFlag(f.name, "exchange", x.name, x.vh.name, f.now, f.was); err != nil {
			return err
		}
	}
	return sameArgs("exchange", x.name, x.vh.name, []string{"alternate-exchange"}, m.Arguments, x.args)
}

// removeExchange is exchange.delete.
func (vh *vhost) removeExchange(s *session, m amqp.ExchangeDelete) error {
	if m.Exchange == "" {
		return refuseDefaultExchange()
	}
	if reserved(m.Exchange) {
		return refusef(amqp.AccessRefused, "deletion of system exchange '%s' in vhost '%s' not allowed", m.Exchange, vh.name)
	}
	if err := s.may(configure, "exchange", m.Exchange); err != nil {
		return err
	}
	x := vh.exchanges[m.Exchange]
	if x == nil {
		return nil // deleting what is not there is fine
	}
	if m.IfUnused && len(x.bindings) > 0 {
		return refusef(amqp.PreconditionFailed, "exchange '%s' in vhost '%s' in use", x.name, vh.name)
	}
	vh.deleteExchange(x)
	return nil
}

func (vh *vhost) deleteExchange(x *exchange) {
	if vh.exchanges[x.name] != x {
		return
	}
	delete(vh.exchanges, x.name)
	x.autoDelete = false // its bindings go now; they must not delete it again
	for _, b := range x.sortedBindings() {
		x.removeBinding(b)
	}
	for _, b := range sortedKeys(x.inbound) {
		b.src.removeBinding(b)
	}
}

func sortedKeys(set map[*binding]struct{}) []*binding {
	return slices.SortedFunc(maps.Keys(set), func(a, b *binding) int { return int(int64(a.order) - int64(b.order)) })
}

// bindTarget is what the two bind and the two unbind methods have in common.
type bindTarget struct {
	queue  bool
	dest   string
	source string
	key    string
	args   amqp.Table
}

// bind is queue.bind and exchange.bind.
func (vh *vhost) bind(s *session, t bindTarget) error {
	if t.source == "" || !t.queue && t.dest == "" {
		return refuseDefaultExchange()
	}
	if err := s.mayBind(t); err != nil {
		return err
	}
	src := vh.exchanges[t.source]
	if src == nil {
		return vh.noExchange(t.source)
	}
	b := &binding{src: src, key: t.key, args: t.args, id: bindingID(t.queue, t.dest, t.key, t.args)}
	if t.queue {
		if b.queue = vh.queues[t.dest]; b.queue == nil {
			return vh.noQueue(t.dest)
		}
		if b.queue.lockedFor(s) {
			return b.queue.locked()
		}
	} else if b.dest = vh.exchanges[t.dest]; b.dest == nil {
		return vh.noExchange(t.dest)
	}
	if src.kind == "headers" {
		if err := checkHeadersBinding(t.args); err != nil {
			return err
		}
	}
	src.addBinding(b)
	return nil
}

// unbind is queue.unbind and exchange.unbind; what is not bound stays so.
func (vh *vhost) unbind(s *session, t bindTarget) error {
	if t.source == "" || !t.queue && t.dest == "" {
		return refuseDefaultExchange()
	}
	if err := s.mayBind(t); err != nil {
		return err
	}
	if src := vh.exchanges[t.source]; src != nil {
		if b := src.bindings[bindingID(t.queue, t.dest, t.key, t.args)]; b != nil {
			src.removeBinding(b)
		}
	}
	return nil
}
