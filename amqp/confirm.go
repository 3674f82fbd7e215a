package amqp

import (
	"context"
	"hash/maphash"
	"sync"
	"sync/atomic"
)

// The states of a Confirm.
const (
	confirmPending uint32 = iota
	confirmAcked
	confirmFailed // err says how
)

// Confirm is what will know the outcome of one publish. All its methods are
// safe for concurrent use; it needs neither draining nor closing.
type Confirm struct {
	ch    *Channel
	state atomic.Uint32
	own   *ownConfirm // of a client's confirm, which outlives channels; ch is nil then
	out   *outgoing   // of a client's attempt, what it is an attempt at
	rare  *rareConfirm
}

// rareConfirm is what a Confirm has once anybody waits for it, or it may come to
// more than an ack: few do, and there are many Confirms. Channel.c.mu guards it
// and the pointer to it, until the Confirm's state says that it is settled.
type rareConfirm struct {
	err      error
	done     chan struct{} // made when first asked for
	waiting  waitList
	returned *ReturnError
	hash     uint64 // of a mandatory message, to know it again
	onDone   func(error)
}

var confirms = sync.Pool{New: func() any { return new(Confirm) }}

func (cf *Confirm) reset(ch *Channel) {
	cf.ch, cf.own, cf.out = ch, nil, nil
	if cf.rare != nil {
		*cf.rare = rareConfirm{}
	}
	cf.state.Store(confirmPending)
}

// more gives the rare part, made when first asked for.
func (cf *Confirm) more() *rareConfirm {
	if cf.rare == nil {
		cf.rare = new(rareConfirm)
	}
	return cf.rare
}

// confirmSlab is Confirms that were allocated at once: few, since one that is
// kept keeps its neighbours.
type confirmSlab struct{ left []Confirm }

var confirmSlabs = sync.Pool{New: func() any { return new(confirmSlab) }}

// newConfirm makes a Confirm for a publish whose outcome is left to the caller.
func newConfirm(ch *Channel) *Confirm {
	slab := confirmSlabs.Get().(*confirmSlab)
	if len(slab.left) == 0 {
		slab.left = make([]Confirm, 16)
	}
	cf := &slab.left[0]
	slab.left = slab.left[1:]
	confirmSlabs.Put(slab)
	cf.ch = ch
	return cf
}

// doneChan is the channel of Done. The Confirm's lock is held.
func (cf *Confirm) doneChan() chan struct{} {
	r := cf.more()
	if r.done == nil {
		r.done = make(chan struct{})
		if cf.state.Load() != confirmPending {
			close(r.done)
		}
	}
	return r.done
}

// Done is closed when the outcome is known; Err then gives it.
func (cf *Confirm) Done() <-chan struct{} {
	if cf.own != nil {
		return cf.own.doneOf(cf)
	}
	c := cf.ch.c
	c.mu.Lock()
	done := cf.doneChan()
	c.unlockFlush(flushWait) // whoever asks is going to wait
	c.aboutToWait()
	return done
}

// Err is the outcome once Done is closed, as Wait would return it. It is nil
// before that.
func (cf *Confirm) Err() error {
	if cf.state.Load() != confirmFailed {
		return nil
	}
	return cf.rare.err
}

// Wait waits for the outcome, within ctx: nil (confirmed), ErrNacked, a
// *ReturnError, or an error that wraps ErrUnknownOutcome and what made it so,
// ctx's own error among them; after that it can be called again.
func (cf *Confirm) Wait(ctx context.Context) error {
	if cf.state.Load() == confirmPending {
		if cf.own != nil {
			return cf.own.wait(ctx, cf)
		}
		c := cf.ch.c
		c.mu.Lock()
		if cf.state.Load() != confirmPending {
			c.mu.Unlock()
			return cf.Err()
		}
		if c.hooked() {
			c.mu.Unlock()
			return &outcomeError{ErrInHandler}
		}
		w := cf.more().waiting.add(&c.waiters)
		c.unlockFlush(flushWait)
		c.aboutToWait()
		if !w.wait(ctx, &c.mu) {
			return &outcomeError{contextError(ctx)}
		}
	}
	return cf.Err()
}

// settle makes the outcome known. c.mu is held.
func (cf *Confirm) settle(err error) {
	r, out := cf.rare, cf.out
	if r == nil && err == nil {
		// Last: from here on its owner may use it again, under another connection's mu.
		cf.state.Store(confirmAcked)
	} else {
		err = cf.settleRare(cf.more(), err)
	}
	if out != nil {
		out.settled(err)
	}
}

func (cf *Confirm) settleRare(r *rareConfirm, err error) error {
	state := confirmAcked
	if r.returned != nil && err != ErrNacked {
		err = r.returned
	}
	if err != nil {
		r.err, state = err, confirmFailed
	}
	waiting := r.waiting
	r.waiting = waitList{}
	if r.done != nil {
		close(r.done)
	}
	if onDone := r.onDone; onDone != nil {
		c := cf.ch.c
		c.hooks = append(c.hooks, func() { onDone(err) })
	}
	cf.state.Store(state) // last, as in settle
	waiting.wakeAll()
	return err
}

// untracked stands for a publish whose outcome nobody wants to know.
var untracked = new(Confirm)

// confirmRing holds the publishes of a channel whose confirm is still to come,
// by delivery tag. c.mu guards it.
type confirmRing struct {
	slots      []*Confirm // of a power of two; nil: its outcome is known
	base, next uint64     // slots hold the tags from base to before next
	peak       uint64     // most that were outstanding since none was
	room       waitList   // publishers that wait for the number outstanding to fall
}

func (r *confirmRing) push(tag uint64, cf *Confirm) {
	if cf == nil {
		cf = untracked
	}
	if r.base == 0 {
		r.base, r.next = tag, tag
	}
	if r.next-r.base == uint64(len(r.slots)) {
		r.grow()
	}
	r.slots[tag&uint64(len(r.slots)-1)] = cf
	r.next = tag + 1
	r.peak = max(r.peak, r.next-r.base)
}

func (r *confirmRing) grow() {
	slots := make([]*Confirm, max(8, 2*len(r.slots)))
	for t := r.base; t < r.next; t++ {
		slots[t&uint64(len(slots)-1)] = r.slots[t&uint64(len(r.slots)-1)]
	}
	r.slots = slots
}

// resolve gives the outcome to one tag, or to all up to it.
func (r *confirmRing) resolve(ch *Channel, tag uint64, multiple bool, err error) {
	from := tag
	if multiple {
		from = r.base
		if tag == 0 {
			tag = r.next - 1
		}
	}
	if tag < r.base || r.base == 0 {
		return
	}
	for t := max(from, r.base); t <= tag; t++ {
		i := t & uint64(len(r.slots)-1)
		if cf := r.slots[i]; cf != nil {
			r.slots[i] = nil
			ch.unconfirmed--
			if cf != untracked {
				cf.settle(err)
			}
		}
	}
	for r.base < r.next && r.slots[r.base&uint64(len(r.slots)-1)] == nil {
		r.base++
	}
	if r.room.n > 0 {
		r.room.wakeAll()
	}
	if r.base == r.next {
		if len(r.slots) > 64 && r.peak <= uint64(len(r.slots)/4) {
			r.slots = make([]*Confirm, 8) // a burst is over: its room goes back
		}
		r.peak = 0
	}
}

// fail makes every outcome unknown.
func (r *confirmRing) fail(ch *Channel, cause error) {
	err := &outcomeError{cause}
	for t := r.base; t < r.next; t++ {
		i := t & uint64(len(r.slots)-1)
		if cf := r.slots[i]; cf != nil && cf != untracked {
			r.slots[i] = nil
			cf.settle(err)
		}
	}
	ch.unconfirmed = 0
	r.base = r.next
	r.room.wakeAll()
}

// claim finds the publish that a returned message was: returns come in the
// order of publishing, so it is the first like it that has not come back yet.
func (r *confirmRing) claim(hash uint64) *Confirm {
	for t := r.base; t < r.next; t++ {
		cf := r.slots[t&uint64(len(r.slots)-1)]
		if cf != nil && cf.rare != nil && cf.rare.hash == hash && cf.rare.returned == nil {
			return cf
		}
	}
	return nil
}

var hashSeed = maphash.MakeSeed()

// hashMessage is never 0, which stands for a message that can't come back.
func hashMessage(exchange, key string, p *Properties, body []byte) uint64 {
	h := maphash.String(hashSeed, exchange)
	h = h*31 + maphash.String(hashSeed, key)
	h = h*31 + maphash.String(hashSeed, p.MessageID)
	h = h*31 + maphash.String(hashSeed, p.CorrelationID)
	h = h*31 + maphash.Bytes(hashSeed, body)
	return max(h, 1)
}

// confirm takes the broker's basic.ack and basic.nack of publishes.
func (r *reader) confirm(st *chanState) error {
	ev := &r.ev
	var tag uint64
	var multiple bool
	var outcome error
	r.d = decoder{p: ev.Args}
	if ev.ID == MethodBasicAck {
		var m BasicAck
		m.decode(&r.d)
		tag, multiple = m.DeliveryTag, m.Multiple
	} else {
		var m BasicNack
		m.decode(&r.d)
		tag, multiple, outcome = m.DeliveryTag, m.Multiple, ErrNacked
	}
	if err := r.d.finish(); err != nil {
		return inMethod(err, ev.ID)
	}
	c := r.c
	c.mu.Lock()
	if c.over || st.phase != chanOpen {
		c.mu.Unlock()
		return nil // a late confirm after a close is ordinary
	}
	err := st.confirmable(ev.ID, tag, multiple)
	if err == nil {
		ch := st.ref.(*Channel)
		ch.confirms.resolve(ch, tag, multiple, outcome)
	}
	c.mu.Unlock()
	c.runHooks()
	return err
}

// bounced takes a message that the broker returned.
func (r *reader) bounced() error {
	ev := &r.ev
	var m BasicReturn
	if err := m.DecodeFrom(ev.Args); err != nil {
		return err
	}
	msg, err := ev.Message()
	if err != nil {
		return err
	}
	ret := &ReturnError{Code: m.ReplyCode, Text: m.ReplyText, Exchange: m.Exchange, RoutingKey: m.RoutingKey, Message: msg}
	var onReturn func(*ReturnError)
	c := r.c
	c.mu.Lock()
	c.returned++
	if ch, ok := ev.st.ref.(*Channel); ok {
		if cf := ch.confirms.claim(hashMessage(m.Exchange, m.RoutingKey, &msg.Properties, msg.Body)); cf != nil {
			cf.rare.returned = ret
		}
		onReturn = ch.onReturn
	}
	c.mu.Unlock()
	if onReturn != nil {
		onReturn(ret)
	}
	c.hook(func() { c.trace.returned(context.Background(), ev.Channel, ret) })
	return nil
}
