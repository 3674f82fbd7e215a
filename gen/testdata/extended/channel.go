// Package extended is what the tests of gen compile beside AMQP with RabbitMQ's two extensions: the
// little that generated code and the wire helpers need of their package.
package extended

import (
	"context"
	"errors"
)

// ErrEncode is wrapped by every EncodeError.
var ErrEncode = errors.New("no wire form")

// Error is a violation by the peer.
type Error struct {
	Code    ReplyCode
	Text    string
	Method  MethodID
	Channel uint16
	Remote  bool
}

func (e *Error) Error() string { return e.Text }

// Channel makes the calls.
type Channel struct{ answer []byte }

// call answers with what the test put down.
func (ch *Channel) call(_ context.Context, _ Method, noWait bool, reply decodable) error {
	if reply == nil || noWait {
		return nil
	}
	return reply.DecodeFrom(ch.answer)
}
