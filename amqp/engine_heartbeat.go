package amqp

import (
	"fmt"
	"time"
)

// Deadline is when Tick wants to be called next; the zero time: never. There is
// none before the connection is open: how long a handshake, an answer or a close
// may take is for the engine's user to say.
func (e *Engine) Deadline() time.Time {
	hb := e.heartbeatIn
	if hb == 0 || e.s.phase != connOpen || e.lastRead.IsZero() {
		return time.Time{}
	}
	dead, beat := e.lastRead.Add(2*hb), e.lastSent.Add(hb/2)
	if dead.Before(beat) {
		return dead
	}
	return beat
}

// Tick does what is due at now: it sends a heartbeat after half the interval
// without output, and ends the connection after two intervals without input.
//
// Errors: *Error where the peer has been silent for too long.
func (e *Engine) Tick(now time.Time) error {
	if e.err != nil {
		return e.err
	}
	hb := e.heartbeatIn
	if hb == 0 || e.s.phase != connOpen {
		return nil
	}
	if !now.Before(e.lastRead.Add(2 * hb)) {
		e.fail(heartbeatError(hb))
		return e.err
	}
	if e.wrote {
		e.wrote, e.lastSent = false, now
	}
	if !now.Before(e.lastSent.Add(hb / 2)) {
		if e.s.pending() == 0 {
			e.s.out = e.s.heartbeat(e.s.out)
		}
		e.lastSent = now
	}
	return nil
}

func heartbeatError(hb time.Duration) *Error {
	return &Error{Text: fmt.Sprintf("peer was silent for twice the heartbeat interval of %s", hb)}
}

// Heard starts the count of the peer's silence afresh, for who knows that the
// peer is there and does not read from it on purpose.
func (e *Engine) Heard(now time.Time) { e.lastRead = now }
