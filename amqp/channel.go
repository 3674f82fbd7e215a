package amqp

import (
	"context"
	"errors"
	"sync/atomic"
)

// Channel is a channel of a connection. All its methods are safe for
// concurrent use, and calls of several goroutines get each their own answer.
// An exception that the broker raises on a channel closes it: its calls then
// return an *Error with the reason, and a new channel is opened to go on.
//
// Source: https://www.rabbitmq.com/docs/channels.
type Channel struct {
	c  *Conn
	st *chanState // the engine's; c.mu guards its sending part
	id uint16

	// c.mu guards what follows.
	err         error  // why the channel is closed
	reason      *Error // the broker's exception, a moment before err has it
	orderly     bool   // Close did it
	stopped     bool   // the broker asked for a pause (channel.flow)
	unconfirmed int
	confirms    confirmRing
	onReturn    func(*ReturnError)
	onEnd       func()              // a client's; it doesn't wait
	done        chan struct{}       // made when first asked for
	tags        map[string]struct{} // of consumers that the broker has, or is about to

	// consumers is replaced, never changed, under c.mu; the reader looks at it
	// without.
	consumers atomic.Pointer[[]*Consumer]
	seq       uint64 // the reader's: deliveries that want settling

	getter *Consumer // the reader's: what deliveries of Get belong to

	acks ackState
	gone atomic.Bool // deliveries can't be settled any more
}

// call is a method that waits for its reply.
type call struct {
	reply decodable
	got   MethodID // the reply that came, of those possible
	err   error
	done  chan struct{}

	consumer *Consumer // of basic.consume: known to the reader from consume-ok on
	delivery *Delivery // of basic.get
	noAck    bool      // of basic.get
}

func newCall(reply decodable) *call {
	return &call{reply: reply, done: make(chan struct{})}
}

func (cl *call) finish(err error) {
	cl.err = err
	close(cl.done)
}

// failCalls ends all calls that wait on a channel. The one that the broker
// names as the cause was refused; what became of the others is unknown. mu is
// held.
func failCalls(st *chanState, err error) {
	var ex *Error
	errors.As(err, &ex)
	for _, x := range st.expect {
		refused := ex != nil && ex.Remote && ex.Method == x.request
		if refused {
			ex = nil // only the first of its kind: nothing after it was looked at
		}
		cl, ok := x.ref.(*call)
		switch {
		case !ok: // its caller has given up
		case refused:
			cl.finish(err)
		default:
			cl.finish(&outcomeError{err})
		}
	}
	st.expect = nil
}

// Number is the channel's number on its connection.
func (ch *Channel) Number() uint16 { return ch.id }

// Conn is the channel's connection.
func (ch *Channel) Conn() *Conn { return ch.c }

// Done is closed when the channel is over, however it came to that.
func (ch *Channel) Done() <-chan struct{} {
	ch.c.mu.Lock()
	defer ch.c.mu.Unlock()
	if ch.done == nil {
		ch.done = make(chan struct{})
		if ch.err != nil {
			close(ch.done)
		}
	}
	return ch.done
}

// OnReturn makes f be called for every message of the channel that the broker
// returns as unroutable, in place of any earlier f. Publish and PublishAsync
// report a return by themselves; this is for messages sent with BasicPublish.
// f runs where the connection is read: it must be short and must not wait.
//
// Source: https://www.rabbitmq.com/docs/publishers#unroutable.
func (ch *Channel) OnReturn(f func(*ReturnError)) {
	ch.c.mu.Lock()
	ch.onReturn = f
	ch.c.mu.Unlock()
}

// Flush writes what was accepted for sending and still gathers, as it does for
// a millisecond at most under a stream of messages. It does not wait for the
// peer. There is no need for it before waiting for anything of the connection:
// an answer, a confirm, a delivery.
func (ch *Channel) Flush() {
	ch.c.mu.Lock()
	ch.c.unlockFlush(flushWait)
}

// Err says why the channel is over: an *Error. It is nil before that, and
// where Close was called and nothing went wrong.
func (ch *Channel) Err() error {
	ch.c.mu.Lock()
	defer ch.c.mu.Unlock()
	if ch.orderly {
		return nil
	}
	return ch.err
}

// usable says why nothing can be sent any more. c.mu is held.
func (ch *Channel) usable() error {
	if ch.err != nil {
		return &unsentError{ch.err}
	}
	if ch.reason != nil {
		return &unsentError{ch.reason}
	}
	return ch.c.usable()
}

// call sends a method and waits for its reply; the generated calls are made of
// it. Where ctx ends first, the late reply is swallowed and undone.
func (ch *Channel) call(ctx context.Context, m Method, noWait bool, reply decodable) error {
	if ctx.Err() != nil {
		return &unsentError{contextError(ctx)}
	}
	var cl *call
	if !noWait {
		cl = newCall(reply)
	}
	c := ch.c
	c.mu.Lock()
	err := ch.usable()
	if err == nil {
		err = ch.send(m, noWait, cl)
	}
	if err != nil {
		c.mu.Unlock()
		return err
	}
	c.unlockFlush(flushNow)
	if noWait {
		return nil
	}
	return c.await(ctx, ch.st, cl)
}

// send appends a method. c.mu is held.
func (ch *Channel) send(m Method, noWait bool, cl *call) error {
	var ref any
	if cl != nil {
		ref = cl
	}
	if err := ch.mine(m.MethodID()); err != nil {
		return err
	}
	_, err := ch.c.e.s.send(ch.id, m, noWait, ref)
	return err
}

// mine refuses to send where the number is another channel's by now: that one
// would get what was meant for this. c.mu is held.
func (ch *Channel) mine(id MethodID) error {
	if ch.c.e.s.channel(ch.id) == ch.st {
		return nil
	}
	return &unsentError{&Error{Text: "the channel is closed", Method: id, Channel: ch.id}}
}

// ready says whether a method can go out now. c.mu is held.
func (ch *Channel) ready(id MethodID) error {
	if err := ch.mine(id); err != nil {
		return err
	}
	_, err := ch.c.e.s.ready(ch.id, id)
	return err
}

// await waits for a call's reply.
func (c *Conn) await(ctx context.Context, st *chanState, cl *call) error {
	c.aboutToWait()
	select {
	case <-cl.done:
		return cl.err
	case <-ctx.Done():
	}
	c.mu.Lock()
	abandoned := st.abandon(cl)
	c.mu.Unlock()
	if !abandoned {
		// It came at the same time: the reader has it in hand and will not undo it.
		<-cl.done
		return cl.err
	}
	return &outcomeError{contextError(ctx)}
}

// reply completes a call. It runs on the reader.
func (r *reader) reply(cl *call) error {
	ev := &r.ev
	cl.got = ev.ID
	var err error
	if cl.reply.MethodID() == ev.ID {
		err = cl.reply.DecodeFrom(ev.Args)
	}
	if err != nil {
		cl.finish(err)
		return err
	}
	switch ev.ID {
	case MethodBasicConsumeOk:
		cl.consumer.tag = cl.reply.(*BasicConsumeOk).ConsumerTag
		cl.consumer.ch.remember(cl.consumer)
	case MethodBasicCancelOk:
		ev.st.ref.(*Channel).forget(cl.reply.(*BasicCancelOk).ConsumerTag)
	case MethodBasicGetOk:
		if ev.Oversized {
			cl.finish(r.tooLarge(cl))
			return nil
		}
		cl.delivery, err = r.got(cl)
	}
	cl.finish(err)
	return err
}

// end makes the channel's end known to all who wait for something of it, and
// returns the consumers for the caller to end once c.mu, which is held, is free.
func (ch *Channel) end(err error) []*Consumer {
	if ch.err != nil {
		return nil
	}
	ch.err = err
	ch.gone.Store(true)
	failCalls(ch.st, err)
	ch.confirms.fail(ch, err)
	if ch.done != nil {
		close(ch.done)
	}
	if ch.onEnd != nil {
		ch.onEnd()
	}
	if list := ch.consumers.Swap(nil); list != nil {
		return *list
	}
	return nil
}

func closedHere(num uint16) *Error {
	return &Error{Text: "the channel was closed by Close", Channel: num}
}

// Close closes the channel and waits for the broker's answer within ctx. What
// was accepted for sending is sent before. Unsettled deliveries go back to
// their queues. Closing a closed channel is no error.
//
// Errors: ErrInHandler inside a Trace function that is called by the goroutine
// that reads; errors that wrap ctx's own, and then the channel is closed all the
// same; an *Error where the connection was lost in between.
func (ch *Channel) Close(ctx context.Context) error {
	c := ch.c
	if c.inHook() {
		return ErrInHandler
	}
	ch.flushAcks()
	c.mu.Lock()
	if ch.err != nil || c.over || ch.st.phase != chanOpen {
		c.mu.Unlock()
		return nil
	}
	err := ch.send(&ChannelClose{ReplyCode: ReplySuccess, ReplyText: "bye"}, false, nil)
	if err != nil {
		c.mu.Unlock()
		return err
	}
	if ch.done == nil {
		ch.done = make(chan struct{})
	}
	done := ch.done
	ch.gone.Store(true)
	c.waiting.wakeAll()
	c.unlockFlush(flushNow)
	for _, cons := range ch.listed() { // none may hold the answer back, or give out what can't be settled
		cons.end(closedHere(ch.id), true)
	}
	c.aboutToWait()
	select {
	case <-done:
		if err := ch.Err(); err != nil && !errors.Is(err, errClosing) {
			return err
		}
		return nil
	case <-ctx.Done():
		return &outcomeError{contextError(ctx)}
	}
}
