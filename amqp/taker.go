package amqp

// taker is one who takes deliveries: a loop over All, a worker of Serve. It is
// used by one goroutine at a time.
type taker struct {
	cons  *Consumer
	batch bool // take what is there in one go, if nobody else takes
	items []*Delivery
	next  int
	last  *Delivery   // given out, and to be put back by the next take
	used  []*Delivery // borrowed ones to give back

	kept int64 // bytes of what was taken last that count as kept

	lent  *chunk // what the last that were put back lay in,
	lentN int32  // and how many did: to be released together
}

func (cons *Consumer) taker(batch bool) *taker {
	cons.mu.Lock()
	cons.takers++
	cons.unattended = false
	cons.mu.Unlock()
	return &taker{cons: cons, batch: batch}
}

// take gives the next delivery, or waits for one until stop is closed, and ends
// the loan of the one before. Nil without an error means that the consumer was
// closed or stop was.
func (t *taker) take(stop <-chan struct{}) (*Delivery, error) {
	t.putBackLast()
	d, err := t.pull(stop)
	t.last = d
	return d, err
}

func (t *taker) putBackLast() {
	if d := t.last; d != nil {
		t.last = nil
		t.putBack(d)
	}
}

// pull is take that leaves the end of the loan to the caller.
func (t *taker) pull(stop <-chan struct{}) (*Delivery, error) {
	if t.next < len(t.items) && t.cons.cut.Load() {
		t.unread()
	}
	if t.next == len(t.items) {
		if err := t.fetch(stop); err != nil || len(t.items) == 0 {
			return nil, err
		}
	}
	d := t.items[t.next]
	t.next++
	if t.kept > 0 && t.cons.ch.c.cfg.budget.full() {
		t.unkeep(d.size())
	}
	return d, nil
}

// putBack ends the loan of a delivery.
func (t *taker) putBack(d *Delivery) {
	if !t.cons.opts.Borrow {
		return
	}
	reusable := d.state.Load() != unsettled
	if k := d.endLoan(); k != nil {
		if k != t.lent {
			t.releaseLent()
			t.lent = k
		}
		t.lentN++
	}
	if reusable { // of another a late Ack must still find its own tag
		t.used = append(t.used, d)
	}
}

// unkeep stops counting n bytes of what was taken, while somebody waits for it.
func (t *taker) unkeep(n int64) {
	n = min(n, t.kept)
	t.kept -= n
	t.cons.unkeep(n)
}

// releaseLent releases the memory of what was put back.
func (t *taker) releaseLent() {
	if t.lentN > 0 {
		t.lent.release(t.lentN)
	}
	t.lent, t.lentN = nil, 0
}

// fetch fills items.
func (t *taker) fetch(stop <-chan struct{}) error {
	cons := t.cons
	clear(t.items) // all at once: a pointer cleared by itself costs a write barrier
	items := t.items[:0]
	t.items, t.next = items, 0
	cons.mu.Lock()
	for {
		t.giveUsed()
		if n := len(cons.queue) - cons.head; n > 0 && !cons.cut.Load() && cons.handler == nil {
			t.grab(items, n)
			if cons.held.n > 0 {
				cons.held.wakeAll()
			}
			cons.mu.Unlock()
			return nil
		}
		if cons.ended || cons.closing {
			err := cons.err
			cons.mu.Unlock()
			return err
		}
		w := cons.waiting.add(&cons.ch.c.waiters)
		cons.parked.Add(1)
		cons.mu.Unlock()
		cons.ch.flushIdle()
		cons.ch.c.aboutToWait()
		woken := w.waitStop(stop, &cons.mu)
		cons.parked.Add(-1)
		if !woken {
			return nil
		}
		cons.mu.Lock()
	}
}

// giveUsed lets the reader have the borrowed deliveries that are back, and
// counts what was taken as gone. cons.mu is held.
func (t *taker) giveUsed() {
	t.releaseLent()
	t.unkeep(t.kept)
	if len(t.used) > 0 {
		t.cons.free = append(t.cons.free, t.used...)
		t.used = t.used[:0]
	}
}

// grab moves deliveries from the queue.
func (t *taker) grab(items []*Delivery, n int) {
	cons := t.cons
	batch := t.batch && cons.takers == 1
	if cons.queued > 0 {
		t.kept = cons.takeQueued(batch)
	}
	if batch && cons.head == 0 {
		t.items, cons.queue = cons.queue, items
		return
	}
	if !batch {
		n = 1
	}
	t.items = append(items, cons.queue[cons.head:cons.head+n]...)
	clear(cons.queue[cons.head : cons.head+n])
	if cons.head += n; cons.head == len(cons.queue) {
		cons.queue, cons.head = cons.queue[:0], 0
	} else if cons.waiting.n > 0 {
		cons.waiting.wakeOne() // there is more: pass it on
	}
}

// leave puts back what was taken and not given out.
func (t *taker) leave() {
	t.putBackLast()
	cons := t.cons
	cons.mu.Lock()
	cons.takers--
	t.giveUsed()
	cons.ch.c.wakeReader()
	cons.mu.Unlock()
	t.unread()
}

func (t *taker) unread() {
	rest := t.items[t.next:]
	t.items, t.next = nil, 0
	t.cons.unread(rest)
}

// unread puts deliveries back that were taken off the queue and not given out:
// to its front, or to the broker where the consumer has been closed.
func (cons *Consumer) unread(rest []*Delivery) {
	cons.mu.Lock()
	if len(rest) > 0 {
		cons.queue = append(append([]*Delivery(nil), rest...), cons.queue[cons.head:]...)
		cons.head = 0
		cons.keepQueued(cons.sizeOf(rest...))
		if cons.waiting.n > 0 {
			cons.waiting.wakeOne()
		}
	}
	closed := cons.ended && cons.closing
	cons.mu.Unlock()
	if closed {
		cons.requeueRest()
	}
}

// flushIdle writes what the connection has gathered, since somebody is about
// to wait for the broker.
func (ch *Channel) flushIdle() {
	ch.flushAcks()
	ch.c.mu.Lock()
	ch.c.unlockFlush(flushWait)
}
