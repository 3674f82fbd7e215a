package amqp

import "encoding/binary"

// Violation is what EngineConfig.Refuse is told about a client that broke the
// protocol.
type Violation struct {
	// Err is what Feed is about to return.
	Err *Error

	// Frame is the frame that did it, from its first octet on, as far as it
	// arrived. It is valid during the call. nil where a body frame began in an
	// earlier Feed.
	Frame []byte

	// Limit is the frame-max in force.
	Limit uint32

	// Open says that the connection was open, Channel that the frame's channel was.
	Open, Channel bool

	// Content is the method whose content the channel was in the midst of, 0
	// for none; InBody that its header had come.
	Content MethodID
	InBody  bool
}

func (e *Engine) violation(ex *Error) Violation {
	v := Violation{Err: ex, Limit: e.r.frameMax, Open: e.s.phase == connOpen}
	if b := e.r.body; b != nil {
		v.Content, v.InBody, v.Channel = b.asm.id, true, b.phase == chanOpen
	}
	if len(e.culprit) < frameHeaderSize {
		return v
	}
	v.Frame = e.culprit
	if end := uint64(binary.BigEndian.Uint32(v.Frame[3:])) + frameOverhead; uint64(len(v.Frame)) > end {
		v.Frame = v.Frame[:end]
	}
	num := binary.BigEndian.Uint16(v.Frame[1:])
	if st := e.s.channel(num); st != nil {
		v.Channel = st.phase == chanOpen
	}
	if st := e.r.channel(num); st != nil && st.asm != nil {
		v.Content, v.InBody = st.asm.id, st.asm.inBody
	}
	return v
}
