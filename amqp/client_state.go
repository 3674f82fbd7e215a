package amqp

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
)

// State is what a client is in.
type State uint8

// The states of a client.
const (
	Idle       State = iota // nothing needed a connection yet
	Connecting              // one that is needed is not there
	Connected               // all that are needed are there
	Blocked                 // so they are, but the broker takes no publishes now
	Closed                  // for good; Err says why
)

// String is the state's name in lower case.
func (s State) String() string {
	switch s {
	case Idle:
		return "idle"
	case Connecting:
		return "connecting"
	case Connected:
		return "connected"
	case Blocked:
		return "blocked"
	case Closed:
		return "closed"
	}
	return "unknown"
}

// State is what the client is in at this moment. It never waits.
func (c *Client) State() State {
	c.mu.Lock()
	defer c.mu.Unlock()
	s, _ := c.state()
	return s
}

// Err is why the client is in its state: the last failure while Connecting, one
// that wraps ErrBlocked with the broker's reason while Blocked, one that wraps
// ErrClosed once Closed, nil otherwise.
func (c *Client) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, err := c.state()
	return err
}

// state says it with its cause. mu is held.
func (c *Client) state() (State, error) {
	if c.err != nil {
		return Closed, c.err
	}
	s, cause := Idle, error(nil)
	for _, l := range c.links() {
		switch {
		case !l.started:
		case l.usable() == nil:
			s, cause = Connecting, l.cause
		case s == Idle:
			s = Connected
		}
	}
	if s == Connected && c.pub.blocked {
		return Blocked, fmt.Errorf("%w: %s", ErrBlocked, c.pub.reason)
	}
	return s, cause
}

// Await waits, within ctx, until the client is in state s. It counts as a first
// use: where nothing is open it has the publishing connection opened, unless
// what is awaited is Idle or Closed.
//
// Errors: those that wrap ctx's own, and the client's Err; ErrClosed once the
// client is over, unless that is what was awaited.
func (c *Client) Await(ctx context.Context, s State) error {
	c.mu.Lock()
	if s != Idle && s != Closed && !c.pub.started && !c.con.started {
		c.pub.begin()
	}
	for {
		now, err := c.state()
		if now == s {
			c.mu.Unlock()
			return nil
		}
		if now == Closed {
			c.mu.Unlock()
			return err
		}
		changed := c.changed
		c.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return waitError(ctx, err)
		}
		c.mu.Lock()
	}
}

// waitError is why a wait for a connection ended: ctx's end, and what was
// wrong meanwhile.
func waitError(ctx context.Context, cause error) error {
	if cause == nil {
		return fmt.Errorf("amqp: waiting for a connection: %w", contextError(ctx))
	}
	return fmt.Errorf("amqp: waiting for a connection: %w (last failure: %w)", contextError(ctx), cause)
}

// Ping asks the broker for a sign of life on each connection that is in use,
// or opens the publishing one, and waits for the answers, within ctx. A
// publishing connection that is blocked can't answer and is passed over: State
// says Blocked, and heartbeats watch over it.
//
// Errors: those that wrap ctx's own and why there is no connection; *Error;
// ErrClosed.
func (c *Client) Ping(ctx context.Context) error {
	c.mu.Lock()
	var asked []*link
	for _, l := range c.links() {
		if l.started && !l.blocked {
			asked = append(asked, l)
		}
	}
	if !c.pub.started && !c.con.started {
		asked = []*link{c.pub}
	}
	err := c.over()
	c.mu.Unlock()
	if err != nil {
		return err
	}
	errs := make([]error, len(asked))
	var wg sync.WaitGroup
	for i, l := range asked {
		wg.Go(func() {
			ch, err := l.channel(ctx)
			if err == nil {
				err = ch.Close(ctx)
			}
			errs[i] = err
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// String names the client and its state.
func (c *Client) String() string {
	return fmt.Sprintf("amqp.Client(%q, %v)", c.cfg.Name, c.State())
}

// Format prints String whatever the verb: what is inside changes all the time.
func (c *Client) Format(f fmt.State, _ rune) { io.WriteString(f, c.String()) }

// hooking remembers which goroutines the client calls user code on, since a
// Close or a Shutdown from there would wait for itself.
type hooking struct {
	mu  sync.Mutex
	ids []uint64
}

// run calls f, and knows of it meanwhile. h may be nil.
func (h *hooking) run(f func()) {
	if h == nil {
		f()
		return
	}
	id := goroutineID()
	h.mu.Lock()
	h.ids = append(h.ids, id)
	h.mu.Unlock()
	defer func() {
		h.mu.Lock()
		i := slices.Index(h.ids, id)
		h.ids = slices.Delete(h.ids, i, i+1)
		h.mu.Unlock()
	}()
	f()
}

func (h *hooking) here() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.ids) > 0 && slices.Contains(h.ids, goroutineID())
}
