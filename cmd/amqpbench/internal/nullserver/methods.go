package nullserver

import (
	"encoding/binary"
	"fmt"

	"github.com/warrenmq/warren/cmd/amqpbench/internal/frames"
)

// Methods that are more than a canned answer.
const (
	startOk      = 10<<16 | 11
	tuneOk       = 10<<16 | 31
	connOpen     = 10<<16 | 40
	connClose    = 10<<16 | 50
	channelOpen  = 20<<16 | 10
	channelClose = 20<<16 | 40
	queueDeclare = 50<<16 | 10
	basicQos     = 60<<16 | 10
	basicConsume = 60<<16 | 20
	basicCancel  = 60<<16 | 30
	basicPublish = 60<<16 | 40
	basicGet     = 60<<16 | 70
	basicAck     = 60<<16 | 80
	basicReject  = 60<<16 | 90
	basicNack    = 60<<16 | 120
	confirmSel   = 85<<16 | 10
)

// start offers the handshake.
func (c *conn) start() {
	var caps []byte
	for _, k := range []string{"publisher_confirms", "exchange_exchange_bindings", "basic.nack", "consumer_cancel_notify",
		"connection.blocked", "consumer_priorities", "authentication_failure_close", "per_consumer_qos", "direct_reply_to"} {
		caps = frames.Entry(caps, k, true)
	}
	props := frames.Entry(nil, "product", "amqpbench null server")
	props = frames.Entry(props, "version", "1")
	props = frames.Entry(props, "capabilities", caps)
	c.out.Method(0, 10, 10).Octet(0).Octet(9).Table(props).LongStr("PLAIN AMQPLAIN").LongStr("en_US").Close()
}

// method handles one method; false ends the connection.
func (c *conn) method(ch *channel, payload []byte) bool {
	id := binary.BigEndian.Uint32(payload)
	if id == basicPublish { // the hot one: nothing in it matters but that it came
		if ch.reply != nil {
			c.deliverMethod(ch.reply)
		}
		return true
	}
	r := &frames.Reader{P: payload[4:]}
	switch id {
	case basicAck:
		tag := r.LongLong()
		c.settle(ch, tag, r.Octet()&1 != 0)
	case basicNack:
		tag := r.LongLong()
		c.settle(ch, tag, r.Octet()&1 != 0)
	case basicReject:
		c.settle(ch, r.LongLong(), false)
	case startOk:
		c.out.Method(0, 10, 30).Short(channelMax).Long(frameMax).Short(heartbeat).Close()
	case tuneOk:
		r.Short()
		r.Long()
		c.beats.Store(r.Short() > 0)
	case connOpen:
		opt, err := ParseOptions(r.ShortStr())
		if err != nil {
			c.out.Method(0, 10, 50).Short(530).ShortStr(fmt.Sprintf("%.200s", err)).Short(10).Short(40).Close()
			return true
		}
		c.opt = opt
		c.out.Method(0, 10, 41).ShortStr("").Close()
	case connClose:
		c.out.Method(0, 10, 51).Close()
		return false
	case channelOpen:
		*ch = channel{id: ch.id, cons: map[string]*consumer{}, dirty: ch.dirty}
		c.out.Method(ch.id, 20, 11).LongStr("").Close()
	case channelClose:
		for _, cons := range ch.cons {
			c.remove(cons)
		}
		c.out.Method(ch.id, 20, 41).Close()
		c.confirms() // before its state goes
		delete(c.chans, ch.id)
		c.last = nil
	case queueDeclare, basicQos, basicConsume, basicCancel, basicGet, confirmSel:
		c.basic(ch, id, r)
	default:
		return c.canned(ch, id, r)
	}
	return !r.Bad
}

// basic handles what consumers and declares need.
func (c *conn) basic(ch *channel, id uint32, r *frames.Reader) {
	switch id {
	case queueDeclare:
		r.Short()
		name := r.ShortStr()
		if name == "" {
			name = fmt.Sprintf("amq.gen-%d", ch.id)
		}
		if r.Octet()&16 == 0 { // not no-wait
			c.out.Method(ch.id, 50, 11).ShortStr(name).Long(0).Long(0).Close()
		}
	case basicQos:
		r.Long()
		ch.prefetch = int(r.Short())
		c.out.Method(ch.id, 60, 11).Close()
	case basicConsume:
		c.consume(ch, r)
	case basicCancel:
		tag := r.ShortStr()
		if cons := ch.cons[tag]; cons != nil {
			c.remove(cons)
		}
		if r.Octet()&1 == 0 {
			c.out.Method(ch.id, 60, 31).ShortStr(tag).Close()
		}
	case basicGet:
		ch.tag++
		c.out.Method(ch.id, 60, 71).LongLong(ch.tag).Octet(0).ShortStr("").ShortStr("blast").Long(1).Close()
		c.out.Content(ch.id, c.opt.Headers, make([]byte, c.opt.Body), frameMax)
	case confirmSel:
		ch.confirm, ch.seen, ch.acked = true, 0, 0
		if r.Octet()&1 == 0 {
			c.out.Method(ch.id, 85, 11).Close()
		}
	}
}

// canned answers methods whose arguments don't matter. No-wait variants of them are not looked for: none of
// the workloads sends one.
func (c *conn) canned(ch *channel, id uint32, r *frames.Reader) bool {
	class, method := uint16(id>>16), uint16(id)
	switch id {
	case 10<<16 | 51, 20<<16 | 41, 20<<16 | 21: // close-ok, flow-ok: nothing to say
	case 20<<16 | 20: // channel.flow
		c.out.Method(ch.id, 20, 21).Octet(r.Octet() & 1).Close()
	case 40<<16 | 40: // exchange.unbind
		c.out.Method(ch.id, 40, 51).Close()
	case 50<<16 | 30, 50<<16 | 40: // queue.purge and delete: a message count
		c.out.Method(ch.id, class, method+1).Long(0).Close()
	case 40<<16 | 10, 40<<16 | 20, 40<<16 | 30, 50<<16 | 20, 50<<16 | 50, 60<<16 | 110, 10<<16 | 70,
		90<<16 | 10, 90<<16 | 20, 90<<16 | 30:
		c.out.Method(ch.id, class, method+1).Close()
	default:
		c.out.Method(0, 10, 50).Short(540).ShortStr(fmt.Sprintf("null server has no method %d.%d", class, method)).
			Short(class).Short(method).Close()
	}
	return true
}
