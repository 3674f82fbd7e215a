package amqp

import (
	"context"
	"sync"
)

// ownConfirm is what a Confirm of a client has in place of a connection's lock:
// its outcome may come by way of several.
type ownConfirm struct {
	mu      sync.Mutex // guards the Confirm; a leaf
	waiters waiterPool
}

func (own *ownConfirm) doneOf(cf *Confirm) <-chan struct{} {
	own.mu.Lock()
	defer own.mu.Unlock()
	return cf.doneChan()
}

func (own *ownConfirm) wait(ctx context.Context, cf *Confirm) error {
	own.mu.Lock()
	if cf.state.Load() != confirmPending {
		own.mu.Unlock()
		return cf.Err()
	}
	w := cf.more().waiting.add(&own.waiters)
	own.mu.Unlock()
	if !w.wait(ctx, &own.mu) {
		return &outcomeError{contextError(ctx)}
	}
	return cf.Err()
}

// settle makes the outcome known.
func (own *ownConfirm) settle(cf *Confirm, err error) {
	own.mu.Lock()
	defer own.mu.Unlock()
	r, state := cf.more(), confirmAcked
	if err != nil {
		r.err, state = err, confirmFailed
	}
	cf.state.Store(state)
	if r.done != nil {
		close(r.done)
	}
	r.waiting.wakeAll()
}
