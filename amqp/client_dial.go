package amqp

import (
	"context"
	"net"
	"time"
)

const (
	// hedgeAfter is how long a host may take to accept a connection before the
	// next one is tried besides: one that is switched off answers nothing, and
	// the kernel's pauses between its questions grow to many seconds.
	// Source: https://www.rfc-editor.org/rfc/rfc8305#section-8.
	hedgeAfter = 250 * time.Millisecond
	// hedges is how many hosts are tried at once.
	hedges = 3
)

// dialled is what came of one attempt to connect.
type dialled struct {
	conn *Conn
	err  error
}

// dial makes one attempt at the next host, and others besides at the hosts
// after it, for as long as the earlier ones are not even reached. The first
// connection that is open is taken. The error is the first one's.
func (l *link) dial(ctx context.Context) (*Conn, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	results := make(chan dialled)
	running := 1
	reached := l.attempt(ctx, results) // by the latest attempt
	var besides []context.CancelFunc
	timer := time.NewTimer(hedgeAfter)
	defer timer.Stop()
	var first error
	for running > 0 {
		select {
		case r := <-results:
			running--
			if r.err == nil {
				cancel()
				l.closeOthers(results, running)
				return r.conn, nil
			}
			if first == nil {
				first = r.err
			}
			timer.Reset(hedgeAfter)
		case <-reached:
			reached = nil // it is only slow: no reason to ask others
			timer.Stop()
		case <-timer.C:
			// The first is left alone, in case that the way is just long; the
			// others make room for new ones, whose question goes out at once.
			if len(besides) == hedges-1 {
				besides[0]()
				besides = besides[1:]
			}
			hedge, cancel := context.WithCancel(ctx)
			besides = append(besides, cancel)
			running++
			reached = l.attempt(hedge, results)
			timer.Reset(hedgeAfter)
		}
	}
	return nil, first
}

// attempt dials the next host on a goroutine of its own. The channel that it
// returns is closed when the host has accepted the connection.
func (l *link) attempt(ctx context.Context, results chan<- dialled) <-chan struct{} {
	target := l.plan.targets[l.next%len(l.plan.targets)]
	l.next++
	c := l.c
	c.mu.Lock()
	l.dials++
	c.mu.Unlock()
	plan := l.plan
	cfg := &plan.config
	dial := cfg.Dial
	if dial == nil {
		dial = cfg.netDialer().DialContext
	}
	reached := make(chan struct{})
	cfg.Dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
		nc, err := dial(ctx, network, addr)
		if err == nil {
			close(reached)
		}
		return nc, err
	}
	c.running.Go(func() {
		conn, err := dialTarget1(ctx, &plan, target)
		results <- dialled{conn, err}
	})
	return reached
}

// closeOthers takes what still comes of n attempts that are not needed.
func (l *link) closeOthers(results <-chan dialled, n int) {
	if n == 0 {
		return
	}
	l.c.running.Go(func() {
		for range n {
			if r := <-results; r.conn != nil {
				r.conn.Close()
			}
		}
	})
}
