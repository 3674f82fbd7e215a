package amqptest

import (
	"cmp"
	"crypto/tls"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/warrenmq/warren/amqp"
)

// session is one connection. Two goroutines drive it: read feeds the engine
// and handles what comes out, write sends what has gathered.
type session struct {
	srv      *Server
	nc       *faultConn
	name     string // "127.0.0.1:40001 -> 127.0.0.1:5672"
	isTLS    bool
	peerName func() string // of a TLS client's certificate
	started  time.Time

	emu sync.Mutex // guards eng and scratch; taken before Server.mu
	eng *amqp.Engine
	scratch

	opened bool          // the handshake is over, as far as read knows
	wake   chan struct{} // one token: there is something to send
	done   chan struct{} // closed when the session is over

	// Guarded by Server.mu.
	state        sessionState
	order        uint64
	user         *user
	vh           *vhost
	props        amqp.Table
	clientName   string // connection_name
	cancelNotify bool   // the client understands basic.cancel
	blockNotify  bool   // the client understands connection.blocked
	authClose    bool   // the client wants a close when a login fails
	channels     map[uint16]*channel
	open         int // channels that are open
	exclusive    map[*queue]struct{}
	out          []outItem
	outBytes     int
	waiting      []*consumer // kept from deliveries by a full output
	held         *amqp.Event // a publish that met an alarm
	told         bool        // connection.blocked was sent
	room         chan struct{}
	over         bool
	deadline     *time.Timer // of the handshake, then of the peer's close-ok
}

type sessionState uint8

const (
	sessionOpening sessionState = iota
	sessionOpen
	sessionClosing // connection.close sent: all but close-ok is ignored
)

// outKind is what an outItem is.
type outKind uint8

const (
	outMethod outKind = iota
	outDeliver
	outGet
	outReturn
	outConfirm
	outClose // hang up
)

// outItem is one thing to send. Messages are encoded only when they are
// written, so that a queue's message waits in memory once.
type outItem struct {
	kind        outKind
	redelivered bool
	multiple    bool
	nack        bool
	hasOffset   bool
	ch          *channel // nil: channel 0
	c           *consumer
	msg         *message
	method      amqp.Method
	tag         uint64
	acquired    uint32
	failed      uint32
	count       uint32 // get-ok: messages left
	offset      int64
}

// What an output holds before deliveries wait, and before the reader stops
// taking further requests.
const (
	fullItems = 1024
	fullBytes = 512 << 10
	stopItems = 8 * fullItems
)

func newSession(srv *Server, nc net.Conn) *session {
	s := &session{
		srv: srv, name: nc.RemoteAddr().String() + " -> " + nc.LocalAddr().String(), started: time.Now(),
		wake: make(chan struct{}, 1), done: make(chan struct{}), room: make(chan struct{}, 1),
		channels: map[uint16]*channel{}, exclusive: map[*queue]struct{}{},
	}
	if t, ok := nc.(*tls.Conn); ok {
		s.isTLS = true
		s.peerName = func() string { return commonName(t) }
	}
	s.nc = srv.faults.wrap(s, nc)
	srv.order++
	s.order = srv.order
	hb := srv.cfg.Heartbeat
	s.eng = amqp.NewEngine(amqp.EngineConfig{
		Role: amqp.ServerRole, Properties: serverProperties(), Mechanisms: strings.Join(srv.mechanisms(s.isTLS), " "),
		FrameMax: srv.cfg.FrameMax, ChannelMax: srv.cfg.ChannelMax, Heartbeat: hb, MaxBody: srv.cfg.MaxBody,
		Refuse: s.violated,
	})
	if d := srv.cfg.HandshakeTimeout; d > 0 {
		s.deadline = srv.afterFunc(d, s.kill)
	}
	return s
}

// push adds an item to the output. Server.mu is held.
func (s *session) push(it outItem) {
	if s.over {
		return
	}
	s.out = append(s.out, it)
	if it.msg != nil {
		s.outBytes += len(it.msg.body)
	}
	if len(s.out) == 1 {
		s.signal()
	}
}

func (s *session) signal() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

func (s *session) outFull() bool {
	return len(s.out) >= fullItems || s.outBytes >= fullBytes || s.srv.faults.stalled
}

// read is the reading goroutine.
func (s *session) read() {
	defer s.finish()
	buf := make([]byte, 8<<10)
	for {
		n, err := s.nc.Read(buf)
		if n > 0 && !s.feed(buf[:n]) {
			return
		}
		if err != nil {
			return
		}
		if n == len(buf) && n < 128<<10 {
			buf = make([]byte, 4*n) // who fills it has more to say; who is silent costs little
		}
	}
}

// feed hands bytes to the engine and handles the events. false: it is over.
func (s *session) feed(p []byte) bool {
	s.emu.Lock()
	err := s.eng.Feed(time.Now(), p)
	s.opened = s.opened || s.vh != nil // read's own: only it sets vh
	for {
		wait, over, broken := s.events()
		err = cmp.Or(err, broken)
		s.emu.Unlock()
		if err != nil || over || !s.opened {
			s.signal() // the engine itself may have something to say
		}
		if over || err != nil && !wait {
			if err != nil {
				s.abandon()
				s.linger()
			}
			return false
		}
		if !wait {
			return true
		}
		select {
		case <-s.room:
		case <-s.done:
			return false
		}
		s.emu.Lock()
	}
}

// events handles the engine's events, until there are no more or until the
// session must wait: for the end of an alarm, or for room in its output.
// broken is how the peer broke the protocol, where it was this that found it.
func (s *session) events() (wait, over bool, broken error) {
	srv := s.srv
	srv.mu.Lock()
	defer srv.mu.Unlock()
	for {
		if s.mustWait() {
			return true, false, nil
		}
		ev := s.held
		s.held = nil
		if ev == nil {
			next, ok := s.eng.Next()
			if !ok {
				return false, s.over, nil
			}
			ev = &next
		}
		if ev.Kind == amqp.EventClosed {
			if ev.Err != nil {
				broken = ev.Err
			}
			return false, true, broken
		}
		if ev.ID == amqp.MethodBasicPublish && srv.faults.alarm != "" {
			if s.over { // nobody waits for the alarm's end any more
				return false, true, nil
			}
			// The publish that meets an alarm waits, and behind it everything.
			held := *ev
			s.held = &held
			s.tellBlocked()
			continue
		}
		if err := s.handle(ev); err != nil {
			s.refuse(ev, err)
		}
		srv.settle()
	}
}

// mustWait reports whether the reader may take no further event now. Server.mu
// is held.
func (s *session) mustWait() bool {
	if s.over {
		return false
	}
	return len(s.out) >= stopItems || s.srv.faults.stalled || s.srv.faults.alarm != "" && s.held != nil
}

// kill drops the connection, as a network does. Server.mu is held, and
// abort does not wait.
func (s *session) kill() {
	s.nc.abort()
	s.over = true
	s.resume()
}

// resume wakes a reader that waits. Server.mu is held.
func (s *session) resume() {
	select {
	case s.room <- struct{}{}:
	default:
	}
}

// abandon ends what the session held when its engine failed.
func (s *session) abandon() {
	s.srv.mu.Lock()
	defer s.srv.mu.Unlock()
	s.state = sessionClosing
	s.tearDown()
	s.srv.settle()
}

// linger gives the peer time to read the connection.close that the engine or
// the server ended with: closing a TCP connection with unread input would
// take it back.
func (s *session) linger() {
	s.nc.SetReadDeadline(time.Now().Add(time.Second))
	buf := make([]byte, 1024)
	for {
		if _, err := s.nc.Read(buf); err != nil {
			return
		}
	}
}

// finish ends the session: what it held goes back or goes away.
func (s *session) finish() {
	srv := s.srv
	srv.mu.Lock()
	s.tearDown()
	s.over = true
	delete(srv.sessions, s)
	srv.settle()
	srv.mu.Unlock()
	if s.deadline != nil {
		s.deadline.Stop()
	}
	close(s.done)
	s.nc.Close()
}

// tearDown closes the channels and deletes the exclusive queues. Server.mu is held.
func (s *session) tearDown() {
	for _, ch := range s.sortedChannels() {
		ch.close()
	}
	clear(s.channels)
	s.open = 0
	for _, q := range sortedQueues(s.exclusive) {
		q.vh.deleteQueue(q)
	}
}
