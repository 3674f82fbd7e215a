package amqptest

import (
	"slices"
	"time"

	"github.com/warrenmq/warren/amqp"
)

// armTimeout notes when the delivery that ch had last must be settled, and
// sets the timer. Of the queue types only quorum queues watch over that in 4.3.
func (q *queue) armTimeout(ch *channel) {
	if q.opts.kind != quorum {
		return
	}
	limit := q.opts.timeout
	if limit == 0 {
		limit = q.vh.srv.cfg.ConsumerTimeout
	}
	if limit <= 0 {
		return
	}
	ch.unacked.list[len(ch.unacked.list)-1].due = time.Now().Add(limit).UnixNano()
	if q.ackTimer == nil {
		q.ackTimer = q.vh.srv.afterFunc(limit, q.checkTimeouts)
	} else if !q.ackArmed {
		q.ackTimer.Reset(limit)
	}
	q.ackArmed = true
}

// checkTimeouts takes back the deliveries that were not settled in time. A
// consumer hears basic.cancel, and is suspended until it has settled what it
// holds; its channel stays open. A basic.get closes its channel.
func (q *queue) checkTimeouts() {
	q.ackArmed = false
	if q.deleted {
		return
	}
	now, next := time.Now().UnixNano(), int64(0)
	for _, s := range q.vh.srv.sortedSessions() {
		for _, ch := range s.sortedChannels() {
			due := ch.unacked.oldestDue(q)
			switch {
			case due == 0:
			case due <= now:
				q.takeBack(ch, now)
				due = ch.unacked.oldestDue(q)
			}
			if due != 0 && (next == 0 || due < next) {
				next = due
			}
		}
	}
	if next != 0 && !q.deleted && !q.ackArmed {
		q.ackArmed = true
		q.ackTimer.Reset(time.Duration(max(next-now, 1)))
	}
}

func (l *unackedList) oldestDue(q *queue) int64 {
	for i := l.head; i < len(l.list); i++ {
		if u := &l.list[i]; u.q == q && !u.dead && !u.late && u.due != 0 {
			return u.due
		}
	}
	return 0
}

// takeBack returns to q what ch should have settled by now, and leaves it on
// the channel, marked late.
func (q *queue) takeBack(ch *channel, now int64) {
	slow := map[*consumer]bool{}
	for i := ch.unacked.head; i < len(ch.unacked.list); i++ {
		if u := &ch.unacked.list[i]; u.q == q && !u.dead && !u.late && u.due != 0 && u.due <= now {
			slow[u.c] = true
		}
	}
	var us []unack
	for i := ch.unacked.head; i < len(ch.unacked.list); i++ {
		u := &ch.unacked.list[i]
		if u.q != q || u.dead || u.late || !slow[u.c] {
			continue
		}
		us = append(us, *u)
		u.late = true
		if u.c != nil {
			u.c.unacked--
			u.c.late++
		}
	}
	for _, c := range slices.Clone(q.consumers) {
		if slow[c] {
			c.suspend()
		}
	}
	q.requeue(us, false)
	if slow[nil] {
		ch.s.closeChannelWith(ch, 0, &refusal{code: amqp.PreconditionFailed, text: sprintf("delivery acknowledgement on channel %d "+
			"timed out. Timeout value used: -1 ms. This timeout value can be configured, see consumers doc guide to learn more", ch.id)})
	}
}

// suspend keeps c from deliveries. Its client takes it for cancelled.
func (c *consumer) suspend() {
	c.unlist()
	c.suspended = true
	if c.ch.s.cancelNotify {
		c.ch.s.push(outItem{kind: outMethod, ch: c.ch, method: &amqp.BasicCancel{ConsumerTag: c.tag, NoWait: true}})
	}
	if c.q.single == c {
		c.q.single = nil
		c.q.pickSingle()
	}
}

// settledLate notes that c settled a delivery that had timed out: the message
// went back to the queue then and is not ended by it. After the last of them c
// may have messages again.
func (c *consumer) settledLate() {
	if c.late--; c.late > 0 || c.gone {
		return
	}
	c.suspended = false
	if c.q.opts.single && c.q.single == nil {
		c.q.single = c
	}
	c.list()
}

// onTime takes the deliveries that had timed out off a run that is settled.
func onTime(us []unack) []unack {
	late := func(u unack) bool { return u.late }
	if !slices.ContainsFunc(us, late) {
		return us
	}
	for _, u := range us {
		if u.late && u.c != nil {
			u.c.settledLate()
		}
	}
	return slices.DeleteFunc(us, late)
}
