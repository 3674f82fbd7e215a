package amqp

import (
	"context"
	"fmt"
	"iter"
	"slices"
	"sync"
	"sync/atomic"
)

// ErrCancelled ends a consumer that the broker cancelled: its queue was deleted
// or moved, or its consumer timed out. The channel stays open.
//
// Source: https://www.rabbitmq.com/docs/consumer-cancel.
var ErrCancelled = fmt.Errorf("amqp: consumer cancelled by the broker")

// ConsumeOptions are what Subscribe takes besides the method's arguments. Nil
// and the zero value mean the defaults.
type ConsumeOptions struct {
	// Prefetch is how many deliveries the consumer may have unsettled, and so
	// how many are buffered. It is sent, as basic.qos for this consumer alone,
	// together with basic.consume. 0: 256. Negative: no limit, and then Buffer
	// bounds what is buffered.
	// Source: https://www.rabbitmq.com/docs/consumer-prefetch.
	Prefetch int

	// Buffer is how many deliveries may wait to be taken where no prefetch
	// limits them: without acknowledgements, or with a negative Prefetch. Where
	// there are more, the consumer ends with ErrSlowConsumer. 0: 16384, and 1024
	// with HoldBack.
	Buffer int

	// HoldBack makes a full Buffer stop the connection's reading instead, so
	// that TCP holds the broker back. Everything else on the connection then
	// waits as well: use one of its own.
	HoldBack bool

	// Borrow lends deliveries instead of copying them: see Delivery.
	Borrow bool

	// AckBatch is how many acks may wait, for a millisecond at most, to be sent
	// as one; they never wait while the consumer does. 0: 64, or half of
	// Prefetch where that is less. 1: each at once.
	AckBatch int

	// Resume says how a Client's consumer goes on after it was interrupted. Nil:
	// the defaults. A Channel's ends with its channel, and refuses it.
	Resume *Resume

	track *streamTrack // a client's, of a stream: to be told of deliveries
	runs  *hooking     // a client's: who works for Serve
}

const (
	defaultPrefetch = 256
	defaultBuffer   = 16 << 10

	// Where the broker waits there is nothing to gain from a larger one, which
	// falls out of the cache and is what the garbage collector has to look at.
	defaultHeldBuffer = 1 << 10
)

func (o *ConsumeOptions) orDefaults(noAck bool) (ConsumeOptions, error) {
	var opts ConsumeOptions
	if o != nil {
		opts = *o
	}
	if opts.Resume != nil {
		return opts, &ConfigError{Field: "ConsumeOptions.Resume", Reason: "set for a Channel, whose consumers end with it"}
	}
	if opts.Prefetch > 1<<16-1 {
		return opts, &ConfigError{Field: "ConsumeOptions.Prefetch", Reason: "over 65535"}
	}
	if opts.Buffer < 0 || opts.AckBatch < 0 {
		return opts, &ConfigError{Field: "ConsumeOptions", Reason: "Buffer or AckBatch is negative"}
	}
	if opts.Prefetch == 0 {
		opts.Prefetch = defaultPrefetch
	}
	if opts.Prefetch < 0 {
		opts.Prefetch = 0
	}
	if opts.Buffer == 0 {
		opts.Buffer = defaultBuffer
		if opts.HoldBack {
			opts.Buffer = defaultHeldBuffer
		}
	}
	if opts.AckBatch == 0 {
		opts.AckBatch = defaultAckBatch
		if opts.Prefetch > 0 {
			opts.AckBatch = max(1, min(opts.AckBatch, opts.Prefetch/2))
		}
	}
	if opts.Prefetch > 0 {
		opts.AckBatch = min(opts.AckBatch, opts.Prefetch) // the broker waits for no more
	}
	if opts.Prefetch > 0 && !noAck {
		opts.Buffer, opts.HoldBack = 0, false // the prefetch bounds it
	}
	return opts, nil
}

// Consumer is a subscription of a channel to a queue. All its methods are safe
// for concurrent use. Nobody has to take from it for the connection to work.
//
// Source: https://www.rabbitmq.com/docs/consumers.
type Consumer struct {
	ch    *Channel
	tag   string // set by the reader at consume-ok
	opts  ConsumeOptions
	noAck bool
	gets  bool // it stands for Channel.Get

	// mu guards what follows. It comes after no other lock, and before none.
	mu      sync.Mutex
	queue   []*Delivery // queue[head:] waits to be taken
	head    int
	free    []*Delivery // borrowed ones that are back
	waiting waitList    // takers
	held    waitList    // the reader, where it holds the broker back
	queued  int64       // bytes of queue, where a budget counts them
	takers  int
	closing bool
	ended   bool
	done    chan struct{} // made when first asked for
	stale   bool          // what is queued can no longer be settled

	unattended bool // it has deliveries, and nobody came to take them
	let        bool // the reader may not be held
	err        error

	handler    func(*Delivery) // of Handle
	working    bool            // a goroutine runs handler
	spareItems []*Delivery     // the handler's, between its turns
	spareUsed  []*Delivery

	cut    atomic.Bool  // nothing of the queue is to be given out any more; set under mu
	parked atomic.Int32 // takers that wait, for the acks to know
	kept   atomic.Int64 // bytes that a budget counts: of queue, and of what takers have in hand

	in intake // the reader's
}

// Subscribe starts a consumer and waits for the broker's consume-ok, within
// ctx. The prefetch and the consumer go out together, so that others that
// subscribe on the channel at the same time get each their own. opts may be nil.
//
// Deliveries come from All; Serve is the other way to consume.
//
// Errors: *Error where the broker refuses, which closes the channel; an
// *EncodeError; ErrRefused with NoWait set, or with the tag of another consumer
// of the channel; errors that wrap ctx's own: a late consumer is then cancelled.
//
// Source: https://www.rabbitmq.com/amqp-0-9-1-reference#basic.consume.
func (ch *Channel) Subscribe(ctx context.Context, m BasicConsume, opts *ConsumeOptions) (*Consumer, error) {
	return ch.subscribe(ctx, m, nil, opts)
}

func (ch *Channel) subscribe(ctx context.Context, m BasicConsume, f func(*Delivery), opts *ConsumeOptions) (*Consumer, error) {
	if ctx.Err() != nil {
		return nil, &unsentError{contextError(ctx)}
	}
	o, err := opts.orDefaults(m.NoAck)
	if err != nil {
		return nil, err
	}
	if m.NoWait {
		return nil, refused(MethodBasicConsume, "a consumer has to know its tag: NoWait can't be set")
	}
	cons := &Consumer{ch: ch, opts: o, noAck: m.NoAck, handler: f}
	cl := newCall(&BasicConsumeOk{})
	cl.consumer = cons
	qos := newCall(&BasicQosOk{})
	if !m.NoAck {
		ch.acks.setBatch(o.AckBatch)
	}
	c := ch.c
	c.mu.Lock()
	err = ch.usable()
	if err == nil {
		err = ch.sendConsume(&m, o.Prefetch, qos, cl)
	}
	if err != nil {
		c.mu.Unlock()
		return nil, err
	}
	c.unlockFlush(flushNow)
	if err := c.await(ctx, ch.st, cl); err != nil {
		return nil, err
	}
	return cons, nil
}

// sendConsume appends qos and consume, both or neither. c.mu is held.
func (ch *Channel) sendConsume(m *BasicConsume, prefetch int, qos, cl *call) error {
	if _, used := ch.tags[m.ConsumerTag]; used {
		// RabbitMQ would end the connection for it, with 530.
		return refused(MethodBasicConsume, "the channel has a consumer of this tag already")
	}
	s := &ch.c.e.s
	start, sent := len(s.out), s.sent
	if err := ch.send(&BasicQos{PrefetchCount: uint16(prefetch)}, false, qos); err != nil {
		return err
	}
	if err := ch.send(m, false, cl); err != nil {
		s.out, s.sent = s.out[:start], sent
		ch.st.expect = ch.st.expect[:len(ch.st.expect)-1]
		return err
	}
	ch.useTag(m.ConsumerTag)
	return nil
}

// useTag notes that a consumer's tag is taken. c.mu is held.
func (ch *Channel) useTag(tag string) {
	if tag == "" {
		return // the broker makes one up
	}
	if ch.tags == nil {
		ch.tags = make(map[string]struct{})
	}
	ch.tags[tag] = struct{}{}
}

func (a *ackState) setBatch(n int) {
	a.mu.Lock()
	if a.batch == 0 || n < a.batch {
		a.batch = n
	}
	a.mu.Unlock()
}

// Tag is the consumer's tag, the broker's choice where BasicConsume named none.
func (cons *Consumer) Tag() string { return cons.tag }

// Channel is the consumer's channel.
func (cons *Consumer) Channel() *Channel { return cons.ch }

// Done is closed when the consumer has ended, however it came to that. What
// was delivered before may still wait to be taken.
func (cons *Consumer) Done() <-chan struct{} {
	cons.mu.Lock()
	defer cons.mu.Unlock()
	if cons.done == nil {
		cons.done = make(chan struct{})
		if cons.ended {
			close(cons.done)
		}
	}
	return cons.done
}

// Err says why the consumer ended, nil before that and after Close.
func (cons *Consumer) Err() error {
	cons.mu.Lock()
	defer cons.mu.Unlock()
	return cons.err
}

// All gives the deliveries as they come, and waits for them. Leaving the loop
// leaves the consumer: what comes then waits for the next loop. The loop ends
// when the consumer does: silently after Close, otherwise with one last nil
// delivery and the reason: ErrCancelled, ErrSlowConsumer, or an *Error where the
// channel or connection is gone. Several loops share the deliveries.
func (cons *Consumer) All() iter.Seq2[*Delivery, error] {
	return func(yield func(*Delivery, error) bool) {
		t := cons.taker(true)
		defer t.leave()
		for {
			d, err := t.take(nil)
			if d == nil {
				if err != nil {
					yield(nil, err)
				}
				return
			}
			cons.ch.c.trace.deliver(context.Background(), d)
			if !yield(d, nil) {
				return
			}
		}
	}
}

// Close cancels the consumer and waits for the broker's answer within ctx.
// Deliveries that nobody took are requeued; those that were taken can still be
// settled. Loops over All end.
//
// Errors: ErrInHandler inside a Trace function that is called by the goroutine
// that reads, and then nothing happened; errors that wrap ctx's own, and an *Error where the channel is gone;
// the consumer has ended all the same.
func (cons *Consumer) Close(ctx context.Context) error {
	if cons.ch.c.inHook() {
		return ErrInHandler
	}
	cons.mu.Lock()
	if cons.closing {
		cons.mu.Unlock()
		return nil
	}
	cons.closing = true
	cons.cut.Store(true)
	cons.wakeReader()
	ended := cons.ended
	cons.mu.Unlock()
	var err error
	if !ended { // by the broker, or with the channel: what was not taken goes back all the same
		err = cons.cancel(ctx)
	}
	cons.end(nil, false)
	cons.requeueRest()
	return err
}

// cancel sends basic.cancel. Where ctx ends first the reader still takes the
// answer, and with it the consumer off the channel's list.
func (cons *Consumer) cancel(ctx context.Context) error {
	ch, c := cons.ch, cons.ch.c
	cl := newCall(&BasicCancelOk{})
	c.mu.Lock()
	err := ch.usable()
	if err == nil {
		err = ch.send(&BasicCancel{ConsumerTag: cons.tag}, false, cl)
	}
	c.unlockFlush(flushNow)
	if err != nil {
		return err
	}
	c.aboutToWait()
	select {
	case <-cl.done:
		return cl.err
	case <-ctx.Done():
		return &outcomeError{contextError(ctx)}
	}
}

// remember puts a consumer on its channel's list.
func (ch *Channel) remember(cons *Consumer) {
	ch.c.mu.Lock()
	defer ch.c.mu.Unlock()
	if ch.err != nil {
		return
	}
	ch.useTag(cons.tag)
	list := append(slices.Clip(ch.listed()), cons)
	ch.consumers.Store(&list)
}

// forget takes a consumer off its channel's list, and returns it.
func (ch *Channel) forget(tag string) *Consumer {
	ch.c.mu.Lock()
	defer ch.c.mu.Unlock()
	delete(ch.tags, tag)
	old := ch.listed()
	i := slices.IndexFunc(old, func(cons *Consumer) bool { return cons.tag == tag })
	if i < 0 {
		return nil
	}
	list := slices.Delete(slices.Clone(old), i, i+1)
	ch.consumers.Store(&list)
	return old[i]
}

// listed are the channel's consumers. The slice is not to be changed.
func (ch *Channel) listed() []*Consumer {
	if list := ch.consumers.Load(); list != nil {
		return *list
	}
	return nil
}

// requeueRest gives back what nobody took of a consumer that has ended.
func (cons *Consumer) requeueRest() {
	cons.mu.Lock()
	rest := cons.queue[cons.head:]
	cons.queue, cons.head = nil, 0
	cons.dropQueued()
	cons.mu.Unlock()
	cons.giveBack(rest)
}

func (cons *Consumer) giveBack(rest []*Delivery) {
	for _, d := range rest {
		if !cons.noAck && d.claim() == nil {
			cons.ch.settle(d, retried)
		}
		d.Release()
	}
}

// end makes the consumer's end known. stale says that what is queued can't be
// settled any more. No lock is held.
func (cons *Consumer) end(err error, stale bool) {
	cons.mu.Lock()
	if !cons.ended {
		cons.ended, cons.err = true, err
		cons.dropQueued() // nobody may ever take it
		if cons.closing {
			cons.err = nil
		}
		if cons.done != nil {
			close(cons.done)
		}
	}
	cons.stale = cons.stale || stale
	if cons.stale && !cons.noAck {
		cons.cut.Store(true)
	}
	cons.waiting.wakeAll()
	cons.wakeReader()
	cons.mu.Unlock()
}

// letGo ends holding the reader back for good.
func (cons *Consumer) letGo() {
	cons.mu.Lock()
	cons.let = true
	cons.wakeReader()
	cons.mu.Unlock()
}

// cancelled takes the broker's basic.cancel.
func (ch *Channel) cancelled(tag string) {
	if cons := ch.forget(tag); cons != nil {
		cons.end(ErrCancelled, false)
	}
}
