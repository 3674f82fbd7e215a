package amqp

import (
	"context"
	"sync/atomic"
	"time"
)

// Handle starts a consumer whose deliveries f handles on the goroutine that
// reads the connection, one after another: no other goroutine has to wake up for
// them. It waits for the broker's consume-ok, within ctx. opts may be nil.
//
// f should be short, since nothing is read while it runs. Where it is not, it
// does no harm: once it has taken some milliseconds, or anybody waits for an answer
// on the connection, f itself included, another goroutine takes the reading
// over. Everything can be called from f. Settling is f's own business; what it
// leaves unsettled of borrowed deliveries stays so. It must not panic.
//
// f is not called any more once Consumer.Close has returned, unless it is still
// running then. All of such a consumer gives nothing.
//
// Errors: as Subscribe.
func (ch *Channel) Handle(ctx context.Context, m BasicConsume, f func(*Delivery), opts *ConsumeOptions) (*Consumer, error) {
	return ch.subscribe(ctx, m, f, opts)
}

// inline is what the connection knows of the reader's excursions into user
// code.
type inline struct {
	active atomic.Bool // a handler runs where the reading is done
	turn   uint64      // counts them; Conn.mu guards the rest
	seen   uint64      // the turn that ran when the timer fired last
	taken  bool        // another goroutine reads now
	armed  bool        // timer runs
	timer  *time.Timer // made when first wanted
}

// patience is between looks at a handler: one that is found at work twice is
// slow. Shorter, its own wake-ups would cost more than those that handlers save.
const patience = 5 * time.Millisecond

// armInline sees to it that somebody looks. mu is held.
func (c *Conn) armInline() {
	in := &c.inline
	switch {
	case in.armed:
		return
	case in.timer == nil:
		in.timer = time.AfterFunc(patience, c.lookInline)
	default:
		in.timer.Reset(patience)
	}
	in.armed = true
}

func (c *Conn) lookInline() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.inline.armed = false
	if !c.over {
		c.watchInline()
	}
}

// runInline handles what came for consumers with a handler of their own. It
// reports whether the caller still is the reader.
func (r *reader) runInline() bool {
	c := r.c
	list := r.inline
	r.inline = nil
	c.mu.Lock()
	c.inline.turn++
	turn := c.inline.turn
	c.inline.taken = false
	c.inline.active.Store(true)
	c.armInline()
	c.mu.Unlock()
	for _, cons := range list {
		cons.handleQueued()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.inline.taken || c.inline.turn != turn {
		return false // and the one who took over may be in a turn of its own by now
	}
	c.inline.active.Store(false)
	r.inline = list[:0]
	return true
}

// handleQueued runs the handler until nothing is queued. Only one goroutine at
// a time does for one consumer: cons.working says that there is one.
func (cons *Consumer) handleQueued() {
	t := taker{cons: cons}
	for {
		cons.mu.Lock()
		t.giveUsed()
		if len(cons.queue) == cons.head || cons.cut.Load() {
			cons.working = false
			cons.spareItems, cons.spareUsed = t.items[:0], t.used
			cons.mu.Unlock()
			break
		}
		if t.items == nil {
			t.items, t.used = cons.spareItems, cons.spareUsed
		}
		t.kept = cons.takeQueued(true)
		t.items, cons.queue = cons.queue[cons.head:], t.items[:0]
		cons.head = 0
		cons.held.wakeAll() // a reader that took over waits for room
		cons.mu.Unlock()
		for i, d := range t.items {
			if cons.cut.Load() {
				cons.unread(t.items[i:])
				break
			}
			t.items[i] = nil
			cons.ch.c.trace.deliver(context.Background(), d)
			cons.handler(d)
			t.putBack(d)
		}
	}
	if !cons.noAck {
		cons.ch.flushAcks() // no more will join them
	}
}

// aboutToWait is called before anything waits for what the reader brings: if
// the reader is in a handler, which may be the one that waits, the reading
// goes on elsewhere, and if it is held back it goes on as well. No lock is held.
func (c *Conn) aboutToWait() {
	if c.inline.active.Load() {
		c.mu.Lock()
		c.takeOver()
		c.mu.Unlock()
	}
	c.wakeReader()
}

// takeOver starts another reader in place of one that is in a handler. mu is
// held. The old one's place in running is handed on.
func (c *Conn) takeOver() {
	if c.inline.active.Load() && !c.inline.taken {
		c.inline.taken = true
		c.inline.active.Store(false)
		go c.readLoop(c.e.heartbeatIn)
	}
}

// watchInline takes over from a handler that was running when the timer fired
// last. mu is held.
func (c *Conn) watchInline() {
	if !c.inline.active.Load() {
		return
	}
	if c.inline.seen == c.inline.turn {
		c.takeOver()
		return
	}
	c.inline.seen = c.inline.turn
	c.armInline()
}
