package amqp

import "sync"

// ackState is what a channel knows of the deliveries that want settling. They
// are numbered densely (Delivery.seq), whatever their tags, so that a prefix
// of them that is fully handled can be acked by one basic.ack with multiple.
//
// mu comes before Conn.mu in the order of locks.
type ackState struct {
	mu    sync.Mutex
	slots []ackSlot // of a power of two
	base  uint64    // every number below it is settled on the wire or about to be
	top   uint64    // the highest number that was settled

	prefixTag   uint64 // the last delivery below base that waits for its ack
	prefixCount int    // how many below base wait for their ack
	loose       int    // how many from base on wait for theirs
	batch       int    // how many may wait
	dirty       bool   // the connection's timer knows of it
	last        uint64 // the last number delivered; written by the reader
	settledN    uint64
}

type ackSlot struct {
	tag   uint64
	state uint8
}

const (
	slotOpen  uint8 = iota // not settled yet
	slotAcked              // to be acked
	slotDone               // settled on the wire
)

// defaultAckBatch is how many acks may wait for each other.
const defaultAckBatch = 64

// outstanding is how many deliveries were not settled yet.
func (a *ackState) outstanding() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return int(a.last - a.settledN)
}

// delivered notes that deliveries up to seq were handed up.
func (a *ackState) delivered(seq uint64) {
	a.mu.Lock()
	a.last = seq
	a.mu.Unlock()
}

func (a *ackState) mark(seq, tag uint64, state uint8) {
	a.settledN++
	if a.base == 0 {
		a.base = 1
	}
	if seq == a.base && a.top <= seq { // the common case: in order
		a.base++
		a.top = max(a.top, seq)
		if state == slotAcked {
			a.prefixTag = tag
			a.prefixCount++
		}
		return
	}
	if n := seq - a.base + 1; n > uint64(len(a.slots)) {
		a.grow(n)
	}
	a.slots[seq&uint64(len(a.slots)-1)] = ackSlot{tag, state}
	a.top = max(a.top, seq)
	if state == slotAcked {
		a.loose++
	}
	a.advance()
}

func (a *ackState) advance() {
	mask := uint64(len(a.slots) - 1)
	for a.base <= a.top {
		s := &a.slots[a.base&mask]
		if s.state == slotOpen {
			return
		}
		if s.state == slotAcked {
			a.prefixTag = s.tag
			a.prefixCount++
			a.loose--
		}
		*s = ackSlot{}
		a.base++
	}
}

func (a *ackState) grow(n uint64) {
	size := max(16, uint64(len(a.slots)))
	for size < n {
		size *= 2
	}
	slots := make([]ackSlot, size)
	for s := a.base; s <= a.top; s++ {
		if len(a.slots) > 0 {
			slots[s&(size-1)] = a.slots[s&uint64(len(a.slots)-1)]
		}
	}
	a.slots = slots
}

// settle sends, or gathers, what a delivery's receiver decided.
func (ch *Channel) settle(d *Delivery, how Settlement) error {
	if ch.gone.Load() {
		return ErrStale
	}
	a, c := &ch.acks, ch.c
	a.mu.Lock()
	if how == Acked {
		a.mark(d.seq, d.DeliveryTag, slotAcked)
		if n := a.prefixCount + a.loose; n < a.batch && !ch.idle(d.cons) {
			if !a.dirty {
				a.dirty = true
				err := c.gather(ch)
				a.mu.Unlock()
				return err
			}
			a.mu.Unlock()
			return nil
		}
		return ch.sendAcks(flushSoon)
	}
	a.mark(d.seq, d.DeliveryTag, slotDone)
	c.mu.Lock()
	a.mu.Unlock()
	var err error
	switch how {
	case Rejected:
		err = ch.send(&BasicReject{DeliveryTag: d.DeliveryTag}, true, nil)
	case Requeued:
		err = ch.send(&BasicReject{DeliveryTag: d.DeliveryTag, Requeue: true}, true, nil)
	default:
		err = ch.send(&BasicNack{DeliveryTag: d.DeliveryTag, Requeue: true}, true, nil)
	}
	c.unlockFlush(flushSoon)
	return staleIf(err)
}

func staleIf(err error) error {
	if err != nil {
		return ErrStale
	}
	return nil
}

// idle reports whether the consumer waits for more: then nothing will join an
// ack, and the broker may be waiting for it.
func (ch *Channel) idle(cons *Consumer) bool {
	return cons.gets || cons.parked.Load() > 0
}

// gather makes the timer look after the channel's acks.
func (c *Conn) gather(ch *Channel) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := ch.ready(MethodBasicAck); err != nil {
		return ErrStale
	}
	c.dirty = append(c.dirty, ch)
	c.armTimer()
	return nil
}

// sendAcks says all acks that wait, and releases acks.mu, which is held.
func (ch *Channel) sendAcks(f flush) error {
	a, c := &ch.acks, ch.c
	if a.prefixCount+a.loose == 0 {
		a.mu.Unlock()
		return nil
	}
	c.mu.Lock()
	err := a.appendAcks(ch)
	a.mu.Unlock()
	c.unlockFlush(f)
	return staleIf(err)
}

// appendAcks puts the acks that wait in the outbox. Both locks are held.
func (a *ackState) appendAcks(ch *Channel) error {
	if err := ch.ready(MethodBasicAck); err != nil {
		a.prefixCount, a.loose = 0, 0
		return err
	}
	var err error
	if a.prefixCount > 0 {
		err = ch.c.e.s.ack(ch.id, a.prefixTag, a.prefixCount > 1)
		a.prefixCount = 0
	}
	mask := uint64(len(a.slots) - 1)
	for s := a.base; a.loose > 0 && s <= a.top; s++ {
		if slot := &a.slots[s&mask]; slot.state == slotAcked {
			err = ch.c.e.s.ack(ch.id, slot.tag, false)
			slot.state = slotDone
			a.loose--
		}
	}
	return err
}

// ack appends a basic.ack without making an interface of it.
func (s *sender) ack(num uint16, tag uint64, multiple bool) error {
	start := len(s.out)
	dst := beginFrame(s.out, FrameMethod, num)
	dst = append(dst, byte(ClassBasic>>8), byte(ClassBasic), 0, byte(MethodBasicAck&0xFF))
	dst, err := BasicAck{DeliveryTag: tag, Multiple: multiple}.AppendTo(dst)
	if err != nil {
		return err
	}
	s.out = endFrame(dst, start)
	s.sent++
	return nil
}

// flushAcks says the acks of the channel that wait.
func (ch *Channel) flushAcks() {
	ch.acks.mu.Lock()
	ch.sendAcks(flushSoon)
}

// takeDirty empties the list of channels whose acks wait. mu is held.
func (c *Conn) takeDirty() []*Channel {
	d := c.dirty
	c.dirty = nil
	return d
}

// flushDirty says the acks of all channels. No lock is held.
func (c *Conn) flushDirty() {
	c.mu.Lock()
	dirty := c.takeDirty()
	c.mu.Unlock()
	for _, ch := range dirty {
		ch.acks.mu.Lock()
		ch.acks.dirty = false
		ch.sendAcks(flushSoon)
	}
}
