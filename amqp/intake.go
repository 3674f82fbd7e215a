package amqp

import (
	"context"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"time"
	"unsafe"
)

// intake is what the reader keeps of a consumer: deliveries on their way up,
// and the strings that it has seen, which most deliveries share. Only the
// reader touches it.
type intake struct {
	pending []*Delivery // came since the last handUp
	spare   []*Delivery // borrowed ones to be used again
	slab    []Delivery
	blocks  []byte
	lent    int32 // of pending, those that lie in the reader's chunk
	bytes   int64 // that pending holds
	touched bool
	ahead   int // how many of the larger blocks to allocate at once

	exchange interned
	key      interned
}

// interned remembers the last string that came twice in a row.
type interned struct {
	known     string
	candidate []byte
}

// lookup returns a lasting string equal to s, if it has one.
func (n *interned) lookup(s string) (string, bool) {
	if s == n.known {
		return n.known, true
	}
	if s == "" {
		return "", true
	}
	if string(n.candidate) == s {
		n.known = strings.Clone(s)
		return n.known, true
	}
	n.candidate = append(n.candidate[:0], s...)
	return "", false
}

// slabSize is how many Deliveries are allocated at once: one that is kept
// keeps its neighbours, and their bodies, so it is few. These fill a size class
// of Go's allocator.
const slabSize = 18

func (in *intake) delivery(cons *Consumer) *Delivery {
	if len(in.spare) == 0 && len(in.slab) == 0 && cons.opts.Borrow {
		cons.mu.Lock()
		in.spare, cons.free = cons.free, in.spare
		cons.mu.Unlock()
	}
	if n := len(in.spare); n > 0 {
		d := in.spare[n-1]
		in.spare = in.spare[:n-1]
		return d
	}
	if len(in.slab) == 0 {
		in.slab = make([]Delivery, slabSize)
	}
	d := &in.slab[0]
	in.slab = in.slab[1:]
	return d
}

// consumer finds the consumer of a tag.
func (ch *Channel) consumer(tag string) *Consumer {
	for _, cons := range ch.listed() {
		if cons.tag == tag {
			return cons
		}
	}
	return nil
}

// deliver takes a basic.deliver that the engine put together.
func (r *reader) deliver() error {
	ev := &r.ev
	var m BasicDeliver
	r.d = decoder{p: ev.Args, alias: true}
	m.decode(&r.d)
	if err := r.d.finish(); err != nil {
		return inMethod(err, ev.ID)
	}
	return r.place(ev.st, &m)
}

// quickDeliver takes a basic.deliver that lies whole in p, with a body of at
// most one frame, as nearly all do: it is the hot path of consuming. It returns
// how much of p that was; less than 0, that more of it is to be read first. 0
// means that p holds something else, or something in which anything is odd, and
// leaves it to the engine, which says what.
func (r *reader) quickDeliver(p []byte) (int, error) {
	const head = frameHeaderSize + 4
	rc := &r.c.e.r
	if len(p) < head+12 || p[0] != FrameMethod || binary.BigEndian.Uint32(p[frameHeaderSize:]) != uint32(MethodBasicDeliver) || rc.body != nil {
		return 0, nil
	}
	num, size := binary.BigEndian.Uint16(p[1:]), binary.BigEndian.Uint32(p[3:])
	st := rc.channel(num)
	if st == nil || st.asm != nil || size > maxDeliverArgs || int(size)+frameOverhead > len(p) {
		return 0, nil
	}
	end := int(size) + frameHeaderSize
	if end <= head || p[end] != FrameEnd {
		return 0, nil
	}
	// consumer-tag, delivery-tag, redelivered, exchange, routing-key
	args := p[head:end]
	exchangeAt := int(args[0]) + 10
	if len(args) <= exchangeAt || args[exchangeAt-1] > 1 {
		return 0, nil
	}
	keyAt := exchangeAt + 1 + int(args[exchangeAt])
	if len(args) <= keyAt || len(args) != keyAt+1+int(args[keyAt]) {
		return 0, nil
	}
	n := rc.wholeContent(MethodBasicDeliver, num, p[end+1:], &r.ev)
	if n == 0 {
		if need := rc.contentNeeds(num, p[end+1:]); need > 0 && end+1+need > len(p) && !r.straight(st, args[1:exchangeAt-9], need) {
			rc.need = end + 1 + need
			return -1, nil
		}
		return 0, nil
	}
	r.ev.ID, r.ev.Channel = MethodBasicDeliver, num
	rc.frames++
	m := BasicDeliver{
		ConsumerTag: alias(args[1 : exchangeAt-9]),
		DeliveryTag: binary.BigEndian.Uint64(args[exchangeAt-9:]),
		Redelivered: args[exchangeAt-1] == 1,
		Exchange:    alias(args[exchangeAt+1 : keyAt]),
		RoutingKey:  alias(args[keyAt+1:]),
	}
	return end + 1 + n, r.place(st, &m)
}

// straight says whether the rest of a content of n octets is better read to
// where it stays, and that only what comes before the next body should be read
// along with it.
func (r *reader) straight(st *chanState, tag []byte, n int) bool {
	if n < straightBody {
		return false
	}
	ch, ok := st.ref.(*Channel)
	if !ok {
		return false
	}
	cons := ch.consumer(alias(tag))
	r.heads = cons != nil && !cons.opts.Borrow
	return r.heads
}

const straightBody = 32 << 10

// maxDeliverArgs is the length of basic.deliver's longest arguments, with the
// method's id: three short strings, a tag, a bit.
const maxDeliverArgs = 4 + 3*256 + 8 + 1

// alias is a string over p, as good as p is.
func alias(p []byte) string { return unsafe.String(unsafe.SliceData(p), len(p)) }

// place gives a delivery to its consumer. Its content is in r.ev.
func (r *reader) place(st *chanState, m *BasicDeliver) error {
	ev := &r.ev
	if err := st.delivered(MethodBasicDeliver, m.DeliveryTag); err != nil {
		return err
	}
	if err := r.checkProperties(); err != nil {
		return err
	}
	ch, ok := st.ref.(*Channel)
	if !ok {
		return nil
	}
	cons := ch.consumer(m.ConsumerTag)
	if cons == nil || ev.Oversized {
		return r.turnAway(st, ch, cons, m)
	}
	in := &cons.in
	d := in.delivery(cons)
	d.cons = cons
	d.DeliveryTag, d.Redelivered = m.DeliveryTag, m.Redelivered
	if cons.noAck {
		d.reset(needsNone)
	} else {
		d.reset(unsettled)
		ch.seq++
		d.seq = ch.seq
	}
	if cons.opts.Borrow {
		r.lend(d, in, m)
	} else {
		r.copyOut(d, in, m.Exchange, m.RoutingKey)
	}
	if t := cons.opts.track; t != nil {
		t.came(d)
	}
	in.pending = append(in.pending, d)
	in.bytes += d.size()
	if !in.touched {
		in.touched = true
		r.touch = append(r.touch, cons)
	}
	return nil
}

// reset gives the delivery its first state. A plain look saves the price of an
// atomic store where a borrowed one is used again.
func (d *Delivery) reset(state uint32) {
	if d.state.Load() != state {
		d.state.Store(state)
	}
}

// checkProperties refuses malformed properties when they come, so that reading
// them later can't fail. Headers are only measured. Properties like those of
// the message before, which most are, were found good already.
func (r *reader) checkProperties() error {
	p := r.ev.Properties
	if string(p) == string(r.good[:r.goodLen]) {
		r.same = true
		return nil
	}
	r.same, r.lasting = false, nil
	var props Properties
	r.d = decoder{p: p, alias: true, lazyTables: true}
	props.decode(&r.d)
	if err := r.d.finish(); err != nil {
		return inMethod(err, r.ev.ID)
	}
	if len(p) <= len(r.good) {
		r.goodLen = copy(r.good[:], p)
	}
	return nil
}

// lend makes d point into the reader's buffer.
func (r *reader) lend(d *Delivery, in *intake, m *BasicDeliver) {
	ev := &r.ev
	d.Exchange, d.RoutingKey = m.Exchange, m.RoutingKey
	d.Body = ev.Body
	d.setProps(ev.Properties)
	d.k = nil
	if ev.owned == nil {
		d.k = r.k
		in.lent++
	}
}

// copyOut gives d memory that stays: one allocation for properties, routing
// key and body together, or a part of one. A body that was put together from
// frames is its own memory already.
func (r *reader) copyOut(d *Delivery, in *intake, exchange, key string) {
	ev := &r.ev
	if exchange != "" { // a pointer that is not written needs no write barrier
		var known bool
		if d.Exchange, known = in.exchange.lookup(exchange); !known {
			d.Exchange = strings.Clone(exchange)
		}
	}
	var keyKnown bool
	d.RoutingKey, keyKnown = in.key.lookup(key)
	if ev.owned != nil {
		d.Body = ev.Body
		d.setProps(ev.Properties)
		if !keyKnown {
			d.RoutingKey = key // lies in the same memory
		}
		return
	}
	props, nk, body := ev.Properties, 0, ev.Body
	if !keyKnown {
		nk = len(key)
	}
	if r.same { // as those of the message before
		if r.lasting == nil {
			r.lasting = slices.Clone(props)
		}
		d.setProps(r.lasting)
		props = nil
	}
	np := len(props)
	block := in.block(np + nk + len(body))
	if np > 0 {
		copy(block, props)
		d.setProps(block[:np])
	}
	if nk > 0 {
		copy(block[np:], key)
		d.RoutingKey = alias(block[np : np+nk])
	}
	if body != nil {
		d.Body = block[np+nk:]
		copy(d.Body, body)
	}
}

// block is memory for a delivery's bytes. Small ones share an allocation, as
// the Deliveries themselves do, and larger ones where many come at once.
func (in *intake) block(n int) []byte {
	if n > sharedBlock {
		return rawBytes(n)[:n:n]
	}
	if n > len(in.blocks) {
		share := slabSize
		if n > smallBlock {
			in.ahead = min(2*in.ahead+1, slabSize)
			share = in.ahead
		}
		in.blocks = rawBytes(share * n)
		in.blocks = in.blocks[:cap(in.blocks)]
	}
	b := in.blocks[:n:n]
	in.blocks = in.blocks[n:]
	return b
}

const (
	smallBlock  = 256
	sharedBlock = 2048
)

// rawBytes is memory that was not cleared, since all of it is about to be
// written: make would clear it, and has no way not to. Its capacity is all that
// the allocator gave.
func rawBytes(n int) []byte {
	if n == 0 {
		return nil
	}
	var b strings.Builder
	b.Grow(n)
	b.WriteByte(0)
	return unsafe.Slice(unsafe.StringData(b.String()), b.Cap())[:n]
}

// turnAway deals with a delivery that nobody can take, and the connection goes
// on: one that is over MaxBody is rejected; one whose Subscribe gave up goes
// back to its queue until the broker has heard of it.
func (r *reader) turnAway(st *chanState, ch *Channel, cons *Consumer, m *BasicDeliver) error {
	c := ch.c
	settle := cons != nil && !cons.noAck || cons == nil && st.orphan(m.ConsumerTag)
	c.mu.Lock()
	if cons != nil {
		c.dropped++
	}
	if settle { // of a message that wants no ack the broker would take this amiss
		ch.send(&BasicNack{DeliveryTag: m.DeliveryTag, Requeue: cons == nil}, true, nil)
	}
	c.unlockFlush(flushSoon)
	switch {
	case cons != nil:
		c.log("message rejected", errOversized(r.ev.BodySize, c.cfg.MaxBody))
	case !settle:
		c.log("message ignored", fmt.Errorf("delivery for %q, which is no consumer of channel %d", m.ConsumerTag, ch.id))
	}
	return nil
}

// handUp gives the consumer what has come. It runs on the reader.
func (cons *Consumer) handUp() {
	in := &cons.in
	in.touched = false
	if in.lent > 0 {
		cons.ch.c.reader.k.refs.Add(in.lent)
		in.lent = 0
	}
	if !cons.noAck {
		cons.ch.acks.delivered(cons.ch.seq)
	}
	cons.mu.Lock()
	if cons.ended { // it came while the cancel was on its way
		late := slices.Clone(in.pending)
		clear(in.pending)
		in.pending, in.bytes = in.pending[:0], 0
		cons.mu.Unlock()
		cons.giveBack(late)
		return
	}
	n := len(in.pending)
	if n < slabSize {
		in.ahead = 0
	}
	in.pending = cons.enqueue(in.pending)
	cons.keepQueued(in.bytes)
	in.bytes = 0
	mine := cons.handler != nil && !cons.working && n > 0
	if mine {
		cons.working = true
		r := &cons.ch.c.reader
		r.inline = append(r.inline, cons)
	}
	for ; n > 0 && cons.waiting.n > 0; n-- {
		cons.waiting.wakeOne()
		if cons.takers == 1 {
			break
		}
	}
	slow := false
	// What this goroutine itself is about to handle can't wait for anybody.
	if limit := cons.opts.Buffer; !mine && limit > 0 && len(cons.queue)-cons.head > limit && !cons.ended && !cons.closing {
		if cons.opts.HoldBack {
			cons.holdBack(limit)
			cons.ch.c.reader.last = time.Now() // the silence was this side's
		} else {
			slow = true
		}
	}
	cons.mu.Unlock()
	if slow {
		cons.tooSlow()
	}
}

// enqueue appends to the queue, and returns an empty list to gather the next in.
// An empty queue is exchanged for the list. Of another the beginning is used
// again once half of it has been taken: a queue that is never empty would grow
// without end. mu is held.
func (cons *Consumer) enqueue(list []*Delivery) []*Delivery {
	if cons.head == len(cons.queue) {
		empty := cons.queue[:0] // whoever took what it held has cleared it
		cons.queue, cons.head = list, 0
		return empty
	}
	if q := cons.queue; len(q)+len(list) > cap(q) && cons.head >= len(q)/2 {
		n := copy(q, q[cons.head:])
		clear(q[n:])
		cons.queue, cons.head = q[:n], 0
	}
	cons.queue = append(cons.queue, list...)
	clear(list)
	return list[:0]
}

// holdBack makes the reader wait until half of the buffer is free. mu is held.
func (cons *Consumer) holdBack(limit int) {
	for len(cons.queue)-cons.head > limit/2 && !cons.ended && !cons.closing && !cons.let {
		w := cons.held.add(&cons.ch.c.waiters)
		cons.mu.Unlock()
		<-w.ch
		w.free()
		cons.mu.Lock()
	}
}

// tooSlow ends a consumer that does not keep up, so that memory stays bounded.
func (cons *Consumer) tooSlow() {
	cons.end(ErrSlowConsumer, false)
	ctx, cancel := context.WithCancel(context.Background())
	cancel() // the reader can't wait for what it is to read
	cons.cancel(ctx)
}
