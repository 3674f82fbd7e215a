package amqp

import (
	"errors"
	"sync/atomic"
)

// ClientStats is what a client holds and has done, at one moment.
type ClientStats struct {
	State      State
	Publishing Stats // of the connections that are open; one with OneConnection
	Consuming  Stats

	Dials   uint64 // attempts to connect
	Opened  uint64 // those that came to a connection in use
	Renewed uint64 // credentials given to the broker ahead of their expiry

	Held      int64 // bytes of messages that wait for their outcome; with Resend
	Buffered  int64 // bytes of deliveries that were read, and count against MaxBytes
	Confirmed uint64
	Nacked    uint64
	Returned  uint64
	Unknown   uint64
	Refused   uint64 // failed for certain: not sent, or the broker's exception
	Resent    uint64 // attempts after a message's first
	ResentOK  uint64 // messages that a later attempt brought to a confirm

	Resumed   uint64 // consumers that were started again
	Cancelled uint64 // of these, how often the broker had ended or refused them
}

// clientCounts are the client's own counters. Those of outcomes know what
// Publish returned, and with Resend every outcome.
type clientCounts struct {
	confirmed, nacked, returned, unknown, refused atomic.Uint64
	resent, resentConfirmed                       atomic.Uint64
	resumed, cancelled, renewed                   atomic.Uint64
}

// outcome counts what became of a publish, and returns it.
func (n *clientCounts) outcome(err error) error {
	var ret *ReturnError
	switch {
	case err == nil:
		n.confirmed.Add(1)
	case errors.Is(err, ErrUnknownOutcome):
		n.unknown.Add(1)
	case err == ErrNacked:
		n.nacked.Add(1)
	case errors.As(err, &ret):
		n.returned.Add(1)
	default:
		n.refused.Add(1)
	}
	return err
}

// Stats reads the client's counters. It does not wait for the broker.
func (c *Client) Stats() ClientStats {
	n := &c.counts
	s := ClientStats{
		Held: c.budget.held(), Buffered: c.budget.came.Load(), Renewed: n.renewed.Load(),
		Confirmed: n.confirmed.Load(), Nacked: n.nacked.Load(), Returned: n.returned.Load(),
		Unknown: n.unknown.Load(), Refused: n.refused.Load(),
		Resent: n.resent.Load(), ResentOK: n.resentConfirmed.Load(),
		Resumed: n.resumed.Load(), Cancelled: n.cancelled.Load(),
	}
	c.mu.Lock()
	s.State, _ = c.state()
	pub, con := c.pub.usable(), c.con.usable()
	for _, l := range c.links() {
		s.Dials += l.dials
		s.Opened += l.opened
	}
	c.mu.Unlock()
	if pub != nil {
		s.Publishing = pub.Stats()
	}
	if con != nil && con != pub {
		s.Consuming = con.Stats()
	}
	return s
}
