package amqptest

import (
	"cmp"
	"slices"
	"time"

	"github.com/warrenmq/warren/amqp"
)

// queue is a queue of any type. What the types do each in its own way stands
// in queue_classic.go, queue_quorum.go and stream.go.
type queue struct {
	vh         *vhost
	name       string
	durable    bool
	autoDelete bool
	owner      *session // of an exclusive queue
	args       amqp.Table
	opts       queueOptions
	bindings   map[*binding]struct{}
	deleted    bool
	seen       uint64 // the routing that reached it last
	touched    uint64 // the settling that reached it last

	ready   store
	nextSeq uint64
	unacked int
	log     *streamLog // of a stream

	consumers []*consumer // all, in the order they came
	active    []*consumer // those that may take a message; highest priority first, then longest idle
	exclusive *consumer   // that has the queue for itself
	single    *consumer   // x-single-active-consumer: whose turn it is
	handOver  bool        // it is to give way to one of a higher priority
	consumed  bool        // it had a consumer: auto-delete applies
	rejecting bool        // quorum: over its limit, and not yet well below it again

	published uint64 // messages that came in, for inspection
	idleSince time.Time
	idleTimer *time.Timer
	headTimer *time.Timer // fires when the message at the head expires
	headAt    int64
	ackTimer  *time.Timer // fires when a delivery is not settled in time
	ackArmed  bool
}

// lockedFor reports whether the queue is exclusive to another connection.
func (q *queue) lockedFor(s *session) bool { return q.owner != nil && q.owner != s }

// declareQueue is queue.declare; name is m.Queue with the server's choice
// filled in.
func (vh *vhost) declareQueue(s *session, m amqp.QueueDeclare, name string) (*queue, error) {
	if m.Passive {
		if err := s.mayLook("queue", name); err != nil {
			return nil, err
		}
		q := vh.queues[name]
		if q == nil {
			return nil, vh.noQueue(name)
		}
		if q.lockedFor(s) {
			return nil, q.locked()
		}
		q.used()
		return q, nil
	}
	if reserved(m.Queue) {
		return nil, refusef(amqp.AccessRefused, "queue name '%s' contains reserved prefix 'amq.*'", m.Queue)
	}
	if err := s.may(configure, "queue", name); err != nil {
		return nil, err
	}
	if q := vh.queues[name]; q != nil {
		return q, q.same(s, m)
	}
	opts, err := vh.parseQueueArgs(name, m.Arguments)
	if err != nil {
		return nil, err
	}
	if opts.kind != classic {
		if err := vh.checkReplicated(m, name, opts.kind); err != nil {
			return nil, err
		}
	}
	if opts.hasDLX {
		if err := s.may(read, "queue", name); err != nil {
			return nil, err
		}
		if err := s.may(write, "exchange", opts.dlx); err != nil {
			return nil, err
		}
	}
	q := vh.addQueue(name, m, opts)
	if m.Exclusive {
		q.owner = s
		s.exclusive[q] = struct{}{}
	}
	return q, nil
}

// checkReplicated refuses what quorum queues and streams can't be.
func (vh *vhost) checkReplicated(m amqp.QueueDeclare, name string, kind queueKind) error {
	if m.Queue == "" {
		return refusef(amqp.PreconditionFailed, "Cannot declare a server-named queue for type %s", kind.module())
	}
	bad := ""
	switch {
	case !m.Durable:
		bad = "non-durable"
	case m.AutoDelete:
		bad = "auto-delete"
	case m.Exclusive:
		bad = "exclusive-owner"
	default:
		return nil
	}
	return refusef(amqp.PreconditionFailed, "invalid property '%s' for queue '%s' in vhost '%s'", bad, name, vh.name)
}

func (vh *vhost) addQueue(name string, m amqp.QueueDeclare, opts queueOptions) *queue {
	q := &queue{
		vh: vh, name: name, durable: m.Durable, autoDelete: m.AutoDelete, args: m.Arguments, opts: opts,
		bindings: map[*binding]struct{}{},
	}
	switch opts.kind {
	case stream:
		q.log = &streamLog{}
	case quorum:
		q.ready = newStore(quorumLevels)
		q.ready.withProps = true
	default:
		q.ready = newStore(opts.maxPriority + 1)
	}
	vh.queues[name] = q
	q.used()
	return q
}

// same compares a second declare with the queue that is there.
func (q *queue) same(s *session, m amqp.QueueDeclare) error {
	if q.lockedFor(s) || m.Exclusive != (q.owner != nil) {
		return q.locked()
	}
	if err := sameFlag("durable", "queue", q.name, q.vh.name, m.Durable, q.durable); err != nil {
		return err
	}
	if err := sameFlag("auto_delete", "queue", q.name, q.vh.name, m.AutoDelete, q.autoDelete); err != nil {
		return err
	}
	if err := q.sameArgs(m.Arguments); err != nil {
		return err
	}
	q.used()
	return nil
}

// removeQueue is queue.delete. It returns how many messages went with it.
func (vh *vhost) removeQueue(s *session, m amqp.QueueDelete) (int, error) {
	if err := s.may(configure, "queue", m.Queue); err != nil {
		return 0, err
	}
	q := vh.queues[m.Queue]
	if q == nil {
		return 0, nil // deleting what is not there is fine
	}
	switch {
	case q.lockedFor(s):
		return 0, q.locked()
	case q.opts.kind == quorum && (m.IfUnused || m.IfEmpty):
		flag := "if-unused"
		if m.IfEmpty {
			flag = "if-empty"
		}
		return 0, refusef(amqp.NotImplemented, "cannot delete queue '%s' in vhost '%s'. queue.delete operations with %s flag set "+
			"are not supported by quorum queues", q.name, vh.name, flag)
	case q.log != nil: // a stream looks at neither
	case m.IfUnused && len(q.consumers) > 0:
		return 0, refusef(amqp.PreconditionFailed, "queue '%s' in vhost '%s' in use", q.name, vh.name)
	case m.IfEmpty && q.depth() > 0:
		return 0, refusef(amqp.PreconditionFailed, "queue '%s' in vhost '%s' not empty", q.name, vh.name)
	}
	n := vh.deleteQueue(q)
	if q.log != nil {
		n = 0 // of a stream RabbitMQ does not say
	}
	return n, nil
}

// deleteQueue removes q, its bindings and its messages. Its consumers hear
// of it by basic.cancel.
func (vh *vhost) deleteQueue(q *queue) int {
	if q.deleted {
		return 0
	}
	q.deleted = true
	n := q.depth()
	delete(vh.queues, q.name)
	if q.owner != nil {
		delete(q.owner.exclusive, q)
	}
	q.stopTimers()
	for _, b := range sortedKeys(q.bindings) {
		b.src.removeBinding(b)
	}
	consumers := slices.Clone(q.consumers)
	if q.opts.kind == quorum {
		slices.SortStableFunc(consumers, func(a, b *consumer) int { return cmp.Compare(b.priority, a.priority) })
	}
	for _, c := range consumers {
		c.cancelledByServer()
	}
	q.ready.clear()
	q.unacked = 0
	return n
}

func (q *queue) stopTimers() {
	for _, t := range []*time.Timer{q.idleTimer, q.headTimer, q.ackTimer} {
		if t != nil {
			t.Stop()
		}
	}
}

// depth is how many messages are ready; of a stream, how many it holds.
func (q *queue) depth() int {
	if q.log != nil {
		return q.log.len()
	}
	return q.ready.n
}

// publish takes a message in. It reports false when the queue refuses it
// (overflow), which a publisher who wants confirms hears as a nack.
func (q *queue) publish(m *message, from *entry) bool {
	q.published++
	if q.log != nil {
		q.log.append(q, m.streamed())
		q.dispatchStream()
		return true
	}
	e := entry{msg: m, seq: q.nextSeq, prio: q.level(m)}
	q.nextSeq++
	if from != nil { // dead-lettered: what happened to it before stays known
		e.carried = from.carried + from.failed
		e.redelivered = e.carried > 0
	}
	e.expires = q.expiry(m)
	if q.refusing(m) { // even where a consumer waits
		if q.opts.overflow == "reject-publish-dlx" {
			q.deadLetter(e, deadMaxLength)
		}
		return false
	}
	if q.ready.n == 0 {
		if c := q.nextConsumer(); c != nil {
			if q.opts.kind == classic {
				e.redelivered = false // it was not in the queue, so RabbitMQ does not look
			}
			c.deliver(e)
			return true
		}
	}
	q.ready.pushBack(e)
	q.dispatch()
	q.rejecting = q.rejecting || q.over(1, 1)
	q.trim()
	return true
}

// refusing reports whether the queue takes no further message.
func (q *queue) refusing(m *message) bool {
	if q.opts.kind == quorum {
		return q.refusingQuorum()
	}
	if q.opts.overflow != "reject-publish" && q.opts.overflow != "reject-publish-dlx" {
		return false
	}
	return q.opts.maxLength >= 0 && int64(q.ready.n)+1 > q.opts.maxLength ||
		q.opts.maxBytes >= 0 && q.ready.bytes+q.ready.size(m) > q.opts.maxBytes
}

// over reports whether the queue holds more than its limits allow, scaled.
func (q *queue) over(num, den int64) bool {
	return q.opts.maxLength >= 0 && int64(q.ready.n)*den > q.opts.maxLength*num ||
		q.opts.maxBytes >= 0 && q.ready.bytes*den > q.opts.maxBytes*num
}

// trim drops from the head what is over the limit. Where publishes are refused
// instead, what comes back may be more than the limit.
func (q *queue) trim() {
	if q.opts.overflow == "reject-publish" || q.opts.overflow == "reject-publish-dlx" && q.opts.kind == classic {
		return // what is in stays in; a quorum queue may be one over its limit
	}
	for q.ready.n > 0 && q.over(1, 1) {
		q.deadLetter(q.ready.pop(), deadMaxLength)
	}
}

// dispatch gives ready messages to consumers until there are no more of one
// or the other.
func (q *queue) dispatch() {
	if q.deleted {
		return
	}
	if q.log != nil {
		q.dispatchStream()
		return
	}
	for q.expireHead(); q.ready.n > 0; q.expireHead() {
		c := q.nextConsumer()
		if c == nil {
			break
		}
		c.deliver(q.ready.pop())
	}
	q.armHead()
}

// get is basic.get: the next message, nil when there is none.
func (q *queue) get() *entry {
	q.used()
	q.expireHead()
	if q.ready.n == 0 {
		return nil
	}
	e := q.ready.pop()
	q.expireHead() // what comes to the head now and has expired is not counted
	q.armHead()
	return &e
}

// purge drops what is ready.
func (q *queue) purge() int {
	n := q.ready.clear()
	q.armHead()
	return n
}

// requeue takes unsettled messages back. They come in the order of their
// delivery tags.
func (q *queue) requeue(us []unack, counts bool) {
	if q.deleted {
		return
	}
	q.unacked -= len(us)
	if q.opts.kind == quorum {
		q.requeueQuorum(us, counts)
	} else {
		q.requeueClassic(us, counts)
	}
	q.trim() // before the consumers: a returned message may be dropped at once
	q.dispatch()
}

// dropped ends messages that were rejected without requeue; counts says that
// it was by basic.reject.
func (q *queue) dropped(us []unack, counts bool) {
	if q.deleted {
		return
	}
	q.unacked -= len(us)
	for _, u := range us {
		e := u.entry
		if counts {
			e.failed++
		}
		q.deadLetter(e, deadRejected)
	}
}

// used notes that somebody used the queue, which x-expires goes by.
func (q *queue) used() {
	if q.opts.expires <= 0 || q.deleted {
		return
	}
	q.idleSince = time.Now()
	if q.idleTimer == nil {
		q.idleTimer = q.vh.srv.afterFunc(q.opts.expires, q.expireIdle)
	} else {
		q.idleTimer.Reset(q.opts.expires)
	}
}

func (q *queue) expireIdle() {
	if q.deleted {
		return
	}
	if left := q.opts.expires - time.Since(q.idleSince); len(q.consumers) > 0 || left > 0 {
		q.idleTimer.Reset(max(left, time.Millisecond))
		if len(q.consumers) > 0 {
			q.used()
		}
		return
	}
	q.vh.deleteQueue(q)
}
