package amqp

import (
	"context"
	"errors"
	"fmt"
	"strconv"
)

// Sentinel errors, to be compared with errors.Is.
var (
	// ErrClosed says that a channel, a connection or a client is closed, by
	// whichever side and for whatever reason. The error that wraps it says which.
	ErrClosed = errors.New("amqp: closed")

	// ErrUnknownOutcome says that a message or a request was, or may have been,
	// sent, and that what became of it will never be known here: the
	// connection or channel ended first, or the caller's context did. The
	// broker may have it or not.
	ErrUnknownOutcome = errors.New("amqp: outcome unknown")

	// ErrNacked says that the broker answered a publish with basic.nack: it did
	// not take the message. Source: https://www.rabbitmq.com/docs/confirms.
	ErrNacked = errors.New("amqp: message nacked by the broker")

	// ErrStale says that a delivery can no longer be settled: the channel that
	// brought it is gone, and the broker has given or will give the message to
	// another consumer. Nothing was sent.
	ErrStale = errors.New("amqp: delivery is stale, its channel is gone")

	// ErrSettled says that a delivery was settled before, or needs no settling
	// since it was consumed without acknowledgements. Nothing was sent.
	ErrSettled = errors.New("amqp: delivery is settled already")

	// ErrEmpty is what Channel.Get returns of a queue that has no message ready.
	ErrEmpty = errors.New("amqp: queue is empty")

	// ErrTxMode says that a channel can't be both transactional and confirming.
	// It is returned before anything is sent: the broker would close the
	// channel. Source: https://www.rabbitmq.com/docs/confirms.
	ErrTxMode = errors.New("amqp: a channel is either transactional or confirming, not both")

	// ErrSlowConsumer ends a consumer that holds back no deliveries by
	// acknowledgements and fell too far behind (ConsumeOptions.Buffer).
	ErrSlowConsumer = errors.New("amqp: consumer fell too far behind")

	// ErrBlocked says that the broker has blocked publishing on this connection
	// and that Config.FailWhenBlocked asks not to wait.
	ErrBlocked = errors.New("amqp: publishing is blocked by the broker")

	// ErrInHandler refuses a Close, or another call that waits for the broker,
	// inside a function of Trace that is called by the goroutine that reads, and
	// Client.Shutdown inside a handler: it would wait for itself.
	ErrInHandler = errors.New("amqp: called from inside a handler that it would wait for")

	// ErrRefused says that a call was not sent since the broker would have
	// answered it by closing the whole connection. The error that wraps it says
	// what is wrong.
	ErrRefused = errors.New("amqp: call refused before it was sent")

	// ErrEncode is wrapped by every EncodeError.
	ErrEncode = errors.New("amqp: value has no faithful form on the wire")
)

// Error is an exception of AMQP: what one side tells the other when it closes
// a channel or the connection, and what this library makes of a violation by
// the peer or of a lost connection.
//
// It unwraps to its ReplyCode, so errors.Is(err, amqp.NotFound) works; to
// ErrClosed, since what it is about is closed by it; and to the cause where
// there is one, such as an I/O error.
//
// Source: AMQP 0-9-1 §1.2 (reply codes), https://www.rabbitmq.com/docs/channels#error-handling.
type Error struct {
	Code    ReplyCode // 0 where the connection was lost without a close method
	Text    string    // the peer's or this library's words; never credentials
	Method  MethodID  // the method that caused it, or 0
	Channel uint16    // 0: the whole connection
	Remote  bool      // said by the peer, not found here

	cause error
}

// Error describes the exception in one line.
func (e *Error) Error() string {
	b := make([]byte, 0, 64+len(e.Text))
	b = append(b, "amqp: "...)
	if e.Channel != 0 {
		b = append(b, "channel "...)
		b = strconv.AppendUint(b, uint64(e.Channel), 10)
		b = append(b, ": "...)
	}
	if e.Code != 0 {
		b = strconv.AppendUint(b, uint64(e.Code), 10)
		b = append(b, ' ')
	}
	b = append(b, e.Text...)
	if e.Method != 0 {
		b = append(b, " ("...)
		b = append(b, e.Method.String()...)
		b = append(b, ')')
	}
	if e.cause != nil {
		b = append(b, ": "...)
		b = append(b, e.cause.Error()...)
	}
	return string(b)
}

// Unwrap gives the reply code, ErrClosed and the cause.
func (e *Error) Unwrap() []error {
	errs := []error{ErrClosed}
	if e.Code != 0 {
		errs = append(errs, e.Code)
	}
	if e.cause != nil {
		errs = append(errs, e.cause)
	}
	return errs
}

// ReturnError is the outcome of a mandatory publish that reached no queue: the
// broker sent the message back. Code is NoRoute (312), or NoConsumers (313).
// Source: https://www.rabbitmq.com/docs/publishers#unroutable.
type ReturnError struct {
	Code       ReplyCode
	Text       string
	Exchange   string
	RoutingKey string
	Message    *Message // what came back; a copy, the receiver's to keep
}

// Error describes the return in one line.
func (e *ReturnError) Error() string {
	return fmt.Sprintf("amqp: message returned: %d %s (exchange %q, routing key %q)",
		uint16(e.Code), e.Text, e.Exchange, e.RoutingKey)
}

// Unwrap gives the reply code.
func (e *ReturnError) Unwrap() error { return e.Code }

// outcomeError is the error of a publish or call whose outcome is unknown: it
// wraps ErrUnknownOutcome and what made it so.
type outcomeError struct{ cause error }

func (e *outcomeError) Error() string {
	return ErrUnknownOutcome.Error() + ": " + e.cause.Error()
}

func (e *outcomeError) Unwrap() []error { return []error{ErrUnknownOutcome, e.cause} }

// unsentError marks an error of a publish or call of which nothing was sent.
type unsentError struct{ cause error }

func (e *unsentError) Error() string { return e.cause.Error() }
func (e *unsentError) Unwrap() error { return e.cause }

// contextError is the error of a context that has ended, with its cause where
// that is another.
func contextError(ctx context.Context) error {
	err := ctx.Err()
	if cause := context.Cause(ctx); !errors.Is(cause, err) {
		return fmt.Errorf("%w (%w)", err, cause)
	}
	return err
}

// unsent marks an error, where there is one, as that of something that was not
// sent.
func unsent(err error) error {
	if err == nil {
		return nil
	}
	return &unsentError{err}
}

// SafeToRetry reports whether err says for certain that nothing was sent, so
// that the same publish or call can be made again without any risk of doing
// it twice. It is false for nil and for errors of other packages.
func SafeToRetry(err error) bool {
	var u *unsentError
	if errors.As(err, &u) {
		return true
	}
	for _, sentinel := range []error{ErrEncode, ErrRefused, ErrBlocked, ErrTxMode} {
		if errors.Is(err, sentinel) {
			return true
		}
	}
	return false
}

// refused makes an error that wraps ErrRefused and says why.
func refused(id MethodID, why string) error {
	return fmt.Errorf("%w: %s: %s", ErrRefused, id, why)
}
