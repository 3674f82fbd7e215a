package amqptest

import (
	"slices"
	"time"

	"github.com/warrenmq/warren/amqp"
)

// serverProperties is what connection.start says. It claims to be RabbitMQ,
// since clients decide by these what they may do.
func serverProperties() amqp.Table {
	return amqp.Table{
		"capabilities": amqp.Table{
			"publisher_confirms": true, "exchange_exchange_bindings": true, "basic.nack": true,
			"consumer_cancel_notify": true, "connection.blocked": true, "consumer_priorities": true,
			"authentication_failure_close": true, "per_consumer_qos": true, "direct_reply_to": true,
		},
		"cluster_name": "amqptest",
		"copyright":    "See Warren's LICENSE",
		"information":  "Warren's amqptest, a broker for tests that behaves as RabbitMQ does",
		"platform":     "Go",
		"product":      "RabbitMQ",
		"version":      "4.3.6",
	}
}

func (s *session) handleConnection(ev *amqp.Event) error {
	m, err := ev.Method()
	if err != nil {
		return err
	}
	switch m := m.(type) {
	case *amqp.ConnectionStartOk:
		return s.startOk(m)
	case *amqp.ConnectionTuneOk:
		return s.tuneOk(m)
	case *amqp.ConnectionOpen:
		return s.openVHost(m)
	case *amqp.ConnectionClose:
		s.tearDown()
		s.state = sessionClosing
		s.reply(nil, &amqp.ConnectionCloseOk{})
		s.push(outItem{kind: outClose})
	case *amqp.ConnectionUpdateSecret:
		s.reply(nil, &amqp.ConnectionUpdateSecretOk{})
	}
	return nil
}

// startOk checks who the client is.
func (s *session) startOk(m *amqp.ConnectionStartOk) error {
	s.props = m.ClientProperties
	s.clientName, _ = m.ClientProperties["connection_name"].(string)
	caps, _ := m.ClientProperties["capabilities"].(amqp.Table)
	s.cancelNotify, _ = caps["consumer_cancel_notify"].(bool)
	s.blockNotify, _ = caps["connection.blocked"].(bool)
	s.authClose, _ = caps["authentication_failure_close"].(bool)
	var ok bool
	if s.user, ok = s.authenticate(m.Mechanism, m.Response); s.user == nil {
		if !ok || !s.authClose {
			s.hangUp() // an old client is just dropped
			return nil
		}
		return &refusal{code: amqp.AccessRefused, noMethod: true, text: "Login was refused using authentication mechanism " +
			m.Mechanism + ". For details see the broker logfile."}
	}
	hb := max(s.srv.cfg.Heartbeat, 0)
	s.reply(nil, &amqp.ConnectionTune{
		ChannelMax: s.srv.cfg.ChannelMax, FrameMax: s.srv.cfg.FrameMax, Heartbeat: uint16(min(hb/time.Second, 1<<16-1)),
	})
	return nil
}

// authenticate reads a SASL response; a nil user is refused. ok is false where
// the response can't be read or the mechanism was not offered: RabbitMQ drops
// such a client.
func (s *session) authenticate(mechanism, response string) (u *user, ok bool) {
	if !slices.Contains(s.srv.mechanisms(s.isTLS), mechanism) {
		return nil, false
	}
	switch mechanism {
	case "PLAIN":
		if c, err := amqp.DecodePLAIN([]byte(response)); err == nil {
			return s.srv.credentials(c.Username, c.Password), true
		}
	case "AMQPLAIN":
		if c, err := amqp.DecodeAMQPLAIN([]byte(response)); err == nil {
			return s.srv.credentials(c.Username, c.Password), true
		}
	case "ANONYMOUS":
		return s.srv.users[s.srv.cfg.Users[0].Name], true
	case "EXTERNAL":
		if s.peerName != nil {
			return s.srv.users[s.peerName()], true
		}
	}
	return nil, false
}

// minFrameMax is the least frame_max that RabbitMQ 4.3 takes.
const minFrameMax = 8192

// tuneOk takes what the client made of the offer. RabbitMQ 4.3 hangs up
// without a word on a frame_max or channel_max that it does not like.
func (s *session) tuneOk(m *amqp.ConnectionTuneOk) error {
	if m.FrameMax < minFrameMax || m.FrameMax > s.srv.cfg.FrameMax || m.ChannelMax == 0 || m.ChannelMax > s.srv.cfg.ChannelMax {
		s.hangUp()
	}
	return nil
}

// openVHost is connection.open.
func (s *session) openVHost(m *amqp.ConnectionOpen) error {
	vh := s.srv.vhosts[m.VirtualHost]
	if vh == nil {
		return refusef(amqp.NotAllowed, "vhost %s not found", m.VirtualHost)
	}
	if !s.user.mayOpen(vh.name) {
		return refusef(amqp.NotAllowed, "access to vhost '%s' refused for user '%s'", vh.name, s.user.Name)
	}
	s.vh = vh
	s.state = sessionOpen
	if s.deadline != nil {
		s.deadline.Stop()
	}
	s.reply(nil, &amqp.ConnectionOpenOk{})
	return nil
}

// armClose hangs up if the peer does not answer a connection.close.
func (s *session) armClose() {
	if s.deadline != nil {
		s.deadline.Stop()
	}
	s.deadline = s.srv.afterFunc(10*time.Second, s.kill)
}
