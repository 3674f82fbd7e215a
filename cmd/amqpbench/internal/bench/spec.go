// Package bench runs one workload through one peer, in a process of its own, and says what it cost.
package bench

import (
	"fmt"
	"time"

	"github.com/warrenmq/warren/cmd/amqpbench/internal/hist"
)

// Spec is all that a child process needs to know. It goes to the child as JSON.
type Spec struct {
	Peer     string `json:"peer"`
	Workload string `json:"workload"`
	URI      string `json:"uri"`
	Null     bool   `json:"null,omitempty"` // the target is the null server: see Queue

	Body       int  `json:"body"`
	Headers    int  `json:"headers,omitempty"`
	Goroutines int  `json:"goroutines,omitempty"` // 0: 1
	Channels   int  `json:"channels,omitempty"`   // 0: 1
	Window     int  `json:"window,omitempty"`     // confirms outstanding; 0: no confirms
	NoAck      bool `json:"no_ack,omitempty"`
	AckEvery   int  `json:"ack_every,omitempty"`
	Prefetch   int  `json:"prefetch,omitempty"`
	Borrow     bool `json:"borrow,omitempty"`
	Loop       bool `json:"loop,omitempty"`
	Coalesce   bool `json:"coalesce,omitempty"`

	// ReadPause is Warren's; other peers have no such thing, and run without.
	ReadPause time.Duration `json:"read_pause,omitempty"`

	// Count messages are measured; 0: as many as fit into Duration, found by a warm-up.
	Count    int64         `json:"count,omitempty"`
	Duration time.Duration `json:"duration,omitempty"`

	// Queue and WarmQueue are where messages go to or come from. A consumer's must be filled before: with Count
	// messages and with Warm messages. On the null server names say how much is delivered, and Count may be 0.
	Queue     string `json:"queue,omitempty"`
	WarmQueue string `json:"warm_queue,omitempty"`
	Warm      int64  `json:"warm,omitempty"`

	// Profile, where set, is a file that gets the CPU profile of the measured part.
	Profile string `json:"profile,omitempty"`
}

// Result is what a child found. It comes back as JSON.
type Result struct {
	Version    string     `json:"version"`
	Error      string     `json:"error,omitempty"`
	Unfit      bool       `json:"unfit,omitempty"` // the peer has no such thing
	Messages   int64      `json:"messages"`
	WallNs     int64      `json:"wall_ns"`
	UserNs     int64      `json:"user_ns"`
	SysNs      int64      `json:"sys_ns"`
	Mallocs    uint64     `json:"mallocs"`
	AllocBytes uint64     `json:"alloc_bytes"`
	NoAllocs   bool       `json:"no_allocs,omitempty"` // the peer can't say what it allocates
	Latency    *hist.Hist `json:"latency,omitempty"`

	// Of the idle workloads, for each channel or connection.
	IdleBytes      float64 `json:"idle_bytes,omitempty"`      // heap and stacks
	IdleGoroutines float64 `json:"idle_goroutines,omitempty"` // goroutines
	IdleRSS        float64 `json:"idle_rss,omitempty"`        // resident set
}

// CPU is the client's CPU time for each message, in nanoseconds.
func (r *Result) CPU() float64 {
	return float64(r.UserNs+r.SysNs) / float64(max(r.Messages, 1))
}

// Wall is the time for each message, in nanoseconds.
func (r *Result) Wall() float64 { return float64(r.WallNs) / float64(max(r.Messages, 1)) }

// Rate is messages a second.
func (r *Result) Rate() float64 { return float64(r.Messages) / max(float64(r.WallNs), 1) * 1e9 }

// Allocs is allocations for each message.
func (r *Result) Allocs() float64 { return float64(r.Mallocs) / float64(max(r.Messages, 1)) }

// Bytes is octets allocated for each message.
func (r *Result) Bytes() float64 { return float64(r.AllocBytes) / float64(max(r.Messages, 1)) }

// source is the queue to consume n messages from.
func (s *Spec) source(n int64, warm bool) string {
	switch {
	case s.Null:
		return fmt.Sprintf("blast.%d", n)
	case warm:
		return s.WarmQueue
	}
	return s.Queue
}

// queue is where publishes go and what Sync asks for.
func (s *Spec) queue() string {
	if s.Queue == "" {
		return "bench"
	}
	return s.Queue
}

// pattern is a body of n octets that no compressor of zero pages can cheat on.
func pattern(n int) []byte {
	p := make([]byte, n)
	for i := range p {
		p[i] = byte('a' + i%26)
	}
	return p
}
