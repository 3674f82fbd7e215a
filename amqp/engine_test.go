package amqp

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
)

// pair is a client and a server engine, joined by hand.
type pair struct {
	t    *testing.T
	c, s *Engine
	now  time.Time
	step int // how many bytes are fed at a time; 0: all
	log  []string
}

func newPair(t *testing.T, step int) *pair {
	t.Helper()
	p := &pair{t: t, step: step, now: time.Unix(1000, 0)}
	p.c = NewEngine(EngineConfig{VHost: "/", Name: "test", SASLInfo: SASLInfo{Credentials: &Credentials{Username: "u", Password: "p"}}})
	p.s = NewEngine(EngineConfig{Role: ServerRole, Properties: Table{"product": "test"}})
	return p
}

func drain(e *Engine) []byte {
	var b []byte
	for _, seg := range e.Output() {
		b = append(b, seg...)
	}
	e.Wrote(len(b))
	return b
}

// move carries bytes both ways until nothing moves, and answers the handshake.
func (p *pair) move() {
	p.t.Helper()
	for {
		a, b := drain(p.c), drain(p.s)
		if len(a)+len(b) == 0 {
			return
		}
		p.feed("server", p.s, a)
		p.feed("client", p.c, b)
	}
}

func (p *pair) feed(who string, e *Engine, b []byte) {
	p.t.Helper()
	for len(b) > 0 {
		n := len(b)
		if p.step > 0 {
			n = min(n, p.step)
		}
		err := e.Feed(p.now, b[:n])
		b = b[n:]
		for {
			ev, ok := e.Next()
			if !ok {
				break
			}
			p.log = append(p.log, who+" "+describe(ev))
			if e == p.s {
				p.serve(ev)
			}
		}
		if err != nil {
			p.log = append(p.log, who+" error "+err.Error())
			return
		}
	}
}

func (p *pair) serve(ev Event) {
	send := func(m Method) {
		if err := p.s.Send(ev.Channel, m); err != nil {
			p.t.Fatalf("server: %v", err)
		}
	}
	switch ev.ID {
	case MethodConnectionStartOk:
		send(&ConnectionTune{ChannelMax: 100, FrameMax: 8192, Heartbeat: 60})
	case MethodConnectionOpen:
		send(&ConnectionOpenOk{})
	case MethodChannelOpen:
		send(&ChannelOpenOk{})
	case MethodConfirmSelect:
		send(&ConfirmSelectOk{})
	case MethodQueueDeclare:
		send(&QueueDeclareOk{Queue: "q"})
	case MethodBasicConsume:
		send(&BasicConsumeOk{ConsumerTag: "t"})
	case MethodBasicPublish:
		msg, err := ev.Message()
		if err != nil {
			p.t.Fatalf("%v\n%s", err, strings.Join(p.log, "\n"))
		}
		send(&BasicAck{DeliveryTag: 1})
		if err := p.s.SendContent(ev.Channel, &BasicDeliver{ConsumerTag: "t", DeliveryTag: 1, RoutingKey: "q"}, msg); err != nil {
			p.t.Fatalf("%v\n%s", err, strings.Join(p.log, "\n"))
		}
	case MethodChannelClose:
		send(&ChannelCloseOk{})
	case MethodConnectionClose:
		send(&ConnectionCloseOk{})
	}
}

func describe(ev Event) string {
	switch ev.Kind {
	case EventOpen:
		return "open"
	case EventClosed:
		if ev.Err == nil {
			return "closed"
		}
		return "closed: " + ev.Err.Error()
	}
	m, err := ev.Method()
	if err != nil {
		return "malformed " + err.Error()
	}
	s := fmt.Sprintf("%d %s %+v", ev.Channel, ev.ID, m)
	if ev.Kind == EventContent {
		s += fmt.Sprintf(" properties %x body %d %x", ev.Properties, ev.BodySize, ev.Body[:min(len(ev.Body), 16)])
	}
	return s
}

func (p *pair) conversation() []string {
	p.t.Helper()
	p.move()
	do := func(err error) {
		p.t.Helper()
		if err != nil {
			p.t.Fatalf("%v\n%s", err, strings.Join(p.log, "\n"))
		}
		p.move()
	}
	do(p.c.Send(1, &ChannelOpen{}))
	do(p.c.Send(1, &QueueDeclare{Queue: "q"}))
	do(p.c.Send(1, &ConfirmSelect{}))
	do(p.c.Send(1, &BasicConsume{Queue: "q"}))
	do(p.c.SendContent(1, &BasicPublish{RoutingKey: "q"}, &Message{Properties: Properties{MessageID: "m1"}, Body: bytes.Repeat([]byte("abc"), 10000)}))
	do(p.c.Send(1, &BasicAck{DeliveryTag: 1}))
	do(p.c.Send(1, &ChannelClose{ReplyCode: ReplySuccess}))
	do(p.c.Send(0, &ConnectionClose{ReplyCode: ReplySuccess}))
	return p.log
}

func TestEngine_ConversationAtEveryCut(t *testing.T) {
	want := strings.Join(newPair(t, 0).conversation(), "\n")
	if !strings.Contains(want, "client 1 basic.deliver") || !strings.HasSuffix(want, "client closed") {
		t.Fatalf("conversation went wrong:\n%s", want)
	}
	for _, step := range []int{1, 2, 3, 5, 7, 11, 64, 1000, 8191} {
		if got := strings.Join(newPair(t, step).conversation(), "\n"); got != want {
			t.Errorf("step %d:\n%s\nwant\n%s", step, got, want)
		}
	}
}

func TestEngine_RefusesWhatCostsTheConnection(t *testing.T) {
	p := newPair(t, 0)
	p.move()
	if err := p.c.Send(1, &ChannelOpen{}); err != nil {
		t.Fatal(err)
	}
	p.move()
	for _, m := range []Method{&ChannelFlow{}, &BasicRecover{}, BasicRecoverAsync{}, BasicQos{PrefetchSize: 1}, &TxCommit{}, &BasicAck{DeliveryTag: 1}, &BasicDeliver{}} {
		if err := p.c.Send(1, m); !errors.Is(err, ErrRefused) {
			t.Errorf("%s: got %v, want ErrRefused", m.MethodID(), err)
		}
	}
	if out := drain(p.c); len(out) != 0 {
		t.Errorf("refused methods left %d octets in the output", len(out))
	}
}
