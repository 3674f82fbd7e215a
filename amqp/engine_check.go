package amqp

import "strconv"

// ready says whether a method can go out on a channel now.
func (s *sender) ready(num uint16, id MethodID) (*chanState, error) {
	if s.phase != connOpen {
		return nil, s.usable(id)
	}
	st := s.channel(num)
	if st == nil || st.phase == chanClosed || st.phase == chanClosing {
		return nil, &unsentError{&Error{Text: "the channel is closed", Method: id, Channel: num}}
	}
	return st, nil
}

// usable says why nothing can go out now.
func (s *sender) usable(id MethodID) error {
	switch s.phase {
	case connOpen:
		return nil
	case connClosing, connClosed:
		return &unsentError{&Error{Text: "the connection is closed", Method: id}}
	}
	return &unsentError{&Error{Text: "the connection is not open yet", Method: id}}
}

// send appends a method without content and keeps the books: the phase of the
// channel and connection, the reply that is owed. ref comes back with the reply.
func (s *sender) send(num uint16, m Method, noWait bool, ref any) (*chanState, error) {
	id := m.MethodID()
	info := infoOf(id)
	if info == nil || info.content {
		return nil, refused(id, "not a method without content")
	}
	if !s.says(info) {
		return nil, refused(id, "not a method of this side")
	}
	if s.role == ClientRole && info.reply {
		return nil, refused(id, "the engine answers by itself")
	}
	if num == 0 {
		return &s.zero, s.sendConnection(id, m, info, ref)
	}
	if id == MethodChannelOpen {
		return s.openChannel(num, m, ref)
	}
	st, err := s.ready(num, id)
	if id == MethodChannelCloseOk && s.phase == connOpen && s.channel(num) != nil {
		st, err = s.channel(num), nil // also while a close of this side is under way
	}
	if err != nil {
		return nil, err
	}
	if s.role == ClientRole {
		if err := s.check(st, m); err != nil {
			return nil, err
		}
	}
	if err := s.method(num, m); err != nil {
		return nil, err
	}
	s.sentMethod(st, m, info, noWait, ref)
	return st, nil
}

// says reports whether a method is one that this side may send.
func (s *sender) says(info *methodInfo) bool {
	if s.role == ClientRole {
		return info.fromClient
	}
	return info.fromServer
}

// readyContent says whether a method with content can go out on a channel now.
func (s *sender) readyContent(num uint16, m Method) (*chanState, error) {
	id := m.MethodID()
	info := infoOf(id)
	if info == nil || !info.content {
		return nil, refused(id, "it carries no content")
	}
	if !s.says(info) {
		return nil, refused(id, "not a method of this side")
	}
	if num == 0 {
		return nil, refused(id, "not a method of channel 0")
	}
	st, err := s.ready(num, id)
	if err != nil {
		return nil, err
	}
	if s.role == ClientRole {
		err = s.check(st, m)
	}
	return st, err
}

// sentMethod keeps the books of a method that went out on an open channel.
func (s *sender) sentMethod(st *chanState, m Method, info *methodInfo, noWait bool, ref any) {
	switch info.id {
	case MethodChannelClose:
		// A server that closed a channel for an error forgets it on close-ok.
		st.phase = chanClosing
		return
	case MethodChannelCloseOk:
		if st.phase == chanOpen {
			s.release(st)
		}
		return
	case MethodConfirmSelect:
		st.confirming = true
	case MethodTxSelect:
		st.tx = true
	}
	if !info.sync || noWait {
		return
	}
	x := expectation{request: info.id, ref: ref}
	switch m := m.(type) {
	case *BasicGet:
		x.noAck = m.NoAck
	case BasicGet:
		x.noAck = m.NoAck
	case *BasicConsume:
		x.noAck, x.replyTo = m.NoAck, m.Queue == directReplyTo
	case BasicConsume:
		x.noAck, x.replyTo = m.NoAck, m.Queue == directReplyTo
	}
	st.expect = append(st.expect, x)
}

func (s *sender) sendConnection(id MethodID, m Method, info *methodInfo, ref any) error {
	if info.class != "connection" {
		return refused(id, "not a method of channel 0")
	}
	if s.phase == connClosed || s.phase == connClosing && id != MethodConnectionCloseOk {
		return &unsentError{&Error{Text: "the connection is closed", Method: id}}
	}
	if s.role == ClientRole && s.phase != connOpen && id != MethodConnectionClose {
		return refused(id, "the engine makes the handshake itself")
	}
	if err := s.method(0, m); err != nil {
		return err
	}
	switch id {
	case MethodConnectionClose:
		s.phase = connClosing
	case MethodConnectionCloseOk:
		s.phase = connClosed
	case MethodConnectionUpdateSecret:
		s.zero.expect = append(s.zero.expect, expectation{request: id, ref: ref})
	}
	return nil
}

// openChannel sends channel.open on a number that is free.
func (s *sender) openChannel(num uint16, m Method, ref any) (*chanState, error) {
	if err := s.usable(MethodChannelOpen); err != nil {
		return nil, err
	}
	if st := s.channel(num); st != nil && st.phase != chanClosed {
		return nil, refused(MethodChannelOpen, "channel "+strconv.Itoa(int(num))+" is open already")
	}
	if s.channelMax != 0 && num > s.channelMax {
		return nil, refused(MethodChannelOpen, "channel "+strconv.Itoa(int(num))+" is over the channel-max of "+strconv.Itoa(int(s.channelMax)))
	}
	if err := s.method(num, m); err != nil {
		return nil, err
	}
	st := &chanState{num: num, phase: chanOpening}
	st.expect = append(st.expect, expectation{request: MethodChannelOpen, ref: ref})
	s.channels = setChannel(s.channels, num, st)
	return st, nil
}

// check refuses what RabbitMQ would answer by closing the whole connection,
// and mixing transactions with confirms, for which it closes the channel.
// Source: https://www.rabbitmq.com/docs/specification (what is not implemented).
func (s *sender) check(st *chanState, m Method) error {
	if st.phase == chanOpening {
		return refused(m.MethodID(), "the channel is not open yet")
	}
	switch m.MethodID() {
	case MethodConfirmSelect:
		if st.tx {
			return ErrTxMode
		}
	case MethodTxSelect:
		if st.confirming {
			return ErrTxMode
		}
	case MethodTxCommit, MethodTxRollback:
		if !st.tx {
			return refused(m.MethodID(), "the channel is not transactional")
		}
	}
	return checkArguments(m)
}

// checkArguments refuses arguments that RabbitMQ answers with 540.
func checkArguments(m Method) error {
	switch m := m.(type) {
	case *ChannelFlow:
		return refuseIf(!m.Active, m, "RabbitMQ does not let a client stop its deliveries; use a prefetch limit")
	case ChannelFlow:
		return checkArguments(&m)
	case *BasicRecover:
		return refuseIf(!m.Requeue, m, "RabbitMQ does not redeliver to the same consumer; set Requeue")
	case BasicRecover:
		return checkArguments(&m)
	case *BasicRecoverAsync:
		return refuseIf(!m.Requeue, m, "RabbitMQ does not redeliver to the same consumer; set Requeue")
	case BasicRecoverAsync:
		return checkArguments(&m)
	case *BasicPublish:
		return refuseIf(m.Immediate, m, "RabbitMQ does not know immediate")
	case BasicPublish:
		return checkArguments(&m)
	case *BasicQos:
		return refuseIf(m.PrefetchSize != 0, m, "RabbitMQ has no prefetch-size; use PrefetchCount")
	case BasicQos:
		return checkArguments(&m)
	}
	return nil
}

func refuseIf(bad bool, m Method, why string) error {
	if bad {
		return refused(m.MethodID(), why)
	}
	return nil
}

// ackTag gives the delivery tag that a method settles.
func ackTag(m Method) (uint64, bool) {
	switch m := m.(type) {
	case *BasicAck:
		return m.DeliveryTag, true
	case BasicAck:
		return m.DeliveryTag, true
	case *BasicNack:
		return m.DeliveryTag, true
	case BasicNack:
		return m.DeliveryTag, true
	case *BasicReject:
		return m.DeliveryTag, true
	case BasicReject:
		return m.DeliveryTag, true
	}
	return 0, false
}

// asksNoReply reports whether a method asks for no reply.
func asksNoReply(m Method) bool {
	w, ok := m.(noWaiter)
	return ok && w.noWait()
}
