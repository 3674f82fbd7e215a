package amqptest

import "time"

// expiry is when a message that enters q now expires: the lower of its own
// expiration and the queue's TTL counts. With a TTL of 0 a message may be
// handed to a consumer that waits, and else is gone.
func (q *queue) expiry(m *message) int64 {
	ttl := m.expiration
	if q.opts.ttl >= 0 && (ttl < 0 || q.opts.ttl < ttl) {
		ttl = q.opts.ttl
	}
	if ttl < 0 {
		return 0
	}
	return time.Now().Add(ttl).UnixNano()
}

// expireHead drops what has expired at the head. As in RabbitMQ a message
// that expires behind one that does not stays, and is counted, until it gets
// to the head.
func (q *queue) expireHead() {
	if q.ready.timed == 0 {
		return
	}
	now := time.Now().UnixNano()
	for e := q.ready.front(); e != nil && e.expires != 0 && e.expires <= now; e = q.ready.front() {
		q.deadLetter(q.ready.pop(), deadExpired)
	}
}

// armHead sets the timer for the head's expiry.
func (q *queue) armHead() {
	var at int64
	if e := q.ready.front(); e != nil {
		at = e.expires
	}
	if at == q.headAt {
		return
	}
	q.headAt = at
	if at == 0 {
		if q.headTimer != nil {
			q.headTimer.Stop()
		}
		return
	}
	wait := max(time.Until(time.Unix(0, at)), 0)
	if q.headTimer == nil {
		q.headTimer = q.vh.srv.afterFunc(wait, func() {
			q.headAt = 0
			q.dispatch()
		})
		return
	}
	q.headTimer.Reset(wait)
}
