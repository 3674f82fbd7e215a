package amqptest

import (
	"cmp"
	"slices"
	"sort"
	"sync/atomic"

	"github.com/warrenmq/warren/amqp"
)

// channel is one channel of a connection.
type channel struct {
	s    *session
	id   uint16
	dead atomic.Bool // set under Server.mu; the writer reads it without

	nextTag   uint64
	unacked   unackedList
	consumers map[string]*consumer
	prefetch  int
	lastQueue string // what an empty queue name stands for
	lastKey   string // the last routing key, interned

	confirming bool
	published  uint64 // publishes since confirm.select
	confirmed  uint64 // all up to it have been confirmed
	held       []heldConfirm

	tx *txState

	replyKey string // the name that replies to this channel go to
	reply    *consumer
}

func newChannel(s *session, id uint16) *channel {
	return &channel{s: s, id: id, consumers: map[string]*consumer{}}
}

// unack is a delivery that its channel has not settled.
type unack struct {
	tag   uint64
	q     *queue
	c     *consumer // nil: of basic.get
	entry entry
	due   int64  // unix nanoseconds when the consumer times out; 0: never
	got   uint64 // of basic.get: as consumer.order
	late  bool   // it timed out, and the message went back to the queue
	dead  bool   // settled, and not yet removed from the list
}

// unackedList holds the unsettled deliveries of a channel by tag. Its memory
// is in proportion to those that live, in whatever order they are settled.
type unackedList struct {
	list []unack
	head int
	live int
}

func (l *unackedList) add(u unack) {
	l.list = append(l.list, u)
	l.live++
}

func (l *unackedList) find(tag uint64) *unack {
	rest := l.list[l.head:]
	if len(rest) == 0 {
		return nil
	}
	// Tags nearly always come in order: then it is the first.
	if rest[0].tag == tag && !rest[0].dead {
		return &rest[0]
	}
	i := sort.Search(len(rest), func(i int) bool { return rest[i].tag >= tag })
	if i == len(rest) || rest[i].tag != tag || rest[i].dead {
		return nil
	}
	return &rest[i]
}

// take removes the delivery with this tag.
func (l *unackedList) take(tag uint64) (unack, bool) {
	p := l.find(tag)
	if p == nil {
		return unack{}, false
	}
	u := *p
	*p = unack{tag: tag, dead: true}
	l.live--
	l.shrink()
	return u, true
}

// takeUpTo removes all deliveries up to tag, oldest first.
func (l *unackedList) takeUpTo(tag uint64) []unack {
	var out []unack
	for l.head < len(l.list) && l.list[l.head].tag <= tag {
		if u := &l.list[l.head]; !u.dead {
			out = append(out, *u)
			l.live--
			*u = unack{tag: u.tag, dead: true}
		}
		l.head++
	}
	l.shrink()
	return out
}

// restore puts back what was taken, in the order of the tags.
func (l *unackedList) restore(us []unack) {
	if len(us) == 0 {
		return
	}
	us = append(us, l.all()...)
	sort.Slice(us, func(i, j int) bool { return us[i].tag < us[j].tag })
	l.list, l.head, l.live = us, 0, len(us)
}

func (l *unackedList) all() []unack {
	if len(l.list) == 0 {
		return nil
	}
	return l.takeUpTo(l.list[len(l.list)-1].tag)
}

func (l *unackedList) shrink() {
	for l.head < len(l.list) && l.list[l.head].dead {
		l.head++
	}
	if l.head == len(l.list) {
		l.head, l.list = 0, l.list[:0]
		if cap(l.list) > 4096 {
			l.list = nil
		}
		return
	}
	if len(l.list) < 64 || l.live > len(l.list)/2 {
		return
	}
	kept := make([]unack, 0, 2*l.live)
	for _, u := range l.list[l.head:] {
		if !u.dead {
			kept = append(kept, u)
		}
	}
	l.list, l.head = kept, 0
}

// settleOp is what is done to a delivery.
type settleOp uint8

const (
	opAck settleOp = iota
	opNackRequeue
	opRejectRequeue
	opNackDrop
	opRejectDrop
)

// settle is basic.ack, nack and reject. Tag 0 with multiple means all.
func (ch *channel) settle(tag uint64, multiple bool, op settleOp) error {
	unknown := func() error { return refusef(amqp.PreconditionFailed, "unknown delivery tag %d", tag) }
	if !multiple {
		u, ok := ch.unacked.take(tag)
		if !ok {
			return unknown()
		}
		if ch.tx != nil {
			ch.tx.settle(op, u)
			return nil
		}
		ch.finish([]unack{u}, op)
		return nil
	}
	var us []unack
	if tag == 0 {
		us = ch.unacked.all()
	} else if ch.unacked.find(tag) != nil {
		us = ch.unacked.takeUpTo(tag)
	} else {
		return unknown() // RabbitMQ wants the tag itself to be unsettled
	}
	if ch.tx != nil {
		ch.tx.settle(op, us...)
		return nil
	}
	ch.finish(us, op)
	return nil
}

// finish does op to deliveries that were taken off the channel. As RabbitMQ
// does, it goes queue by queue and consumer by consumer, in the order of their
// names and the gets first, and settles what each holds in the order of tags.
func (ch *channel) finish(us []unack, op settleOp) {
	same := func(a, b unack) bool { return a.q == b.q && a.c == b.c }
	for i := 1; i < len(us); i++ {
		if !same(us[i], us[0]) {
			slices.SortStableFunc(us, func(a, b unack) int {
				return cmp.Or(cmp.Compare(a.q.name, b.q.name), cmp.Compare(a.consumerTag(), b.consumerTag()))
			})
			break
		}
	}
	ch.finishRuns(us, op, same)
}

// consumerTag is that of the consumer, "" of basic.get.
func (u *unack) consumerTag() string {
	if u.c == nil {
		return ""
	}
	return u.c.tag
}

// finishRuns does op to deliveries, one run of the same after the other.
func (ch *channel) finishRuns(us []unack, op settleOp, same func(a, b unack) bool) {
	srv := ch.s.srv
	for len(us) > 0 {
		q, n := us[0].q, 1
		for n < len(us) && same(us[n], us[0]) {
			n++
		}
		run := us[:n]
		us = us[n:]
		srv.touch(q)
		if run = onTime(run); len(run) == 0 {
			continue
		}
		for _, u := range run {
			if u.c != nil {
				u.c.settled()
			}
		}
		switch {
		case q.log != nil:
			q.acked(run) // a stream keeps its messages: settling only gives credit back
		case op == opAck:
			q.acked(run)
		case op == opNackDrop || op == opRejectDrop:
			q.dropped(run, op == opRejectDrop)
		default:
			q.requeue(run, op == opRejectRequeue)
		}
	}
}

// acked ends messages that were handled.
func (q *queue) acked(us []unack) {
	if !q.deleted {
		q.unacked -= len(us)
	}
}

// close ends the channel: its consumers go, and what was not settled returns.
func (ch *channel) close() {
	if ch.dead.Load() {
		return
	}
	ch.dead.Store(true)
	for _, c := range ch.sortedConsumers() {
		c.remove()
	}
	ch.dropReplyKey()
	us := ch.unacked.all()
	if ch.tx != nil {
		us = ch.tx.rollback(us)
	}
	// Queue by queue: a classic one takes all back at once, a quorum queue
	// consumer by consumer in the order in which they came.
	slices.SortStableFunc(us, func(a, b unack) int {
		return cmp.Or(cmp.Compare(a.q.name, b.q.name), cmp.Compare(a.began(), b.began()))
	})
	ch.finishRuns(us, opRejectRequeue, func(a, b unack) bool { return a.q == b.q })
}

// began is when the consumer of a quorum queue came, or the get was done.
func (u *unack) began() uint64 {
	switch {
	case u.q.opts.kind != quorum:
		return 0
	case u.c == nil:
		return u.got
	}
	return u.c.order
}

func (ch *channel) sortedConsumers() []*consumer {
	list := make([]*consumer, 0, len(ch.consumers))
	for _, c := range ch.consumers {
		list = append(list, c)
	}
	sort.Slice(list, func(i, j int) bool { return list[i].tag < list[j].tag })
	return list
}
