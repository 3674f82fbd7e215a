package amqptest

import (
	"math/rand/v2"
	"time"

	"github.com/warrenmq/warren/amqp"
)

// faults is how a server misbehaves. Guarded by Server.mu, but for net.
type faults struct {
	srv     *Server
	rand    *rand.Rand
	alarm   string
	stalled bool
	refuse  bool // new connections
	rules   []refuseRule
	nacks   int
	drops   int
	delay   time.Duration
	reorder int
	net     netFaults
}

// declareKind says which declare a rule refuses.
type declareKind uint8

const (
	queueDeclare declareKind = iota
	exchangeDeclare
)

type refuseRule struct {
	kind declareKind
	name string
	code amqp.ReplyCode
	text string
}

// Block raises an alarm, as a broker short of memory does: the next publish of
// a connection is answered by connection.blocked, with the reason (RabbitMQ
// says "low on memory", which "" stands for, or "low on disk"), and it and all
// that comes behind it on the connection wait until Unblock. Connections that
// only consume go on.
func (srv *Server) Block(reason string) {
	srv.do(func() {
		srv.faults.alarm = reason
		if reason == "" {
			srv.faults.alarm = "low on memory"
		}
	})
}

// Unblock ends the alarm.
func (srv *Server) Unblock() { srv.do(srv.unblock) }

func (srv *Server) unblock() {
	srv.faults.alarm = ""
	for _, s := range srv.sortedSessions() {
		if s.told {
			s.told = false
			s.reply(nil, &amqp.ConnectionUnblocked{})
		}
		s.resume()
	}
}

// tellBlocked sends connection.blocked, once, to a client that understands it.
func (s *session) tellBlocked() {
	if s.state == sessionOpen && s.blockNotify && !s.told {
		s.told = true
		s.reply(nil, &amqp.ConnectionBlocked{Reason: s.srv.faults.alarm})
	}
}

// Stall makes the server play dead: connections stay up, but nothing is read
// or answered and no heartbeat is sent. The function it returns ends that.
func (srv *Server) Stall() (resume func()) {
	srv.do(func() { srv.faults.stalled = true })
	return func() {
		srv.do(srv.resumeAll)
	}
}

func (srv *Server) resumeAll() {
	srv.faults.stalled = false
	for _, s := range srv.sortedSessions() {
		s.resume()
		s.signal()
	}
}

// RefuseConnections makes the server hang up on new connections, or take them
// again. Those that are open stay.
func (srv *Server) RefuseConnections(refuse bool) {
	srv.do(func() { srv.faults.refuse = refuse })
}

// KillConnection drops the connections with this name, without a close: as a
// network does. The name is the client's connection_name, or the one in
// Connections. It returns how many there were.
func (srv *Server) KillConnection(name string) int {
	return srv.kill(func(s *session) bool { return s.name == name || s.clientName == name })
}

// KillAll drops all connections without a close, and returns how many.
func (srv *Server) KillAll() int { return srv.kill(func(*session) bool { return true }) }

func (srv *Server) kill(match func(*session) bool) int {
	srv.mu.Lock()
	defer srv.mu.Unlock()
	n := 0
	for s := range srv.sessions {
		if match(s) {
			n++
			s.kill()
		}
	}
	return n
}

// CloseConnection closes the connections with this name by connection.close,
// as an operator does: with code 0 it is 320 and "Closed via management
// plugin". It returns how many there were.
func (srv *Server) CloseConnection(name string, code amqp.ReplyCode, text string) int {
	if code == 0 {
		code, text = amqp.ConnectionForced, "Closed via management plugin"
	}
	r := refusal{code: code, text: text}
	n := 0
	srv.do(func() {
		for _, s := range srv.sortedSessions() {
			if s.name == name || s.clientName == name {
				n++
				s.closeConnection(amqp.ConnectionClose{ReplyCode: code, ReplyText: r.reply()})
			}
		}
	})
	return n
}

// RefuseQueueDeclare makes every queue.declare of this name fail with a code
// and text: a soft code closes the channel, a hard one the connection. Code 0
// lets it succeed again.
func (srv *Server) RefuseQueueDeclare(name string, code amqp.ReplyCode, text string) {
	srv.refuseDeclare(refuseRule{queueDeclare, name, code, text})
}

// RefuseExchangeDeclare does the same for exchange.declare.
func (srv *Server) RefuseExchangeDeclare(name string, code amqp.ReplyCode, text string) {
	srv.refuseDeclare(refuseRule{exchangeDeclare, name, code, text})
}

func (srv *Server) refuseDeclare(rule refuseRule) {
	srv.do(func() {
		kept := srv.faults.rules[:0]
		for _, r := range srv.faults.rules {
			if r.kind != rule.kind || r.name != rule.name {
				kept = append(kept, r)
			}
		}
		if rule.code != 0 {
			kept = append(kept, rule)
		}
		srv.faults.rules = kept
	})
}

func (f *faults) refuses(kind declareKind, name string) error {
	for _, r := range f.rules {
		if r.kind == kind && r.name == name {
			return &refusal{code: r.code, text: r.text}
		}
	}
	return nil
}

// NackNext answers the next n publishes on confirming channels with
// basic.nack, though the queues took the messages: as a broker may that
// failed half-way.
func (srv *Server) NackNext(n int) { srv.do(func() { srv.faults.nacks = n }) }

// DropConfirms leaves the next n publishes on confirming channels without any
// answer, though the queues took the messages.
func (srv *Server) DropConfirms(n int) { srv.do(func() { srv.faults.drops = n }) }

// DelayConfirms sends every confirm d later. 0 ends that for publishes to come.
func (srv *Server) DelayConfirms(d time.Duration) { srv.do(func() { srv.faults.delay = d }) }

// ReorderConfirms sends confirms in groups of up to window, shuffled by the
// server's seed and one by one. A group that does not fill up goes after 10 ms.
// 0 ends that.
func (srv *Server) ReorderConfirms(window int) { srv.do(func() { srv.faults.reorder = window }) }

// confirmFault does to a confirm what the faults say; false: nothing.
func (srv *Server) confirmFault(ch *channel, tag uint64, nack bool) bool {
	f := &srv.faults
	switch {
	case f.drops > 0:
		f.drops--
		return true
	case f.nacks > 0:
		f.nacks--
		ch.sendConfirm(tag, true)
		return true
	case f.reorder > 1:
		ch.held = append(ch.held, heldConfirm{tag, nack})
		if len(ch.held) >= f.reorder {
			ch.releaseHeld()
		} else if len(ch.held) == 1 {
			srv.afterFunc(10*time.Millisecond, ch.releaseHeld)
		}
		return true
	case f.delay > 0:
		srv.afterFunc(f.delay, func() { ch.sendConfirm(tag, nack) })
		return true
	}
	return false
}

func (ch *channel) releaseHeld() {
	held := ch.held
	ch.held = nil
	ch.s.srv.faults.rand.Shuffle(len(held), func(i, j int) { held[i], held[j] = held[j], held[i] })
	for _, h := range held { // one by one: none may join the one before
		if h.tag == ch.confirmed+1 {
			ch.confirmed = h.tag
		}
		ch.s.push(outItem{kind: outConfirm, ch: ch, tag: h.tag, nack: h.nack})
	}
}

// CancelConsumer ends the consumers with this tag from the server's side, as
// when a queue moves: their clients hear it by basic.cancel. It returns how
// many there were.
func (srv *Server) CancelConsumer(tag string) int {
	n := 0
	srv.do(func() {
		for _, s := range srv.sortedSessions() {
			for _, ch := range s.sortedChannels() {
				if c := ch.consumers[tag]; c != nil {
					n++
					c.cancelledByServer()
				}
			}
		}
	})
	return n
}

// DeleteQueue deletes a queue behind its users' backs: their consumers are
// cancelled. It reports whether there was one. vhost "" means "/".
func (srv *Server) DeleteQueue(vhost, name string) bool {
	found := false
	srv.do(func() {
		if q := srv.findQueue(vhost, name); q != nil {
			found = true
			q.vh.deleteQueue(q)
		}
	})
	return found
}

// DeleteExchange deletes an exchange behind its users' backs. It reports
// whether there was one. vhost "" means "/".
func (srv *Server) DeleteExchange(vhost, name string) bool {
	found := false
	srv.do(func() {
		if vh := srv.findVHost(vhost); vh != nil && vh.exchanges[name] != nil && name != "" {
			found = true
			vh.deleteExchange(vh.exchanges[name])
		}
	})
	return found
}

// Restart drops all connections and starts over, on the same address. With
// keepDurable, durable exchanges, queues and the bindings between them
// survive, and of their messages those that are persistent or in a quorum
// queue or stream; without, nothing does. It returns when all of the old
// connections are gone. Faults stay.
func (srv *Server) Restart(keepDurable bool) {
	srv.mu.Lock()
	refused := srv.faults.refuse
	srv.faults.refuse = true
	sessions := srv.sortedSessions()
	for _, s := range sessions {
		s.kill()
	}
	srv.mu.Unlock()
	for _, s := range sessions {
		<-s.done
	}
	srv.do(func() {
		srv.faults.refuse = refused
		for name, vh := range srv.vhosts {
			if !keepDurable {
				for _, q := range vh.queues {
					q.stopTimers()
				}
				srv.vhosts[name] = newVHost(srv, name)
				continue
			}
			vh.restart()
		}
	})
}

func (vh *vhost) restart() {
	for _, q := range vh.queues {
		if !q.durable {
			vh.deleteQueue(q)
		} else if q.opts.kind == classic {
			q.ready.keep(func(e *entry) bool { return e.msg.persistent })
		}
	}
	for _, x := range vh.exchanges {
		if !x.durable {
			vh.deleteExchange(x)
		}
	}
}

// Heal ends all faults: alarms, stalls, refusals, confirms out of order, slow
// and split writes, cuts to come.
func (srv *Server) Heal() {
	srv.do(func() {
		f := &srv.faults
		f.refuse, f.rules, f.nacks, f.drops, f.delay, f.reorder = false, nil, 0, 0, 0, 0
		srv.unblock()
		srv.resumeAll()
	})
	srv.faults.net.heal()
}
