package amqp

import (
	"context"
	"fmt"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"
)

// serving is one run of Serve. Its workers take, handle and settle; the
// goroutine that called Serve waits for the end, requeues what is delayed, and
// drains.
type serving struct {
	ch     *Channel
	cons   *Consumer
	h      Handler
	opts   ServeOptions
	base   context.Context // of the handlers
	cancel context.CancelCauseFunc

	over    <-chan struct{} // of Serve's context
	stop    chan struct{}   // closed: nothing more is to be begun
	ending  chan struct{}   // closed: err is set
	idle    chan struct{}   // closed: no worker is left
	kick    chan struct{}   // delayed is no longer empty
	working atomic.Int32
	keyed   keyed

	mu       sync.Mutex // guards what follows; no user code runs under it
	err      error      // why Serve ends, but for its context
	stopping bool
	delayed  []delayed   // by time, since the delay is always the same
	rest     []*Delivery // taken, but not to be handled any more
}

type delayed struct {
	d  *Delivery
	at time.Time
}

// work is one worker where no order is to be kept.
func (s *serving) work() {
	defer s.leave()
	t := s.cons.taker(false) // what no handler has begun is to be requeued while others run
	defer t.leave()
	for !s.stopped() {
		d, err := t.take(s.stop)
		if d == nil {
			s.end(err)
			return
		}
		if s.handle(d) {
			t.last = nil
		}
	}
}

func (s *serving) stopped() bool {
	select {
	case <-s.over: // the drain is about to begin
		return true
	case <-s.stop:
		return true
	default:
		return false
	}
}

func (s *serving) leave() {
	if !s.stopped() { // no reason is known where user code has ended the goroutine
		s.end(&PanicError{Value: errGoexit})
	}
	if s.working.Add(-1) > 0 {
		return
	}
	if s.keyed.t != nil {
		s.keyed.t.leave()
	}
	close(s.idle)
}

// end makes Serve end with err, if that is the first reason.
func (s *serving) end(err error) {
	if err == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err == nil {
		s.err = err
		close(s.ending)
	}
}

// handle has d handled and settles it. It reports whether d is kept, to be
// settled later.
func (s *serving) handle(d *Delivery) bool {
	err := s.call(d)
	if err != nil {
		return s.failed(d, err)
	}
	if d.state.Load() == unsettled {
		d.Ack() // where the channel is gone, that is what Serve ends with
	}
	return false
}

// failed does what the policy says.
func (s *serving) failed(d *Delivery, err error) (kept bool) {
	action, err := s.decide(d, err)
	if action == ActionEnd {
		defer s.end(err)
	}
	if d.state.Load() != unsettled {
		return false
	}
	switch action {
	case ActionDelay:
		d.Release()
		return s.delay(d)
	case ActionReject:
		d.Reject()
	case ActionAck:
		d.Ack()
	case ActionRetry, ActionEnd:
		d.Retry()
	default:
		d.Requeue()
	}
	return false
}

func (s *serving) decide(d *Delivery, cause error) (action Action, err error) {
	if s.opts.OnError == nil {
		return ActionDelay, cause
	}
	defer func() {
		if v := recover(); v != nil {
			action, err = ActionEnd, &PanicError{Value: v, Stack: debug.Stack()}
		}
	}()
	return s.opts.OnError(d, cause), cause
}

// delay keeps d until it is time to requeue it.
func (s *serving) delay(d *Delivery) (kept bool) {
	s.mu.Lock()
	if s.stopping {
		s.mu.Unlock()
		d.Requeue()
		return false
	}
	var oldest *Delivery
	if limit := s.limit(); limit > 0 && len(s.delayed) >= limit { // no prefetch bounds it
		oldest = s.delayed[0].d
		s.delayed = s.delayed[1:]
	}
	s.delayed = append(s.delayed, delayed{d, time.Now().Add(s.opts.Delay)})
	first := len(s.delayed) == 1
	s.mu.Unlock()
	if first {
		select {
		case s.kick <- struct{}{}:
		default:
		}
	}
	if oldest != nil {
		oldest.Requeue()
	}
	return true
}

// limit is what bounds the deliveries that are taken and not settled, where no
// prefetch does; otherwise 0.
func (s *serving) limit() int { return s.cons.opts.Buffer }

// due takes what is to be requeued by now off the list, and says how long it is
// until there is more; 0: there is none.
func (s *serving) due(now time.Time) (list []*Delivery, next time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for n < len(s.delayed) && !now.Before(s.delayed[n].at) {
		list = append(list, s.delayed[n].d)
		n++
	}
	if s.delayed = s.delayed[n:]; len(s.delayed) == 0 {
		s.delayed = nil
		return list, 0
	}
	return list, s.delayed[0].at.Sub(now)
}

// supervise requeues what is delayed, until there is a reason to end.
func (s *serving) supervise(ctx context.Context) {
	dead := s.ch.Done()
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.ending:
			return
		case <-s.idle:
			return
		case <-dead:
			return
		case <-s.cons.Done():
			s.end(s.cons.Err())
			return
		case <-s.kick:
		case <-timer.C:
		}
		list, next := s.due(time.Now())
		for _, d := range list {
			d.Requeue()
		}
		if next > 0 {
			timer.Reset(next)
		}
	}
}

// drain ends everything in an orderly way and gives Serve's result.
func (s *serving) drain() error {
	bound := context.Background()
	if s.opts.DrainTimeout > 0 {
		var release context.CancelFunc
		bound, release = context.WithTimeout(bound, s.opts.DrainTimeout)
		defer release()
	}
	close(s.stop)
	dead := s.ch.Done()
	select {
	case <-dead:
	default:
		s.cons.Close(bound) // without an answer it is the channel or bound that has ended
	}
	s.requeueRest()
	var grace <-chan time.Time
	expired := bound.Done()
	for {
		select {
		case <-s.idle:
			s.requeueRest()
			s.ch.flushIdle()
			return s.result(dead)
		case <-dead:
			dead = nil
			s.end(s.ch.cause())
			s.cancel(s.ch.cause())
		case <-expired:
			expired = nil
			s.cancel(ErrDrainTimeout)
			grace = time.After(drainGrace)
		case <-grace:
			s.end(fmt.Errorf("%w of %s: %d still running", ErrDrainTimeout, s.opts.DrainTimeout, s.working.Load()))
			s.mu.Lock()
			defer s.mu.Unlock()
			return s.err
		}
	}
}

func (s *serving) result(dead <-chan struct{}) error {
	select {
	case <-dead: // it is the reason, or it came in between: some settlement may be lost
		s.end(s.ch.cause())
	default:
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// requeueRest gives back what no handler has begun, and what is delayed. From
// the first call on nothing is delayed any more.
func (s *serving) requeueRest() {
	s.mu.Lock()
	s.stopping = true
	rest := s.rest
	for _, x := range s.delayed {
		rest = append(rest, x.d)
	}
	for _, l := range s.keyed.lanes {
		rest = append(rest, s.keyed.empty(l)...)
	}
	s.rest, s.delayed = nil, nil
	s.mu.Unlock()
	s.cons.giveBack(rest)
}

// cause is why the channel is over, also where Close was called.
func (ch *Channel) cause() error {
	ch.c.mu.Lock()
	defer ch.c.mu.Unlock()
	return ch.err
}
