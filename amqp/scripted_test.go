package amqp_test

import (
	"net"
	"sync"
	"testing"
	"time"

	"github.com/warrenmq/warren/amqp"
)

// script is a server that does what a test says, by an engine of its own. It
// answers the ordinary calls itself and keeps what it is told.
type script struct {
	t  *testing.T
	nc net.Conn

	mu     sync.Mutex
	e      *amqp.Engine
	heard  []heard
	beats  []time.Time // when heartbeats came
	tags   uint64
	out    [][]byte
	signal chan struct{}
	closed bool

	// on sees what comes first, and reports whether it has dealt with it. It is
	// called on the server's goroutine, with mu held.
	on func(ev amqp.Event, m amqp.Method) bool
}

// heard is a method that came, and when.
type heard struct {
	At      time.Time
	Channel uint16
	Method  amqp.Method
}

// newScript starts a server and connects to it; both end with the test.
func newScript(t *testing.T, cfg *amqp.Config, on func(s *script, ev amqp.Event, m amqp.Method) bool) (*script, *amqp.Conn) {
	t.Helper()
	client, server := net.Pipe()
	s := &script{t: t, nc: server, signal: make(chan struct{}, 1), e: amqp.NewEngine(amqp.EngineConfig{Role: amqp.ServerRole})}
	if on != nil {
		s.on = func(ev amqp.Event, m amqp.Method) bool { return on(s, ev, m) }
	}
	var wg sync.WaitGroup
	wg.Go(s.read)
	wg.Go(s.write)
	conn, err := amqp.NewConn(t.Context(), client, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		conn.Close()
		s.hangUp()
		wg.Wait()
	})
	return s, conn
}

func (s *script) hangUp() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	s.nc.Close()
	s.wake()
}

func (s *script) wake() {
	select {
	case s.signal <- struct{}{}:
	default:
	}
}

func (s *script) read() {
	buf := make([]byte, 64<<10)
	for {
		n, err := s.nc.Read(buf)
		s.mu.Lock()
		if n == 8 && buf[0] == byte(amqp.FrameHeartbeat) {
			s.beats = append(s.beats, time.Now())
		}
		if err == nil {
			err = s.e.Feed(time.Now(), buf[:n])
		}
		for {
			ev, ok := s.e.Next()
			if !ok {
				break
			}
			s.take(ev)
		}
		s.flush()
		s.mu.Unlock()
		if err != nil {
			s.hangUp()
			return
		}
	}
}

// flush hands what is to be said to the writer. mu is held.
func (s *script) flush() {
	for _, seg := range s.e.Output() {
		s.out = append(s.out, append([]byte(nil), seg...))
		defer s.e.Wrote(len(seg))
	}
	s.wake()
}

func (s *script) write() {
	for range s.signal {
		s.mu.Lock()
		out, closed := s.out, s.closed
		s.out = nil
		s.mu.Unlock()
		for _, seg := range out {
			if _, err := s.nc.Write(seg); err != nil {
				return
			}
		}
		if closed {
			return
		}
	}
}

// take answers what came. mu is held.
func (s *script) take(ev amqp.Event) {
	if ev.Kind != amqp.EventMethod && ev.Kind != amqp.EventContent {
		return
	}
	m, err := ev.Method()
	if err != nil {
		s.t.Error(err)
		return
	}
	s.heard = append(s.heard, heard{time.Now(), ev.Channel, m})
	if s.on != nil && s.on(ev, m) {
		return
	}
	switch m := m.(type) {
	case *amqp.ConnectionStartOk:
		s.reply(0, &amqp.ConnectionTune{ChannelMax: 100, FrameMax: 128 << 10, Heartbeat: 10})
	case *amqp.ConnectionOpen:
		s.reply(0, &amqp.ConnectionOpenOk{})
	case *amqp.ConnectionClose:
		s.reply(0, &amqp.ConnectionCloseOk{})
	case *amqp.ChannelOpen:
		s.reply(ev.Channel, &amqp.ChannelOpenOk{})
	case *amqp.ChannelClose:
		s.reply(ev.Channel, &amqp.ChannelCloseOk{})
	case *amqp.QueueDeclare:
		s.reply(ev.Channel, &amqp.QueueDeclareOk{Queue: m.Queue})
	case *amqp.BasicQos:
		s.reply(ev.Channel, &amqp.BasicQosOk{})
	case *amqp.BasicConsume:
		s.reply(ev.Channel, &amqp.BasicConsumeOk{ConsumerTag: "ctag-" + m.Queue})
	case *amqp.BasicCancel:
		if !m.NoWait {
			s.reply(ev.Channel, &amqp.BasicCancelOk{ConsumerTag: m.ConsumerTag})
		}
	case *amqp.BasicGet:
		s.reply(ev.Channel, &amqp.BasicGetEmpty{})
	}
}

// reply says a method. mu is held.
func (s *script) reply(channel uint16, m amqp.Method) {
	if err := s.e.Send(channel, m); err != nil {
		s.t.Errorf("script: %v", err)
	}
}

// say says methods, from any goroutine.
func (s *script) say(channel uint16, methods ...amqp.Method) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, m := range methods {
		s.reply(channel, m)
	}
	s.flush()
}

// beat says a heartbeat.
func (s *script) beat() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.out = append(s.out, []byte{byte(amqp.FrameHeartbeat), 0, 0, 0, 0, 0, 0, amqp.FrameEnd})
	s.wake()
}

// deliver sends n deliveries to the consumer of queue q, with tags that go on.
func (s *script) deliver(channel uint16, n int, msg *amqp.Message) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for range n {
		s.tags++
		m := &amqp.BasicDeliver{ConsumerTag: "ctag-q", DeliveryTag: s.tags, RoutingKey: "q"}
		if err := s.e.SendContent(channel, m, msg); err != nil {
			s.t.Errorf("script: %v", err)
		}
	}
	s.flush()
}

// since forgets what was heard and gives what it was.
func (s *script) since() []heard {
	s.mu.Lock()
	defer s.mu.Unlock()
	h := s.heard
	s.heard = nil
	return h
}

// methods is since without the circumstances.
func (s *script) methods() (list []amqp.Method) {
	for _, h := range s.since() {
		list = append(list, h.Method)
	}
	return list
}

// subscribe starts a consumer of q.
func subscribe(t *testing.T, ch *amqp.Channel, opts *amqp.ConsumeOptions) *amqp.Consumer {
	t.Helper()
	cons, err := ch.Subscribe(t.Context(), amqp.BasicConsume{Queue: "q"}, opts)
	if err != nil {
		t.Fatal(err)
	}
	return cons
}

// takeN takes n deliveries.
func takeN(t *testing.T, cons *amqp.Consumer, n int) (list []*amqp.Delivery) {
	t.Helper()
	for d, err := range cons.All() {
		if err != nil {
			t.Fatal(err)
		}
		if list = append(list, d); len(list) == n {
			break
		}
	}
	return list
}
