package amqp

import (
	"context"
	"sync"
	"sync/atomic"
)

// budget bounds the bytes that a client holds: those of messages that go out,
// and those of deliveries that came. Neither waits for the other: a handler that
// publishes would wait for itself.
type budget struct {
	limit     int64 // of what goes out
	cameLimit int64

	came atomic.Int64 // bytes of deliveries; see Conn.hold

	mu      sync.Mutex // guards what follows; a leaf
	used    int64
	waiting waitList
	waiters waiterPool
}

// share divides max: a half for deliveries, and of the other what the outbox
// leaves.
func (b *budget) share(max int64, cfg *Config) {
	cfg.MaxOutbox = int(min(int64(cfg.MaxOutbox), max/4))
	cfg.budget = b
	b.cameLimit = max / 2
	b.limit = max - b.cameLimit - int64(cfg.MaxOutbox)
}

// full reports whether as much came as is allowed.
func (b *budget) full() bool { return b.came.Load() >= b.cameLimit }

// take waits, within ctx, until n more bytes fit, or nothing else is held.
func (b *budget) take(ctx context.Context, n int64) error {
	if ctx.Err() != nil {
		return &unsentError{contextError(ctx)}
	}
	b.mu.Lock()
	for b.used > 0 && b.used+n > b.limit {
		w := b.waiting.add(&b.waiters)
		b.mu.Unlock()
		if !w.wait(ctx, &b.mu) {
			return &unsentError{contextError(ctx)}
		}
		b.mu.Lock()
	}
	b.used += n
	b.mu.Unlock()
	return nil
}

func (b *budget) give(n int64) {
	b.mu.Lock()
	b.used -= n
	b.waiting.wakeAll()
	b.mu.Unlock()
}

func (b *budget) held() int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.used
}
