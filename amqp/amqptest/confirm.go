package amqptest

// heldConfirm is a confirm that a fault keeps back.
type heldConfirm struct {
	tag  uint64
	nack bool
}

// confirm tells the publisher what became of a message.
func (ch *channel) confirm(tag uint64, nack bool) {
	if !ch.s.srv.confirmFault(ch, tag, nack) {
		ch.sendConfirm(tag, nack)
	}
}

// sendConfirm sends a confirm. Acks that follow on each other and are still
// unsent become one with multiple set: a client must cope with both.
func (ch *channel) sendConfirm(tag uint64, nack bool) {
	inOrder := tag == ch.confirmed+1
	if inOrder {
		ch.confirmed = tag
	}
	out := ch.s.out
	if n := len(out); inOrder && !nack && n > 0 {
		last := &out[n-1]
		if last.kind == outConfirm && last.ch == ch && !last.nack && last.tag == tag-1 {
			last.tag, last.multiple = tag, true
			return
		}
	}
	ch.s.push(outItem{kind: outConfirm, ch: ch, tag: tag, nack: nack})
}
