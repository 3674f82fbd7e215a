package rpc

import (
	"context"
	"errors"
	"fmt"
)

var (
	// ErrNoServer says that a request reached no queue: nobody serves there. The
	// broker returned it, so nobody will handle it.
	ErrNoServer = errors.New("rpc: no server: the request reached no queue")

	// ErrBusy says that as many calls are pending as ClientOptions.MaxPending
	// allows, and that the context ended before one of them did. Nothing was sent.
	ErrBusy = errors.New("rpc: too many calls are pending")

	// ErrClosed says that the client was closed.
	ErrClosed = errors.New("rpc: client is closed")

	// ErrReplyTooLarge says that a reply was longer than the connection takes
	// (amqp.Config.MaxBody) or than ClientOptions.MaxReply.
	ErrReplyTooLarge = errors.New("rpc: reply is too large")
)

// The codes of RemoteError that this package makes itself. Handlers may use
// any others.
const (
	CodeInternal    = "internal"    // the handler failed with an error of its own, or panicked
	CodeBadRequest  = "bad-request" // the request could not be decoded
	CodeUnsupported = "unsupported" // its content type is none that is known here
	CodeNotFound    = "not-found"   // nothing is registered for its name
	CodeDeadline    = "deadline"    // the handler ran out of the caller's time
	CodeTooLarge    = "too-large"   // the reply does not fit
)

// RemoteError is an error that the server's handler returned, as it reaches
// the caller. A handler returns one to choose the code; any other error
// becomes one with CodeInternal and its text.
type RemoteError struct {
	Code        string // for programs
	Text        string // for people
	Details     []byte // encoded as ContentType says; may be empty
	ContentType string
}

// Error is the code and the text.
func (e *RemoteError) Error() string { return fmt.Sprintf("rpc: remote error %s: %s", e.Code, e.Text) }

// Is reports whether target is a RemoteError with the same code, so that
// errors.Is(err, &rpc.RemoteError{Code: "not-found"}) works, or
// context.DeadlineExceeded where the handler ran out of the caller's time: it is
// chance whether the caller or the server notices first.
func (e *RemoteError) Is(target error) bool {
	if target == context.DeadlineExceeded {
		return e.Code == CodeDeadline
	}
	t, ok := target.(*RemoteError)
	return ok && t.Code == e.Code && (t.Text == "" || t.Text == e.Text)
}
