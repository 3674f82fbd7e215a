package amqp

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// TestAwait_ReplyInHandIsNotGivenUp: a context that ends while the reader has
// taken the reply in, and not yet handed it over, is too late: nobody would undo
// what the call did.
func TestAwait_ReplyInHandIsNotGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		cl := newCall(&ChannelOpenOk{})
		time.AfterFunc(time.Second, func() { cl.finish(nil) })
		if err := new(Conn).await(ctx, &chanState{}, cl); err != nil {
			t.Errorf("await: %v", err)
		}
	})
}

// TestFailCalls_RefusesTheFirstOfItsKind: what the broker names as the cause of
// a close is the oldest call of that kind, also where its caller has given up.
func TestFailCalls_RefusesTheFirstOfItsKind(t *testing.T) {
	cause := &Error{Code: NotFound, Method: MethodQueueDeclare, Remote: true}
	for _, givenUp := range []bool{false, true} {
		st := &chanState{}
		var calls []*call
		for _, id := range []MethodID{MethodQueueBind, MethodQueueDeclare, MethodQueueDeclare} {
			cl := newCall(nil)
			calls = append(calls, cl)
			st.expect = append(st.expect, expectation{request: id, ref: cl})
		}
		if givenUp {
			st.abandon(calls[1])
		}
		failCalls(st, cause)
		for i, unknown := range []bool{true, false, true} {
			if i == 1 && givenUp {
				continue
			}
			if err := calls[i].err; errors.Is(err, ErrUnknownOutcome) != unknown || !errors.Is(err, NotFound) {
				t.Errorf("given up %t: call %d ended with %v", givenUp, i, err)
			}
		}
	}
}
