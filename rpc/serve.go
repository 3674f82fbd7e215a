package rpc

import (
	"context"
	"sync"
	"time"

	"github.com/warrenmq/warren/amqp"
)

// Consumer is what requests are taken from: an *amqp.Client, which goes on over
// lost connections, or an *amqp.Channel.
type Consumer interface {
	Serve(ctx context.Context, m amqp.BasicConsume, h amqp.Handler, opts *amqp.ServeOptions) error
}

// Serve answers the requests of a queue, which must exist, with h until ctx
// ends, and then drains: no more requests are begun, those that are handled
// are answered, within ServerOptions.Drain. Several servers may share a queue.
// opts may be nil.
//
// A request is acked when its reply is on its way (ServerOptions.ConfirmReplies:
// when the broker has it). An error is a reply too, and so is a panic: they are
// the caller's to see, and a request is not handled again for them. Replies are
// in no particular order. A request whose time is over when its turn comes, or
// whose caller has given up, is not begun; a caller that gives up while it is
// handled ends the handler's context.
//
// Errors: as amqp.Channel.Serve.
func Serve(ctx context.Context, s Consumer, queue string, h Handler, opts *ServerOptions) error {
	srv := &server{handler: h, opts: opts.orDefaults(), cancels: newCancels()}
	listening, stop := context.WithCancel(context.WithoutCancel(ctx))
	var wg sync.WaitGroup
	if open := openerOf(s); open != nil {
		wg.Go(func() { srv.listen(listening, open) })
	} else {
		srv.cancels.deafen()
	}
	err := s.Serve(ctx, amqp.BasicConsume{Queue: queue}, srv.handle, &amqp.ServeOptions{
		ConsumeOptions: amqp.ConsumeOptions{Prefetch: srv.opts.Prefetch},
		Workers:        srv.opts.Workers,
		DrainTimeout:   srv.opts.Drain,
		OnError:        func(*amqp.Delivery, error) amqp.Action { return amqp.ActionRetry },
	})
	stop()
	wg.Wait()
	return err
}

// openerOf finds where a server can open a channel for cancels.
func openerOf(s Consumer) Opener {
	switch s := s.(type) {
	case *amqp.Channel:
		return s.Conn()
	case Opener:
		return s
	}
	return nil
}

// listen keeps listening for callers that give up. It is a service to the
// server: without it handlers work in vain now and then.
func (s *server) listen(ctx context.Context, open Opener) {
	for pause := 100 * time.Millisecond; ctx.Err() == nil; pause = min(2*pause, 10*time.Second) {
		ch, err := open.Channel(ctx)
		if err == nil {
			err = s.cancels.listen(ctx, ch)
			ch.Close(context.WithoutCancel(ctx))
			s.cancels.unbound()
		}
		if ctx.Err() != nil {
			return
		}
		if isRefusal(err) {
			s.opts.Logger.Warn("rpc: callers that give up can't be heard", "error", err)
			s.cancels.deafen()
			return
		}
		t := time.NewTimer(pause)
		select {
		case <-t.C:
		case <-ctx.Done():
		}
		t.Stop()
	}
}

// deafen ends all waits for bindings, now and later.
func (c *cancels) deafen() {
	c.unbound()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.binds = nil
}

// unbound forgets what was bound to a queue that is gone: the keys are bound
// again as requests come.
func (c *cancels) unbound() {
	c.mu.Lock()
	defer c.mu.Unlock()
	clear(c.bound)
	for {
		select {
		case b := <-c.binds:
			b.done()
		default:
			return
		}
	}
}
