package amqp

import (
	"context"
	"errors"
	"maps"
	"sync/atomic"
)

// Publish sends a message and waits, within ctx, for what becomes of it. It
// waits for a connection first where there is none. A message is persistent
// unless its DeliveryMode says otherwise (set Properties.Present to say 0).
//
// Nil means that the broker confirmed it. The other outcomes are those of
// Channel.Publish; with ClientConfig.Resend, ErrUnknownOutcome comes only where
// ctx or the client ended first, or after the last try.
//
// Errors: besides, an *Error with the broker's words (NotFound, AccessRefused,
// PreconditionFailed) where it refused this message: it has not got it, and other
// messages are not harmed. Where SafeToRetry reports true nothing was sent:
// among these are errors that wrap ctx's own together with the reason why there
// is no connection; ErrBlocked; ErrRefused; *EncodeError; ErrClosed.
//
// Source: https://www.rabbitmq.com/docs/confirms#publisher-confirms.
func (c *Client) Publish(ctx context.Context, m BasicPublish, msg Message) error {
	msg.persist()
	if c.cfg.Resend {
		o, err := c.resend(ctx, m, msg)
		if err != nil {
			return err
		}
		return o.wait(ctx)
	}
	ln := c.lane(m.Exchange)
	for {
		ch := ln.ready.Load()
		if goesAlone(ch, &msg) {
			cf, err := c.asyncAlone(ctx, m, msg)
			if err == nil {
				err = cf.Wait(ctx)
			}
			return c.counts.outcome(err)
		}
		if ch != nil {
			err := ch.Publish(ctx, m, msg)
			if err == nil || !ln.again(ctx, ch, err) {
				return c.counts.outcome(err)
			}
			continue
		}
		cf, again, err := ln.prove(ctx, m, msg)
		if again {
			continue
		}
		if err == nil {
			err = cf.Wait(ctx)
		}
		return c.counts.outcome(err)
	}
}

// PublishAsync sends a message as Publish does and returns what will know its
// outcome, without waiting for it. It waits, within ctx, for a connection and
// for room; with ClientConfig.Resend for room alone. The first message on a
// new channel, and one that goes alone, are waited for: see Client.
//
// Errors: those of Publish. With nil the outcome is the Confirm's to tell.
func (c *Client) PublishAsync(ctx context.Context, m BasicPublish, msg Message) (*Confirm, error) {
	msg.persist()
	if c.cfg.Resend {
		o, err := c.resend(ctx, m, msg)
		if err != nil {
			return nil, err
		}
		return o.cf, nil
	}
	ln := c.lane(m.Exchange)
	for {
		ch := ln.ready.Load()
		if goesAlone(ch, &msg) {
			return c.asyncAlone(ctx, m, msg)
		}
		if ch != nil {
			cf, err := ch.PublishAsync(ctx, m, msg)
			if err == nil || !ln.again(ctx, ch, err) {
				return cf, err
			}
			continue
		}
		if cf, again, err := ln.prove(ctx, m, msg); !again {
			return cf, err
		}
	}
}

// persist makes a message persistent that says nothing of it.
func (msg *Message) persist() {
	if msg.DeliveryMode == 0 && msg.Present&HasDeliveryMode == 0 {
		msg.DeliveryMode = 2
	}
}

// goesAlone reports whether RabbitMQ may close the channel over the content of
// a message, whatever its exchange. ch is the one that it would go by; nil: there
// is none, and then every message goes alone.
func goesAlone(ch *Channel, msg *Message) bool {
	if n := len(msg.Body); ch != nil && n >= suspectBody && int64(n) > ch.c.largest.Load() {
		return true
	}
	if msg.UserID != "" || msg.Expiration != "" && !isNumber(msg.Expiration) {
		return true
	}
	if msg.Headers == nil {
		return false
	}
	_, cc := msg.Headers["CC"]
	_, bcc := msg.Headers["BCC"]
	return cc || bcc
}

// suspectBody is the size from which a body is larger than the broker may take
// (max_message_size), as long as it took none of that size on the connection.
const suspectBody = 64 << 10

// takes notes that the broker took a body of n octets.
func (c *Conn) takes(n int) {
	for {
		old := c.largest.Load()
		if int64(n) <= old || c.largest.CompareAndSwap(old, int64(n)) {
			return
		}
	}
}

func isNumber(s string) bool {
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return len(s) < 10 // RabbitMQ's longest is 2^32-1 ms: leave what comes near to its judgement
}

// asyncAlone sends a message that may cost its channel, when what was
// published to its exchange before has its outcome, so that the order stays.
func (c *Client) asyncAlone(ctx context.Context, m BasicPublish, msg Message) (*Confirm, error) {
	if ch := c.lane(m.Exchange).ready.Load(); ch != nil {
		if err := ch.settledAll(ctx); err != nil {
			return nil, err
		}
	}
	for {
		if cf, again, err := c.solo.prove(ctx, m, msg); !again {
			return cf, err
		}
	}
}

// pubLane is where the messages of one exchange go.
type pubLane struct {
	c        *Client
	exchange string
	alone    bool // each message has the channel for itself
	fenced   bool // nothing unproven is on open; turn guards it

	ready atomic.Pointer[Channel] // proven: whoever wants may publish on it
	turn  chan struct{}           // cap 1: who holds it opens and proves channels
	open  *Channel                // open and not proven yet; turn guards it

	resend *resender // nil without Resend
}

// maxLanes is how many channels are kept for exchanges. More exchanges work as
// well, and pay for opening a channel now and then.
const maxLanes = 256

// lane finds, or makes, the lane of an exchange.
func (c *Client) lane(exchange string) *pubLane {
	if ln := (*c.lanes.Load())[exchange]; ln != nil {
		return ln
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	old := *c.lanes.Load()
	if ln := old[exchange]; ln != nil {
		return ln
	}
	lanes := maps.Clone(old)
	if len(lanes) >= maxLanes {
		c.evict(lanes)
	}
	ln := &pubLane{c: c, exchange: exchange, turn: make(chan struct{}, 1)}
	if c.cfg.Resend {
		ln.resend = newResender(ln)
	}
	lanes[exchange] = ln
	c.lanes.Store(&lanes)
	return ln
}

// evict drops lanes on which nothing is under way. mu is held.
func (c *Client) evict(lanes map[string]*pubLane) {
	for name, ln := range lanes {
		ch := ln.ready.Load()
		if ln.resend != nil || ch == nil {
			continue // a lane without a channel costs nothing
		}
		c.spawnLocked(func(ctx context.Context) {
			if ch.settledAll(ctx) == nil {
				ln.ready.CompareAndSwap(ch, nil)
				ch.Close(ctx)
			}
		})
		delete(lanes, name)
		return
	}
}

func (ln *pubLane) takeTurn(ctx context.Context) error {
	select {
	case ln.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return &unsentError{contextError(ctx)}
	}
}

func (ln *pubLane) passOn() { <-ln.turn }

// prove sends a message while nothing else is on the lane's channel, and then
// a question. Its answer says that the message has passed: the broker works
// through a channel in order. A channel that is closed instead was closed over
// this message, which then certainly went nowhere.
//
// again says that nothing was sent and all is to be tried anew: another has
// proven the lane meanwhile, or the channel was lost before.
func (ln *pubLane) prove(ctx context.Context, m BasicPublish, msg Message) (cf *Confirm, again bool, err error) {
	if err := ln.takeTurn(ctx); err != nil {
		return nil, false, err
	}
	defer ln.passOn()
	if ln.ready.Load() != nil {
		return nil, true, nil
	}
	ch, err := ln.channel(ctx)
	if err != nil {
		return nil, false, err
	}
	cf, err = ch.PublishAsync(ctx, m, msg)
	if err != nil {
		return nil, ln.again(ctx, ch, err), err
	}
	ln.fenced = false
	if err := ch.fence(ctx); err != nil {
		if cf.state.Load() != confirmPending && !errors.Is(cf.Err(), ErrUnknownOutcome) {
			return cf, false, nil // the broker was quicker with the outcome than with its end
		}
		if ex := channelException(err); ex != nil {
			ln.open = nil
			return nil, false, ex
		}
		return nil, false, asUnknown(err)
	}
	ln.fenced = true
	ch.c.takes(len(msg.Body))
	if ln.alone {
		if err := cf.Wait(ctx); err != nil && ctx.Err() != nil {
			return nil, false, err
		}
		return cf, false, nil
	}
	ln.open = nil
	ln.ready.Store(ch)
	return cf, false, nil
}

// channel is an open channel on which nothing is unproven. The turn is held.
func (ln *pubLane) channel(ctx context.Context) (*Channel, error) {
	if ch := ln.open; ch != nil && !ch.gone.Load() {
		err := error(nil)
		if !ln.fenced { // who was here before gave up waiting
			err = ch.fence(ctx)
		}
		if err == nil && ln.alone {
			err = ch.settledAll(ctx)
		}
		if err == nil {
			return ch, nil
		}
		if ctx.Err() != nil {
			return nil, &unsentError{contextError(ctx)}
		}
	}
	ln.open = nil
	if err := ln.c.pub.refusesNow(); err != nil {
		return nil, err
	}
	ch, err := ln.c.pub.channel(ctx)
	if err != nil {
		if !SafeToRetry(err) {
			err = &unsentError{err} // of the message nothing was sent
		}
		return nil, err
	}
	ln.open, ln.fenced = ch, true
	return ch, nil
}

// refusesNow says that publishing is blocked, to who had rather fail than wait.
func (l *link) refusesNow() error {
	if !l.plan.config.FailWhenBlocked {
		return nil
	}
	l.c.mu.Lock()
	defer l.c.mu.Unlock()
	if l.blocked {
		return ErrBlocked
	}
	return nil
}

// fence asks something harmless, for its answer: all that was sent before on
// the channel has been looked at by then.
func (ch *Channel) fence(ctx context.Context) error {
	var ok BasicQosOk
	return ch.call(ctx, &BasicQos{}, false, &ok)
}

// channelException is the broker's reason for closing a channel, if that is
// what err is about.
func channelException(err error) *Error {
	var ex *Error
	if errors.As(err, &ex) && ex.Remote && ex.Channel != 0 {
		return ex
	}
	return nil
}

// asUnknown makes err one that says that the outcome is unknown.
func asUnknown(err error) error {
	if errors.Is(err, ErrUnknownOutcome) {
		return err
	}
	return &outcomeError{err}
}

// again reports whether a publish that failed is to be tried once more: nothing
// of it was sent, since its channel was gone.
func (ln *pubLane) again(ctx context.Context, ch *Channel, err error) bool {
	if ch.gone.Load() {
		ln.ready.CompareAndSwap(ch, nil)
	}
	if ctx.Err() != nil || !SafeToRetry(err) || !errors.Is(err, ErrClosed) {
		return false
	}
	if !ch.gone.Load() && !ch.c.ending(ctx, err) {
		return false
	}
	ln.ready.CompareAndSwap(ch, nil)
	ln.c.mu.Lock()
	defer ln.c.mu.Unlock()
	return ln.c.err == nil
}

// drain waits until every message of the lane has its outcome.
func (ln *pubLane) drain(ctx context.Context) error {
	if ln.resend != nil {
		if err := ln.resend.drain(ctx); err != nil {
			return err
		}
	}
	if err := ln.takeTurn(ctx); err != nil {
		return err
	}
	open := ln.open
	ln.passOn()
	for _, ch := range []*Channel{ln.ready.Load(), open} {
		if ch != nil {
			if err := ch.settledAll(ctx); err != nil {
				return err
			}
		}
	}
	return nil
}

// settledAll waits until every publish of the channel has its outcome.
func (ch *Channel) settledAll(ctx context.Context) error {
	c := ch.c
	c.mu.Lock()
	for ch.unconfirmed > 0 && ch.err == nil {
		w := ch.confirms.room.add(&c.waiters)
		c.unlockFlush(flushWait)
		if !w.wait(ctx, &c.mu) {
			return &unsentError{contextError(ctx)}
		}
		c.mu.Lock()
	}
	c.mu.Unlock()
	return nil
}
