package amqp

import (
	"errors"
	"io"
	"math"
	"time"
	"unicode/utf8"
)

// Role is the side of the connection that an Engine plays.
type Role uint8

const (
	ClientRole Role = iota
	ServerRole
)

// EngineConfig is what an Engine is made from. The zero value is a client
// without credentials on the vhost "".
type EngineConfig struct {
	Role Role

	// SASL are the mechanisms that a client may use, the preferred first, and
	// SASLInfo what they are told. nil: PLAIN.
	SASL     []SASL
	SASLInfo SASLInfo

	// VHost is the virtual host that a client opens.
	VHost string

	// Name is the client's name for the connection, shown by the broker
	// (connection_name).
	Name string

	// Properties are added to client-properties, or are server-properties.
	Properties Table

	// Mechanisms is the space-separated list that a server offers. "": PLAIN.
	Mechanisms string

	// ChannelMax is the highest channel number that a client wants; 0: 2047. A
	// server says it, and Heartbeat, in its connection.tune.
	ChannelMax uint16

	// FrameMax is the largest frame wanted, in octets with all its parts; 0:
	// 131072. RabbitMQ 4.3 wants 8192 at least.
	FrameMax uint32

	// Heartbeat is the longest silence wanted, in whole seconds, upwards; 0:
	// 10 s; negative: no heartbeats. The lesser of both sides' counts.
	Heartbeat time.Duration

	// MaxBody is the longest message body taken, in octets; 0: 16 MiB. Negative:
	// no bound.
	MaxBody int64

	// Refuse words the connection.close with which a server answers a peer that
	// broke the protocol; where it returns nil, nothing is said. nil: the code
	// and text of the Error that Feed returns. It must not use the engine.
	Refuse func(Violation) *ConnectionClose
}

const (
	defaultChannelMax = 2047
	defaultFrameMax   = 128 << 10
	defaultHeartbeat  = 10 * time.Second
	defaultMaxBody    = 16 << 20
)

// Engine is AMQP 0-9-1 without input and output: bytes are fed in and events
// come out, methods are sent and bytes come out. It has no goroutine, no lock
// and no clock, and plays either side of a connection. Conn and the broker of
// package amqptest are made of it, and so can any event loop be.
//
// It does by itself what needs no decision: a client's handshake, close-ok and
// flow-ok, heartbeats, the undoing of replies to abandoned calls. In the server
// role connection.start and heartbeats are made by the engine, and everything
// else is sent by its user in answer to events: tune, open-ok, close-ok too,
// since it must come after the answers to what went before.
//
// What it allocates for what it is fed is at most 8 times that and 64 KiB, whatever
// the peer says. That is with a channel-max of 2047 or less: above it, the list of
// channels takes up to 32 octets more for each number up to the highest opened.
//
// One goroutine at a time may use an Engine: no two of its methods may run side
// by side. Within this package more is possible, and Conn lives by it: of the two
// halves, receiver and sender, receiver.next may run on one goroutine without a
// lock while others, one at a time, use the sender. What needs both halves is
// done by accept, on the receiver's goroutine and under the sender's lock.
type Engine struct {
	cfg EngineConfig
	r   receiver
	s   sender

	sasl        *saslRun
	stage       handshakeStage
	startOkSize int   // octets of start-ok's frame
	secured     bool  // server: connection.secure was sent, its answer is to come
	peer        Table // server-properties, or client-properties
	offered     ConnectionTune
	heartbeatIn time.Duration // negotiated

	buf    []byte  // fed
	in     []byte  // the end of buf, not consumed yet
	events []Event // from head on not taken yet
	head   int
	more   bool     // there may be events in what is left of in
	eof    error    // how the stream ended
	err    error    // why the connection is over
	told   bool     // the peer said so
	d      decoder  // of arguments, kept here so that it is not allocated
	view   [][]byte // what Output returned last

	culprit []byte // from the frame that broke the protocol on

	lastRead, lastSent time.Time
	wrote              bool
}

// NewEngine makes an engine at the beginning of a connection. A client's first
// output is the protocol header.
func NewEngine(cfg EngineConfig) *Engine {
	if cfg.FrameMax == 0 {
		cfg.FrameMax = defaultFrameMax
	}
	if cfg.Heartbeat == 0 {
		cfg.Heartbeat = defaultHeartbeat
	}
	if cfg.MaxBody == 0 {
		cfg.MaxBody = defaultMaxBody
	}
	e := &Engine{cfg: cfg}
	e.s.role = cfg.Role
	e.r.frameMax, e.s.frameMax = preTuneFrameMax, preTuneFrameMax
	e.r.maxBody = math.MaxInt / 2 // what a size can be reckoned with
	if cfg.MaxBody >= 0 {
		e.r.maxBody = min(uint64(cfg.MaxBody), math.MaxInt/2)
	}
	if cfg.Role == ServerRole {
		e.r.fromPeer = func(m *methodInfo) bool { return m.fromClient }
		return e
	}
	e.r.fromPeer = func(m *methodInfo) bool { return m.fromServer }
	if cfg.ChannelMax == 0 {
		e.cfg.ChannelMax = defaultChannelMax
	}
	if len(cfg.SASL) == 0 {
		e.cfg.SASL = []SASL{SASLPlain()}
	}
	e.s.out = appendProtocolHeader(e.s.out)
	e.s.phase = connStart
	return e
}

// Feed takes bytes that arrived; p is copied. now starts the count of silence
// afresh. What the bytes meant comes from Next, in order: take all of it, since
// Feed looks no further ahead than some dozens of events.
//
// Errors: *Error where the peer violated the protocol, with the reply code
// that the spec gives it; *SASLError and *EncodeError where this side can't go on
// with the handshake. Output then ends with the connection.close that says so
// (but before connection.start-ok, when there is nobody to say it to), EventClosed
// with the same error is the last event, and every later Feed returns it again.
// An error that lies behind many events is found by the Next that comes to it.
// What is fed after a close that was no violation is nothing.
func (e *Engine) Feed(now time.Time, p []byte) error {
	if e.s.phase == connClosed {
		if e.told {
			return nil
		}
		return e.err
	}
	e.lastRead = now
	if e.lastSent.IsZero() {
		e.lastSent = now
	}
	e.take(p)
	return e.advance()
}

// take puts p behind what is not consumed yet.
func (e *Engine) take(p []byte) {
	rest := len(e.in)
	switch {
	case e.head == len(e.events):
		// Nothing points into the buffer any more: it can be used again.
		if consumed := len(e.buf) - rest; consumed > 0 {
			copy(e.buf, e.in)
		}
		e.buf = append(e.buf[:rest], p...)
	case len(p) <= cap(e.buf)-len(e.buf):
		e.buf = append(e.buf, p...)
	default:
		// Events that were not taken yet alias the old bytes: leave them alone.
		e.buf = append(append(make([]byte, 0, 2*(rest+len(p))), e.in...), p...)
	}
	e.in = e.buf[len(e.buf)-rest-len(p):]
}

// advance makes events of what was fed.
func (e *Engine) advance() error {
	if err := e.parse(); err != nil {
		e.fail(err)
		return e.err
	}
	return nil
}

// eventBatch is how many events may wait to be taken before parsing stops. An
// Event is many times larger than the smallest frame, so there must be a limit.
const eventBatch = 32

func (e *Engine) parse() error {
	e.more = false
	if e.s.phase == connHeader {
		n, err := e.takeHeader(e.in)
		e.in = e.in[n:]
		if err != nil {
			return err
		}
		if n == 0 {
			return e.dry()
		}
	}
	for e.s.phase != connClosed {
		if len(e.events)-e.head >= eventBatch {
			e.more = true
			return nil
		}
		var ev Event
		in := e.in
		n, err := e.r.next(in, &ev)
		e.in = in[n:]
		if err == nil && ev.Kind == eventNone {
			return e.dry()
		}
		var keep bool
		if err == nil {
			keep, err = e.accept(&ev)
		}
		if err != nil {
			if e.r.at >= 0 {
				e.culprit = in[e.r.at:]
			}
			return err
		}
		if keep {
			e.events = append(e.events, ev)
		}
	}
	e.in = nil
	return nil
}

// dry is what it means that all that was fed is used up.
func (e *Engine) dry() error {
	if e.eof != nil {
		return e.explainEOF(e.eof)
	}
	return nil
}

// fail ends the connection by the peer's fault or this side's.
func (e *Engine) fail(err error) {
	if e.err != nil {
		return
	}
	e.err = err
	ex := asError(err)
	if ex.Code != 0 && e.s.phase > connHeader && e.s.phase < connClosing && (e.s.role == ServerRole || e.s.phase > connStart) {
		m := &ConnectionClose{
			ReplyCode: ex.Code, ReplyText: clip(ex.Text),
			FailedClass: uint16(ex.Method >> 16), FailedMethod: uint16(ex.Method),
		}
		if e.cfg.Refuse != nil {
			m = e.cfg.Refuse(e.violation(ex))
		}
		if m != nil {
			e.s.method(0, m)
		}
	}
	e.s.phase = connClosed
	e.events = append(e.events, Event{Kind: EventClosed, Err: ex})
}

// asError makes an *Error of any error.
func asError(err error) *Error {
	var ex *Error
	if errors.As(err, &ex) {
		return ex
	}
	return &Error{Text: "connection failed", cause: err}
}

// clip makes a text fit a short string.
func clip(text string) string {
	if len(text) <= 255 {
		return text
	}
	n := 255
	for n > 252 && !utf8.RuneStart(text[n]) {
		n--
	}
	return text[:n]
}

// Next gives the next event, and false when there is none without more bytes.
// What an event aliases is valid until the next Feed.
func (e *Engine) Next() (Event, bool) {
	if e.head == len(e.events) {
		e.events, e.head = e.events[:0], 0
		if e.more {
			e.advance() // an error comes as EventClosed
		}
		if len(e.events) == 0 {
			return Event{}, false
		}
	}
	ev := e.events[e.head]
	e.events[e.head] = Event{}
	e.head++
	return ev, true
}

// EOF says that the stream ended: nothing more will be fed. It makes the
// EventClosed of a connection that was not closed by methods, behind the events
// that are still to be taken, with a text that names the likely cause. cause is
// what reading returned; nil stands for io.EOF.
func (e *Engine) EOF(cause error) {
	if e.s.phase == connClosed || e.eof != nil {
		return
	}
	if e.eof = cause; cause == nil {
		e.eof = io.EOF
	}
	e.advance()
}

// PeerProperties are the server-properties of a client's connection, the
// client-properties of a server's. nil before they have come.
func (e *Engine) PeerProperties() Table { return e.peer }

// Tuned gives what was negotiated. Before EventOpen (client) or tune-ok
// (server) it is of no meaning.
func (e *Engine) Tuned() (channelMax uint16, frameMax uint32, heartbeat time.Duration) {
	return e.s.channelMax, e.s.frameMax, e.heartbeatIn
}

// Abandon says that the caller no longer waits for the newest reply that the
// channel owes to a method of this id: it is swallowed when it comes, and its
// effect undone: a late consume-ok is cancelled, and what the consumer got goes
// back to its queue; a late get-ok is requeued; a late open-ok is closed, and the
// event of its close-ok says when the number is free again. It reports whether
// there was one.
func (e *Engine) Abandon(channel uint16, id MethodID) bool {
	st := &e.s.zero
	if channel != 0 {
		st = e.s.channel(channel)
	}
	if st == nil {
		return false
	}
	for i := len(st.expect) - 1; i >= 0; i-- {
		if x := &st.expect[i]; x.request == id && !x.abandoned {
			x.abandoned = true
			return true
		}
	}
	return false
}
