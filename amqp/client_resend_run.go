package amqp

import (
	"context"
	"errors"
	"time"
)

// attempt is what the resender's goroutine keeps.
type attempt struct {
	r       *resender
	ch      *Channel
	proven  bool        // the broker took a message on ch
	careful int         // this many of again go alone: one of them may be poison
	again   []*outgoing // sent on channels before ch, without an outcome; in order
}

// run sends until the client is over.
func (r *resender) run(ctx context.Context) {
	a := &attempt{r: r}
	for ctx.Err() == nil {
		r.tellAll()
		if a.ch != nil && a.ch.gone.Load() {
			a.collect()
		}
		o, wait := a.next(ctx)
		switch {
		case o != nil && o.alone(a):
			a.sendAlone(ctx, o)
		case o != nil:
			a.send(ctx, o, r.flushFor())
		case wait:
			select {
			case <-r.wake:
			case <-ctx.Done():
			}
		}
	}
	if a.ch != nil {
		<-a.ch.Done() // all its publishes have what outcome they get
	}
	c := r.ln.c
	c.mu.Lock()
	cause := c.err
	c.mu.Unlock()
	r.abandon(cause)
	r.tellAll()
}

// alone reports whether a message is to go while nothing else is under way.
func (o *outgoing) alone(a *attempt) bool {
	return !a.proven || a.careful > 0 || goesAlone(a.ch, &o.msg)
}

// flushFor gathers messages while there are more to come.
func (r *resender) flushFor() flush {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.queue) > 0 {
		return flushSoon
	}
	return flushNow
}

// tellAll tells a Trace what happened. No lock is held.
func (r *resender) tellAll() {
	r.mu.Lock()
	tell := r.tell
	r.tell = nil
	r.mu.Unlock()
	for _, f := range tell {
		r.ln.c.hooking.run(f)
	}
}

// next is the next message to send, with a channel that has room for it. With
// neither, wait says that there is nothing to do.
func (a *attempt) next(ctx context.Context) (o *outgoing, wait bool) {
	r := a.r
	r.mu.Lock()
	for len(a.again) > 0 && a.again[0].done {
		a.again = a.again[1:]
		a.careful = max(0, a.careful-1)
	}
	nothing := len(a.again) == 0 && len(r.queue) == 0
	r.mu.Unlock()
	if nothing {
		return nil, true
	}
	if a.ch == nil {
		ch, err := r.ln.c.pub.channel(ctx)
		if err != nil {
			sleep(ctx, 100*time.Millisecond) // all channels are taken
			return nil, false
		}
		a.ch, a.proven = ch, false
		ch.watch(r.kick)
	}
	if err := a.ch.waitRoom(ctx); err != nil {
		if errors.Is(err, ErrBlocked) {
			r.refuseQueue(err)
		}
		return nil, false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(a.again) > 0 {
		o = a.again[0]
		a.again = a.again[1:]
		return o, false
	}
	if len(r.queue) == 0 {
		return nil, false
	}
	o = r.queue[0]
	r.queue[0] = nil
	r.queue = r.queue[1:]
	o.tries = max(o.tries, 0)
	return o, false
}

// send makes one attempt. It reports whether the message entered the outbox.
func (a *attempt) send(ctx context.Context, o *outgoing, f flush) (*Confirm, bool) {
	r := a.r
	r.mu.Lock()
	if o.done {
		r.mu.Unlock()
		return nil, false
	}
	o.tries++
	o.lost = nil
	r.flight = append(r.flight, o)
	r.mu.Unlock()
	cf := &Confirm{ch: a.ch, out: o}
	err := a.ch.publish(ctx, &o.m, &o.msg, cf, f)
	if err == nil {
		if o.tries > 1 {
			r.ln.c.counts.resent.Add(1)
		}
		a.ch.c.wakeReader() // the confirm may come by the connection that is held back
		return cf, true
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if n := len(r.flight); n > 0 && r.flight[n-1] == o { // one that was given up meanwhile is gone already
		r.flight[n-1] = nil
		r.flight = r.flight[:n-1]
	}
	o.tries--
	switch {
	case o.done:
	case errors.Is(err, ErrClosed) || ctx.Err() != nil:
		a.again = append([]*outgoing{o}, a.again...)
	default:
		r.finish(o, err)
	}
	return nil, false
}

// sendAlone sends a message when all before it have their outcome, and waits
// until it has passed the broker: if that closes the channel, it was over this
// one.
func (a *attempt) sendAlone(ctx context.Context, o *outgoing) {
	r, ch := a.r, a.ch
	if err := ch.settledAll(ctx); err != nil || ch.gone.Load() {
		a.again = append([]*outgoing{o}, a.again...)
		return
	}
	if _, sent := a.send(ctx, o, flushSoon); !sent {
		return
	}
	err := ch.fence(ctx)
	if err == nil {
		ch.c.takes(len(o.msg.Body))
		a.proven = true
		a.careful = max(0, a.careful-1)
		return
	}
	ex := channelException(err)
	if ex == nil {
		return // the connection is lost, or the client over
	}
	<-ch.Done()
	r.mu.Lock()
	defer r.mu.Unlock()
	if o.lost == nil {
		return // it has an outcome
	}
	if o.tries > 1 {
		r.finish(o, &outcomeError{ex}) // the broker may have it from an earlier attempt
	} else {
		r.finish(o, ex)
	}
	if errors.Is(ex, NotFound) {
		a.wall(ex)
	}
}

// wall ends all that would meet the same wall: the lane's exchange is missing.
// mu is held.
func (a *attempt) wall(ex *Error) {
	r := a.r
	for _, o := range a.again {
		if o.tries > 0 {
			r.finish(o, &outcomeError{ex})
		} else {
			r.finish(o, &unsentError{ex})
		}
	}
	a.again, a.careful = nil, 0
	for _, o := range r.queue {
		r.finish(o, &unsentError{ex})
	}
	r.queue = nil
}

// collect takes back, in order, what was under way on a channel that is gone.
func (a *attempt) collect() {
	r := a.r
	ch := a.ch
	a.ch, a.proven = nil, false
	<-ch.Done()
	ex := channelException(ch.Err())
	r.mu.Lock()
	defer r.mu.Unlock()
	flight := r.flight
	r.flight = nil
	var again []*outgoing
	for _, o := range flight {
		switch {
		case o.done:
		case o.tries >= r.ln.c.cfg.ResendTries:
			r.finish(o, o.lostError(ch))
		default:
			again = append(again, o)
		}
	}
	a.careful = max(0, a.careful-len(flight))
	if ex != nil {
		a.careful += len(again)
	}
	a.again = append(again, a.again...)
}

func (o *outgoing) lostError(ch *Channel) error {
	if o.lost != nil {
		return o.lost
	}
	err := ch.Err()
	if err == nil {
		err = ErrClosed
	}
	return &outcomeError{err}
}

// refuseQueue fails what was never sent. No lock is held.
func (r *resender) refuseQueue(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, o := range r.queue {
		r.finish(o, &unsentError{err})
	}
	r.queue = nil
}

// watch has f called, once, when the channel is over. f must not wait.
func (ch *Channel) watch(f func()) {
	ch.c.mu.Lock()
	over := ch.err != nil
	if !over {
		ch.onEnd = f
	}
	ch.c.mu.Unlock()
	if over {
		f()
	}
}

// waitRoom waits until a message may enter the outbox, within ctx.
func (ch *Channel) waitRoom(ctx context.Context) error {
	c := ch.c
	c.mu.Lock()
	if !ch.clear(false) {
		if err := ch.waitClear(ctx, false); err != nil {
			return err
		}
	}
	c.mu.Unlock()
	return nil
}
