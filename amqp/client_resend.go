package amqp

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
)

// resender sends the messages of one lane in their order, and again after a
// loss. It is one goroutine, so that the order needs no lock to be kept.
//
// A message is in queue until it is first sent, then in flight until its
// outcome is known. After a loss what is in flight goes before the queue.
type resender struct {
	ln *pubLane

	// mu guards what follows. It comes after Conn.mu.
	mu      sync.Mutex
	queue   []*outgoing // never sent
	flight  []*outgoing // sent, in order; those that have their outcome are dropped from the front
	open    int         // messages without an outcome
	began   bool
	err     error    // the client is over
	room    waitList // publishers that wait for the number open to fall
	idle    waitList // who waits for it to be 0
	waiters waiterPool

	tell []func() // outcomes that a Trace is to hear of

	wake chan struct{} // cap 1: there is something to do
}

// outgoing is one message on its way.
type outgoing struct {
	r    *resender
	m    BasicPublish
	msg  Message
	size int64
	cf   *Confirm    // the caller's
	told func(error) // tells a Trace the outcome; nil: nobody asked

	// resender.mu guards what follows.
	tries int
	done  bool  // it has its outcome
	lost  error // why the last attempt's is unknown
}

func newResender(ln *pubLane) *resender { return &resender{ln: ln, wake: make(chan struct{}, 1)} }

// overhead is what a message weighs besides its body, roughly.
const overhead = 512

// resend takes a message into the care of its lane.
func (c *Client) resend(ctx context.Context, m BasicPublish, msg Message) (*outgoing, error) {
	if err := c.checkOutgoing(&m, &msg); err != nil {
		return nil, err
	}
	if err := c.pub.refusesNow(); err != nil {
		return nil, err
	}
	r := c.lane(m.Exchange).resend
	size := int64(len(msg.Body)) + overhead
	if err := c.budget.take(ctx, size); err != nil {
		return nil, err
	}
	o := &outgoing{r: r, m: m, msg: msg.clone(), size: size, cf: &Confirm{own: &ownConfirm{}}}
	if o.msg.MessageID == "" {
		o.msg.MessageID = newMessageID()
	}
	if t := c.trace; t.tracesPublish() {
		ctx := t.publishStart(ctx, 0, &o.m, &o.msg)
		o.told = func(err error) { t.publishDone(ctx, 0, err) }
	}
	if err := r.enqueue(ctx, o); err != nil {
		c.budget.give(size)
		if o.told != nil {
			o.told(err)
		}
		return nil, err
	}
	return o, nil
}

// checkOutgoing finds out at once what would fail later.
func (c *Client) checkOutgoing(m *BasicPublish, msg *Message) error {
	limit := c.pub.plan.config.MaxBody
	if m.Immediate || limit > 0 && int64(len(msg.Body)) > limit {
		return refusePublish(m.Immediate, len(msg.Body), limit)
	}
	if _, err := m.AppendTo(nil); err != nil {
		return err
	}
	_, err := msg.Properties.AppendTo(nil)
	return err
}

func (msg Message) clone() Message {
	msg.Body = slices.Clone(msg.Body)
	msg.Headers = msg.Headers.clone()
	return msg
}

func (t Table) clone() Table {
	if t == nil {
		return nil
	}
	c := make(Table, len(t))
	for k, v := range t {
		c[k] = cloneValue(v)
	}
	return c
}

func cloneValue(v any) any {
	switch v := v.(type) {
	case Table:
		return v.clone()
	case []any:
		c := make([]any, len(v))
		for i, e := range v {
			c[i] = cloneValue(e)
		}
		return c
	case []byte:
		return slices.Clone(v)
	}
	return v
}

var messageIDs struct {
	once   sync.Once
	prefix string
	n      atomic.Uint64
}

// newMessageID is unique among all processes.
func newMessageID() string {
	ids := &messageIDs
	ids.once.Do(func() {
		var b [12]byte
		rand.Read(b[:])
		ids.prefix = hex.EncodeToString(b[:]) + "-"
	})
	return ids.prefix + strconv.FormatUint(ids.n.Add(1), 36)
}

func (r *resender) enqueue(ctx context.Context, o *outgoing) error {
	c := r.ln.c
	r.mu.Lock()
	for r.err == nil && r.open >= c.cfg.ResendMessages {
		w := r.room.add(&r.waiters)
		r.mu.Unlock()
		if !w.wait(ctx, &r.mu) {
			return &unsentError{contextError(ctx)}
		}
		r.mu.Lock()
	}
	if r.err != nil {
		defer r.mu.Unlock()
		return &unsentError{r.err}
	}
	r.open++
	r.queue = append(r.queue, o)
	start := !r.began
	r.began = true
	r.mu.Unlock()
	if start && !c.spawn(r.run) {
		r.abandon(errClientClosed)
	}
	r.kick()
	return nil
}

func (r *resender) kick() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// wait waits for the outcome. Where ctx ends first the message is not sent any
// more: its outcome is unknown if it was sent before, and none if it wasn't.
func (o *outgoing) wait(ctx context.Context) error {
	err := o.cf.Wait(ctx)
	if o.cf.state.Load() != confirmPending {
		return err
	}
	r := o.r
	r.mu.Lock()
	defer r.mu.Unlock()
	if o.done {
		return o.cf.Err()
	}
	if o.tries == 0 {
		err = &unsentError{contextError(ctx)}
		if i := slices.Index(r.queue, o); i >= 0 {
			r.queue = slices.Delete(r.queue, i, i+1)
		}
	}
	r.finish(o, err)
	return err
}

// settled takes the outcome of one attempt. Conn.mu is held.
func (o *outgoing) settled(err error) {
	r := o.r
	r.mu.Lock()
	defer r.mu.Unlock()
	if errors.Is(err, ErrUnknownOutcome) {
		o.lost = err
		r.kick()
		return
	}
	if err == nil && o.tries > 1 {
		r.ln.c.counts.resentConfirmed.Add(1)
	}
	r.finish(o, err)
}

// finish gives a message its outcome. mu is held.
func (r *resender) finish(o *outgoing, err error) {
	if o.done {
		return
	}
	o.done = true
	r.open--
	c := r.ln.c
	c.budget.give(o.size)
	c.counts.outcome(err)
	o.cf.own.settle(o.cf, err) // who hears of it finds it in Stats
	if o.told != nil {
		r.tell = append(r.tell, func() { o.told(err) })
		r.kick()
	}
	for len(r.flight) > 0 && r.flight[0].done {
		r.flight[0] = nil
		r.flight = r.flight[1:]
	}
	if r.room.n > 0 {
		r.room.wakeAll()
	}
	if r.open == 0 {
		r.idle.wakeAll()
		r.kick()
	}
}

// abandon ends everything: what was sent has an unknown outcome, the rest was
// not sent.
func (r *resender) abandon(cause error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.err = cause
	for len(r.flight) > 0 {
		o := r.flight[0]
		if o.done {
			r.flight = r.flight[1:]
			continue
		}
		r.finish(o, &outcomeError{cause})
	}
	for _, o := range r.queue {
		r.finish(o, &unsentError{cause})
	}
	r.queue = nil
	r.room.wakeAll()
	r.idle.wakeAll()
}

func (r *resender) drain(ctx context.Context) error {
	r.mu.Lock()
	for r.open > 0 && r.err == nil {
		w := r.idle.add(&r.waiters)
		r.mu.Unlock()
		if !w.wait(ctx, &r.mu) {
			return contextError(ctx)
		}
		r.mu.Lock()
	}
	r.mu.Unlock()
	return nil
}
