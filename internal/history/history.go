// Package history writes down what a test sent and received, and checks that
// the two fit together whatever was done to the connections in between.
//
// What it asserts: each publish has exactly one outcome; nothing that was
// confirmed is lost; nothing is invented or corrupted; what was certainly not
// sent does not turn up; every duplicate is a redelivery or a resend that the
// sender counted; and what one publisher sent to one place arrives there for
// the first time in its order.
package history

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// Outcome is what a publisher was told.
type Outcome uint8

// The outcomes. Pending is that of a publish that was told nothing, which is
// a violation at the end.
const (
	Pending Outcome = iota
	Confirmed
	Nacked
	Returned
	Unknown
	Unsent  // certainly not with the broker
	Refused // sent, and refused by the broker: not with it either
)

func (o Outcome) String() string {
	return [...]string{"pending", "confirmed", "nacked", "returned", "unknown", "unsent", "refused"}[o]
}

// Log is a history. All its methods are safe for concurrent use.
type Log struct {
	mu         sync.Mutex // guards what follows
	sent       map[string]*message
	violations []string
	stale      int
	settled    int
}

type message struct {
	publisher string
	seq       int
	outcome   Outcome
	outcomes  int
	err       error
	fresh     int // receipts that were no redelivery
	again     int // redeliveries
	acked     int // acks that were accepted
}

// New is an empty history.
func New() *Log { return &Log{sent: map[string]*message{}} }

// Forget empties the history, for a test that goes on for long. What turns up
// later of what it held is invented.
func (l *Log) Forget() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sent, l.violations, l.stale, l.settled = map[string]*message{}, nil, 0, 0
}

// Send makes a message of a publisher, whose seq grows by one with each: its
// body, which names it, carries n octets of padding and a checksum.
func (l *Log) Send(publisher string, seq, n int, r *rand.Rand) (id string, body []byte) {
	id = publisher + "-" + strconv.Itoa(seq)
	pad := make([]byte, n)
	for i := range pad {
		pad[i] = 'a' + byte(r.IntN(26))
	}
	text := id + " " + string(pad)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.sent[id] != nil {
		l.violate("%s was sent twice by the test", id)
	}
	l.sent[id] = &message{publisher: publisher, seq: seq}
	return id, []byte(checksum(text) + " " + text)
}

func checksum(s string) string {
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:6])
}

// ID is what a body names, and whether it is intact.
func ID(body []byte) (id string, intact bool) {
	sum, text, ok := strings.Cut(string(body), " ")
	id, _, more := strings.Cut(text, " ")
	return id, ok && more && checksum(text) == sum
}

// Done notes the outcome that the publisher was told.
func (l *Log) Done(id string, o Outcome, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	m := l.sent[id]
	m.outcome, m.err = o, err
	m.outcomes++
	if m.outcomes > 1 {
		l.violate("%s has %d outcomes, the last %v (%v)", id, m.outcomes, o, err)
	}
}

// Received notes a delivery.
func (l *Log) Received(body []byte, redelivered bool) (id string) {
	id, intact := ID(body)
	l.mu.Lock()
	defer l.mu.Unlock()
	m := l.sent[id]
	switch {
	case !intact:
		l.violate("corrupted: %.60q", body)
	case m == nil:
		l.violate("invented: %s", id)
	case redelivered:
		m.again++
	default:
		m.fresh++
	}
	return id
}

// Settled notes that an ack was accepted, or that it was refused as stale.
func (l *Log) Settled(id string, accepted bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !accepted {
		l.stale++
		return
	}
	l.settled++
	if m := l.sent[id]; m != nil {
		m.acked++
	}
}

// Violation notes what the test found by itself.
func (l *Log) Violation(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.violate(format, args...)
}

func (l *Log) violate(format string, args ...any) {
	if len(l.violations) < 20 {
		l.violations = append(l.violations, fmt.Sprintf(format, args...))
	}
}

// Missing are the confirmed messages that were not received yet.
func (l *Log) Missing() (ids []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for id, m := range l.sent {
		if m.outcome == Confirmed && m.fresh+m.again == 0 {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}

// Summary is a history in figures.
type Summary struct {
	Sent       int
	Outcomes   map[Outcome]int
	Lost       int // confirmed and never received
	Duplicated int // receipts beyond a message's first
	Stale      int // acks refused here
	Acked      int
}

// Rules are what a history is held against, besides what is always asserted.
type Rules struct {
	// Resent is how many attempts after a first the sender counted. As many
	// receipts may be duplicates without being redeliveries.
	Resent int

	// Arrived is what came to the one place that all was sent to, in order, as
	// the broker wrote it down; nil: not known. Loses what is not in it.
	Arrived []string
}

// Check holds the history against the rules.
func (l *Log) Check(rules Rules) (Summary, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := Summary{Sent: len(l.sent), Outcomes: map[Outcome]int{}, Stale: l.stale, Acked: l.settled}
	unexplained := 0
	for id, m := range l.sent {
		s.Outcomes[m.outcome]++
		got := m.fresh + m.again
		if got > 1 {
			s.Duplicated += got - 1
		}
		unexplained += max(m.fresh-1, 0)
		switch {
		case m.outcomes == 0:
			l.violate("%s has no outcome", id)
		case m.outcome == Confirmed && got == 0:
			s.Lost++
			l.violate("lost: %s was confirmed and never received", id)
		case (m.outcome == Unsent || m.outcome == Refused || m.outcome == Returned) && got > 0:
			l.violate("%s was %v (%v), and received", id, m.outcome, m.err)
		}
	}
	if unexplained > rules.Resent {
		l.violate("%d duplicates that are no redelivery, and %d resends", unexplained, rules.Resent)
	}
	l.checkOrder(rules.Arrived)
	var errs []error
	for _, v := range l.violations {
		errs = append(errs, errors.New(v))
	}
	return s, errors.Join(errs...)
}

// checkOrder looks at the first arrivals of each publisher's messages.
func (l *Log) checkOrder(arrived []string) {
	seen := map[string]bool{}
	last := map[string]int{}
	for _, id := range arrived {
		m := l.sent[id]
		if m == nil || seen[id] {
			continue
		}
		seen[id] = true
		if before, ok := last[m.publisher]; ok && m.seq < before {
			l.violate("order: %s arrived after %s-%d", id, m.publisher, before)
		}
		last[m.publisher] = max(last[m.publisher], m.seq)
	}
}
