package amqptest

import "github.com/warrenmq/warren/amqp"

// txState is what a transaction has gathered since tx.select, the last
// commit or rollback.
type txState struct {
	publishes []txPublish
	acks      []txAck
}

// txPublish is a publish that waits for its commit. It was routed already.
type txPublish struct {
	msg        *message
	queues     []*queue
	unroutable bool // and mandatory
}

type txAck struct {
	op settleOp
	us []unack
}

func (tx *txState) settle(op settleOp, us ...unack) {
	tx.acks = append(tx.acks, txAck{op, us})
}

// commit publishes what was published and settles what was settled. Messages
// that could not be routed come back now, before the commit-ok. A queue that
// went meanwhile costs the connection, as in RabbitMQ.
func (tx *txState) commit(ch *channel) error {
	publishes, acks := tx.publishes, tx.acks
	tx.publishes, tx.acks = nil, nil
	refused := false
	for _, p := range publishes {
		for _, q := range p.queues {
			if q.deleted {
				return refusef(amqp.ResourceError, "failed to deliver message: {not_found,{resource,%s,queue,%s}}",
					erlangBinary([]byte(q.vh.name)), erlangBinary([]byte(q.name)))
			}
		}
		if !ch.send(p.msg, p.queues, p.unroutable) {
			refused = true
		}
	}
	for _, a := range acks {
		ch.finish(a.us, a.op)
	}
	if refused {
		return refusef(amqp.PreconditionFailed, "partial tx completion")
	}
	return nil
}

// rollback forgets the publishes and gives back the deliveries, which are
// unsettled again: they are not redelivered.
func (tx *txState) rollback(us []unack) []unack {
	for _, a := range tx.acks {
		us = append(us, a.us...)
	}
	tx.publishes, tx.acks = nil, nil
	return us
}
