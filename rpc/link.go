package rpc

import (
	"context"
	"errors"
	"time"

	"github.com/warrenmq/warren/amqp"
)

// ReplyQueue says where a Client's replies come.
//
// The zero value is RabbitMQ's direct reply-to: no queue, the least cost, and
// replies are lost with the connection.
//
// Source: https://www.rabbitmq.com/docs/direct-reply-to.
type ReplyQueue struct {
	// Name is a queue of this Client alone. "" with Exclusive: the broker names it.
	Name string

	// Exclusive declares the queue as the connection's own: it goes with it.
	Exclusive bool

	// Expires declares Name as a durable queue that the broker deletes when it
	// was not used for so long. Replies that come while the connection is lost
	// wait in it, and calls go on waiting for them: on an Opener that opens
	// another channel, a call survives a reconnect.
	Expires time.Duration
}

func (q ReplyQueue) direct() bool   { return q == ReplyQueue{} }
func (q ReplyQueue) survives() bool { return q.Expires > 0 }

// link is a channel with its reply queue. Calls are made on one link.
type link struct {
	ch      *amqp.Channel
	cons    *amqp.Consumer
	replyTo string
	acks    bool
	own     bool  // the client opened the channel
	err     error // Client.mu: why it is over
}

// linked gives the link to make calls on, and opens one where there is none.
func (c *Client) linked(ctx context.Context) (*link, error) {
	if l, err := c.current(); l != nil || err != nil {
		return l, err
	}
	select {
	case c.linking <- struct{}{}:
		defer func() { <-c.linking }()
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	if l, err := c.current(); l != nil || err != nil {
		return l, err
	}
	l, err := c.openLink(ctx)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		go l.close(context.Background())
		return nil, ErrClosed
	}
	c.link = l
	c.joins.Add(1)
	go c.watch(l)
	return l, nil
}

func (c *Client) current() (*link, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, ErrClosed
	}
	if c.link != nil && c.link.err == nil {
		return c.link, nil
	}
	return nil, nil
}

func (c *Client) openLink(ctx context.Context) (*link, error) {
	ch, err := c.open.Channel(ctx)
	if err != nil {
		return nil, err
	}
	_, shared := c.open.(onChannel)
	l := &link{ch: ch, own: !shared}
	q := c.opts.ReplyQueue
	m := amqp.BasicConsume{Queue: q.Name, Exclusive: !q.direct(), NoAck: !q.survives()}
	l.acks = q.survives()
	switch {
	case q.direct():
		m.Queue, l.replyTo = directReplyTo, directReplyTo
	case q.Exclusive, q.survives():
		declare := amqp.QueueDeclare{Queue: q.Name, Exclusive: q.Exclusive, Durable: q.survives()}
		if q.survives() {
			declare.Arguments = amqp.Table{"x-expires": max(q.Expires.Milliseconds(), 1)}
		}
		ok, err := ch.QueueDeclare(ctx, declare)
		if err != nil {
			l.close(ctx)
			return nil, err
		}
		m.Queue, l.replyTo = ok.Queue, ok.Queue
	default:
		l.replyTo = q.Name
	}
	ch.OnReturn(c.returned)
	// A copy each: a reply is the caller's to keep.
	l.cons, err = ch.Handle(ctx, m, func(d *amqp.Delivery) { c.replied(l, d) }, &amqp.ConsumeOptions{Buffer: 1 << 20})
	if err != nil {
		l.close(ctx)
		return nil, err
	}
	return l, nil
}

// close gives back what the link took.
func (l *link) close(ctx context.Context) error {
	if l.own {
		return l.ch.Close(ctx)
	}
	if l.cons != nil {
		return l.cons.Close(ctx)
	}
	return nil
}

// watch waits for the end of a link, and tells the calls that were made on it.
func (c *Client) watch(l *link) {
	defer c.joins.Done()
	select {
	case <-l.cons.Done():
	case <-c.down:
		return
	}
	err := l.cons.Err()
	if err == nil {
		err = l.ch.Err()
	}
	if err == nil {
		err = amqp.ErrClosed
	}
	if c.opts.ReplyQueue.survives() {
		c.mu.Lock()
		l.err = err
		c.mu.Unlock()
		c.relink(l, err)
		return
	}
	c.unlink(l, nil, err)
}

// unlink ends the calls of a link, or hands them on to the next one.
func (c *Client) unlink(l, next *link, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	l.err = err
	for id, p := range c.pending {
		switch {
		case p.link != l:
		case next != nil:
			p.link = next
		default:
			delete(c.pending, id)
			p.fail(&lostError{err})
		}
	}
}

// relink opens another link for calls whose replies wait in a durable queue.
func (c *Client) relink(l *link, cause error) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	stop := make(chan struct{})
	defer close(stop)
	go func() {
		select {
		case <-c.down:
			cancel()
		case <-stop:
		}
	}()
	for pause := 50 * time.Millisecond; ; pause = min(2*pause, 5*time.Second) {
		next, err := c.linked(ctx)
		if err == nil {
			c.unlink(l, next, cause)
			return
		}
		if ctx.Err() != nil || errors.Is(err, ErrClosed) || c.openerIsOver() || !c.waitsOn(l) {
			c.unlink(l, nil, cause)
			return
		}
		t := time.NewTimer(pause)
		select {
		case <-t.C:
		case <-c.down:
		}
		t.Stop()
	}
}

// openerIsOver reports whether no more channels can come: a connection does
// not come back, and neither does a channel.
func (c *Client) openerIsOver() bool {
	switch o := c.open.(type) {
	case *amqp.Conn:
		select {
		case <-o.Done():
			return true
		default:
			return false
		}
	case onChannel:
		return true
	}
	return false
}

// waitsOn reports whether any call of a link is still pending: their contexts
// bound how long another link is tried for.
func (c *Client) waitsOn(l *link) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, p := range c.pending {
		if p.link == l {
			return true
		}
	}
	return false
}

// fail gives a call its end where there is room: a reply that came first wins.
func (p *pending) fail(err error) {
	select {
	case p.reply <- result{err: err}:
	default:
	}
}

// lostError ends calls whose link was lost.
type lostError struct{ cause error }

func (e *lostError) Error() string {
	return "rpc: connection lost before the reply came: " + e.cause.Error()
}

func (e *lostError) Unwrap() []error { return []error{amqp.ErrUnknownOutcome, e.cause} }

// Close ends the client: calls that wait end with ErrClosed, and its channel is
// closed, within ctx. Closing twice is no error.
func (c *Client) Close(ctx context.Context) error {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return nil
	}
	c.closed = true
	for id, p := range c.pending {
		delete(c.pending, id)
		p.fail(ErrClosed)
	}
	l := c.link
	c.mu.Unlock()
	var err error
	if l != nil {
		err = l.close(ctx)
	}
	close(c.down)
	c.casting.close(ctx)
	if l != nil && err == nil {
		c.joins.Wait()
	}
	return err
}
