package amqp

import (
	"context"
	"time"
)

// Trace is called at the turning points of a connection's life, to start and
// end spans, to count, or to add headers to what is published. Any of its
// functions may be nil, and so may a *Trace.
//
// A function that returns a context begins something: what it returns is
// handed on to what happens within (the Done function of the same name, the
// handler of a delivery). Nil stands for the context as it was.
//
// Functions are called on whatever goroutine the event happens on, also at the
// same time, and never under a lock. Those of the connection (Blocked,
// ChannelClosed and the like) are called by the goroutine that reads: while
// they run nothing is received, so they are to be short, and a Close from
// inside is refused with ErrInHandler. None is ever given credentials.
type Trace struct {
	// DialStart and DialDone enclose one attempt to connect to one host, from
	// the name's look-up to the end of the AMQP handshake. err is nil where the
	// connection is open.
	DialStart func(ctx context.Context, d DialInfo) context.Context
	DialDone  func(ctx context.Context, d DialInfo, err error)

	// Handshake tells what was negotiated, between DialStart and DialDone.
	Handshake func(ctx context.Context, h HandshakeInfo)

	// ConnClosed tells that an open connection is gone; err is nil where Close
	// was asked for and went well. It is the last call about that connection.
	ConnClosed func(ctx context.Context, c ConnInfo, err error)

	// ChannelClosed tells that an open channel is gone; err is nil where Close
	// was asked for and went well. The channels of a connection that ends are
	// not told of one by one.
	ChannelClosed func(ctx context.Context, c ConnInfo, channel uint16, err error)

	// Blocked and Unblocked tell that the broker stopped taking publishes on
	// this connection, and that it takes them again.
	// Source: https://www.rabbitmq.com/docs/connection-blocked.
	Blocked   func(ctx context.Context, c ConnInfo, reason string)
	Unblocked func(ctx context.Context, c ConnInfo)

	// PublishStart is called before a message is encoded, in the caller's
	// context, and may change both the method and the message. A table of headers
	// may be shared with other messages: replace it, don't add to it.
	PublishStart func(ctx context.Context, channel uint16, m *BasicPublish, msg *Message) context.Context

	// PublishDone tells a publish's outcome: for Channel.BasicPublish that it
	// was queued for sending, else nil (confirmed), ErrNacked, a *ReturnError or
	// an error that wraps ErrUnknownOutcome. ctx is PublishStart's.
	PublishDone func(ctx context.Context, channel uint16, err error)

	// Deliver is called before a delivery is handed to a handler or an
	// iterator. A handler is given the context that it returns, so that a span
	// can go on that d's headers name.
	Deliver func(ctx context.Context, d *Delivery) context.Context

	// Return tells of a returned message, whether or not it could be tied to
	// its publish.
	Return func(ctx context.Context, channel uint16, r *ReturnError)

	// Settle tells that a delivery was acked, rejected or requeued here, or that
	// it could not be (err: ErrStale, ErrSettled).
	Settle func(ctx context.Context, s SettleInfo, err error)

	// Reconnect tells, on a Client alone, that a connection was lost or could
	// not be made, why, and when the next attempt is.
	Reconnect func(ctx context.Context, r ReconnectInfo)

	// Topology tells, on a Client alone, of an entity of its Topology that the
	// broker refused.
	Topology func(ctx context.Context, err *TopologyError)
}

// DialInfo is one attempt to connect.
type DialInfo struct {
	Network string // "tcp" or "unix"
	Addr    string // "host:port" or a path; "" for NewConn
	TLS     bool
	VHost   string
}

// ConnInfo is what a connection is known by.
type ConnInfo struct {
	Name   string // Config.Name
	Local  string // this side's address; the broker's logs name it
	Remote string // the broker's
}

// HandshakeInfo is what a handshake came to.
type HandshakeInfo struct {
	Conn       ConnInfo
	Mechanism  string        // of SASL
	Heartbeat  time.Duration // 0: none
	ChannelMax uint16
	FrameMax   uint32 // bytes
	Server     Table  // the broker's properties; not to be changed
}

// Settlement is what was done with a delivery.
type Settlement uint8

// What can be done with a delivery.
const (
	Acked    Settlement = iota + 1 // basic.ack
	Rejected                       // dead-lettered or dropped
	Requeued                       // given back to its queue
)

// String is "acked", "rejected" or "requeued".
func (s Settlement) String() string {
	switch s {
	case Acked:
		return "acked"
	case Rejected:
		return "rejected"
	case Requeued:
		return "requeued"
	}
	return "unknown"
}

// SettleInfo is one delivery's end.
type SettleInfo struct {
	Channel     uint16
	DeliveryTag uint64
	Settlement  Settlement
}

// ReconnectInfo is a pause between two attempts of a Client.
type ReconnectInfo struct {
	Attempt int           // failed ones in a row; 0: an open connection was lost
	Delay   time.Duration // until the next attempt
	Err     error         // why
}

// The functions below are how the runtime calls a Trace: nil in t, in a field
// and in a returned context all mean what the documentation says.

func (t *Trace) dialStart(ctx context.Context, d DialInfo) context.Context {
	if t == nil || t.DialStart == nil {
		return ctx
	}
	return orElse(t.DialStart(ctx, d), ctx)
}

func (t *Trace) dialDone(ctx context.Context, d DialInfo, err error) {
	if t != nil && t.DialDone != nil {
		t.DialDone(ctx, d, err)
	}
}

func (t *Trace) handshake(ctx context.Context, h HandshakeInfo) {
	if t != nil && t.Handshake != nil {
		t.Handshake(ctx, h)
	}
}

func (t *Trace) connClosed(ctx context.Context, c ConnInfo, err error) {
	if t != nil && t.ConnClosed != nil {
		t.ConnClosed(ctx, c, err)
	}
}

func (t *Trace) channelClosed(ctx context.Context, c ConnInfo, channel uint16, err error) {
	if t != nil && t.ChannelClosed != nil {
		t.ChannelClosed(ctx, c, channel, err)
	}
}

func (t *Trace) blocked(ctx context.Context, c ConnInfo, reason string) {
	if t != nil && t.Blocked != nil {
		t.Blocked(ctx, c, reason)
	}
}

func (t *Trace) unblocked(ctx context.Context, c ConnInfo) {
	if t != nil && t.Unblocked != nil {
		t.Unblocked(ctx, c)
	}
}

// tracesPublish guards publishStart and publishDone on the hot path: taking
// the addresses of a method and a message moves them to the heap, so that is
// left to a function of its own, which is only called where this is true.
func (t *Trace) tracesPublish() bool {
	return t != nil && (t.PublishStart != nil || t.PublishDone != nil)
}

func (t *Trace) publishStart(ctx context.Context, channel uint16, m *BasicPublish, msg *Message) context.Context {
	if t == nil || t.PublishStart == nil {
		return ctx
	}
	return orElse(t.PublishStart(ctx, channel, m, msg), ctx)
}

func (t *Trace) publishDone(ctx context.Context, channel uint16, err error) {
	if t != nil && t.PublishDone != nil {
		t.PublishDone(ctx, channel, err)
	}
}

func (t *Trace) deliver(ctx context.Context, d *Delivery) context.Context {
	if t == nil || t.Deliver == nil {
		return ctx
	}
	return orElse(t.Deliver(ctx, d), ctx)
}

func (t *Trace) returned(ctx context.Context, channel uint16, r *ReturnError) {
	if t != nil && t.Return != nil {
		t.Return(ctx, channel, r)
	}
}

func (t *Trace) settle(ctx context.Context, s SettleInfo, err error) {
	if t != nil && t.Settle != nil {
		t.Settle(ctx, s, err)
	}
}

func (t *Trace) reconnect(ctx context.Context, r ReconnectInfo) {
	if t != nil && t.Reconnect != nil {
		t.Reconnect(ctx, r)
	}
}

func (t *Trace) topology(ctx context.Context, err *TopologyError) {
	if t != nil && t.Topology != nil {
		t.Topology(ctx, err)
	}
}

func orElse(ctx, otherwise context.Context) context.Context {
	if ctx == nil {
		return otherwise
	}
	return ctx
}
