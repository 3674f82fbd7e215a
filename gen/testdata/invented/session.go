// Package warp is what the tests of gen compile beside code generated from spec.json: the little
// that such code and the wire helpers need of their package.
package warp

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

// Session makes the calls.
type Session struct {
	sent   []Method
	noWait []bool
}

// call records what it is asked for, and answers with a reply of ones.
func (s *Session) call(_ context.Context, m Method, noWait bool, reply decodable) error {
	s.sent = append(s.sent, m)
	s.noWait = append(s.noWait, noWait)
	if reply == nil || noWait {
		return nil
	}
	return reply.DecodeFrom(nil)
}
