package traffic

import (
	"context"
	"fmt"
	"time"
)

// progress is how far a message has come.
type progress struct {
	begun               time.Time
	confirmed, received bool
}

// Clock measures how long it takes until messages flow: until one that was
// begun after the clock was started has been confirmed and received.
type Clock struct {
	t *Traffic

	// Traffic.mu guards what follows.
	now     Period
	flows   chan struct{} // closed when now has ended
	periods []Period      // before now
}

// Period is a time without messages, as far as it is known: from when the clock
// was started to when they flowed. Flowed is zero where they didn't.
type Period struct{ From, Flowed time.Time }

// Clock starts a clock, which takes the place of the one before.
func (t *Traffic) Clock() *Clock {
	c := &Clock{t: t, now: Period{From: time.Now()}, flows: make(chan struct{})}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.clock = c
	return c
}

// Restart starts the clock anew, as what came before was too early to count.
func (c *Clock) Restart() {
	c.t.mu.Lock()
	defer c.t.mu.Unlock()
	if !c.now.Flowed.IsZero() {
		c.periods = append(c.periods, c.now)
		c.flows = make(chan struct{})
	}
	c.now = Period{From: time.Now()}
}

// Wait waits until messages flow, and gives every period up to then.
func (c *Clock) Wait(ctx context.Context) ([]Period, error) {
	for {
		c.t.mu.Lock()
		flows, now := c.flows, c.now
		if !now.Flowed.IsZero() {
			all := append(c.periods[:len(c.periods):len(c.periods)], now)
			c.t.mu.Unlock()
			return all, nil
		}
		c.t.mu.Unlock()
		select {
		case <-flows:
		case <-ctx.Done():
			return nil, fmt.Errorf("no message went through for %v: %w (client: %v, %v)",
				time.Since(now.From), ctx.Err(), c.t.c.State(), c.t.c.Err())
		}
	}
}

// Flowing waits until messages flow, and says how long that took from now on:
// the client's recovery, where it is called when the broker is back.
func (t *Traffic) Flowing(ctx context.Context) (time.Duration, error) {
	periods, err := t.Clock().Wait(ctx)
	if err != nil {
		return 0, err
	}
	return periods[0].Flowed.Sub(periods[0].From), nil
}

func (t *Traffic) begins(id string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.under[id] = &progress{begun: time.Now()}
}

// goesOn notes what happened to a message, and stops the clock where it was the
// first to arrive. Later copies are nobody's concern here.
func (t *Traffic) goesOn(id string, note func(*progress)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	p := t.under[id]
	if p == nil {
		return
	}
	note(p)
	if !p.confirmed || !p.received {
		return
	}
	delete(t.under, id)
	if c := t.clock; c != nil && c.now.Flowed.IsZero() && !p.begun.Before(c.now.From) {
		c.now.Flowed = time.Now()
		close(c.flows)
	}
}

// ends notes that a message will get no confirm.
func (t *Traffic) ends(id string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.under, id)
}
