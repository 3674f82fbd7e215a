package amqp

import (
	"context"
	"sync"
)

// budget bounds the bytes that a client holds.
type budget struct {
	limit int64

	mu      sync.Mutex // guards what follows; a leaf
	used    int64
	waiting waitList
	waiters waiterPool
}

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
