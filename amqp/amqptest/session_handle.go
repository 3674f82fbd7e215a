package amqptest

import (
	"cmp"
	"crypto/tls"
	"errors"
	"maps"
	"slices"

	"github.com/warrenmq/warren/amqp"
)

// handle acts on one event. It runs under Server.mu and the session's engine
// lock; what it answers goes through push, so that answers, deliveries and
// confirms keep their order. An error closes the channel or the connection.
func (s *session) handle(ev *amqp.Event) error {
	if s.over || ev.Kind == amqp.EventOpen {
		return nil
	}
	if s.state == sessionClosing {
		return nil
	}
	if ev.Channel == 0 {
		return s.handleConnection(ev)
	}
	ch := s.channels[ev.Channel]
	switch ev.ID {
	case amqp.MethodChannelOpen:
		return s.openChannel(ev)
	case amqp.MethodChannelClose:
		return s.closeChannel(ch, ev.Channel)
	case amqp.MethodChannelCloseOk:
		if ch != nil && ch.dead.Load() {
			delete(s.channels, ev.Channel)
		}
		return nil
	}
	if ch == nil || ch.dead.Load() {
		return nil // on its way when the channel closed
	}
	switch ev.ID >> 16 {
	case amqp.MethodID(amqp.ClassBasic):
		return s.handleBasic(ch, ev)
	case amqp.MethodID(amqp.ClassQueue):
		return s.handleQueue(ch, ev)
	case amqp.MethodID(amqp.ClassExchange):
		return s.handleExchange(ch, ev)
	}
	return s.handleMode(ch, ev)
}

// reply sends a method on a channel.
func (s *session) reply(ch *channel, m amqp.Method) {
	s.push(outItem{kind: outMethod, ch: ch, method: m})
}

// refuse answers an event with the exception that it met: a hard one closes
// the connection, a soft one the channel.
func (s *session) refuse(ev *amqp.Event, err error) {
	r := asRefusal(ev, err)
	if r == nil {
		s.hangUp()
		return
	}
	id := ev.ID
	if r.noMethod {
		id = 0
	}
	class, method := uint16(id>>16), uint16(id)
	ch := s.channels[ev.Channel]
	if ev.Channel == 0 || ch == nil || r.code.Hard() {
		s.closeConnection(amqp.ConnectionClose{ReplyCode: r.code, ReplyText: r.reply(), FailedClass: class, FailedMethod: method})
		return
	}
	s.closeChannelWith(ch, id, r)
}

// closeChannelWith says channel.close.
func (s *session) closeChannelWith(ch *channel, id amqp.MethodID, r *refusal) {
	s.open--
	ch.close()
	s.reply(ch, &amqp.ChannelClose{ReplyCode: r.code, ReplyText: r.reply(), FailedClass: uint16(id >> 16), FailedMethod: uint16(id)})
}

// asRefusal is what RabbitMQ says to an error; nil: it hangs up.
func asRefusal(ev *amqp.Event, err error) *refusal {
	var r *refusal
	if errors.As(err, &r) {
		return r
	}
	var ex *amqp.Error
	if errors.As(err, &ex) && ex.Code != 0 {
		return undecodable(ev.Args, ex)
	}
	return &refusal{code: amqp.InternalError, noMethod: true}
}

// hangUp ends the connection without a word.
func (s *session) hangUp() {
	if s.state == sessionClosing || s.over {
		return
	}
	s.state = sessionClosing
	s.tearDown()
	s.push(outItem{kind: outClose})
}

// closeConnection says connection.close; nothing that comes after counts.
func (s *session) closeConnection(m amqp.ConnectionClose) {
	if s.state == sessionClosing || s.over {
		return
	}
	s.state = sessionClosing
	s.tearDown()
	s.push(outItem{kind: outMethod, method: &m})
	s.armClose()
}

func (s *session) sortedChannels() []*channel {
	return slices.SortedFunc(maps.Values(s.channels), func(a, b *channel) int { return cmp.Compare(a.id, b.id) })
}

func sortedQueues(set map[*queue]struct{}) []*queue {
	return slices.SortedFunc(maps.Keys(set), func(a, b *queue) int { return cmp.Compare(a.name, b.name) })
}

func (srv *Server) sortedSessions() []*session {
	return slices.SortedFunc(maps.Keys(srv.sessions), func(a, b *session) int { return cmp.Compare(a.order, b.order) })
}

// commonName is the name in the client's certificate, once it was verified.
func commonName(t *tls.Conn) string {
	if certs := t.ConnectionState().VerifiedChains; len(certs) > 0 {
		return certs[0][0].Subject.CommonName
	}
	return ""
}
