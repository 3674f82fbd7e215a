package rpc

import (
	"context"
	"errors"
	"iter"
	"sync"

	"github.com/warrenmq/warren/amqp"
)

// remoteError is the error that a reply is, or nil.
func remoteError(msg *amqp.Message) error {
	code, ok := msg.Headers[HeaderErrorCode].(string)
	if !ok {
		return nil
	}
	text, _ := msg.Headers[HeaderErrorText].(string)
	return &RemoteError{Code: code, Text: text, Details: msg.Body, ContentType: msg.ContentType}
}

// streams reports whether more replies follow this one.
func streams(d *amqp.Delivery) bool {
	t, err := d.Headers()
	more, _ := t[HeaderMore].(bool)
	return err == nil && more
}

func isRefusal(err error) bool {
	return errors.Is(err, amqp.AccessRefused) || errors.Is(err, amqp.NotFound)
}

// streamRoom is how many replies of a stream may wait for its reader.
const streamRoom = 1024

// ErrStreamOverrun ends a stream whose reader fell too far behind: replies
// were dropped.
var ErrStreamOverrun = errors.New("rpc: the stream's reader fell behind, and replies were lost")

// Stream sends a request and gives its replies in the order in which the
// handler sent them (Request.Send), the returned one last. The loop ends with
// the last, or with an error and an empty message. Leaving it early tells the
// server to stop. The context bounds it all.
//
// Errors: as Call; ErrStreamOverrun.
func (c *Client) Stream(ctx context.Context, to To, msg amqp.Message) iter.Seq2[amqp.Message, error] {
	return func(yield func(amqp.Message, error) bool) {
		p, err := c.send(ctx, to, msg, stream, streamRoom)
		if err != nil {
			yield(amqp.Message{}, err)
			return
		}
		defer func() {
			if c.forget(p) {
				c.cancel(p)
			}
		}()
		for next := int64(0); ; next++ {
			var r result
			select {
			case r = <-p.reply:
			case <-ctx.Done():
				yield(amqp.Message{}, context.Cause(ctx))
				return
			}
			if r.err == nil {
				r.err = remoteError(r.msg)
			}
			if r.err == nil {
				if seq, ok := integer(r.msg.Headers[HeaderSeq]); ok && seq != next {
					r.err = ErrStreamOverrun
				}
			}
			if r.err != nil {
				yield(amqp.Message{}, r.err)
				return
			}
			more, _ := r.msg.Headers[HeaderMore].(bool)
			if !yield(*r.msg, nil) || !more {
				return
			}
		}
	}
}

// Gather sends a request to an exchange that copies it to several servers, and
// gives their replies as they come, until there are count of them or ctx ends,
// which is no error once there was a reply. A reply that is an error comes with
// its message as a *RemoteError, and the rest go on.
//
// Errors: as Call.
func (c *Client) Gather(ctx context.Context, to To, msg amqp.Message, count int) iter.Seq2[amqp.Message, error] {
	return func(yield func(amqp.Message, error) bool) {
		p, err := c.send(ctx, to, msg, gather, max(count, 1))
		if err != nil {
			yield(amqp.Message{}, err)
			return
		}
		defer c.forget(p)
		for n := 0; n < count; n++ {
			var r result
			select {
			case r = <-p.reply:
			case <-ctx.Done():
				if n == 0 {
					yield(amqp.Message{}, context.Cause(ctx))
				}
				return
			}
			if r.err != nil {
				yield(amqp.Message{}, r.err)
				return
			}
			if !yield(*r.msg, remoteError(r.msg)) {
				return
			}
		}
	}
}

// Cast sends a request for which no reply is wanted, and waits, within ctx, for
// the broker's confirm. The handler's answer goes nowhere.
//
// Errors: ErrNoServer; amqp.ErrNacked; an error that wraps
// amqp.ErrUnknownOutcome; errors of sending it.
func (c *Client) Cast(ctx context.Context, to To, msg amqp.Message) error {
	if err := withDeadline(ctx, &msg); err != nil {
		return err
	}
	ch, err := c.casting.get(ctx, c.open)
	if err != nil {
		return err
	}
	err = ch.Publish(ctx, amqp.BasicPublish{Exchange: to.Exchange, RoutingKey: to.RoutingKey, Mandatory: true}, msg)
	var ret *amqp.ReturnError
	if errors.As(err, &ret) {
		return ErrNoServer
	}
	return err
}

// sharedChannel is a channel that is opened when first needed, and again when
// it was lost.
type sharedChannel struct {
	mu     sync.Mutex // held while one is opened
	ch     *amqp.Channel
	closed bool
}

func (s *sharedChannel) get(ctx context.Context, open Opener) (*amqp.Channel, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, ErrClosed
	}
	if s.ch != nil && isOpen(s.ch) {
		return s.ch, nil
	}
	ch, err := open.Channel(ctx)
	if err != nil {
		return nil, err
	}
	s.ch = ch
	return ch, nil
}

func isOpen(ch *amqp.Channel) bool {
	select {
	case <-ch.Done():
		return false
	default:
		return true
	}
}

func (s *sharedChannel) close(ctx context.Context) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	if s.ch != nil {
		s.ch.Close(ctx)
	}
}
