package rpc

import (
	"context"
	"errors"
	"log/slog"
	"runtime"
	"sync"
	"sync/atomic"

	"github.com/warrenmq/warren/amqp"
)

// Opener opens channels. An *amqp.Client is one, and keeps a Client working
// over lost connections; an *amqp.Conn is one too, for as long as it lasts.
type Opener interface {
	Channel(ctx context.Context) (*amqp.Channel, error)
}

// OnChannel makes an Opener of one channel, which a Client then shares with
// whoever else uses it. Closing the Client leaves the channel open.
func OnChannel(ch *amqp.Channel) Opener { return onChannel{ch} }

type onChannel struct{ ch *amqp.Channel }

func (o onChannel) Channel(context.Context) (*amqp.Channel, error) {
	if err := o.ch.Err(); err != nil {
		return nil, err
	}
	return o.ch, nil
}

// To is where a request goes.
type To struct {
	Exchange   string // "": the default exchange, where RoutingKey is a queue's name
	RoutingKey string

	// Idempotent says that it does no harm to handle the request twice: a call
	// whose connection was lost is then made again, within its context, on an
	// Opener that opens another.
	Idempotent bool
}

// Queue is the address of a queue.
func Queue(name string) To { return To{RoutingKey: name} }

// ClientOptions are what NewClient takes. Nil and the zero value mean the
// defaults.
type ClientOptions struct {
	// ReplyQueue is where replies come: the zero value is RabbitMQ's direct
	// reply-to, which needs no queue.
	ReplyQueue ReplyQueue

	// MaxPending is how many calls may wait for replies; more wait for room. 0: 65536.
	MaxPending int

	// MaxReply is the longest reply body to take, in octets. 0: what the
	// connection takes.
	MaxReply int

	// Codec encodes requests of the typed Call. Nil: JSON. Replies are decoded
	// as their content type says.
	Codec Codec

	// Logger is told of replies that were dropped. Nil: silence.
	Logger *slog.Logger
}

// Client makes calls. It serves any number of goroutines, and everything it
// needs is opened at the first call. All its methods are safe for concurrent use.
type Client struct {
	open Opener
	opts ClientOptions

	slots   chan struct{} // one for each pending call
	linking chan struct{} // held by whoever opens a link
	mu      sync.Mutex    // guards what follows; nothing waits under it
	link    *link
	pending map[string]*pending
	closed  bool
	down    chan struct{} // closed with the client
	joins   sync.WaitGroup

	late, foreign, malformed atomic.Uint64
	calls                    atomic.Uint64
	control                  control
	casting                  sharedChannel
}

// NewClient makes a Client. opts may be nil. It waits for nothing.
func NewClient(open Opener, opts *ClientOptions) *Client {
	c := &Client{open: open, pending: map[string]*pending{}, down: make(chan struct{})}
	if opts != nil {
		c.opts = *opts
	}
	if c.opts.MaxPending <= 0 {
		c.opts.MaxPending = 1 << 16
	}
	c.slots = make(chan struct{}, c.opts.MaxPending)
	c.linking = make(chan struct{}, 1)
	return c
}

// Stats is what a Client counts.
type Stats struct {
	Calls     uint64 // requests sent
	Pending   int    // that wait for a reply
	Late      uint64 // replies dropped since their call had ended, or had its reply
	Foreign   uint64 // replies dropped since their correlation id is none that a Client makes
	Malformed uint64 // replies dropped since they have no correlation id or can't be read
}

// Stats reads the counters.
func (c *Client) Stats() Stats {
	c.mu.Lock()
	n := len(c.pending)
	c.mu.Unlock()
	return Stats{Calls: c.calls.Load(), Pending: n, Late: c.late.Load(), Foreign: c.foreign.Load(), Malformed: c.malformed.Load()}
}

// pending is a call that waits.
type pending struct {
	link  *link
	to    To
	reply chan result // room for one, or for a stream's parts
	mode  mode
}

// mode is how many replies a call takes.
type mode uint8

const (
	one    mode = iota
	stream      // until one says that it is the last
	gather      // until the caller has enough
)

// result is a reply, or why there is none.
type result struct {
	msg *amqp.Message
	err error
}

// Call sends a request and waits for its reply, within ctx, whose deadline goes
// with the request: the broker drops it when it is over, and the handler's
// context has it. The correlation id, reply-to and, unless set, the expiration
// of msg are made here; all else of it goes as it is, and msg is not changed.
//
// Errors: *RemoteError from the handler; ErrNoServer, at once, where the
// request reached no queue; ErrBusy; ctx's own, and then the server is told to
// stop; an error that wraps amqp.ErrUnknownOutcome where the connection was
// lost: the request may have been handled; errors of sending it.
func (c *Client) Call(ctx context.Context, to To, msg amqp.Message) (*amqp.Message, error) {
	for {
		p, err := c.send(ctx, to, msg, one, 1)
		if err != nil {
			return nil, err
		}
		r := c.wait(ctx, p)
		if r.err == nil {
			return r.msg, remoteError(r.msg)
		}
		if !to.Idempotent || ctx.Err() != nil || !errors.Is(r.err, amqp.ErrUnknownOutcome) {
			return nil, r.err
		}
	}
}

// wait takes the first result of a call and ends the call.
func (c *Client) wait(ctx context.Context, p *call) result {
	var r result
	select {
	case r = <-p.reply:
	case <-ctx.Done():
		r.err = context.Cause(ctx)
		if c.forget(p) {
			c.cancel(p)
		}
		return r
	}
	c.forget(p)
	return r
}

// call is a pending call and the id it is known by.
type call struct {
	pending
	id string
}

// send registers a call and publishes its request.
func (c *Client) send(ctx context.Context, to To, msg amqp.Message, mode mode, room int) (*call, error) {
	if err := c.takeSlot(ctx); err != nil {
		return nil, err
	}
	l, err := c.linked(ctx)
	if err != nil {
		<-c.slots
		return nil, err
	}
	p := &call{id: newID()}
	p.link, p.to, p.reply, p.mode = l, to, make(chan result, room), mode
	msg.CorrelationID, msg.ReplyTo = p.id, l.replyTo
	if err := withDeadline(ctx, &msg); err != nil {
		<-c.slots
		return nil, err
	}
	if p.mode == stream {
		setHeader(&msg, HeaderStream, true)
	}
	if err := c.register(p); err != nil {
		<-c.slots
		return nil, err
	}
	err = l.ch.BasicPublish(ctx, amqp.BasicPublish{Exchange: to.Exchange, RoutingKey: to.RoutingKey, Mandatory: true}, msg)
	if err != nil {
		c.forget(p)
		return nil, err
	}
	c.calls.Add(1)
	// Let callers whose replies came together send together.
	runtime.Gosched()
	l.ch.Flush()
	return p, nil
}

func (c *Client) takeSlot(ctx context.Context) error {
	select {
	case c.slots <- struct{}{}:
		return nil
	default:
	}
	select {
	case c.slots <- struct{}{}:
		return nil
	case <-c.down:
		return ErrClosed
	case <-ctx.Done():
		return errors.Join(ErrBusy, context.Cause(ctx))
	}
}

// register makes a call known before its request is sent: no reply can be
// sooner.
func (c *Client) register(p *call) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return ErrClosed
	}
	if p.link.err != nil {
		return p.link.err
	}
	c.pending[p.id] = &p.pending
	return nil
}

// forget ends a call. It reports whether the call was still waiting.
func (c *Client) forget(p *call) bool {
	c.mu.Lock()
	_, waits := c.pending[p.id]
	delete(c.pending, p.id)
	c.mu.Unlock()
	<-c.slots
	return waits
}

// replied takes a delivery of the reply queue. It runs where the connection is
// read.
func (c *Client) replied(l *link, d *amqp.Delivery) {
	if l.acks {
		defer d.Ack()
	}
	props := d.Properties()
	if props.CorrelationID == "" {
		c.drop(&c.malformed, "it has no correlation id")
		return
	}
	c.mu.Lock()
	p := c.pending[props.CorrelationID]
	more := p != nil && (p.mode == gather || p.mode == stream && streams(d))
	if p != nil && !more {
		delete(c.pending, props.CorrelationID)
	}
	c.mu.Unlock()
	if p == nil {
		if len(props.CorrelationID) != idLength {
			c.drop(&c.foreign, "its correlation id is none of ours")
		} else {
			c.drop(&c.late, "no call waits for it any more")
		}
		return
	}
	r := result{msg: &amqp.Message{Properties: props, Body: d.Body}}
	headers, err := d.Headers()
	if err != nil {
		c.drop(&c.malformed, "its headers can't be read")
		r.err = err
	}
	r.msg.Headers = headers
	if limit := c.opts.MaxReply; limit > 0 && len(d.Body) > limit {
		r = result{err: ErrReplyTooLarge}
	}
	select {
	case p.reply <- r:
	default:
		c.drop(&c.late, "its reader is too slow")
	}
}

func (c *Client) drop(counter *atomic.Uint64, why string) {
	counter.Add(1)
	if c.opts.Logger != nil {
		c.opts.Logger.Debug("rpc: reply dropped: " + why)
	}
}

// returned takes a request that reached no queue.
func (c *Client) returned(ret *amqp.ReturnError) {
	id := ret.Message.CorrelationID
	c.mu.Lock()
	p := c.pending[id]
	delete(c.pending, id)
	c.mu.Unlock()
	if p != nil {
		p.fail(ErrNoServer)
	}
}
