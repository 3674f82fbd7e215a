package amqptest

// A quorum queue of 4.3 orders strictly by priority, 0 to 31. Messages that
// were returned come before all others whatever their priority, in the order
// of their return and not in that of their first place.
const (
	quorumPriorities      = 32
	quorumReturned        = quorumPriorities // the level of returned messages
	quorumLevels          = quorumPriorities + 1
	quorumDefaultPriority = 4 // of a message without one: above an explicit 0
)

func quorumLevel(priority int16) uint8 {
	if priority < 0 {
		return quorumDefaultPriority
	}
	return uint8(min(priority, quorumPriorities-1))
}

// consumerCount is what queue.declare-ok says. A quorum queue with a single
// active consumer does not count those that wait for their turn; and one that
// was cancelled counts until all it had is settled, as does every get.
func (q *queue) consumerCount() uint32 {
	n := len(q.consumers)
	if q.opts.kind != quorum {
		return uint32(n)
	}
	if q.opts.single {
		n = min(n, 1)
	}
	return uint32(n + q.lingering())
}

// lingering counts the consumers that are gone, and the gets, of which the
// queue has unsettled deliveries.
func (q *queue) lingering() (n int) {
	if q.unacked == 0 {
		return 0
	}
	gone := map[*consumer]bool{}
	for s := range q.vh.srv.sessions {
		for _, ch := range s.channels {
			for _, u := range ch.unacked.list[ch.unacked.head:] {
				switch {
				case u.q != q || u.dead || u.late:
				case u.c == nil:
					n++
				case u.c.gone:
					gone[u.c] = true
				}
			}
		}
	}
	return n + len(gone)
}

// requeueQuorum returns messages. counts says that this kind of return counts
// against the delivery limit: a reject and the end of a channel do, a nack
// and basic.recover do not.
func (q *queue) requeueQuorum(us []unack, counts bool) {
	for _, u := range us {
		e := u.entry
		e.redelivered = true
		e.acquired++
		if counts {
			e.failed++
		}
		if q.opts.deliveryLimit >= 0 && int64(e.failed) > q.opts.deliveryLimit {
			q.deadLetter(e, deadDeliveryLimit)
			continue
		}
		e.prio = quorumReturned
		q.ready.pushBack(e)
	}
}

// counts is what a delivery tells about earlier ones. What happened to the
// message in queues that dead-lettered it counts as failed, and as acquired
// until this queue has a count of its own.
func (e *entry) counts() (acquired, failed uint32) {
	acquired = e.acquired
	if acquired == 0 {
		acquired = e.carried
	}
	return acquired, e.failed + e.carried
}

// refusingQuorum is reject-publish as quorum queues do it: one message over
// the limit is taken, and then none until the queue is down to 80 % of it.
// reject-publish-dlx they don't know: it drops from the head.
func (q *queue) refusingQuorum() bool {
	if q.opts.overflow != "reject-publish" {
		return false
	}
	if q.rejecting {
		q.rejecting = q.over(4, 5)
	}
	return q.rejecting
}
