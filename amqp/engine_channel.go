package amqp

// chanPhase is where in its life a channel stands.
type chanPhase uint8

const (
	chanClosed  chanPhase = iota
	chanOpening           // channel.open sent, the answer is still to come
	chanOpen
	chanClosing // channel.close sent: all but close and close-ok is ignored
)

// chanState is what the engine knows of a channel. Part of it belongs to
// the receiver, part to the sender; Engine.accept, which has both, is
// the only one to touch both parts. It is kept small, since a client can make a
// server have one for 13 octets.
type chanState struct {
	num uint16 // nobody changes it

	// The sender's.
	phase      chanPhase
	confirming bool
	tx         bool
	leaving    bool // server: the client has closed it, the answer is to come

	// The receiver's.
	asm     *asm
	lastTag uint64          // of the deliveries that came, whose tags only grow
	replyTo bool            // it consumes replies: before version 4 RabbitMQ gives all of these the tag 1
	orphans map[string]bool // consumers that were undone, until cancel-ok; true: without acks

	// The sender's, too.
	published uint64        // publishes since confirm.select: the last one's tag
	expect    []expectation // replies to come, oldest first

	ref any // the runtime's Channel; set before the channel is used
}

// directReplyTo is the pseudo-queue of replies.
// Source: https://www.rabbitmq.com/docs/direct-reply-to.
const directReplyTo = "amq.rabbitmq.reply-to"

// expectation is a reply that the peer owes.
type expectation struct {
	request   MethodID
	abandoned bool // nobody waits for it: swallow it and undo its effect
	noAck     bool // of basic.get and basic.consume
	replyTo   bool // of basic.consume, where it is of directReplyTo
	ref       any
}

// fulfil finds and removes the oldest expectation that id answers. The broker
// answers in order but for tx.commit, whose reply waits for the queues: so it
// is the oldest of this kind of reply, not the oldest of all.
func (st *chanState) fulfil(id MethodID) (expectation, bool) {
	for i := range st.expect {
		x := st.expect[i]
		for _, reply := range infoOf(x.request).replies {
			if reply == id {
				copy(st.expect[i:], st.expect[i+1:])
				st.expect[len(st.expect)-1] = expectation{}
				st.expect = st.expect[:len(st.expect)-1]
				return x, true
			}
		}
	}
	return expectation{}, false
}

// orphan reports whether deliveries for a consumer are to be requeued, since
// it was undone.
func (st *chanState) orphan(tag string) bool {
	noAck, ok := st.orphans[tag]
	return ok && !noAck
}

// abandon turns the expectation of ref into a tombstone. It reports whether
// there was one: otherwise the reply has come.
func (st *chanState) abandon(ref any) bool {
	for i := range st.expect {
		if st.expect[i].ref == ref {
			st.expect[i].abandoned = true
			st.expect[i].ref = nil
			return true
		}
	}
	return false
}
