package amqp

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"sync"
	"time"
)

// CancelPolicy says what a client does when the broker ends a consumer that
// the user didn't: its queue was deleted or moved, or a delivery was kept for
// too long.
type CancelPolicy uint8

const (
	Resubscribe CancelPolicy = iota // consume again, after a pause
	EndOnCancel                     // end with ErrCancelled, or the exception of the channel
)

// Resume says how a client's consumer goes on after it was interrupted. A lost
// connection is always waited for.
type Resume struct {
	// Declare is a queue to declare on each channel before it is consumed from;
	// the Queue of BasicConsume is ignored then. It is the place for a queue that
	// the broker names (TemporaryQueue): a new one, with a new name, is made at
	// each connection.
	Declare *Queue

	// Bindings are declared with it. Where Queue and Exchange are empty, they
	// are bindings to that queue.
	Bindings []Binding

	// OnCancel is what to do when the broker ends the consumer.
	OnCancel CancelPolicy

	// GiveUp is how long the broker may go on to refuse a consumer that ran
	// before (its queue is not there, another has it for itself, it may not be
	// read) until that ends with the broker's reason. What waiting doesn't help
	// ends it at once. 0: a minute. Negative: never.
	GiveUp time.Duration
}

const defaultGiveUp = time.Minute

func (r *Resume) check() error {
	if r.Declare == nil {
		if len(r.Bindings) > 0 {
			return &ConfigError{Field: "Resume.Bindings", Reason: "set without Declare"}
		}
		return nil
	}
	bad := func(kind, name, reason string) error {
		return &TopologyError{Kind: kind, Name: name, Err: fmt.Errorf("%w: %s", ErrRefused, reason)}
	}
	if reason := r.Declare.check(); reason != "" {
		return bad("queue", r.Declare.Name, reason)
	}
	for _, b := range r.Bindings {
		if reason := r.bound(b, "x").check(); reason != "" {
			return bad("binding", b.name(), reason)
		}
	}
	return nil
}

// bound is a binding with the queue's name filled in.
func (r *Resume) bound(b Binding, queue string) Binding {
	if b.Queue == "" && b.Exchange == "" {
		b.Queue = queue
	}
	return b
}

// source is where a client's consumer gets its channels from: what Subscribe
// and Serve share.
type source struct {
	c       *Client
	m       BasicConsume
	resume  Resume
	track   *streamTrack // of a stream, what was handled
	besides []Queue      // that are declared with it

	refusedSince time.Time // the broker has refused since then; zero: it doesn't
	refused      int       // in a row
}

func (c *Client) source(m BasicConsume, opts *ConsumeOptions) (*source, error) {
	var r Resume
	if opts.Resume != nil {
		r = *opts.Resume
		opts.Resume = nil // the channels are not to know
	}
	if err := r.check(); err != nil {
		return nil, err
	}
	def(&r.GiveUp, defaultGiveUp)
	q := c.cfg.Topology.queue(m.Queue)
	if r.Declare != nil {
		q = r.Declare
	}
	s := &source{c: c, m: m, resume: r}
	if _, asked := m.Arguments["x-stream-offset"]; asked || q != nil && q.Type == Stream {
		if m.NoAck {
			return nil, refused(MethodBasicConsume, "a stream is not consumed without acknowledgements: RabbitMQ would close the connection")
		}
		s.track = &streamTrack{}
	}
	return s, nil
}

// channel opens a channel, with the queue declared where that is asked for, and
// says what to consume on it.
func (s *source) channel(ctx context.Context) (*Channel, BasicConsume, error) {
	m := s.m
	ch, err := s.c.con.channel(ctx)
	if err != nil {
		return nil, m, err
	}
	if err = s.declareBesides(ctx, ch); err != nil {
		s.drop(ch)
		return nil, m, err
	}
	if s.resume.Declare != nil {
		m.Queue, err = s.declare(ctx, ch)
	} else if s.refused > 0 && errors.Is(s.missing(ctx, ch), ErrClosed) {
		ch, err = s.c.con.channel(ctx)
	}
	if err != nil {
		s.drop(ch)
		return nil, m, err
	}
	if s.track != nil {
		m.Arguments = s.track.arguments(m.Arguments)
	}
	return ch, m, nil
}

func (s *source) declare(ctx context.Context, ch *Channel) (name string, err error) {
	ok, err := ch.QueueDeclare(ctx, s.resume.Declare.method())
	if err != nil {
		return "", &TopologyError{Kind: "queue", Name: s.resume.Declare.Name, Err: err}
	}
	for _, b := range s.resume.Bindings {
		b = s.resume.bound(b, ok.Queue)
		if err := b.step().do(ctx, ch); err != nil {
			return "", &TopologyError{Kind: "binding", Name: b.name(), Err: err}
		}
	}
	return ok.Queue, nil
}

func (s *source) declareBesides(ctx context.Context, ch *Channel) error {
	for _, q := range s.besides {
		if _, err := ch.QueueDeclare(ctx, q.method()); err != nil {
			return &TopologyError{Kind: "queue", Name: q.Name, Err: err}
		}
	}
	return nil
}

// missing declares once more what the Topology says of the queue, which was
// deleted since.
func (s *source) missing(ctx context.Context, ch *Channel) error {
	for _, step := range s.c.cfg.Topology.about(s.m.Queue) {
		if err := step.do(ctx, ch); err != nil {
			return err
		}
	}
	return nil
}

// about is what t says of a queue.
func (t *Topology) about(queue string) []*step {
	q := t.queue(queue)
	if q == nil {
		return nil
	}
	part := &Topology{Queues: []Queue{*q}}
	for _, b := range t.Bindings {
		if b.Queue == queue {
			part.Bindings = append(part.Bindings, b)
		}
	}
	return part.steps(true)
}

// drop closes a channel that is of no use, without waiting long.
func (s *source) drop(ch *Channel) {
	if ch == nil || ch.gone.Load() {
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	ch.Close(ctx)
}

// goesOn decides, after a consumer has ended with err or could not be begun,
// whether there is to be another, and waits before it. Nil means that there is.
func (s *source) goesOn(ctx context.Context, err error) error {
	c := s.c
	c.mu.Lock()
	over := c.err
	c.mu.Unlock()
	switch {
	case over != nil:
		return over
	case ctx.Err() != nil:
		return contextError(ctx)
	case errors.Is(err, ErrSlowConsumer) || errors.Is(err, ErrRefused) || errors.Is(err, ErrEncode):
		return err
	}
	ex := channelException(err)
	if ex == nil && !errors.Is(err, ErrCancelled) {
		s.refused = 0
		return nil // the connection was lost: there is a pause before the next one
	}
	if s.resume.OnCancel == EndOnCancel {
		return err
	}
	// Not so permissions: those of a vhost that is deleted go before its
	// connections, and come after it when it is made again.
	if ex != nil && (ex.Code == NotImplemented || ex.Code == NotAllowed) && s.refused > 0 {
		return err
	}
	now := time.Now()
	if s.refused == 0 {
		s.refusedSince = now
	}
	if s.resume.GiveUp > 0 && now.Sub(s.refusedSince) > s.resume.GiveUp {
		return err
	}
	s.refused++
	c.counts.cancelled.Add(1)
	d := min(50*time.Millisecond<<min(s.refused, 16), 5*time.Second)
	if !sleep(ctx, d/2+rand.N(d/2)) {
		return contextError(ctx)
	}
	return nil
}

// works notes that a consumer runs.
func (s *source) works() { s.refused = 0 }

// consuming notes that a handler or a loop begins; false: the client is ending.
func (c *Client) consumingBegins() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	select {
	case <-c.stopping:
		return false
	default:
		c.consuming++
		return true
	}
}

func (c *Client) consumingEnds() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.consuming--
	c.broadcast()
}

// Subscription is a consumer that outlives channels and connections. All its
// methods are safe for concurrent use.
type Subscription struct {
	s     *source
	opts  ConsumeOptions
	renew func(lost *Consumer, err error) error // gets the next consumer, within the subscription's life
	end   context.CancelFunc

	turn chan struct{} // cap 1: who holds it renews

	mu     sync.Mutex // guards what follows; a leaf
	cons   *Consumer
	queue  string
	err    error
	closed bool
}

// Subscribe starts a consumer, on a channel of its own, that is started again
// whenever that channel or its connection is lost: as long as somebody takes
// its deliveries, by All. It waits, within ctx, for a connection and for the
// broker's consume-ok. opts may be nil.
//
// Unsettled deliveries of a channel that was lost are stale, and come again.
//
// Errors: as Channel.Subscribe's; *TopologyError for Resume.Declare;
// those that wrap ctx's own and why there is no connection; ErrClosed.
//
// Source: https://www.rabbitmq.com/docs/consumers.
func (c *Client) Subscribe(ctx context.Context, m BasicConsume, opts *ConsumeOptions) (*Subscription, error) {
	var o ConsumeOptions
	if opts != nil {
		o = *opts
	}
	src, err := c.source(m, &o)
	if err != nil {
		return nil, err
	}
	life, end := context.WithCancel(context.Background())
	o.track = src.track
	sub := &Subscription{s: src, opts: o, end: end, turn: make(chan struct{}, 1)}
	sub.renew = func(old *Consumer, err error) error { return sub.next(life, old, err) }
	for {
		err := sub.start(ctx)
		if err == nil {
			break
		}
		if channelException(err) != nil || ctx.Err() != nil || !errors.Is(err, ErrClosed) {
			end()
			return nil, err
		}
		if err := src.goesOn(ctx, err); err != nil {
			end()
			return nil, err
		}
	}
	if !c.spawn(func(ctx context.Context) { sub.endWith(ctx, life) }) {
		end()
		return nil, &unsentError{errClientClosed}
	}
	return sub, nil
}

// endWith ends the subscription with the client: gently with Shutdown.
func (sub *Subscription) endWith(ctx, life context.Context) {
	select {
	case <-sub.s.c.stopping:
		bounded, cancel := context.WithTimeout(ctx, max(sub.s.c.con.plan.config.CloseTimeout, time.Second))
		defer cancel()
		sub.Close(bounded)
	case <-ctx.Done():
	case <-life.Done():
	}
	sub.end()
}

// start gets a channel and consumes.
func (sub *Subscription) start(ctx context.Context) error {
	ch, m, err := sub.s.channel(ctx)
	if err != nil {
		return err
	}
	cons, err := ch.Subscribe(ctx, m, &sub.opts)
	if err != nil {
		sub.s.drop(ch)
		return err
	}
	sub.s.works()
	sub.mu.Lock()
	closed := sub.closed
	sub.cons, sub.queue = cons, m.Queue
	sub.mu.Unlock()
	if closed {
		ch.Close(ctx)
		return ErrClosed
	}
	return nil
}

// next replaces a consumer that has ended. Of several loops one does it.
func (sub *Subscription) next(ctx context.Context, old *Consumer, err error) error {
	select {
	case sub.turn <- struct{}{}:
		defer func() { <-sub.turn }()
	case <-ctx.Done():
		return nil
	}
	sub.s.drop(old.ch)
	for {
		sub.mu.Lock()
		done := sub.cons != old || sub.closed || sub.err != nil
		over := sub.err
		sub.mu.Unlock()
		if done {
			return over
		}
		if err = sub.s.goesOn(ctx, err); err == nil {
			if err = sub.start(ctx); err == nil {
				sub.s.c.counts.resumed.Add(1)
				return nil
			}
			continue
		}
		if ctx.Err() != nil {
			return nil
		}
		sub.mu.Lock()
		sub.err = err
		sub.mu.Unlock()
		sub.end()
		return err
	}
}

// Queue is the name of the queue that is consumed now: the broker's choice
// where Resume.Declare left it that.
func (sub *Subscription) Queue() string {
	sub.mu.Lock()
	defer sub.mu.Unlock()
	return sub.queue
}

// Err says why the subscription is over, nil before that and after Close.
func (sub *Subscription) Err() error {
	sub.mu.Lock()
	defer sub.mu.Unlock()
	return sub.err
}

// All gives the deliveries as they come, and waits for them, over lost channels
// and connections. Leaving the loop leaves the subscription; while nobody is in
// a loop it is not renewed. The loop ends with the subscription: silently after
// Close and Shutdown, otherwise with one last nil delivery and the reason: the
// broker's, as Resume.OnCancel and GiveUp say; ErrSlowConsumer;
// ErrClosed where the client is over. Several loops share the deliveries.
func (sub *Subscription) All() iter.Seq2[*Delivery, error] {
	return func(yield func(*Delivery, error) bool) {
		if !sub.s.c.consumingBegins() {
			return
		}
		defer sub.s.c.consumingEnds()
		sub.s.c.handling.run(func() { sub.loop(yield) })
	}
}

// loop goes through one consumer after the other.
func (sub *Subscription) loop(yield func(*Delivery, error) bool) {
	for {
		sub.mu.Lock()
		cons, closed, err := sub.cons, sub.closed, sub.err
		sub.mu.Unlock()
		if err != nil {
			yield(nil, err)
			return
		}
		if closed {
			return
		}
		left, ended := sub.each(cons, yield)
		if left {
			return
		}
		if ended == nil && !sub.isClosed() {
			ended = ErrClosed // somebody closed the channel
		}
		if !sub.isClosed() {
			sub.renew(cons, ended)
		}
	}
}

func (sub *Subscription) isClosed() bool {
	sub.mu.Lock()
	defer sub.mu.Unlock()
	return sub.closed
}

// each loops over one consumer. left says that the user left the loop.
func (sub *Subscription) each(cons *Consumer, yield func(*Delivery, error) bool) (left bool, ended error) {
	for d, err := range cons.All() {
		if err != nil {
			return false, err
		}
		if sub.s.track.skips(d) {
			continue
		}
		if !yield(d, nil) {
			return true, nil
		}
	}
	return false, nil
}

// Close ends the subscription: it cancels the consumer and waits for the
// broker's answer within ctx. Deliveries that nobody took are requeued; those
// that were taken can be settled until the client is closed.
//
// Errors: errors that wrap ctx's own, and an *Error where the channel is gone;
// the subscription has ended all the same.
func (sub *Subscription) Close(ctx context.Context) error {
	sub.mu.Lock()
	if sub.closed {
		sub.mu.Unlock()
		return nil
	}
	sub.closed = true
	cons := sub.cons
	sub.mu.Unlock()
	sub.end()
	if cons == nil || cons.ch.gone.Load() {
		return nil
	}
	return cons.Close(ctx)
}
