package amqptest

import (
	"slices"

	"github.com/warrenmq/warren/amqp"
)

// consumer is one basic.consume.
type consumer struct {
	tag       string
	ch        *channel
	q         *queue // nil: the reply consumer of direct reply-to
	noAck     bool
	exclusive bool
	priority  int64
	prefetch  int // the channel's when it began: later basic.qos calls do not change it
	unacked   int
	args      amqp.Table
	listed    bool // in q.active
	waiting   bool // for room in its session's output
	gone      bool
	order     uint64    // by which consumers and gets of the server came
	suspended bool      // it timed out
	late      int       // deliveries that timed out and were not settled since
	pos       streamPos // of a stream's consumer
}

// consume is basic.consume on a queue.
func (ch *channel) consume(q *queue, m amqp.BasicConsume) error {
	c := &consumer{
		tag: m.ConsumerTag, ch: ch, q: q, noAck: m.NoAck, exclusive: m.Exclusive, prefetch: ch.prefetch, args: m.Arguments,
	}
	if err := q.checkConsumerArgs(m.Arguments); err != nil {
		return err
	}
	if v, ok := m.Arguments["x-priority"]; ok {
		n, bad := checkInteger(v)
		if bad != "" {
			return refusef(amqp.PreconditionFailed, "invalid arg 'x-priority' for queue '%s' in vhost '%s': %s", q.name, q.vh.name, bad)
		}
		c.priority = n
	}
	if q.log != nil {
		if err := c.startStream(m); err != nil {
			return err
		}
	} else if q.opts.kind == classic {
		if q.exclusive != nil || m.Exclusive && (len(q.consumers) > 0 || q.opts.single) {
			return refusef(amqp.AccessRefused, "queue '%s' in vhost '%s' in exclusive use", q.name, q.vh.name)
		}
		if m.Exclusive {
			q.exclusive = c
		}
	}
	ch.s.srv.order++
	c.order = ch.s.srv.order
	ch.consumers[c.tag] = c
	q.consumers = append(q.consumers, c)
	q.consumed = true
	q.used()
	if q.opts.single && q.single == nil {
		q.single = c
	}
	q.preferSingle()
	return nil
}

// checkConsumerArgs refuses the arguments that belong to other queue types.
func (q *queue) checkConsumerArgs(args amqp.Table) error {
	for _, name := range []string{"x-priority", "x-stream-offset", "x-stream-filter", "x-stream-match-unfiltered"} {
		if _, ok := args[name]; ok && (name == "x-priority") == (q.log != nil) {
			return refusef(amqp.PreconditionFailed, "invalid arg '%s' for queue '%s' in vhost '%s' of queue type %s",
				name, q.name, q.vh.name, q.opts.kind.module())
		}
	}
	return nil
}

// start lets a consumer have messages: after its consume-ok is on its way.
func (c *consumer) start() {
	c.list()
	c.q.dispatch()
}

// list puts c behind the active consumers of its priority.
func (c *consumer) list() {
	if c.listed || c.gone || c.suspended {
		return
	}
	c.listed = true
	q := c.q
	i := len(q.active)
	for i > 0 && q.active[i-1].priority < c.priority {
		i--
	}
	q.active = slices.Insert(q.active, i, c)
}

func (c *consumer) unlist() {
	if c.listed {
		c.listed = false
		if i := slices.Index(c.q.active, c); i >= 0 {
			c.q.active = slices.Delete(c.q.active, i, i+1)
		}
	}
}

// blocked reports whether c can't take a message now. It then is not listed
// until what blocks it ends: an ack, or room in its connection's output.
func (c *consumer) blocked() bool {
	if c.prefetch > 0 && c.unacked >= c.prefetch && !c.noAck {
		return true
	}
	if c.ch.s.outFull() {
		if !c.waiting {
			c.waiting = true
			c.ch.s.waiting = append(c.ch.s.waiting, c)
		}
		return true
	}
	return false
}

// nextConsumer picks who gets the next message: the highest priority that can
// take one, and the longest idle of those. The one picked goes to the back.
func (q *queue) nextConsumer() *consumer {
	if q.opts.single {
		c := q.single
		if c == nil || !c.listed || q.handOver {
			return nil
		}
		if c.blocked() {
			c.unlist()
			return nil
		}
		return c
	}
	for len(q.active) > 0 {
		c := q.active[0]
		if c.blocked() {
			c.unlist()
			continue
		}
		if len(q.active) > 1 && q.active[1].priority == c.priority {
			c.unlist()
			c.list()
		}
		return c
	}
	return nil
}

// deliver gives e to c.
func (c *consumer) deliver(e entry) {
	ch := c.ch
	ch.nextTag++
	it := outItem{
		kind: outDeliver, ch: ch, c: c, msg: e.msg, tag: ch.nextTag, redelivered: e.redelivered,
	}
	if c.q.opts.kind == quorum {
		it.acquired, it.failed = e.counts()
	}
	if !c.noAck {
		ch.unacked.add(unack{tag: ch.nextTag, q: c.q, c: c, entry: e})
		c.unacked++
		c.q.unacked++
		c.q.armTimeout(ch)
	}
	ch.s.push(it)
}

// settled notes that c has one unsettled delivery less.
func (c *consumer) settled() {
	c.unacked--
	if c == c.q.single && c.unacked == 0 {
		c.q.preferSingle()
	}
	if !c.gone && !c.listed {
		c.list()
	}
}

// remove takes c off its channel and queue.
func (c *consumer) remove() {
	if c.gone {
		return
	}
	c.unlist()
	c.gone = true
	delete(c.ch.consumers, c.tag)
	q := c.q
	if q == nil {
		c.ch.dropReplyKey()
		return
	}
	if i := slices.Index(q.consumers, c); i >= 0 {
		q.consumers = slices.Delete(q.consumers, i, i+1)
	}
	if q.exclusive == c {
		q.exclusive = nil
	}
	if q.single == c {
		q.single, q.handOver = nil, false
		q.pickSingle()
	}
	q.preferSingle()
	q.used()
	if len(q.consumers) == 0 && q.autoDelete && q.consumed {
		q.vh.deleteQueue(q)
	}
}

// preferSingle lets a consumer of a higher priority take over: the single
// active one gets nothing more, and hands over once it has settled what it
// had. Only quorum queues do that.
func (q *queue) preferSingle() {
	c := q.single
	if q.opts.kind != quorum || !q.opts.single || c == nil {
		return
	}
	q.handOver = false
	for _, other := range q.consumers {
		q.handOver = q.handOver || other.priority > c.priority
	}
	if q.handOver && c.unacked == 0 {
		q.single, q.handOver = nil, false
		q.pickSingle()
	}
}

// pickSingle chooses the next single active consumer: the highest priority,
// and the first of those.
func (q *queue) pickSingle() {
	for _, c := range q.consumers {
		if c.suspended {
			continue
		}
		if q.single == nil || c.priority > q.single.priority {
			q.single = c
		}
	}
	if q.single != nil {
		q.vh.srv.touch(q)
	}
}

// cancelledByServer ends c from the server's side, and tells the client if it
// understands basic.cancel.
func (c *consumer) cancelledByServer() {
	if c.gone {
		return
	}
	c.remove()
	if c.ch.s.cancelNotify {
		c.ch.s.push(outItem{kind: outMethod, ch: c.ch, method: amqp.BasicCancel{ConsumerTag: c.tag, NoWait: true}})
	}
}
