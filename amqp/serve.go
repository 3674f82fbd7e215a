package amqp

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"time"
)

// Handler handles one delivery of Serve. Nil acks it, unless the handler has
// settled it itself; what an error or a panic does is said by
// ServeOptions.OnError.
//
// ctx carries the values of Serve's context, and those that Trace.Deliver adds.
// It does not end with Serve's context, so that a handler can finish what it
// began, but when the channel is gone, when ServeOptions.Timeout has passed, and
// when the drain has taken too long.
type Handler func(ctx context.Context, d *Delivery) error

// Action is what is done with a delivery whose handler failed.
type Action uint8

const (
	// ActionDelay holds the delivery for ServeOptions.Delay and requeues it
	// then. No worker waits for that, but the delivery counts as one that is
	// not settled: where as many as the prefetch fail, no more come meanwhile.
	ActionDelay Action = iota

	ActionRequeue // Delivery.Requeue, at once: the message may come again right away
	ActionRetry   // Delivery.Retry, at once
	ActionReject  // Delivery.Reject: dead-letter or drop
	ActionAck     // Delivery.Ack: nothing is to be done about it
	ActionEnd     // Delivery.Retry, and Serve drains and returns the error
)

// ServeOptions are what Serve takes besides the method's arguments. Nil and the
// zero value mean the defaults.
type ServeOptions struct {
	// ConsumeOptions are Subscribe's, with another default: Prefetch 0 means 32
	// for each worker.
	ConsumeOptions

	// Workers is how many handlers may run at once, each on a goroutine that
	// lives as long as Serve. 0: 1.
	Workers int

	// Key names what has to stay in order. Deliveries of one key are handled one
	// after another, in the order in which they came; those of different keys in
	// parallel. (One that is requeued comes after those behind it, as always.)
	// It is called in order, by one goroutine at a time. Nil: no order, unless
	// Workers is 1.
	Key func(*Delivery) string

	// Timeout is how long a handler may take before its context ends. A handler
	// that returns nil later is one that succeeded. 0: no limit.
	Timeout time.Duration

	// DrainTimeout bounds the drain, from the end of Serve's context on. When it
	// has passed, the contexts of the handlers that still run end, and a second
	// later Serve returns. 0: 30 s. Negative: no limit.
	DrainTimeout time.Duration

	// OnError decides what is done with a delivery whose handler returned an
	// error or panicked (a *PanicError). It may settle the delivery itself, and
	// so may the handler before it fails: then only ActionEnd means anything. It
	// is called by the workers, also at the same time; a panic in it ends Serve.
	// Nil: ActionDelay for all.
	OnError func(d *Delivery, err error) Action

	// Delay is how long ActionDelay waits. 0: 1 s.
	Delay time.Duration

	// Retry says what becomes of a message whose handler failed, in place of
	// OnError. Nil: OnError decides. It publishes, and is a Client's: Channel.Serve
	// refuses it.
	Retry *Retry
}

const (
	servePrefetch       = 32 // for each worker
	defaultDrainTimeout = 30 * time.Second
	defaultDelay        = time.Second
	drainGrace          = time.Second
)

func (o *ServeOptions) orDefaults() (ServeOptions, error) {
	var opts ServeOptions
	if o != nil {
		opts = *o
	}
	if opts.Retry != nil {
		return opts, &ConfigError{Field: "ServeOptions.Retry", Reason: "set for a Channel: only a Client can publish in its name"}
	}
	if opts.Workers < 0 || opts.Timeout < 0 || opts.Delay < 0 {
		return opts, &ConfigError{Field: "ServeOptions", Reason: "Workers, Timeout or Delay is negative"}
	}
	def(&opts.Workers, 1)
	def(&opts.DrainTimeout, defaultDrainTimeout)
	def(&opts.Delay, defaultDelay)
	def(&opts.Prefetch, min(servePrefetch*opts.Workers, 1<<16-1))
	if opts.Workers == 1 {
		opts.Key = nil // one worker keeps the order of all
	}
	return opts, nil
}

// PanicError is the error of a handler that panicked. The process and the worker
// live on.
type PanicError struct {
	Value any    // what panic was called with
	Stack []byte // the goroutine's stack at that moment, as debug.Stack has it
}

// Error describes the panic in one line, without the stack.
func (e *PanicError) Error() string { return fmt.Sprintf("amqp: handler panicked: %v", e.Value) }

// Unwrap gives the value, where it is an error.
func (e *PanicError) Unwrap() error {
	err, _ := e.Value.(error)
	return err
}

// ErrDrainTimeout says that handlers were still running when
// ServeOptions.DrainTimeout had passed. What they do with their deliveries
// counts as long as the channel is open.
var ErrDrainTimeout = errors.New("amqp: handlers outlasted the drain time-out")

// errGoexit stands for a panic's value where a handler ended its goroutine.
var errGoexit = errors.New("the handler called runtime.Goexit")

// Serve consumes with a number of workers that call h for each delivery, and
// returns when that is over. opts may be nil.
//
// When ctx ends Serve drains: it cancels the consumer, requeues what no handler
// has begun or what waits to be requeued, waits for the handlers that run, and
// sees their settlements off, all within ServeOptions.DrainTimeout. Then it
// returns nil. Whatever else ends it is drained alike.
//
// It is safe to call anything from a handler, Close of the channel or the
// connection included: they don't wait for handlers, whose context ends.
//
// Errors: as Subscribe's, before anything was handled. Later: ErrCancelled and
// ErrSlowConsumer; an *Error where the channel is gone; the handler's own error
// after ActionEnd; ErrDrainTimeout.
//
// Source: https://www.rabbitmq.com/docs/consumers.
func (ch *Channel) Serve(ctx context.Context, m BasicConsume, h Handler, opts *ServeOptions) error {
	if h == nil {
		return &ConfigError{Field: "Handler", Reason: "nil"}
	}
	o, err := opts.orDefaults()
	if err != nil {
		return err
	}
	cons, err := ch.Subscribe(ctx, m, &o.ConsumeOptions)
	if err != nil {
		return err
	}
	base, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	defer cancel(nil)
	s := &serving{
		ch: ch, cons: cons, h: h, opts: o, base: base, cancel: cancel, over: ctx.Done(),
		stop: make(chan struct{}), ending: make(chan struct{}), idle: make(chan struct{}), kick: make(chan struct{}, 1),
	}
	s.working.Store(int32(o.Workers))
	work := s.work
	if o.Key != nil {
		s.keyed.init(s)
		work = s.keyed.work
	}
	for range o.Workers {
		go o.runs.run(work)
	}
	s.supervise(ctx)
	return s.drain()
}

// call runs the handler. A panic becomes an error.
func (s *serving) call(d *Delivery) (err error) {
	returned := false
	defer func() {
		if returned {
			return
		}
		v := recover()
		if v == nil { // nothing can keep this goroutine
			err = &PanicError{Value: errGoexit, Stack: debug.Stack()}
			d.Retry()
			s.end(err)
			return
		}
		err = &PanicError{Value: v, Stack: debug.Stack()}
	}()
	ctx := s.base
	if s.opts.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, s.opts.Timeout)
		defer cancel()
	}
	err = s.h(s.ch.c.trace.deliver(ctx, d), d)
	returned = true
	return err
}
