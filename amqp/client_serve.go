package amqp

import (
	"context"
	"errors"
)

// Serve consumes with a number of workers that call h for each delivery, as
// Channel.Serve does, and starts over whenever its channel or connection is
// lost, until ctx ends or the client is shut down: then it drains and returns
// nil. opts may be nil.
//
// Where a channel is lost the contexts of its handlers end, their deliveries are
// stale, and Serve waits for them (ServeOptions.DrainTimeout) before it goes on.
//
// Errors: as Channel.Serve's, and as Resume says where the broker ended or
// refused the consumer; *TopologyError for Resume.Declare and the queues of
// Retry; those that wrap ctx's own where it ended before the first consumer
// ran; ErrClosed where the client is over.
//
// Source: https://www.rabbitmq.com/docs/consumers.
func (c *Client) Serve(ctx context.Context, m BasicConsume, h Handler, opts *ServeOptions) error {
	var o ServeOptions
	if opts != nil {
		o = *opts
	}
	if h == nil {
		return &ConfigError{Field: "Handler", Reason: "nil"}
	}
	src, err := c.source(m, &o.ConsumeOptions)
	if err != nil {
		return err
	}
	o.track, o.runs = src.track, &c.handling
	if o.Retry != nil {
		if err := o.useRetry(ctx, c, src); err != nil {
			return err
		}
	}
	if !c.consumingBegins() {
		return &unsentError{errClientClosed}
	}
	defer c.consumingEnds()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if !c.spawn(func(life context.Context) {
		select {
		case <-c.stopping:
		case <-life.Done():
		case <-ctx.Done():
		}
		cancel()
	}) {
		return &unsentError{errClientClosed}
	}
	if src.track != nil {
		inner := h
		h = func(ctx context.Context, d *Delivery) error {
			if src.track.skips(d) {
				return nil
			}
			return inner(ctx, d)
		}
	}
	return src.serve(ctx, h, &o)
}

// serve runs one Channel.Serve after the other.
func (s *source) serve(ctx context.Context, h Handler, opts *ServeOptions) error {
	ran := false
	for {
		ch, m, err := s.channel(ctx)
		if err == nil {
			err = ch.Serve(ctx, m, h, opts)
			if ctx.Err() != nil && !errors.Is(err, ErrUnknownOutcome) && !SafeToRetry(err) {
				ch.closeSoon(s.c)
				if ch.gone.Load() {
					return s.c.endOf(nil)
				}
				return err // nil, or ErrDrainTimeout
			}
			refusedNow := isRefusal(err)
			ended := ch.gone.Load() || errors.Is(err, ErrCancelled)
			ch.closeSoon(s.c)
			if !ended || !ran && refusedNow {
				return err
			}
			if !refusedNow {
				s.works()
				ran = true
			}
		}
		if ctx.Err() != nil {
			return s.c.endOf(s.unlessRan(ran, err))
		}
		if !ran && err != nil && !errors.Is(err, ErrCancelled) && (channelException(err) != nil || !errors.Is(err, ErrClosed)) {
			return err
		}
		if err := s.goesOn(ctx, err); err != nil {
			if ctx.Err() != nil {
				return s.c.endOf(s.unlessRan(ran, err))
			}
			return err
		}
		if ran {
			s.c.counts.resumed.Add(1)
		}
	}
}

// unlessRan is the error of a Serve that never came to run; one that did and
// was ended has none.
func (s *source) unlessRan(ran bool, err error) error {
	if ran {
		return nil
	}
	return err
}

// endOf is what a Serve returns that was ended: the client's own error, where
// that is over without having been shut down.
func (c *Client) endOf(err error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil && !errors.Is(err, ErrClosed) {
		return c.err
	}
	return err
}

// isRefusal reports whether the broker refused to begin a consumer.
func isRefusal(err error) bool {
	ex := channelException(err)
	return ex != nil && (ex.Method == MethodBasicConsume || ex.Method == MethodBasicQos)
}

// closeSoon closes a channel that nobody needs any more, without waiting.
func (ch *Channel) closeSoon(c *Client) {
	if ch.gone.Load() {
		return
	}
	c.spawn(func(ctx context.Context) { ch.Close(ctx) })
}
