package amqptest_test

import (
	"fmt"
	"slices"
	"sort"
	"strings"
)

// The reference model: what a broker of three classic queues and three
// exchanges does, written for being read and not for speed. The random
// sequences of model_test.go hold amqptest, and RabbitMQ, to it.

type refMsg struct {
	body        string
	redelivered bool
	prio        int
	seq         int // its place
	fails       int // rejects and channel closes that it went through
}

type refQueue struct {
	name  string
	opt   refOption
	ready []refMsg
	seq   int

	consumers []*refConsumer // as they came
	turn      []*refConsumer // who may take, the next first
}

type refConsumer struct {
	tag      string
	ch       int
	q        *refQueue
	noAck    bool
	prefetch int
	unacked  int
}

type refUnacked struct {
	tag uint64
	q   *refQueue
	msg refMsg
	c   *refConsumer
}

type refChannel struct {
	tag     uint64 // the last delivery's
	unacked []refUnacked
	open    bool
}

type refBinding struct{ source, dest, key string }

// refOption is a set of arguments that a queue can be declared with.
type refOption struct {
	id     int
	max    int  // x-max-length; 0: none
	reject bool // x-overflow: reject-publish
	dead   bool // dead letters go to q0
	prios  int  // x-max-priority
	single bool // x-single-active-consumer
}

var refOptions = []refOption{
	{id: 0},
	{id: 1, max: 2},
	{id: 2, max: 2, reject: true},
	{id: 3, prios: 3},
	{id: 4, single: true},
	{id: 5, dead: true},
	{id: 6, max: 1, dead: true},
	{id: 7, max: 2, reject: true, prios: 2},
}

// refResult is what an operation leads to.
type refResult struct {
	reply      string      // of the operation, "" where it has none
	deliveries [3][]string // by channel, in order
	cancels    []string    // sorted
	from       [3]string   // the queue that a channel\'s deliveries came from
	mixed      bool        // a channel\'s deliveries came from several queues
}

type refBroker struct {
	queues   map[string]*refQueue
	bindings []refBinding
	channels [3]refChannel // 1 and 2 are used
	res      refResult
	deadWork []func()
}

func newRefBroker() *refBroker {
	b := &refBroker{queues: map[string]*refQueue{}}
	b.channels[1].open, b.channels[2].open = true, true
	return b
}

// do applies an operation and says what must be seen of it.
func (b *refBroker) do(o op) refResult {
	b.res = refResult{}
	b.res.reply = b.apply(o)
	for len(b.deadWork) > 0 {
		f := b.deadWork[0]
		b.deadWork = b.deadWork[1:]
		f()
	}
	sort.Strings(b.res.cancels)
	return b.res
}

func (b *refBroker) apply(o op) string {
	q := b.queues[o.queue]
	switch o.kind {
	case opDeclare:
		if q == nil {
			b.queues[o.queue] = &refQueue{name: o.queue, opt: refOptions[o.n]}
			return "declare-ok 0 0"
		}
		if q.opt.id != o.n {
			return b.fail(o.ch, 406)
		}
		return fmt.Sprintf("declare-ok %d %d", len(q.ready), len(q.consumers))
	case opDelete:
		if q == nil {
			return "delete-ok 0"
		}
		return fmt.Sprintf("delete-ok %d", b.delete(q))
	case opPurge:
		if q == nil {
			return b.fail(o.ch, 404)
		}
		n := len(q.ready)
		q.ready = nil
		return fmt.Sprintf("purge-ok %d", n)
	case opBind:
		if q == nil {
			return b.fail(o.ch, 404)
		}
		b.bind(refBinding{o.exchange, o.queue, o.key})
		return "bind-ok"
	case opUnbind:
		b.bindings = slices.DeleteFunc(b.bindings, func(x refBinding) bool { return x == refBinding{o.exchange, o.queue, o.key} })
		return "unbind-ok"
	case opBindExchange:
		b.bind(refBinding{"x1", "x2", o.key})
		return "bind-ok"
	case opPublish:
		return b.publish(o)
	case opGet:
		return b.get(o, q)
	case opConsume:
		return b.consume(o, q)
	case opCancel:
		for _, c := range b.consumersOf(o.ch) {
			if c.tag == o.tag {
				c.remove()
				b.dispatch(c.q)
			}
		}
		return "cancel-ok " + o.tag
	case opRecover:
		b.settle(b.takeAll(o.ch), settleNack, false)
		return "recover-ok"
	case opClose:
		b.closeChannel(o.ch)
		b.channels[o.ch].open = true
		return "close-ok"
	}
	return b.applySettle(o)
}

// applySettle is ack, nack and reject of the n-th unsettled delivery; nothing
// where there is none.
func (b *refBroker) applySettle(o op) string {
	ch := &b.channels[o.ch]
	if len(ch.unacked) == 0 {
		return ""
	}
	i := o.n % len(ch.unacked)
	from := i
	if o.multiple {
		from = 0
	}
	us := slices.Clone(ch.unacked[from : i+1])
	ch.unacked = slices.Delete(ch.unacked, from, i+1)
	how := settleAck
	switch {
	case o.kind == opNack && o.requeue:
		how = settleNack
	case o.kind == opReject && o.requeue:
		how = settleReject
	case o.kind == opNack:
		how = settleNackDrop
	case o.kind == opReject:
		how = settleRejectDrop
	}
	b.settle(us, how, false)
	return ""
}

// tagFor is the tag that applySettle takes; 0: none.
func (b *refBroker) tagFor(o op) uint64 {
	if us := b.channels[o.ch].unacked; len(us) > 0 {
		return us[o.n%len(us)].tag
	}
	return 0
}

// fail is an exception: the channel closes, and is opened again.
func (b *refBroker) fail(ch, code int) string {
	b.closeChannel(ch)
	b.channels[ch].open = true
	return fmt.Sprintf("close %d", code)
}

func (b *refBroker) closeChannel(ch int) {
	var qs []*refQueue
	for _, c := range b.consumersOf(ch) {
		c.remove()
		qs = append(qs, c.q)
	}
	us := b.takeAll(ch)
	b.channels[ch] = refChannel{}
	b.settle(us, settleReject, true)
	for _, q := range qs {
		b.dispatch(q)
	}
}

func (b *refBroker) takeAll(ch int) []refUnacked {
	us := b.channels[ch].unacked
	b.channels[ch].unacked = nil
	return us
}

func (b *refBroker) consumersOf(ch int) (list []*refConsumer) {
	for _, name := range []string{"q0", "q1", "q2"} {
		if q := b.queues[name]; q != nil {
			for _, c := range q.consumers {
				if c.ch == ch {
					list = append(list, c)
				}
			}
		}
	}
	return list
}

func (c *refConsumer) remove() {
	is := func(x *refConsumer) bool { return x == c }
	c.q.consumers = slices.DeleteFunc(c.q.consumers, is)
	c.q.turn = slices.DeleteFunc(c.q.turn, is)
}

func (b *refBroker) delete(q *refQueue) int {
	delete(b.queues, q.name)
	b.bindings = slices.DeleteFunc(b.bindings, func(x refBinding) bool { return x.dest == q.name })
	for _, c := range q.consumers {
		b.res.cancels = append(b.res.cancels, fmt.Sprint(c.ch, " ", c.tag))
	}
	q.consumers, q.turn = nil, nil
	return len(q.ready)
}

func (b *refBroker) bind(x refBinding) {
	if !slices.Contains(b.bindings, x) {
		b.bindings = append(b.bindings, x)
	}
}

// route gives the queues that a message reaches, by name.
func (b *refBroker) route(exchange, key string) []*refQueue {
	names := map[string]bool{}
	if exchange == "" {
		names[key] = true
	}
	for _, x := range b.bindings {
		if x.source == exchange && refMatches(exchange, x.key, key) {
			names[x.dest] = true
			if x.dest == "x2" {
				for _, q := range b.route("x2", key) {
					names[q.name] = true
				}
			}
		}
	}
	var list []*refQueue
	for _, name := range []string{"q0", "q1", "q2"} {
		if q := b.queues[name]; q != nil && names[name] {
			list = append(list, q)
		}
	}
	return list
}

// refMatches: x0 is direct, x1 a fanout, x2 a topic exchange.
func refMatches(exchange, binding, key string) bool {
	switch exchange {
	case "x0":
		return binding == key
	case "x1":
		return true
	}
	var match func(b, k []string) bool
	match = func(b, k []string) bool {
		switch {
		case len(b) == 0:
			return len(k) == 0
		case b[0] == "#":
			return match(b[1:], k) || len(k) > 0 && match(b, k[1:])
		case len(k) == 0:
			return false
		}
		return (b[0] == "*" || b[0] == k[0]) && match(b[1:], k[1:])
	}
	return match(strings.Split(binding, "."), strings.Split(key, "."))
}

func (b *refBroker) publish(o op) string {
	queues := b.route(o.exchange, o.key)
	reply := "ack"
	for _, q := range queues {
		if !b.enqueue(q, refMsg{body: o.body, prio: o.prio}) {
			reply = "nack"
		}
	}
	if o.mandatory && len(queues) == 0 {
		return "return " + reply
	}
	return reply
}

func (b *refBroker) enqueue(q *refQueue, m refMsg) bool {
	if q.opt.reject && len(q.ready)+1 > q.opt.max {
		return false
	}
	m.seq = q.seq
	q.seq++
	if c := q.next(); len(q.ready) == 0 && c != nil {
		m.redelivered = false
		b.deliver(q, c, m)
		return true
	}
	q.insert(m)
	b.dispatch(q)
	return true
}

func (q *refQueue) insert(m refMsg) {
	q.ready = append(q.ready, m)
	sort.SliceStable(q.ready, func(i, j int) bool {
		a, b := q.ready[i], q.ready[j]
		x, y := min(a.prio, q.opt.prios), min(b.prio, q.opt.prios)
		return x > y || x == y && a.seq < b.seq
	})
}

// next is the consumer whose turn it is. One that can't take gives up its
// turn until it settles something.
func (q *refQueue) next() *refConsumer {
	if q.opt.single {
		if len(q.consumers) > 0 && q.consumers[0].free() {
			return q.consumers[0]
		}
		return nil
	}
	for len(q.turn) > 0 {
		if c := q.turn[0]; c.free() {
			return c
		}
		q.turn = q.turn[1:]
	}
	return nil
}

func (c *refConsumer) free() bool { return c.noAck || c.prefetch == 0 || c.unacked < c.prefetch }

func (b *refBroker) dispatch(q *refQueue) {
	for len(q.ready) > 0 {
		c := q.next()
		if c == nil {
			break
		}
		m := q.ready[0]
		q.ready = q.ready[1:]
		b.deliver(q, c, m)
	}
	b.trim(q)
}

func (b *refBroker) trim(q *refQueue) {
	for q.opt.max > 0 && !q.opt.reject && len(q.ready) > q.opt.max {
		m := q.ready[0]
		q.ready = q.ready[1:]
		b.deadLetter(q, m)
	}
}

func (b *refBroker) deliver(q *refQueue, c *refConsumer, m refMsg) {
	if !q.opt.single {
		q.turn = append(q.turn[1:], c)
	}
	ch := &b.channels[c.ch]
	ch.tag++
	b.res.mixed = b.res.mixed || b.res.from[c.ch] != "" && b.res.from[c.ch] != q.name
	b.res.from[c.ch] = q.name
	b.res.deliveries[c.ch] = append(b.res.deliveries[c.ch], fmt.Sprintf("%s %d %s %v", c.tag, ch.tag, m.body, m.redelivered))
	if !c.noAck {
		c.unacked++
		ch.unacked = append(ch.unacked, refUnacked{ch.tag, q, m, c})
	}
}

func (b *refBroker) deadLetter(q *refQueue, m refMsg) {
	if !q.opt.dead {
		return
	}
	b.deadWork = append(b.deadWork, func() {
		if dl := b.queues["q0"]; dl != nil {
			b.enqueue(dl, refMsg{body: m.body, prio: m.prio, redelivered: m.fails > 0, fails: m.fails})
		}
	})
}

func (b *refBroker) get(o op, q *refQueue) string {
	if q == nil {
		return b.fail(o.ch, 404)
	}
	if len(q.ready) == 0 {
		return "get-empty"
	}
	m := q.ready[0]
	q.ready = q.ready[1:]
	ch := &b.channels[o.ch]
	ch.tag++
	if !o.noAck {
		ch.unacked = append(ch.unacked, refUnacked{ch.tag, q, m, nil})
	}
	return fmt.Sprintf("get-ok %d %s %v %d", ch.tag, m.body, m.redelivered, len(q.ready))
}

func (b *refBroker) consume(o op, q *refQueue) string {
	if q == nil {
		return b.fail(o.ch, 404)
	}
	c := &refConsumer{tag: o.tag, ch: o.ch, q: q, noAck: o.noAck, prefetch: o.n}
	q.consumers = append(q.consumers, c)
	q.turn = append(q.turn, c)
	b.dispatch(q)
	return "consume-ok " + o.tag
}
