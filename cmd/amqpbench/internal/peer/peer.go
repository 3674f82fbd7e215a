// Package peer is what the workloads ask of a client library. A library's adapter has the loops, so that no
// measured message pays for an interface call of ours.
package peer

import (
	"context"
	"encoding/binary"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/warrenmq/warren/cmd/amqpbench/internal/hist"
)

// ErrUnsupported is the answer of a peer that has no such thing.
var ErrUnsupported = errors.New("not supported by this peer")

// Peer is a client library.
type Peer interface {
	Name() string
	Version() string
	Dial(ctx context.Context, uri string) (Conn, error)
}

// Conn is one connection.
type Conn interface {
	Channel(ctx context.Context) (Channel, error)
	// RPC opens a caller over direct reply-to.
	RPC(ctx context.Context) (RPC, error)
	Close() error
}

// Queue is what Declare declares.
type Queue struct {
	Name       string
	Type       string // "", classic, quorum or stream
	Durable    bool
	AutoDelete bool
	Exclusive  bool
	MaxLength  int // messages; 0: no limit
}

// Channel is one channel. Publish and Consume may be called by several goroutines at once.
type Channel interface {
	Declare(ctx context.Context, q Queue) error
	Purge(ctx context.Context, queue string) error
	Delete(ctx context.Context, queue string) error
	// Sync asks the server something and waits for the answer: all that was sent before has been read by then.
	Sync(ctx context.Context, queue string) error
	// Confirm puts the channel into confirm mode.
	Confirm(ctx context.Context) error
	Publish(ctx context.Context, job *PublishJob) error
	Consume(ctx context.Context, job *ConsumeJob) error
	Close() error
}

// RPC makes calls; Call may be called by many goroutines at once.
type RPC interface {
	// Call sends a request to the queue and returns the reply's length.
	Call(ctx context.Context, queue string, body []byte) (int, error)
	Close() error
}

// PublishJob publishes N messages to a queue through the default exchange.
type PublishJob struct {
	Queue      string
	Exchange   string // "": the default exchange
	Body       []byte // belongs to the job alone: Stamp writes into it
	Headers    int    // entries of frames.SampleHeaders
	Persistent bool
	N          int64 // 0: until Stop is closed
	Window     int   // 0: no confirms; else how many may be outstanding
	Live             // optional, for long runs
}

// ConsumeJob consumes N messages.
type ConsumeJob struct {
	Queue    string
	N        int64 // 0: until Stop is closed
	NoAck    bool
	AckEvery int // 1: each; more: one multiple ack per so many
	Prefetch int
	Borrow   bool // handle the library's own buffer, where it offers that
	Loop     bool // in a loop of the caller's, where a handler would do
	Coalesce bool // let the library join acks, where it offers that
	Stream   bool // start at a stream's first message
	Ready    func()
	Live
}

// Live is what a long, watched run adds to a job; the zero value adds nothing.
type Live struct {
	Stop    <-chan struct{}
	Pace    func(ctx context.Context) error // waits for a message's turn
	Count   *atomic.Int64                   // counts messages sent or handled
	Settled *atomic.Int64                   // counts confirms
	Latency *Latencies                      // confirms, or end to end where Stamped
	Stamp   bool                            // the body's first 8 octets are the time it was sent
	Delay   time.Duration                   // what handling a delivery takes
}

// Stopped says whether Stop is closed.
func (l *Live) Stopped() bool {
	select {
	case <-l.Stop:
		return true
	default:
		return false
	}
}

// Watched says whether any of the optional parts is there; loops without them skip the checks per message.
func (l *Live) Watched() bool {
	return l.Stop != nil || l.Pace != nil || l.Count != nil || l.Settled != nil || l.Latency != nil || l.Stamp
}

// Before is called before message i and does what is asked for; false ends the loop without error.
func (l *Live) Before(ctx context.Context, body []byte) (bool, error) {
	if l.Stop != nil && l.Stopped() {
		return false, nil
	}
	if l.Pace != nil {
		if err := l.Pace(ctx); err != nil {
			return false, err
		}
		if l.Stop != nil && l.Stopped() {
			return false, nil
		}
	}
	if l.Stamp && len(body) >= 8 {
		binary.BigEndian.PutUint64(body, uint64(time.Now().UnixNano()))
	}
	if l.Count != nil {
		l.Count.Add(1)
	}
	return true, nil
}

// Confirmed is called for a confirm of a message sent at t.
func (l *Live) Confirmed(t time.Time) {
	if l.Settled != nil {
		l.Settled.Add(1)
	}
	if l.Latency != nil {
		l.Latency.Add(time.Since(t))
	}
}

// Got is called for a delivery.
func (l *Live) Got(body []byte) {
	if l.Count != nil {
		l.Count.Add(1)
	}
	if l.Stamp && l.Latency != nil && len(body) >= 8 {
		l.Latency.Add(time.Duration(time.Now().UnixNano() - int64(binary.BigEndian.Uint64(body))))
	}
	if l.Delay > 0 {
		time.Sleep(l.Delay)
	}
}

// Latencies is a histogram that many goroutines add to. The zero value is ready.
type Latencies struct {
	mu sync.Mutex // guards h
	h  hist.Hist
}

// Add counts one.
func (l *Latencies) Add(d time.Duration) {
	l.mu.Lock()
	l.h.Add(d)
	l.mu.Unlock()
}

// Take returns what was added since the last Take.
func (l *Latencies) Take() *hist.Hist {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := new(hist.Hist)
	out.Merge(&l.h)
	l.h.Reset()
	return out
}
