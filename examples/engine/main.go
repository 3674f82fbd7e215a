// Command engine speaks AMQP without Warren's runtime: a loop of its own moves
// the bytes, and amqp.Engine knows what they mean. There is no goroutine in it.
//
//	go run ./examples/engine
//
// This is for those who have an event loop already: hand what was read to Feed,
// take events from Next, write what Output gives, and call Tick at Deadline.
// The program declares a queue, publishes to it with confirms, consumes what it
// published with acknowledgements, and closes.
package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"log"
	"maps"
	"net"
	"os"
	"slices"
	"time"

	"github.com/warrenmq/warren/amqp"
)

func main() {
	log.SetFlags(0)
	uri := cmp.Or(os.Getenv("AMQP_URL"), "amqp://localhost")
	if err := run(uri, 1000, os.Stdout); err != nil {
		log.Fatal(err)
	}
}

// run dials, makes an engine for the client's side, and loops until it is done.
func run(uri string, n int, out io.Writer) error {
	u, err := amqp.ParseURI(uri)
	if err != nil {
		return err
	}
	if u.Scheme != amqp.SchemeAMQP {
		return fmt.Errorf("this example speaks plain TCP, not %s", u.Scheme)
	}
	conn, err := net.DialTimeout("tcp", u.Hosts[0], 10*time.Second)
	if err != nil {
		return err
	}
	defer conn.Close()
	credentials := amqp.Credentials{Username: "guest", Password: "guest"}
	if u.UserSet {
		credentials = amqp.Credentials{Username: u.Username, Password: u.Password}
	}
	l := &loop{
		conn: conn,
		engine: amqp.NewEngine(amqp.EngineConfig{
			SASLInfo: amqp.SASLInfo{Credentials: &credentials},
			VHost:    u.VHost,
			Name:     "engine example",
		}),
		program: program{want: n, unconfirmed: make(map[uint64]bool)},
	}
	if err := l.run(); err != nil {
		return err
	}
	fmt.Fprintf(out, "%d published, confirmed and received\n", l.program.received)
	return nil
}

// loop moves bytes between a connection and an engine.
type loop struct {
	conn    net.Conn
	engine  *amqp.Engine
	program program
	buf     [32 << 10]byte
}

// turn is how long a write or a read may hold up the other. A broker that does
// not read waits, as a rule, for us to read: who only wrote would wait for ever.
const turn = 5 * time.Millisecond

// run writes, reads and handles events by turns until the connection is closed.
func (l *loop) run() error {
	for {
		if err := l.write(); err != nil {
			return err
		}
		if err := l.read(); err != nil {
			return err
		}
		for ev, ok := l.engine.Next(); ok; ev, ok = l.engine.Next() {
			if ev.Kind == amqp.EventClosed {
				// The last words, close or close-ok, may still have to go.
				if err := l.write(); ev.Err == nil {
					return err
				}
				return ev.Err
			}
			if err := l.program.handle(l.engine, &ev); err != nil {
				return err
			}
		}
	}
}

// write writes what the engine has to say, as far as it goes within a turn. A
// loop around select or epoll would write as much as the socket takes.
func (l *loop) write() error {
	// A copy of the list, not of the bytes: WriteTo cuts off what it wrote.
	pending := net.Buffers(slices.Clone(l.engine.Output()))
	if len(pending) == 0 {
		return nil
	}
	if err := l.conn.SetWriteDeadline(time.Now().Add(turn)); err != nil {
		return err
	}
	n, err := pending.WriteTo(l.conn)
	l.engine.Wrote(int(n))
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return nil
	}
	return err
}

// read feeds the engine what has come, or tells it that the stream has ended or
// that its time is up: it waits, but not beyond the engine's deadline, which is
// when heartbeats are due, and no longer than a turn where there is something to
// be written.
func (l *loop) read() error {
	deadline := l.engine.Deadline()
	if soon := time.Now().Add(turn); len(l.engine.Output()) > 0 && (deadline.IsZero() || soon.Before(deadline)) {
		deadline = soon
	}
	if err := l.conn.SetReadDeadline(deadline); err != nil {
		return err
	}
	n, err := l.conn.Read(l.buf[:])
	now := time.Now()
	if n > 0 {
		// A violation of the protocol is an error here, and an EventClosed too,
		// which is where this loop looks.
		_ = l.engine.Feed(now, l.buf[:n])
	}
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		_ = l.engine.Tick(now)
	case err != nil:
		l.engine.EOF(err)
	}
	return nil
}

// channel is the number of the only one that the program opens.
const channel = 1

// program is what to do with the connection, as a reaction to each event.
type program struct {
	want        int // messages
	queue       string
	unconfirmed map[uint64]bool // publishes by their tag: the first on a channel is 1
	received    int
	closing     bool
}

func (p *program) handle(e *amqp.Engine, ev *amqp.Event) error {
	switch {
	case ev.Kind == amqp.EventOpen:
		return e.Send(channel, amqp.ChannelOpen{})
	case ev.ID == amqp.MethodChannelOpenOk:
		// No need to wait for one reply before asking for the next.
		if err := e.Send(channel, amqp.ConfirmSelect{}); err != nil {
			return err
		}
		return e.Send(channel, amqp.QueueDeclare{Exclusive: true})
	}
	if ev.Channel != channel {
		return nil
	}
	m, err := ev.Method()
	if err != nil {
		return err
	}
	switch m := m.(type) {
	case *amqp.QueueDeclareOk:
		p.queue = m.Queue
		if err := e.Send(channel, amqp.BasicQos{PrefetchCount: 100}); err != nil {
			return err
		}
		return e.Send(channel, amqp.BasicConsume{Queue: p.queue})
	case *amqp.BasicConsumeOk:
		return p.publish(e)
	case *amqp.BasicAck: // from the broker, it confirms
		delete(p.unconfirmed, m.DeliveryTag)
		if m.Multiple {
			maps.DeleteFunc(p.unconfirmed, func(tag uint64, _ bool) bool { return tag <= m.DeliveryTag })
		}
	case *amqp.BasicNack:
		return fmt.Errorf("the broker refused message %d", m.DeliveryTag)
	case *amqp.BasicDeliver:
		p.received++
		if err := e.Send(channel, amqp.BasicAck{DeliveryTag: m.DeliveryTag}); err != nil {
			return err
		}
	case *amqp.ChannelClose:
		return fmt.Errorf("the broker closed the channel: %d %s", m.ReplyCode, m.ReplyText)
	}
	if len(p.unconfirmed) == 0 && p.received == p.want && !p.closing {
		p.closing = true
		return e.Send(0, amqp.ConnectionClose{ReplyCode: amqp.ReplySuccess})
	}
	return nil
}

func (p *program) publish(e *amqp.Engine) error {
	for i := range p.want {
		msg := &amqp.Message{Body: fmt.Appendf(nil, "message %d", i)}
		if err := e.SendContent(channel, amqp.BasicPublish{RoutingKey: p.queue}, msg); err != nil {
			return err
		}
		p.unconfirmed[uint64(i+1)] = true
	}
	return nil
}
