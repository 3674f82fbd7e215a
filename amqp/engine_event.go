package amqp

// EventKind says what an Event is about.
type EventKind uint8

const (
	eventNone EventKind = iota

	// EventOpen: the handshake is over and the connection is open. In the
	// client role it follows connection.open-ok; in the server role, the
	// connection.open-ok that was sent.
	EventOpen

	// EventMethod: a method without content arrived; Method decodes it.
	EventMethod

	// EventContent: a method with its whole content arrived: basic.publish,
	// basic.deliver, basic.return or basic.get-ok.
	EventContent

	// EventClosed: the connection is over, the last event there is. Err is nil
	// where this side asked for the close and the peer agreed.
	EventClosed
)

// Event is what bytes meant. Its slices, and the strings of what DecodeInto
// fills, alias memory of the engine or of the bytes that were fed: they are
// valid until the next Feed.
type Event struct {
	Kind    EventKind
	Channel uint16
	ID      MethodID // of EventMethod and EventContent

	Args       []byte // the method's arguments as they stood on the wire
	Properties []byte // EventContent: property flags and property list
	Body       []byte // EventContent: the whole body
	BodySize   uint64 // EventContent: what the header announced

	// Oversized says that the body was longer than EngineConfig.MaxBody: it was
	// read and thrown away, and Body is empty.
	Oversized bool

	Err *Error // EventClosed

	st    *chanState
	ref   any    // of the expectation that a reply fulfilled
	owned []byte // the buffer that Args, Properties and Body lie in, when it is no part of what was fed
}

// Method decodes the method of an EventMethod or EventContent into a fresh
// value of its generated struct (QueueDeclareOk, ...), strings copied.
// Errors: *Error where the arguments are malformed.
func (ev *Event) Method() (Method, error) {
	m := newMethod(ev.ID)
	if m == nil {
		return nil, protocolError(CommandInvalid, ev.ID, ev.Channel, "unknown method")
	}
	if err := m.DecodeFrom(ev.Args); err != nil {
		return nil, err
	}
	return m, nil
}

// Message builds the message of an EventContent as a copy of the caller's own.
// Errors: *Error where the properties are malformed.
func (ev *Event) Message() (*Message, error) {
	msg := new(Message)
	if err := msg.Properties.DecodeFrom(ev.Properties); err != nil {
		return nil, err
	}
	msg.Body = append([]byte(nil), ev.Body...)
	return msg, nil
}

// Own gives the properties and the body of an EventContent as the caller's own,
// for good: a copy, unless the engine had put the content together from pieces
// in memory that nobody else uses.
func (ev *Event) Own() (properties, body []byte) {
	if ev.owned != nil {
		return ev.Properties, ev.Body
	}
	buf := make([]byte, len(ev.Properties)+len(ev.Body))
	n := copy(buf, ev.Properties)
	copy(buf[n:], ev.Body)
	return buf[:n:n], buf[n:]
}

// Message is a message's properties and body.
type Message struct {
	Properties
	Body []byte
}

// protocolError makes the error of a violation by the peer.
func protocolError(code ReplyCode, id MethodID, channel uint16, text string) *Error {
	return &Error{Code: code, Text: text, Method: id, Channel: channel}
}
