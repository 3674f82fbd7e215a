package amqp

import (
	"context"
	"sync"
)

// waiter is one goroutine that waits for something that happens under a lock.
// Its channel has room for one, so that waking never waits.
type waiter struct {
	ch   chan struct{}
	next *waiter
	prev *waiter
	in   *waitList
	pool *waiterPool
}

// waiterPool keeps waiters to be used again. Each connection has its own: a
// channel that was made inside a testing/synctest bubble is of no use outside.
type waiterPool struct{ p sync.Pool }

func (p *waiterPool) get() *waiter {
	if w, ok := p.p.Get().(*waiter); ok {
		return w
	}
	return &waiter{ch: make(chan struct{}, 1), pool: p}
}

func (w *waiter) free() { w.pool.p.Put(w) }

// waitList is a queue of waiters, guarded by whatever lock its owner says.
type waitList struct {
	head, tail *waiter
	n          int
}

func (l *waitList) add(p *waiterPool) *waiter {
	w := p.get()
	w.in, w.prev, w.next = l, l.tail, nil
	if l.tail != nil {
		l.tail.next = w
	} else {
		l.head = w
	}
	l.tail = w
	l.n++
	return w
}

func (l *waitList) remove(w *waiter) {
	if w.prev != nil {
		w.prev.next = w.next
	} else {
		l.head = w.next
	}
	if w.next != nil {
		w.next.prev = w.prev
	} else {
		l.tail = w.prev
	}
	w.in, w.next, w.prev = nil, nil, nil
	l.n--
}

func (l *waitList) wakeOne() {
	if w := l.head; w != nil {
		l.remove(w)
		w.ch <- struct{}{}
	}
}

func (l *waitList) wakeAll() {
	for l.head != nil {
		l.wakeOne()
	}
}

// wait parks until w is woken or ctx ends; mu guards the list that w is in. It
// reports whether w was woken. w is not to be used afterwards.
func (w *waiter) wait(ctx context.Context, mu *sync.Mutex) bool {
	return w.waitStop(ctx.Done(), mu)
}

// waitStop is wait with a channel in place of a context.
func (w *waiter) waitStop(done <-chan struct{}, mu *sync.Mutex) bool {
	if done == nil {
		<-w.ch
		w.free()
		return true
	}
	woken := true
	select {
	case <-w.ch:
	case <-done:
		mu.Lock()
		if w.in != nil {
			w.in.remove(w)
			woken = false
		} else {
			<-w.ch // it was woken at the same time
		}
		mu.Unlock()
	}
	w.free()
	return woken
}
