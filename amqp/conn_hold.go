package amqp

import (
	"sync/atomic"
	"time"
)

// hold is how a connection's reading is held back while what came for its
// Client is over the budget.
type hold struct {
	on   atomic.Bool   // the reader waits, or is about to
	wake chan struct{} // cap 1: something may have changed
}

func (h *hold) init() { h.wake = make(chan struct{}, 1) }

// longestHold is after how long the reader takes in a little all the same: the
// broker is not to think the connection dead, and a handler may, against all
// advice, wait for what another one gets. That the connection is lost is found
// out by writing, at the latest with the next heartbeat.
const longestHold = 5 * time.Second

// attendance is how long a consumer may be without anybody who takes from it
// until it is no longer waited for: others must not suffer from one that is idle.
const attendance = 100 * time.Millisecond

// holdBack waits until there is room again for what comes, or a reason not to
// wait for that.
func (r *reader) holdBack() {
	c := r.c
	t := time.NewTimer(attendance)
	defer t.Stop()
	c.hold.on.Store(true)
	defer c.hold.on.Store(false)
	for timers := 0; timers < 2 && c.cfg.budget.full() && c.canHold(timers > 0); {
		select {
		case <-c.hold.wake:
		case <-t.C:
			timers++
			t.Reset(longestHold - attendance)
		}
	}
	r.last = time.Now() // the silence was this side's
}

// wakeReader has a reader that is held back look again. Any lock may be held.
func (c *Conn) wakeReader() {
	if !c.hold.on.Load() {
		return
	}
	select {
	case c.hold.wake <- struct{}{}:
	default:
	}
}

// canHold reports whether holding the reader back harms nobody: no answer is to
// be read, and somebody is at what came already, or, but for late, may be soon.
func (c *Conn) canHold(late bool) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.over || c.closing || c.w.broken != nil || len(c.e.s.zero.expect) > 0 {
		return false
	}
	busy := false
	for _, st := range c.e.s.channels {
		if st == nil || st.phase == chanClosed {
			continue
		}
		ch := st.ref.(*Channel)
		if st.phase != chanOpen || len(st.expect) > 0 || ch.unconfirmed > 0 {
			return false
		}
		for _, cons := range ch.listed() {
			busy = cons.busy(late) || busy
		}
	}
	return busy
}

// busy reports whether the consumer has deliveries that somebody takes, and who
// will want more. late says that whoever wanted to begin has had the time.
func (cons *Consumer) busy(late bool) bool {
	cons.mu.Lock()
	defer cons.mu.Unlock()
	if late && cons.takers == 0 && cons.handler == nil {
		cons.unattended = true
	}
	return !cons.unattended && !cons.ended && !cons.closing && cons.kept.Load() > 0
}

// wakeReader has the reader look whether it still is to wait for this consumer.
// mu is held.
func (cons *Consumer) wakeReader() {
	cons.held.wakeAll()
	cons.ch.c.wakeReader()
}

// size is what a delivery counts for.
func (d *Delivery) size() int64 { return int64(len(d.Body)) + int64(d.nprops) }

// sizeOf is what deliveries count for, if they do.
func (cons *Consumer) sizeOf(list ...*Delivery) (n int64) {
	if cons.ch.c.cfg.budget == nil {
		return 0
	}
	for _, d := range list {
		n += d.size()
	}
	return n
}

// keep counts n bytes of deliveries.
func (cons *Consumer) keep(n int64) {
	if b := cons.ch.c.cfg.budget; b != nil && n > 0 {
		cons.kept.Add(n)
		b.came.Add(n)
	}
}

// unkeep is keep's reverse.
func (cons *Consumer) unkeep(n int64) {
	if b := cons.ch.c.cfg.budget; b != nil && n > 0 {
		cons.kept.Add(-n)
		b.came.Add(-n)
		cons.ch.c.wakeReader()
	}
}

// keepQueued counts n bytes that were put into the queue. mu is held.
func (cons *Consumer) keepQueued(n int64) {
	if cons.ch.c.cfg.budget != nil && !cons.ended {
		cons.queued += n
		cons.keep(n)
	}
}

// takeQueued says how many of the bytes counted go along with the queue's first
// delivery, or with all of them. mu is held.
func (cons *Consumer) takeQueued(all bool) int64 {
	n := cons.queued
	if !all && n > 0 {
		n = cons.queue[cons.head].size()
	}
	cons.queued -= n
	return n
}

// dropQueued stops counting the queue. mu is held.
func (cons *Consumer) dropQueued() {
	cons.unkeep(cons.queued)
	cons.queued = 0
}
