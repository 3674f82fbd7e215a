package rpc

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"time"

	"github.com/warrenmq/warren/amqp"
)

// Handler handles a request. What it returns is the reply: a message, nil for
// an empty one, or an error, which reaches the caller as a *RemoteError. ctx
// ends with the caller's deadline, when the caller gives up, and with the
// server. The request is valid until the handler returns.
type Handler func(ctx context.Context, req *Request) (*amqp.Message, error)

// Request is what a Handler handles.
type Request struct {
	amqp.Properties // with their Headers
	Exchange        string
	RoutingKey      string
	Body            []byte
	Redelivered     bool

	server *server
	ch     *amqp.Channel
	seq    int64
}

// WantsReply reports whether the caller takes a reply: without a reply-to a
// request is a cast.
func (r *Request) WantsReply() bool { return r.ReplyTo != "" }

// WantsStream reports whether the caller takes several replies.
func (r *Request) WantsStream() bool {
	on, _ := r.Headers[HeaderStream].(bool)
	return on
}

// Send sends one reply of several, before the one that the handler returns. It
// waits, within ctx, where the connection can take no more.
//
// Errors: ErrNoStream where the caller takes one reply only; errors of sending.
func (r *Request) Send(ctx context.Context, msg amqp.Message) error {
	if !r.WantsStream() || !r.WantsReply() {
		return ErrNoStream
	}
	setHeader(&msg, HeaderMore, true)
	return r.reply(ctx, msg)
}

// ErrNoStream says that a handler sent several replies to a caller that takes
// one.
var ErrNoStream = errors.New("rpc: the caller takes one reply")

func (r *Request) reply(ctx context.Context, msg amqp.Message) error {
	if r.WantsStream() {
		setHeader(&msg, HeaderSeq, r.seq)
		r.seq++
	}
	msg.CorrelationID = r.CorrelationID
	if msg.DeliveryMode == 0 && r.ReplyTo == directReplyTo {
		msg.DeliveryMode = 1
	}
	m := amqp.BasicPublish{RoutingKey: r.ReplyTo}
	if r.server.opts.ConfirmReplies {
		return r.ch.Publish(ctx, m, msg)
	}
	return r.ch.BasicPublish(ctx, m, msg)
}

// ServerOptions are what Serve takes. Nil and the zero value mean the
// defaults.
type ServerOptions struct {
	// Workers is how many requests are handled at a time. 0: 8.
	Workers int

	// Prefetch is how many requests are fetched ahead, those being handled
	// among them. 0: twice Workers.
	Prefetch int

	// ConfirmReplies waits for the broker's confirm of a reply before the
	// request is acked, so that a reply can't get lost with the connection
	// without the request being handled again. A confirm does not say that the
	// caller has it, nor that there still is a caller.
	ConfirmReplies bool

	// Timeout bounds a handler whose request says nothing. 0: no bound.
	Timeout time.Duration

	// Poison says what becomes of a request that was delivered again because
	// its handling broke off (a server died under it) and that has come this
	// often before: it is rejected, to the queue's dead-letter exchange if there
	// is one, and the caller is told. 0: 5. It needs a queue that counts
	// (x-delivery-count: quorum queues); on others a redelivered request is
	// handled like any other.
	Poison int

	// Drain is how long handlers may go on when Serve's context has ended. 0: 30 s.
	Drain time.Duration

	// Logger is told of panics, with their stacks, and of replies that could
	// not be sent. Nil: slog.Default().
	Logger *slog.Logger
}

const (
	defaultWorkers = 8
	defaultPoison  = 5
	defaultDrain   = 30 * time.Second
)

func (o *ServerOptions) orDefaults() ServerOptions {
	var opts ServerOptions
	if o != nil {
		opts = *o
	}
	if opts.Workers <= 0 {
		opts.Workers = defaultWorkers
	}
	if opts.Prefetch <= 0 {
		opts.Prefetch = 2 * opts.Workers
	}
	if opts.Poison <= 0 {
		opts.Poison = defaultPoison
	}
	if opts.Drain <= 0 {
		opts.Drain = defaultDrain
	}
	if opts.Logger == nil {
		opts.Logger = slog.Default()
	}
	return opts
}

// server is one Serve.
type server struct {
	handler Handler
	opts    ServerOptions
	cancels *cancels
}

// handle does one request, from the delivery to the reply and the ack.
func (s *server) handle(ctx context.Context, d *amqp.Delivery) error {
	req := &Request{
		Properties: d.Properties(), Exchange: d.Exchange, RoutingKey: d.RoutingKey,
		Body: d.Body, Redelivered: d.Redelivered, server: s, ch: d.Channel(),
	}
	headers, err := d.Headers()
	if err != nil {
		return d.Reject() // nobody can say what it wants
	}
	req.Headers = headers
	if n, ok := integer(headers["x-delivery-count"]); ok && int(n) >= s.opts.Poison {
		s.answer(ctx, req, nil, &RemoteError{Code: CodeInternal, Text: "given up after the request broke off its handling again and again"})
		return d.Reject()
	}
	ctx, stop, begin := s.begin(ctx, req)
	defer stop()
	if !begin {
		return d.Ack() // nobody waits for it
	}
	msg, err := s.call(ctx, req)
	if s.cancels.ended(req.CorrelationID) {
		return d.Ack() // nobody waits for the answer
	}
	if err := s.answer(ctx, req, msg, err); err != nil {
		// The reply is lost with the channel, and the request is handled again.
		return err
	}
	return d.Ack()
}

// begin makes the context of a request, and says whether to begin at all.
func (s *server) begin(ctx context.Context, req *Request) (context.Context, func(), bool) {
	limit := s.opts.Timeout
	if ms, ok := integer(req.Headers[HeaderTimeout]); ok {
		if ms <= 0 {
			return ctx, func() {}, false
		}
		limit = time.Duration(ms) * time.Millisecond
	}
	var stop context.CancelFunc
	if limit > 0 {
		ctx, stop = context.WithTimeout(ctx, limit)
	} else {
		ctx, stop = context.WithCancel(ctx)
	}
	if req.CorrelationID == "" || !req.WantsReply() {
		return ctx, stop, true
	}
	if !s.cancels.begin(ctx, req, stop) {
		stop()
		return ctx, func() {}, false
	}
	return ctx, stop, true
}

// call runs the handler; a panic becomes an error for the caller, and its
// stack goes to the log alone.
func (s *server) call(ctx context.Context, req *Request) (msg *amqp.Message, err error) {
	defer func() {
		if v := recover(); v != nil {
			s.opts.Logger.Error("rpc: handler panicked", "routing_key", req.RoutingKey, "panic", fmt.Sprint(v), "stack", string(debug.Stack()))
			msg, err = nil, &RemoteError{Code: CodeInternal, Text: "the handler panicked"}
		}
	}()
	return s.handler(ctx, req)
}

// answer sends the reply. A caller that is gone is no error: the broker drops
// the reply.
func (s *server) answer(ctx context.Context, req *Request, msg *amqp.Message, err error) error {
	if !req.WantsReply() {
		return nil
	}
	var reply amqp.Message
	switch {
	case err != nil:
		reply = errorReply(ctx, err)
	case msg != nil:
		reply = *msg
	}
	// The handler's time is over perhaps; its answer, be it that, still goes.
	sendCtx, stop := context.WithTimeout(context.WithoutCancel(ctx), s.opts.Drain)
	defer stop()
	sendErr := req.reply(sendCtx, reply)
	if errors.Is(sendErr, amqp.ErrRefused) || errors.Is(sendErr, amqp.ErrEncode) {
		s.opts.Logger.Error("rpc: reply can't be sent", "routing_key", req.RoutingKey, "error", sendErr)
		sendErr = req.reply(sendCtx, errorReply(ctx, &RemoteError{Code: CodeTooLarge, Text: sendErr.Error()}))
	}
	return sendErr
}

// errorReply is the message that carries an error.
func errorReply(ctx context.Context, err error) amqp.Message {
	var remote *RemoteError
	if !errors.As(err, &remote) {
		remote = &RemoteError{Code: CodeInternal, Text: err.Error()}
		if errors.Is(err, context.DeadlineExceeded) && ctx.Err() != nil {
			remote.Code = CodeDeadline
		}
	}
	var msg amqp.Message
	msg.ContentType, msg.Body = remote.ContentType, remote.Details
	msg.Headers = amqp.Table{HeaderErrorCode: remote.Code, HeaderErrorText: remote.Text}
	return msg
}
